"""What the controller makes of recorded runs of the daemon: tests/records/NAME.jsonl and NAME.txt.

Rules: found by listing; `--golden-update` writes the texts anew; record.py there makes the records.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ifdefault.cli.show.turns import folded
from ifdefault.daemon.replay import Replay

RECORDS = Path(__file__).parents[1] / "records"
NAMES = sorted(path.stem for path in RECORDS.glob("*.jsonl"))


@pytest.mark.parametrize("name", NAMES)
def test_record(name: str, request: pytest.FixtureRequest) -> None:
    replay = Replay(RECORDS / f"{name}.jsonl")
    told = "".join(f"{line}\n" for lines in folded(replay.turns()) for line in lines)
    file = RECORDS / f"{name}.txt"
    if request.config.getoption("--golden-update"):
        file.write_text(told, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == told, f"{file}: see ./dev golden-update"
    assert not replay.cut_off


def test_every_text_has_its_record() -> None:
    assert NAMES
    assert sorted(path.stem for path in RECORDS.glob("*.txt")) == NAMES
