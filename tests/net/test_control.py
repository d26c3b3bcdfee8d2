"""What the subcommands say while the daemon runs, and that nobody disturbs it at its socket.

                ┌─ isp-a ── wan0 ┐
client ── core ─┤                ├ host, with `ifdefault run`
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

import json
import os
import pty
import random
import re
import socket
import subprocess
import time
from contextlib import ExitStack, suppress
from itertools import chain
from pathlib import Path
from statistics import median

from ifdefault.daemon.control.endpoint import MOST_OF_A_USER
from ifdefault.ipc import codec
from ifdefault.ipc.control.client import OPEN_SOCKET, SOCKET, listener
from ifdefault.lab import faults
from ifdefault.lab.node import Completed
from ifdefault.lab.waiting import PATIENCE_S, eventually
from ifdefault.lab.world import World
from ifdefault.model.report import DaemonStatus
from tests.net import answers, watched
from tests.net.conftest import LabWorld
from tests.net.watched import (
    AS_NOBODY,
    await_default,
    await_states,
    public_run_dir,
    standing,
    start,
)

PACKAGING = Path(__file__).parents[2] / "packaging"


def test_status_tells_how_the_uplinks_fare(lab_world: LabWorld) -> None:
    world = lab_world("two")
    start(world)
    done = world.ifdefault("status")
    assert done.returncode == 0, done.stdout + done.stderr
    assert carriers(done.stdout) == {"isp-a IPv4", "isp-a IPv6"}
    with faults.injected(world, "blackhole", "isp-a"):
        await_states(world, ["down"], "isp-a")
        await_default(world, "wan1")
        done = world.ifdefault("status")
        assert done.returncode == 1
        assert carriers(done.stdout) == {"isp-b IPv4", "isp-b IPv6"}
        assert re.search(r"^isp-a +IPv4 +down +\d.*not used +.* rounds lost in ", done.stdout, re.M)
        assert "the kernel differs" not in done.stdout
        told = json.loads(world.ifdefault("status", "--json").stdout)
        assert told["holds"]
        assert codec.from_json(DaemonStatus, told["daemon"]).decision.ranking(4) == (
            "isp-b",
            "isp-a",
        )
        # what the daemon decided is what is planned, explained and checked
        assert world.ifdefault("plan", "--detailed-exitcode").returncode == 0
        assert "wan1" in world.ifdefault("explain", "tcp", "any", "198.18.1.10:80").stdout
        assert world.ifdefault("check").returncode == 0
    await_states(world, ["up"])
    await_default(world, "wan0")
    told_again = world.ifdefault("events", "-n", "100").stdout
    for text in ("isp-a IPv4: up -> down", "primary IPv6: isp-a -> isp-b", "recovering -> up"):
        assert text in told_again
    assert all(
        re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d  \w+ +\S", line)
        for line in told_again.splitlines()
    )


def carriers(text: str) -> set[str]:
    """The paths of the primary uplinks, by the table that status prints."""
    found, uplink = set(), ""
    for line in text.splitlines():
        if match := re.match(r"(\S*) +(IPv[46]) +(.*)", line):
            uplink = match[1] or uplink
            if "  primary  " in f"{match[3]}  ":
                found.add(f"{uplink} {match[2]}")
    return found


def test_status_without_a_daemon_says_so(lab_world: LabWorld) -> None:
    world = lab_world("two")
    world.ifdefault("apply", check=True)
    done = world.ifdefault("status")
    assert (done.returncode, done.stderr) == (0, "")
    assert "no daemon runs: nothing is probed\n" in done.stdout
    assert json.loads(world.ifdefault("status", "--json").stdout)["daemon"] is None
    done = world.ifdefault("uplink", "isp-a", "drain")
    assert done.returncode == 1
    assert done.stderr.startswith("ifdefault: no daemon runs; start it")


def test_the_status_needs_no_rights(lab_world: LabWorld) -> None:
    """What needs some is named; what is as planned is no failure."""
    world = lab_world("two")
    no_rights = ["setpriv", "--nnp", "--inh-caps=-all", "--bounding-set=-all", "--"]

    def status() -> Completed:
        return world["host"].run([*no_rights, *world.command, "status"], check=False)

    world.ifdefault("apply", check=True)
    without_daemon = status()
    start(world)
    for done in (without_daemon, status()):
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        assert "default:wan1  isp-b   198.51.100.1 " in done.stdout
        assert done.stdout.endswith(
            "\n\nnot read without root's rights: the packet filter and the eBPF programs\n"
        )
    assert carriers(done.stdout) == {"isp-a IPv4", "isp-a IPv6"}
    question = ["explain", "tcp", "192.0.2.7:1234", "198.51.100.10:443"]
    for command in (["uplink"], ["events"], question):
        done = world["host"].run([*no_rights, *world.command, *command], check=False)
        assert (done.returncode, "isp-b" in done.stdout) == (0, True), done.stderr


def test_events_follow_shows_them_as_they_happen(lab_world: LabWorld) -> None:
    world = lab_world("two")
    start(world)
    command = [*world.command, "events", "--follow", "--json"]
    child = world["host"].popen(command, stdout=subprocess.PIPE)
    assert child.stdout is not None
    first = json.loads(child.stdout.readline())
    assert first["kind"]
    assert world.ifdefault("uplink", "isp-a", "drain", check=True).stdout == (
        "isp-a: auto -> drain\n"
    )
    texts = (json.loads(line)["text"] for line in child.stdout)
    assert any("isp-a: forced auto -> drain" in text for text in texts)
    child.terminate()
    child.wait()
    child.stdout.close()
    assert re.search(r"^isp-a +IPv4 +up .*forced drain", world.ifdefault("status").stdout, re.M)
    assert "drain" in world.ifdefault("uplink", "isp-a").stdout
    assert world.ifdefault("uplink", "isp-c", "up").returncode == 1


def test_watch_draws_on_a_terminal_without_clearing_it(lab_world: LabWorld) -> None:
    world = lab_world("two")
    start(world)
    ours, theirs = pty.openpty()
    child = world["host"].popen([*world.command, "status", "--watch"], stdout=theirs)
    os.close(theirs)
    shown = ""
    while shown.count("\x1b[H") < 4:
        shown += os.read(ours, 65536).decode(errors="replace")
    child.terminate()
    child.wait()
    os.close(ours)
    assert shown.count("\x1b[2J") <= 1  # before the first one
    assert shown.count("\x1b[J") >= 3
    assert "isp-b" in shown


def test_the_rights_of_its_unit_are_enough(lab_world: LabWorld) -> None:
    """Those in CapabilityBoundingSet=, and no way to gain others."""
    unit = (PACKAGING / "ifdefault.service").read_text()
    (line,) = re.findall(r"^CapabilityBoundingSet=(.+)$", unit, re.MULTILINE)
    rights = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in line.split())])
    world = lab_world("two")
    confined = ["setpriv", "--nnp", "--inh-caps=-all", f"--bounding-set={rights}", "--"]
    child = world["host"].popen([*confined, *world.command, "run"], stderr=subprocess.DEVNULL)
    eventually(lambda: listener(world.run_dir / SOCKET))
    await_states(world, ["up"])
    wanted = sum(1 << _NUMBERS[name[1:]] for name in rights.split(",")[1:])
    assert _rights(child.pid, "CapEff") == _rights(child.pid, "CapBnd") == wanted
    (frontend,) = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert _rights(frontend, name) == 0
    with faults.injected(world, "blackhole", "isp-a"):
        await_default(world, "wan1")
    await_default(world, "wan0")
    world.ifdefault("down", check=True)
    assert not any(watched.ours(world))
    child.terminate()
    assert child.wait(PATIENCE_S) == 0


_NUMBERS = {
    "kill": 5,
    "setgid": 6,
    "setuid": 7,
    "setpcap": 8,
    "net_bind_service": 10,
    "net_admin": 12,
    "net_raw": 13,
}


def _rights(pid: int | str, which: str) -> int:
    """A process's capabilities, as the kernel tells them (linux/capability.h)."""
    told = Path(f"/proc/{pid}/status").read_text()
    (mask,) = re.findall(rf"^{which}:\s+([0-9a-f]+)$", told, re.MULTILINE)
    return int(mask, 16)


def test_garbage_and_crowds_disturb_nobody(lab_world: LabWorld) -> None:
    world = lab_world("two")
    daemon = world.daemon()
    await_states(world, ["up"])
    before, at = standing(world), random.Random(7)
    with ExitStack() as stack:
        for size in chain(range(1, 60), (100_000, 200_000)):
            sock = stack.enter_context(connected(world))
            sock.settimeout(PATIENCE_S)
            try:
                sock.sendall(at.randbytes(size) + b"\n")
            except (BrokenPipeError, ConnectionResetError):
                continue  # it was refused before it was done
    crowd = [connected(world) for _ in range(64)]
    eventually(lambda: refused_or_closed(crowd), what="the crowd is sent away")
    for sock in crowd:
        sock.close()
    eventually(lambda: world.ifdefault("uplink").returncode == 0)
    assert daemon.poll() is None
    assert set(watched.states(world).values()) == {"up"}
    assert standing(world).problems == before.problems


def connected(world: World) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(str(world.run_dir / SOCKET))
    return sock


def refused_or_closed(crowd: list[socket.socket]) -> bool:
    """Whether each that is beyond the limit was told so."""
    told = 0
    for sock in crowd:
        sock.setblocking(False)
        with suppress(BlockingIOError):
            told += b"too many other clients are connected" in sock.recv(4096, socket.MSG_PEEK)
    return told >= len(crowd) - MOST_OF_A_USER


_CROWD = """
import itertools, os, socket, sys, threading
path, netns = sys.argv[1], os.stat("/proc/self/ns/net").st_ino
lines = [b'{"type":"Status"}', b'{"type":"Events","limit":10000}', b"[" * 4000, os.urandom(200)]
lines.append(b'{"type":"Exec","uplink":"isp-b","netns":%d}' % netns)

def connect():
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    return sock

def ask(line):
    while True:
        try:
            with connect() as sock:
                while sock.send(line + b"\\n") and sock.recv(1 << 20):
                    pass
        except OSError:
            pass

def idle():
    crowd = []
    while True:
        try:
            crowd.append(connect())
        except OSError:
            del crowd[:100]

for n in range(10):
    threading.Thread(target=ask, args=(lines[n % len(lines)],), daemon=True).start()
threading.Thread(target=idle, daemon=True).start()
print(flush=True)
sys.stdin.read()
os._exit(0)
"""


def test_root_is_heard_whatever_others_do(lab_world: LabWorld) -> None:
    world = lab_world("two")
    with public_run_dir(world):
        start(world)
        socket_of_all = str(world.run_dir / OPEN_SOCKET)
        crowd = [*AS_NOBODY, "/usr/bin/python3", "-c", _CROWD, socket_of_all]
        child = world["host"].popen(crowd, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        took_s = []
        for _ in range(30):
            start_s = time.monotonic()
            standing(world)
            took_s.append(time.monotonic() - start_s)
        assert median(took_s) < 0.25, took_s
        for priority in (6000, 5000):
            answers.configure(world, f"[host]\nrule_priority = {priority}\n")
            world.ifdefault("apply", "--confirm", "600", check=True)
            assert world.ifdefault("confirm", check=True).stdout == "kept\n"
        world.ifdefault("uplink", "isp-b", "drain", check=True)
        world.ifdefault("uplink", "isp-b", "auto", check=True)
        with faults.injected(world, "blackhole", "isp-a"):
            await_default(world, "wan1")
        world.ifdefault("down", check=True)
        assert "started, 2 uplinks" in watched.events(world), "nothing drives events out"
        assert not watched.events(world, "exec")
        child.communicate("")
