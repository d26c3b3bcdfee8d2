"""The kernel takes every golden ruleset.

core ── isp-a ── wan0 host     (topology "one"; only the host is used)
"""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from ifdefault.kernel import nft
from ifdefault.model.kernel import NFT_TABLE, OWN_TABLES
from tests.net.conftest import LabWorld

GOLDEN = Path(__file__).parents[1] / "golden"
RULESETS = sorted(GOLDEN.glob("*/*.nft"))


def test_kernel_takes_every_ruleset(lab_world: LabWorld) -> None:
    """One world for all: a check loads nothing."""
    host = lab_world("one")["host"]
    assert {ruleset.stem for ruleset in RULESETS} == set(OWN_TABLES)
    for ruleset in RULESETS:
        text = ruleset.read_text(encoding="utf-8")
        host.python(functools.partial(nft.check, ruleset.stem, text))
    assert host.run(["nft", "list", "tables"]).stdout == ""


def test_kernel_refuses_a_wrong_one(lab_world: LabWorld) -> None:
    """The check above can fail."""
    text = RULESETS[0].read_text(encoding="utf-8").replace("goto source_check_", "goto unchecked_")
    with pytest.raises(Exception, match="no such file"):
        lab_world("one")["host"].python(functools.partial(nft.check, NFT_TABLE, text))
