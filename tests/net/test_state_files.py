"""No damaged file, full disk or typo stops the daemon, or `down`.

client ── core ─┬─ isp-a ── wan0 ┬─ host
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

import json
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest

from ifdefault.host.state_file import damaged
from ifdefault.lab import faults
from ifdefault.lab.waiting import PATIENCE_S, eventually
from ifdefault.lab.world import World
from tests.net import answers
from tests.net.conftest import LabWorld
from tests.net.kernelstate import apply, differences, operations_left, read_state, store_of
from tests.net.watched import await_default, await_states, events, ours, standing, start

TYPO = "\n[uplink.isp-a]\ninterfacE = 1\n"


def begin(world: World) -> subprocess.Popen[str]:
    daemon = world.daemon()
    await_states(world, ["up"])
    return daemon


def end(daemon: subprocess.Popen[str]) -> None:
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(PATIENCE_S) == 0


def state_files(world: World, pattern: str) -> list[Path]:
    return sorted(store_of(world).directory.glob(pattern))


@pytest.mark.parametrize("pattern", ["*.json", "*.json*"], ids=["files", "files and copies"])
@pytest.mark.parametrize("content", [b"", bytes(500), b'{"numbers": {"isp-a": [7]}}', None])
def test_damaged_files(lab_world: LabWorld, pattern: str, content: bytes | None) -> None:
    world = lab_world("two")
    before = read_state(world["host"])
    end(begin(world))
    laid, files = ours(world), state_files(world, pattern)
    assert files

    def damage() -> None:
        for path in files:
            path.write_bytes(path.read_bytes()[:-99] if content is None else content)

    damage()
    again = begin(world)
    assert ours(world) == laid, "the numbers of the uplinks are known from the kernel"
    told = events(world, "state")
    assert len(told) == len(files), told
    assert all("is damaged: " in text and "set aside as " in text for text in told)
    assert len(list(damaged(store_of(world).directory))) == len(files)
    assert "state.json was damaged" in world.ifdefault("status").stdout
    assert "state.json was damaged" in world.ifdefault("check").stderr
    end(again)
    damage()
    done = world.ifdefault("down", check=True)
    assert done.stderr.count("error: ") == len(
        [path for path in files if path.name.startswith(("state.json", "tables.json"))]
    )
    left = differences(before, read_state(world["host"]))
    if pattern == "*.json":
        assert left == []
    else:
        assert all(line[2:].startswith("net/") for line in left), left  # sysctls only


def test_a_newer_versions_state(lab_world: LabWorld) -> None:
    world = lab_world("two")
    before = read_state(world["host"])
    apply(world)
    state = store_of(world).directory / "state.json"
    newer = state.read_text().replace('"version":1', '"version":2')
    state.write_text(newer)
    start(world)
    [told] = events(world, "state")
    assert "is of a newer ifdefault (" in told
    assert "its copy state.json.v1 is used" in told
    assert state.with_name("state.json.v2").read_text() == newer
    world.ifdefault("down", check=True)
    assert differences(before, read_state(world["host"])) == []


# --- the last config that worked ----------------------------------------------------------


def test_a_typo_and_a_restart(lab_world: LabWorld) -> None:
    world = lab_world("two")
    good = world.config.read_text()
    world.config.write_text(good + TYPO)
    assert world.ifdefault("run").returncode == 2, "no config has worked yet"
    world.config.write_text(good)
    daemon = begin(world)
    laid = ours(world)
    world.config.write_text(good.replace('"wan0"', '"wan0"\nrank = 5'))
    world.ifdefault("apply", "--confirm", "600", check=True)  # hasn't worked yet
    assert ours(world) != laid
    daemon.kill()
    daemon.wait()
    world.ifdefault("down", check=True)

    world.config.write_text(good + TYPO)
    daemon = begin(world)
    assert ours(world) == laid
    *errors, used = events(world, "config")
    assert errors
    assert "the last config that worked, of" in used
    status = world.ifdefault("status")
    assert status.returncode == 1
    assert "the last config that worked, of" in status.stdout
    check = world.ifdefault("check")
    assert check.returncode == 2
    assert "the daemon uses the last config that worked" in check.stderr
    assert world.ifdefault("reload").returncode == 2
    assert world.ifdefault("apply").returncode == 2
    world.config.write_text(good)
    check = world.ifdefault("check")
    assert check.returncode == 1
    assert "run ifdefault reload" in check.stderr
    world.ifdefault("reload", check=True)
    assert world.ifdefault("status").returncode == 0
    assert standing(world).config_errors == ()
    world.config.unlink()
    end(daemon)
    assert world.ifdefault("run").returncode == 2, "no file is no mistake"


def test_apply_at_boot_uses_the_last_config(lab_world: LabWorld) -> None:
    world = lab_world("two")
    good = world.config.read_text()
    world.ifdefault("apply", check=True)
    laid = ours(world)
    world.ifdefault("down", check=True)
    world.config.write_text(good + TYPO)
    assert world.ifdefault("apply").returncode == 2
    assert ours(world) == ([], [])
    done = world.ifdefault("apply", "--last-good", check=True)
    assert "the last config that worked, of" in done.stderr
    assert ours(world) == laid
    status = world.ifdefault("status")
    assert status.returncode == 1
    assert "not TOML" in status.stdout
    shown = json.loads(world.ifdefault("status", "--json").stdout)
    assert shown["holds"]
    assert shown["config_errors"]


def test_what_was_confirmed_has_worked(lab_world: LabWorld) -> None:
    world = lab_world("two")
    good = world.config.read_text()
    world.ifdefault("apply", "--confirm", "600", check=True)
    world.config.write_text(good + TYPO)
    assert world.ifdefault("apply", "--last-good").returncode == 1, "it waits"
    world.config.write_text(good)
    world.ifdefault("confirm", check=True)
    world.config.write_text(good + TYPO)
    world.ifdefault("apply", "--last-good", check=True)


def test_what_waited_is_not_used_after_a_restart(lab_world: LabWorld) -> None:
    """Whoever was cut off by it has the machine restarted."""
    world = lab_world("two")
    daemon = begin(world)
    laid, good = ours(world), world.config.read_text()
    world.config.write_text(f"{good}\n[host]\nrule_priority = 4000\n")
    world.ifdefault("apply", "--confirm", "600", check=True)
    tried = ours(world)
    assert tried != laid
    daemon.kill()
    daemon.wait()
    again = begin(world)
    assert ours(world) == laid
    assert "not confirmed; the last config that worked" in world.ifdefault("status").stdout
    world.ifdefault("apply", check=True)
    assert ours(world) == tried
    end(again)
    end(begin(world))
    assert ours(world) == tried


# --- what can't be saved ------------------------------------------------------------------


def blocked(path: Path) -> bool:
    """Whether a directory is now where a state file would be written. There is none while the
    daemon writes it."""
    try:
        path.mkdir()
    except FileExistsError:
        return False
    return True


def test_no_room(lab_world: LabWorld) -> None:
    world = lab_world("two")
    before = read_state(world["host"])
    answers.configure(world, "[health]\nrecover_s = 0.3\n")
    daemon = begin(world)
    blocks = [path.with_name(f".{path.name}.new") for path in state_files(world, "*.json*")]
    for path in blocks:
        eventually(partial(blocked, path), what=f"{path.name} isn't being written")
    with faults.injected(world, "carrier", "isp-a"):
        await_default(world, "wan1")
        world.ifdefault("uplink", "isp-b", "drain", check=True)
        assert standing(world).forced == {"isp-b": "drain"}
        eventually(lambda: len(standing(world).unsaved) == 2, what="state and health")
        world.ifdefault("uplink", "isp-b", "auto", check=True)
    await_default(world, "wan0")
    told = events(world, "state")
    assert len(told) == len(set(told)) == 2, told
    assert "can't be saved: is a directory" in world.ifdefault("status").stdout
    assert "can't be saved: is a directory" in world.ifdefault("check").stderr
    daemon.kill()
    daemon.wait()
    again = begin(world)
    await_default(world, "wan0")
    for path in blocks:
        path.rmdir()
    end(again)
    for path in blocks:
        path.mkdir()
    world.ifdefault("apply", check=True)  # no original value is new
    world.ifdefault("down", check=True)
    assert differences(before, read_state(world["host"])) == []
    laid = read_state(world["host"])
    store_of(world).remove("state.json")
    store_of(world).remove("state.json.v1")
    done = world.ifdefault("apply")
    assert done.returncode == 1
    assert "state.json: can't be saved: is a directory; free space" in done.stderr
    assert differences(laid, read_state(world["host"])) == []
    for path in blocks:
        path.rmdir()
    world.ifdefault("apply", check=True)
    assert operations_left(world) == ()
