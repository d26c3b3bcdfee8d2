"""What we would do to these hosts: plan.txt, and each nftables table in a file of its name, from
config.toml and facts.json.

Rules: a case is a folder; one without config.toml is that of the example of its name in
docs/examples. `--golden-update` writes plans and rulesets anew; record.py makes the facts.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import TypeAdapter

from ifdefault.config import read
from ifdefault.model.kernel import Facts
from ifdefault.plan import numbers
from ifdefault.plan.describe import describe
from ifdefault.plan.desired import plan
from ifdefault.plan.diff import diff

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "docs" / "examples"
CASES = sorted(path.parent.name for path in HERE.glob("*/facts.json"))


def config_of(case: str) -> Path:
    own = HERE / case / "config.toml"
    return own if own.exists() else EXAMPLES / f"{case}.toml"


def planned(case: str) -> dict[str, str]:
    """The files that follow from a case."""
    config = read(config_of(case))
    text = (HERE / case / "facts.json").read_text(encoding="utf-8")
    facts = TypeAdapter(Facts).validate_json(text)
    known = numbers.assign([uplink.name for uplink in config.uplinks], {})
    desired = plan(config, facts, known).desired
    lines = [describe(operation) for operation in diff(facts, desired, ())]
    tables = {f"{name}.nft": text for name, text in desired.tables}
    return {"plan.txt": "\n".join([*lines, ""])} | tables


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str, request: pytest.FixtureRequest) -> None:
    found = planned(case)
    folder = HERE / case
    if request.config.getoption("--golden-update"):
        for file in folder.glob("*.nft"):
            file.unlink()
        for name, text in found.items():
            (folder / name).write_text(text, encoding="utf-8")
    assert {file.name for file in folder.glob("*.nft")} == found.keys() - {"plan.txt"}
    for name, text in found.items():
        file = folder / name
        assert file.read_text(encoding="utf-8") == text, f"{file}: see ./dev golden-update"


def test_every_example_is_a_case() -> None:
    examples = {path.stem for path in EXAMPLES.glob("*.toml")}
    assert examples == {case for case in CASES if config_of(case).parent == EXAMPLES}
