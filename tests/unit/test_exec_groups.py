"""How many control groups of commands there may be, and of whom. That they work is in tests/net."""

from __future__ import annotations

import pytest

from ifdefault.host.exec_groups import _require_room
from ifdefault.model.errors import HostError
from ifdefault.model.host import State

USER, OTHER = 1000, 1001


def groups(parents: str, count: int) -> dict[str, str]:
    return {f"{parents}/{n}/ifdefault-isp-b": "isp-b" for n in range(count)}


@pytest.fixture(autouse=True)
def owners(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of a user is the user's."""

    def owner(path: str) -> int:
        top = path.split("/")[1]
        return int(top) if top.isdigit() else 0

    monkeypatch.setattr("ifdefault.kernel.ebpf.cgroups.owner", owner)


def refused(uid: int, runs: dict[str, str], path: str = "/new/ifdefault-isp-a") -> str:
    try:
        _require_room(path, uid, State(runs=runs))
    except HostError as error:
        return str(error)
    return ""


def test_a_user_cannot_take_the_room_of_others() -> None:
    runs = groups(f"/{USER}", 63)
    assert not refused(USER, runs)
    runs |= groups(f"/{USER}/more", 1)
    assert refused(USER, runs) == (
        f"exec: 64 control groups of commands of uid {USER} exist already; end some of the commands"
    )
    assert not refused(OTHER, runs)
    assert not refused(0, runs)


def test_there_is_always_room_for_root() -> None:
    runs = groups("/system.slice", 256)
    told = "exec: 256 control groups of commands exist already; end some of the commands"
    assert refused(USER, runs) == told
    assert not refused(0, runs)
    assert refused(0, groups("/system.slice", 512)).startswith("exec: 512 control groups")


def test_paths_are_bounded() -> None:
    path = "/" + "x" * 1024
    told = "exec: the path of the control group is longer than 1024 characters; run it in a group"
    assert refused(USER, {}, path).startswith(told)
    assert not refused(USER, {}, path[:1024])
