"""`apply --confirm` on a terminal counts down: Enter keeps the changes, Ctrl-C undoes them.

client ── core ─┬─ isp-a ── wan0 ┬─ host
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from ifdefault.host.rollback_timer import PENDING
from ifdefault.lab.waiting import PATIENCE_S, eventually
from ifdefault.lab.world import World
from tests.net import watched
from tests.net.conftest import LabWorld
from tests.net.kernelstate import differences, operations_left, processes, read_state, store_of
from tests.net.logins import Login, close_terminal, log_in, press, read_terminal


@pytest.fixture
def world(lab_world: LabWorld) -> Iterator[World]:
    made = lab_world("two")
    yield made
    store_of(made).remove(PENDING.name)
    guard = "ifdefault.host.rollback_timer"
    eventually(lambda: not processes(made, guard), what="no guard is left")


@contextmanager
def applying(world: World, seconds: int = 600) -> Iterator[Login]:
    """`apply --confirm` on a terminal, as it counts down."""
    login = log_in(world, [*world.command, "apply", "--confirm", str(seconds)])
    try:
        read_terminal(login, "Press Enter to keep them, Ctrl-C to undo them now.")
        yield login
        with suppress(OSError):
            close_terminal(login)
    finally:
        login.shell.kill()
        login.shell.wait(PATIENCE_S)


def test_each_way_to_end_it(world: World) -> None:
    before = read_state(world["host"])
    with applying(world) as login:
        read_terminal(login, "They are undone in ")
        press(login, "\x03")
        read_terminal(login, "The changes were undone.")
        assert login.shell.wait(PATIENCE_S) == 130
    assert differences(before, read_state(world["host"])) == []
    with applying(world) as login:
        world.ifdefault("confirm", check=True)
        read_terminal(login, "kept: confirmed by another command")
        assert login.shell.wait(PATIENCE_S) == 0
    assert operations_left(world) == ()
    world.ifdefault("down", check=True)
    with applying(world) as login:
        press(login, "no\n")
        read_terminal(login, "Press Enter alone to keep them")
        world.ifdefault("down", check=True)
        read_terminal(login, "Removed by ifdefault down.")
        assert login.shell.wait(PATIENCE_S) == 1


def test_undone_while_nobody_answers(world: World) -> None:
    before = read_state(world["host"])
    with applying(world, 2) as login:
        read_terminal(login, "Not confirmed: the changes were undone.")
        assert login.shell.wait(PATIENCE_S) == 1
    assert differences(before, read_state(world["host"])) == []
    with applying(world, 2) as login:
        close_terminal(login)
    eventually(lambda: store_of(world).read(PENDING) is None, what="undone without a terminal")
    assert differences(before, read_state(world["host"])) == []


def test_with_the_daemon(world: World) -> None:
    daemon = watched.start(world)
    config = world.config.read_text()
    world.config.write_text(f"{config}\n[host]\nrule_priority = 6000\n")
    with applying(world) as login:
        press(login, "\x03")
        read_terminal(login, "The changes were undone.")
        assert login.shell.wait(PATIENCE_S) == 130
    assert watched.events(world, "reload")[-1] == "not confirmed: returned to the previous config"
    with applying(world) as login:
        press(login, "\n")
        read_terminal(login, "kept")
        assert login.shell.wait(PATIENCE_S) == 0
    assert world.ifdefault("confirm").returncode == 1
    assert operations_left(world) == ()
    world.config.write_text(f"{config}\n[host]\nrule_priority = 7000\n")
    with applying(world) as login:
        daemon.kill()
        read_terminal(login, "Not confirmed: the daemon ended, and undoes them when it starts.")
        assert login.shell.wait(PATIENCE_S) == 1
