"""What the engine reports to those that watch it: events as they happen, and how much of it; and
what they may do by a token.

                ┌─ isp-a ── wan0 ┐
client ── core ─┤                ├ host: ifdefault run
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ifdefault.daemon.controller.effects import Log
from ifdefault.daemon.recordings import RECORD
from ifdefault.daemon.replay import Replay
from ifdefault.ipc.control.client import OPEN_SOCKET
from ifdefault.ipc.control.protocol import (
    Counters,
    EventList,
    Events,
    Record,
    SetUplink,
    encode_request,
)
from ifdefault.lab import faults
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.report import CounterReport, PathCounters
from tests.net.conftest import LabWorld
from tests.net.test_dns_daemon import DNS, NAME, ask
from tests.net.watched import AS_NOBODY, await_states, public_run_dir, request, start
from tests.net.wires import Wires

CLIENT = "198.18.1.10"
HOST_B = "198.51.100.10"
TOKEN = "0123456789abcdef"
_ASK = """\
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
sock.sendall(sys.argv[2].encode())
print(sock.makefile().readline())
"""


def counters(world: World) -> CounterReport:
    return request(world, Counters())


def path(world: World, uplink: str, family: int = 4) -> PathCounters:
    (found,) = [p for p in counters(world).paths if (p.uplink, p.family) == (uplink, family)]
    return found


def test_what_is_counted_told_and_permitted(lab_world: LabWorld, tmp_path: Path) -> None:
    """One daemon's life, as its monitor and its web server see it."""
    world, token = lab_world("two"), tmp_path / "control.token"
    token.write_text(TOKEN + "\n")
    token.chmod(0o600)
    with public_run_dir(world):
        daemon = start(world, f'{DNS}\n[web]\ncontrol_token_file = "{token}"\n')
        begun = counters(world)
        assert {(p.uplink, p.family, dict(p.entered)["up"]) for p in begun.paths} == {
            (uplink, family, 1) for uplink in ("isp-a", "isp-b") for family in (4, 6)
        }
        assert begun.updates == (("server", "port 53", 1, 0),)
        _follow_a_failure(world)
        _count_repairs_and_traffic(world)
        _permit_by_token(world, token)
        last = request(world, Events(500))
        daemon.kill()
        daemon.wait()
        world.daemon()
        started = request(world, Events(500, last.last)).events
        kinds = [(event.kind, event.severity) for event in started[:2]]
        assert kinds == [("config", "error"), ("engine", "info")], "the token can't be used"
        assert started[0].serial > last.last
        assert counters(world).started_at > begun.started_at


def _follow_a_failure(world: World) -> None:
    with ThreadPoolExecutor() as threads:
        recording = threads.submit(request, world, Record(3))
        eventually((world.run_dir / RECORD).exists, what="it has begun")
        before, last = path(world, "isp-a"), request(world, Events(1)).last
        waiting = threads.submit(request, world, Events(10, last, 30))
        with faults.injected(world, "blackhole", "isp-a"):
            told: EventList = waiting.result(30)
            await_states(world, ["down"], "isp-a")
            eventually(lambda: path(world, "isp-a").lost > before.lost, what="losses are final")
            down = path(world, "isp-a")
            assert dict(down.entered)["down"] == 1
            assert sum(down.decide) == 1
            assert 0.1 < down.decide_s < 3.0
            assert sum(down.rtt) == down.answered >= before.answered
        recorded = Path(recording.result(30).path)
    logs = (e for turn in Replay(recorded).turns() for e in turn.effects if isinstance(e, Log))
    assert "isp-a IPv4: up -> down" in "\n".join(log.text for log in logs)
    recorded.unlink()
    assert [event.serial for event in told.events] == [*range(last + 1, told.last + 1)]
    assert {(e.kind, e.uplink, e.severity) for e in told.events} >= {("path", "isp-a", "error")}
    await_states(world, ["up"])


def _count_repairs_and_traffic(world: World) -> None:
    before = {u.uplink: u for u in counters(world).uplinks}
    assert before["isp-b"].bytes_in > 0 < before["isp-b"].bytes_out
    world["host"].run(["ip", "rule", "del", "from", HOST_B])
    eventually(lambda: counters(world).repairs > 0, what="the rule is back")
    wires = Wires(world)
    with wires.stack:
        there = wires.listen("client", CLIENT)
        wires.connect("host", there, CLIENT, source=HOST_B)

        def connections() -> dict[str, int]:
            return {u.uplink: u.connections for u in counters(world).uplinks}

        eventually(lambda: connections() == {"isp-a": 0, "isp-b": 1}, what="it is counted")
    ask(world)
    ask(world, name=f"missing.{NAME}")
    counted = {("isp-a", "NOERROR", 1), ("isp-a", "NXDOMAIN", 1)}
    eventually(lambda: {*counters(world).queries} == counted, what="queries are counted")

    def received() -> int:
        return sum(u.bytes_in for u in counters(world).uplinks if u.uplink == "isp-b")

    eventually(lambda: received() > before["isp-b"].bytes_in, what="bytes are read again")


def _permit_by_token(world: World, token: Path) -> None:
    socket_of_all = str(world.run_dir / OPEN_SOCKET)
    as_nobody = [*AS_NOBODY, "/usr/bin/python3", "-c", _ASK, socket_of_all]

    def drain(token: str) -> str:
        line = encode_request(SetUplink("isp-b", "drain", token=token)).decode()
        return world["host"].run([*as_nobody, line]).stdout

    assert "may only read the status" in drain("")
    assert "wrong token" in drain(TOKEN.replace("0", "1"))
    assert json.loads(drain(TOKEN))["state"] == "drain"
    texts = [(event.text, event.severity) for event in request(world, Events(500)).events]
    assert ("isp-b: forced auto -> drain with the control token", "info") in texts
    assert ("a wrong control token, from uid 65534", "warning") in texts
    token.chmod(0o644)
    done = world.ifdefault("reload")
    assert done.returncode == 1
    problem = f"web.control_token_file: {token} is readable by others; run chmod 600 {token}"
    assert problem in done.stderr
    assert problem in world.ifdefault("check").stderr
    assert json.loads(drain(TOKEN))["state"] == "drain", "the one before stays"
