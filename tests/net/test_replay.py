"""A recorded run of the daemon: replayed, it is what the daemon did.

                ┌─ isp-a ── wan0 ┐   the default's, until it dies
client ── core ─┤                ├ host
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

import json
import resource
import signal
from pathlib import Path

from ifdefault.lab.waiting import PATIENCE_S, eventually
from tests.net import answers
from tests.net.conftest import LabWorld
from tests.net.watched import await_states, events
from tests.records.record import blackhole

_DECIDED = ("path", "primary", "repair", "ended")  # kinds of events that the controller tells


def test_a_replayed_record_is_what_the_daemon_did(lab_world: LabWorld, tmp_path: Path) -> None:
    world, file = lab_world("two"), tmp_path / "record"
    told: list[str] = []

    def note() -> None:
        eventually(lambda: [e for e in events(world, "primary") if "isp-a -> isp-b" in e])
        said = world.ifdefault("events", "--json", "--number", "500").stdout
        told.extend(e["text"] for e in map(json.loads, said.splitlines()) if e["kind"] in _DECIDED)

    blackhole(world, file, note)
    said = world.ifdefault("replay", "--json", str(file)).stdout
    effects = [effect for turn in map(json.loads, said.splitlines()) for effect in turn["effects"]]
    logs = [e["text"] for e in effects if e["type"] == "Log" and e["kind"] in _DECIDED]
    assert logs[: len(told)] == told
    assert "primary IPv4: isp-a -> isp-b" in told
    moves = [e["operations"] for e in effects if e["type"] == "Converge"]
    assert any("lookup 1002" in operation for operation in moves[-1])
    text = world.ifdefault("replay", str(file)).stdout
    assert f"> log path: {told[-1]}" in text or f"> log primary: {told[-1]}" in text


def test_a_record_is_not_overwritten(lab_world: LabWorld, tmp_path: Path) -> None:
    world, file = lab_world("two"), tmp_path / "record"
    file.write_text("precious")
    done = world.ifdefault("run", "--record", str(file))
    assert done.returncode == 1
    assert done.stderr == f"ifdefault: {file}: already exists; give the name of a new file\n"
    assert file.read_text() == "precious"


def test_a_full_disk_ends_the_record_and_not_the_daemon(
    lab_world: LabWorld, tmp_path: Path
) -> None:
    world, file = lab_world("two"), tmp_path / "record"
    answers.configure(world, "")
    daemon = world.daemon("--record", str(file))
    await_states(world, ["up"])  # by then it is larger than any other file that it writes
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (file.stat().st_size, 1 << 40))
    told = f"{file}: the record ends here: file too large"
    eventually(lambda: told in events(world, "engine"), what="it is told")
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(PATIENCE_S) == 0
    assert world.ifdefault("replay", str(file)).returncode == 0
