"""A control group that has a rule may come or go at any moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from ifdefault.daemon.keeper import Keeper
from ifdefault.host.store import Store
from ifdefault.kernel.ebpf import cgroups
from ifdefault.model.config import Config
from ifdefault.model.kernel import Desired, Facts, Hook, State
from ifdefault.plan.prepare import Prepared


def test_a_group_that_comes_while_the_kernel_is_looked_at_is_seen_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there = {"/g": 0}
    wanted = Desired(hook=Hook(mask=0, cgroups=(("/g", 1, 1),)))

    def look(*_: object, **__: object) -> Prepared:
        there["/g"] = 7  # after the hook's groups were read
        return Prepared(Facts(), State(), (), (), wanted, ())

    keeper = Keeper(Config(uplinks=()), Store(tmp_path))
    keeper._prepared = look()
    monkeypatch.setattr(Keeper, "_prepare", look)
    monkeypatch.setattr(cgroups, "number", there.__getitem__)
    there["/g"] = 0
    assert not keeper.keep(0.0, None, decided=False).refused
    assert keeper.groups_changed()
    keeper.keep(1.0, None, decided=False)
    assert not keeper.groups_changed()
