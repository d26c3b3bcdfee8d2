"""`apply --confirm`: undone by itself unless confirmed, whatever becomes of who ran it.

client ── core ─┬─ isp-a ── wan0 ┬─ host
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

import os
import re
import shlex
import signal
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from ifdefault.daemon.controller.effects import Save
from ifdefault.daemon.event_log import EventLog
from ifdefault.host import rollback_timer
from ifdefault.host.rollback_timer import PENDING
from ifdefault.host.routers import RoutersSeen
from ifdefault.host.transaction import prepare
from ifdefault.kernel import nft
from ifdefault.lab.waiting import PATIENCE_S, eventually
from ifdefault.lab.world import World
from ifdefault.model.kernel import OWN_TABLES, Operation
from tests.net.conftest import LabWorld
from tests.net.kernelstate import (
    State,
    apply,
    differences,
    down,
    operations_left,
    processes,
    read_state,
    store_of,
    waits_for_the_lock,
)
from tests.net.logins import Login, close_terminal, hang_up, kill_all, log_in, read_terminal

SOON, LATE = "1", "600"


def eventually_undone(world: World, before: State) -> None:
    store = store_of(world)
    eventually(lambda: store.read(PENDING) is None, what="undone")
    assert differences(before, read_state(world["host"])) == []


def guards(world: World) -> list[int]:
    """Processes that guard this world."""
    return processes(world, "ifdefault.host.rollback_timer")


@pytest.fixture
def world(lab_world: LabWorld) -> Iterator[World]:
    made = lab_world("two")
    yield made
    store_of(made).remove(PENDING.name)
    eventually(lambda: not guards(made), what="no guard is left")


def test_undone_by_itself(world: World) -> None:
    before = read_state(world["host"])
    store = store_of(world)
    store.directory.mkdir(exist_ok=True)
    EventLog(store).save(Save(()), RoutersSeen())  # as a daemon left it
    done = world.ifdefault("apply", "--confirm", SOON, check=True)
    assert "undone in 1 s unless you run: ifdefault confirm" in done.stderr
    eventually_undone(world, before)
    assert world.ifdefault("confirm").returncode == 1
    events = world.ifdefault("events", check=True)
    assert events.stdout.endswith("  not confirmed: what ifdefault apply changed was undone\n")


def test_what_waits_is_reported_until_it_is_confirmed(world: World) -> None:
    world.ifdefault("apply", "--confirm", LATE, check=True)
    waits = re.compile(r"undone in [56]\d\d s unless you run: ifdefault confirm\n")
    status = world.ifdefault("status")
    assert status.returncode == 1
    assert waits.search(status.stdout)
    assert waits.search(world.ifdefault("check").stderr)
    world.ifdefault("confirm", check=True)
    assert not waits.search(world.ifdefault("status", check=True).stdout)
    assert not waits.search(world.ifdefault("check").stderr)


def test_undone_to_what_was_applied_before(world: World) -> None:
    apply(world)
    before = read_state(world["host"])
    text = world.config.read_text()
    world.config.write_text(text + "\n[host]\ntable_base = 2000\ninterface_group = 9\n")
    world.ifdefault("apply", "--confirm", SOON, check=True)
    eventually_undone(world, before)
    world.config.write_text(text)
    assert operations_left(world) == ()


def test_undone_with_the_settings_of_an_uplink_that_was_removed(world: World) -> None:
    """And with what they were before: `down` restores that."""
    untouched = read_state(world["host"])
    apply(world)
    before = read_state(world["host"])
    text = world.config.read_text()
    world.config.write_text(re.sub(r"\[uplink\.isp-b\].*?(?=\n\[|\Z)", "", text, flags=re.DOTALL))
    done = world.ifdefault("apply", "--confirm", SOON, check=True)
    assert "ip route del default via 198.51.100.1" in done.stdout
    eventually_undone(world, before)
    world.config.write_text(text)
    assert operations_left(world) == ()
    down(world)
    assert differences(untouched, read_state(world["host"])) == []


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text + "\n[host]\nrule_priority = 4000\n",  # leaves all tables alone
        lambda text: text + "\n[host]\nmark_mask = 0xfc0000\n",
        lambda text: text.partition("[[forward]]")[0],
    ],
)
def test_undone_with_all_tables_that_stood_before(
    lab_world: LabWorld, edit: Callable[[str], str]
) -> None:
    """And with what was remembered of them: nothing is planned anew."""
    world = lab_world("lan")
    apply(world)
    before = read_state(world["host"])
    assert tuple(dict(world["host"].python(nft.read_tables))) == OWN_TABLES
    text = world.config.read_text()
    world.config.write_text(edit(text))
    world.ifdefault("apply", "--confirm", SOON, check=True)
    eventually_undone(world, before)
    world.config.write_text(text)
    assert operations_left(world) == ()


def test_kept_after_confirm(world: World) -> None:
    world.ifdefault("apply", "--confirm", LATE, check=True)
    assert len(guards(world)) == 1
    assert world.ifdefault("confirm", check=True).stdout == "kept\n"
    eventually(lambda: not guards(world), what="the guard has ended")
    assert operations_left(world) == ()
    again = world.ifdefault("confirm")
    assert again.returncode == 1
    assert "nothing is waiting for confirmation" in again.stderr


def test_a_second_apply_is_refused_while_one_waits(world: World) -> None:
    world.ifdefault("apply", "--confirm", LATE, check=True)
    for options in ([], ["--confirm", LATE]):
        second = world.ifdefault("apply", *options)
        assert second.returncode == 1
        assert "an apply is waiting for confirmation; run ifdefault confirm" in second.stderr
    assert len(guards(world)) == 1


def test_one_from_before_a_reboot_waits_for_nothing(world: World) -> None:
    """The kernel has forgotten what it would undo, and a boot hook's apply must not be refused."""
    world.ifdefault("apply", "--confirm", LATE, check=True)
    [lives] = guards(world)
    os.kill(lives, signal.SIGKILL)
    eventually(lambda: not guards(world), what="no guard lives")
    assert world.ifdefault("confirm").returncode == 1
    world.ifdefault("apply", check=True)


def test_down_calls_it_off(world: World) -> None:
    before = read_state(world["host"])
    world.ifdefault("apply", "--confirm", LATE, check=True)
    world.ifdefault("down", check=True)
    assert differences(before, read_state(world["host"])) == []
    eventually(lambda: not guards(world), what="the guard has ended")
    world.ifdefault("apply", check=True)


def test_nothing_to_do_needs_no_confirmation(world: World) -> None:
    apply(world)
    world.ifdefault("apply", "--confirm", LATE, check=True)
    assert guards(world) == []
    assert world.ifdefault("confirm").returncode == 1


@pytest.mark.parametrize(
    ("end", "left_open"), [(hang_up, True), (kill_all, True), (close_terminal, False)]
)
def test_undone_when_the_login_ends(
    world: World, end: Callable[[Login], None], left_open: bool
) -> None:
    before = read_state(world["host"])
    # the shell stays: its end is what is tested
    script = f"{shlex.join(world.command)} apply -q --confirm 2 && echo done; cat"
    login = log_in(world, ["sh", "-c", script])
    try:
        read_terminal(login, "done")
        assert login.shell.poll() is None
        end(login)
        assert login.shell.wait(PATIENCE_S) in (-signal.SIGHUP, -signal.SIGKILL)
    finally:
        if left_open:
            os.close(login.terminal_fd)
    eventually_undone(world, before)


def test_undone_when_the_foreground_is_killed_at_once(world: World) -> None:
    """kill -9 as soon as the guard's file is there: before, in or after the changes."""
    before = read_state(world["host"])
    child = world["host"].popen([*world.command, "apply", "-q", "--confirm", SOON])
    eventually(lambda: store_of(world).read(PENDING), poll_s=0.001, what="it waits")
    child.kill()
    child.wait(PATIENCE_S)
    # too early, and nobody guards: but then nothing was done, and nothing waits
    eventually(lambda: not world.ifdefault("apply").returncode, what="accepted")
    down(world)
    assert differences(before, read_state(world["host"])) == []


@pytest.mark.parametrize("step", [0, 20, -1])
def test_undone_when_the_foreground_is_killed_in_mid_apply(world: World, step: int) -> None:
    before = read_state(world["host"])
    step %= len(operations_left(world))
    child = fork_apply(world, step, lambda: os.kill(os.getpid(), signal.SIGKILL))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    assert len(guards(world)) == 1
    eventually_undone(world, before)


def test_the_guard_waits_for_the_lock(world: World) -> None:
    """Undoing never gets between another ifdefault's operations."""
    before = read_state(world["host"])
    child = fork_apply(world, 20, signal.pause)
    eventually(lambda: any(map(waits_for_the_lock, guards(world))), what="it waits")
    assert differences(before, read_state(world["host"]))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    eventually_undone(world, before)


def fork_apply(world: World, step: int, at_step: Callable[[], object]) -> int:
    """`apply --confirm 2` in a process of its own, which does something before an operation."""
    with world["host"].enter():
        child = os.fork()
        if not child:
            try:
                _apply(world, step, at_step)
            finally:
                os._exit(1)
    return child


def _apply(world: World, step: int, at_step: Callable[[], object]) -> None:
    steps = count()

    def before(_: Operation) -> None:
        if next(steps) == step:
            at_step()

    store = store_of(world)
    with store.lock():
        rollback_timer.commit_with_rollback(prepare(world.config, store), store, 2, before)
