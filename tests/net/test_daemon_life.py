"""The daemon's own life: it starts beside what is there, is killed, comes back, takes a new config.

                ┌─ isp-a ── wan0 ┐
client ── core ─┤                ├ host
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ifdefault.daemon.event_log import SAVED
from ifdefault.lab import faults, services
from ifdefault.lab.waiting import PATIENCE_S, eventually
from ifdefault.lab.world import World
from tests.net import answers, watched
from tests.net.conftest import LabWorld
from tests.net.kernelstate import differences, read_state, store_of
from tests.net.watched import await_default, await_states, events, ours, standing, start


def _children(pid: int) -> list[int]:
    told = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in told.split()]


def _saved(world: World, uplink: str) -> list[str]:
    saved = store_of(world).read(SAVED)
    return [memory.state for name, _, memory in saved.paths if name == uplink] if saved else []


def test_kill_9_changes_nothing_and_a_restart_adopts(lab_world: LabWorld) -> None:
    world = lab_world("two")
    services.builtin(world["host"])
    daemon = world.daemon()
    await_states(world, ["up"])
    with faults.injected(world, "blackhole", "isp-a"):
        await_default(world, "wan1")
        eventually(lambda: set(_saved(world, "isp-a")) == {"down"}, what="it is saved")
        before, frontends = ours(world), _children(daemon.pid)
        daemon.kill()
        daemon.wait()
        assert ours(world) == before
        eventually(
            lambda: not any(Path(f"/proc/{pid}").exists() for pid in frontends),
            what="the frontend ends",
        )
        world.daemon()
        assert ours(world) == before
        await_states(world, ["up"], "isp-b")
        assert watched.states(world)["isp-a", 4] == "down", "what was known is known still"
        assert ours(world) == before
    await_default(world, "wan0")


def test_sigterm_leaves_the_kernel_and_down_takes_all(lab_world: LabWorld) -> None:
    world = lab_world("two")
    before = read_state(world["host"])
    daemon = world.daemon()
    await_states(world, ["up"])
    laid = ours(world)
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(PATIENCE_S) == 0
    assert ours(world) == laid
    world.ifdefault("down", check=True)
    assert differences(before, read_state(world["host"])) == []


def test_down_under_the_daemon_rests_until_apply(lab_world: LabWorld) -> None:
    world = lab_world("two")
    before = read_state(world["host"])
    start(world)
    laid = ours(world)
    world.ifdefault("down", check=True)
    assert differences(before, read_state(world["host"])) == []
    assert "down" in standing(world).held
    with faults.injected(world, "carrier", "isp-a"):
        await_states(world, ["down"], "isp-a")
        assert not any(ours(world))
    eventually(
        lambda: differences(before, read_state(world["host"])) == [],
        what="all as it was",
    )
    world.ifdefault("apply", check=True)
    await_states(world, ["up"])
    await_default(world, "wan0")
    assert ours(world) == laid


def test_only_one_runs(lab_world: LabWorld) -> None:
    world = lab_world("two")
    start(world)
    done = world.ifdefault("run")
    assert done.returncode == 1
    assert "another engine is running" in done.stderr


def test_reload_takes_a_config_whole_or_not_at_all(lab_world: LabWorld) -> None:
    world = lab_world("two")
    start(world)
    before, good = ours(world), world.config.read_text()
    world.config.write_text(good + "\n[uplink.isp-c]\ninterfaces = 1\n\n[host]\nmark_mask = 7\n")
    done = world.ifdefault("reload")
    assert done.returncode == 2
    assert "interfaces" in done.stderr
    assert "mark_mask" in done.stderr
    assert ours(world) == before
    world.config.write_text(good.replace('"wan0"', '"wan0"\nrank = 5'))
    assert world.ifdefault("reload").returncode == 0
    await_default(world, "wan1")
    assert events(world, "reload")


def test_the_log_has_the_answer_to_a_signals_reload(lab_world: LabWorld) -> None:
    world = lab_world("two")
    daemon = world.daemon()
    await_states(world, ["up"])
    good = world.config.read_text()
    world.config.write_text(good + "\n[host]\nmark_mask = 7\n")
    daemon.send_signal(signal.SIGHUP)
    eventually(
        lambda: any("mark_mask" in text for text in events(world, "reload")),
        what="the reload is refused",
    )
    world.config.write_text(good.replace('"wan0"', '"wan0"\nrank = 5'))
    daemon.send_signal(signal.SIGHUP)
    eventually(
        lambda: "config reloaded" in events(world, "reload")[-1], what="the config is reloaded"
    )
    await_default(world, "wan1")


def test_reload_takes_in_how_uplinks_are_judged(lab_world: LabWorld) -> None:
    world = lab_world("two")
    start(world)
    answers.configure(world, "[health]\nrecover_s = 300\ndamp_s = 300\n")
    assert world.ifdefault("reload").returncode == 0
    assert set(watched.states(world).values()) == {"up"}, "what was known is known still"
    with faults.injected(world, "carrier", "isp-a"):
        await_states(world, ["down"], "isp-a")
    await_states(world, ["recovering"], "isp-a")
    told = standing(world)
    assert all(h.until_s > told.now_s + 100 for h in told.health if h.state == "recovering")


def test_apply_on_probation_is_undone_unless_confirmed(lab_world: LabWorld) -> None:
    world = lab_world("two")
    start(world)
    good = world.config.read_text()
    world.config.write_text(good.replace('"wan0"', '"wan0"\nrank = 5'))
    world.ifdefault("apply", "--confirm", "2", check=True)
    await_default(world, "wan1")
    await_default(world, "wan0")
    world.ifdefault("apply", "--confirm", "60", check=True)
    assert "unless you run: ifdefault confirm" in standing(world).held
    world.ifdefault("confirm", check=True)
    assert not standing(world).held
    assert watched.leaves_by(world) == "wan1"


def test_a_face_that_dies_is_replaced_and_condemns_nobody(lab_world: LabWorld) -> None:
    world = lab_world("two")
    daemon = world.daemon()
    await_states(world, ["up"])
    (frontend,) = _children(daemon.pid)
    os.kill(frontend, signal.SIGSTOP)
    eventually(lambda: _children(daemon.pid) not in ([], [frontend]), what="another frontend")
    await_states(world, ["up"])
    asked = _answered(world)
    eventually(lambda: _answered(world) > asked, what="it asks again")
    assert not [text for text in events(world, "path") if "-> down" in text]


def _answered(world: World) -> int:
    return sum(target.answered for h in standing(world).health for target in h.targets)


def test_targets_that_cant_answer_are_named_and_not_held_against_the_uplink(
    lab_world: LabWorld,
) -> None:
    world = lab_world("two")
    probes = '["icmp://198.18.1.10", "icmp://198.18.77.77", "tcp://nowhere.invalid:80"]'
    answers.configure(world, f"[health]\nprobes = {probes}\n")
    world.daemon()
    eventually(lambda: watched.states(world).get(("isp-a", 4)) == "up", what="up")
    eventually(
        lambda: any("nowhere.invalid" in problem for problem in standing(world).problems),
        what="the name is told",
    )
    shown = world.ifdefault("status").stdout
    assert "198.18.77.77" in shown
    assert "nowhere.invalid" in shown


@pytest.fixture
def everybodys() -> Iterator[Path]:
    """A directory that other users can enter, which pytest's own isn't."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_hooks_run_as_a_user_that_can_read_no_key(lab_world: LabWorld, everybodys: Path) -> None:
    world = lab_world("two")
    key, told = world.dir / "state" / "key", everybodys / "told"
    told.touch()
    told.chmod(0o666)
    hook = everybodys / "hook"
    hook.write_text(
        "#!/bin/sh\n"
        f"exec >>{told} 2>&1\n"
        f'echo "$IFDEFAULT_EVENT $IFDEFAULT_UPLINK $IFDEFAULT_FAMILY $(id -u) $(cat {key})"\n'
    )
    hook.chmod(0o755)
    hung = everybodys / "hung"
    hung.write_text("#!/bin/sh\nexec sleep 1000\n")
    hung.chmod(0o755)
    hooks = f'[hooks]\nprimary = "{hook}"\ndown = "{hung}"\ntimeout_s = 2.0\n'
    answers.configure(world, f"[health]\nrecover_s = 0.3\n{hooks}")
    key.parent.mkdir()
    key.write_text("secret")
    key.chmod(0o600)
    world.daemon()
    await_states(world, ["up"])
    with faults.injected(world, "blackhole", "isp-a"):
        await_default(world, "wan1")  # which waits for no hook
    await_default(world, "wan0")
    eventually(lambda: told.read_text().count("isp-a") >= 2, what="told")
    said = told.read_text()
    assert "primary isp-b 4 65534 \n" in said
    assert "secret" not in said
    log = (world.dir / "daemon.log").read_text
    eventually(lambda: "hung" in log(), what="the hung one is logged")
