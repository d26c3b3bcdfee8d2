"""What we would do to these hosts: plan.txt, ruleset.nft, and services.nft where there are any,
from config.toml and facts.json.

Rules: a case is a folder; one without config.toml is that of the example of its name in
docs/examples. `--golden-update` writes plans and rulesets anew; record.py makes the facts.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import TypeAdapter

from ifdefault.config import read
from ifdefault.kernel import nft
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
    lines = [describe(operation) for operation in diff(facts, desired, nft.digest)]
    found = {"plan.txt": "\n".join([*lines, ""]), "ruleset.nft": desired.nft}
    return found | ({"services.nft": desired.services} if config.forwards else {})


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str, request: pytest.FixtureRequest) -> None:
    for name, text in planned(case).items():
        file = HERE / case / name
        if request.config.getoption("--golden-update"):
            file.write_text(text, encoding="utf-8")
        assert file.read_text(encoding="utf-8") == text, f"{file}: see ./dev golden-update"


def test_every_example_is_a_case() -> None:
    examples = {path.stem for path in EXAMPLES.glob("*.toml")}
    assert examples == {case for case in CASES if config_of(case).parent == EXAMPLES}
