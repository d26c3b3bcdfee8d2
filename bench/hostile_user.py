"""A hostile local user: `python -m bench.hostile_user RUN_DIR PORT UPLINK ADDRESS…`.

Prints "ready" and does everything in ACTS at the same time, a process for each, until its standard
input ends; then it prints as JSON what came of each, as a number.

Rules: it starts as root, and becomes a user for good before it does anything: not nobody, whose
processes the frontend's may be. Its processes end when it does.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ifdefault.ipc import privileges
from ifdefault.ipc.control.protocol import Events, Exec, Status, encode_request
from ifdefault.lab.node import Node
from ifdefault.libc import libc
from ifdefault.model.address import family_of
from ifdefault.model.errors import HostError

_USER = 54_321  # nobody else's
_HELD, _FLOODING, _HALF_OPEN, _FORKED = 200, 8, 300, 50
_PER_S = 500  # forged datagrams, less than a visitor's share of the DNS server
_PATIENCE_S = 2.0
_BREATH_S = 0.01  # after a round, so that an act doesn't just burn processor time
_AGAIN_S = 0.05  # between attempts to take the port
_LIVES_S = 0.2  # a process with an odd name: long enough to be seen in /proc
_SET_DUMPABLE, _SET_NAME = 4, 15  # PR_SET_…, linux/prctl.h
_NAMES = (b") R 1 (", b"\n0 0 0", b"\x1b[31mroot", b"ifdefault", b"\xff\xfe", b" ", b"1.1.1.1 up")
_REUSE = (0, socket.SO_REUSEADDR, socket.SO_REUSEPORT)
_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_TABLES = ("udp", "udp6")  # in /proc/net
_QUERY = b"\x12\x34\x81\x80\0\1\0\1\0\0\0\0\3www\7example\3org\0\0\1\0\1"


@dataclass(frozen=True, slots=True)
class Target:
    """What is attacked: the daemon of a run directory, its DNS port and the host's addresses."""

    run_dir: Path
    port: int
    uplink: str
    addresses: tuple[str, ...]

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(_PATIENCE_S)
        try:
            sock.connect(str(self.run_dir / "status.sock"))
        except OSError:
            sock.close()
            raise
        return sock


class HostileUser:
    """It, in a world's host, from the start to `stop`."""

    def __init__(self, node: Node, port: int, uplink: str) -> None:
        addresses = node.world.topology.addresses(node.name)
        command = [sys.executable, "-m", "bench.hostile_user", str(node.world.run_dir), str(port)]
        self._child = node.popen(
            [*command, uplink, *addresses], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._child.stdout is not None
        if self._child.stdout.readline() != "ready\n":
            raise HostError(f"{node.name}: the hostile user didn't start")

    def stop(self) -> dict[str, int]:
        """What came of each act."""
        output, _ = self._child.communicate(timeout=30)
        counts: dict[str, int] = json.loads(output)
        return counts


# --- acts: generators that yield after each try what came of it -----------------------------


def hold_connections(target: Target) -> Iterator[int]:
    """Connect, and send nothing, or half a request."""
    held: list[socket.socket] = []
    while True:
        with suppress(OSError):
            sock = target.connect()
            if random.random() < 0.5:
                sock.send(b'{"do":')
            held.append(sock)
            yield 1
        if len(held) >= _HELD:
            held.pop(random.randrange(_HELD)).close()
        yield 0


def flood_status(target: Target) -> Iterator[int]:
    """Ask as fast as possible, for much, or for nonsense; often without reading the reply."""
    requests = (
        encode_request(Status()),
        encode_request(Events(10_000)),
        b"[" * 4000 + b"\n",
        os.urandom(200).replace(b"\n", b"") + b"\n",
    )
    while True:
        socks: list[socket.socket] = []
        with suppress(OSError):
            socks += [target.connect() for _ in range(_FLOODING)]
            for _ in range(100):
                sock = random.choice(socks)
                sock.sendall(random.choice(requests))
                if random.random() < 0.9:
                    sock.recv(1 << 16)
                yield 1
        for sock in socks:
            sock.close()
        yield 0


def ask_for_exec(target: Target) -> Iterator[int]:
    """`ifdefault exec` again and again, by a process that ends at once."""
    netns = os.stat("/proc/self/ns/net").st_ino
    request = encode_request(Exec(target.uplink, netns))
    while True:
        pid = os.fork()
        if not pid:
            with suppress(OSError), target.connect() as sock:
                sock.sendall(request)
                os._exit(not sock.recv(1 << 16).startswith(b'{"type":"Entered"'))
            os._exit(1)
        yield int(os.waitpid(pid, 0)[1] == 0)


def take_port(target: Target) -> Iterator[int]:
    """Bind the port of the DNS server, and keep it if that succeeds."""
    kept: list[socket.socket] = []
    while True:
        for address in ("0.0.0.0", "::", *target.addresses):
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                for option in _REUSE:
                    if sock := _bound(address, target.port, kind, option):
                        kept.append(sock)
                        yield 1
            yield 0
            time.sleep(_AGAIN_S)


def _bound(address: str, port: int, kind: int, option: int) -> socket.socket | None:
    sock = socket.socket(_AF[family_of(address)], kind)
    try:
        if option:
            sock.setsockopt(socket.SOL_SOCKET, option, 1)
        sock.bind((address, port))
        if kind == socket.SOCK_STREAM:
            sock.listen()
    except OSError:
        sock.close()
        return None
    return sock


def forge_datagrams(target: Target) -> Iterator[int]:
    """Send what looks like an answer to every UDP port that somebody has open."""
    socks = {family: socket.socket(af, socket.SOCK_DGRAM) for family, af in _AF.items()}
    while True:
        for port in _udp_ports():
            for address in ("127.0.0.1", "::1", *target.addresses):
                data = random.choice((_QUERY, os.urandom(random.randrange(600)), b""))
                with suppress(OSError):
                    socks[family_of(address)].sendto(data, (address, port))
                yield 1
                time.sleep(1 / _PER_S)
        time.sleep(_BREATH_S)


def _udp_ports() -> set[int]:
    ports = set()
    for table in _TABLES:
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            ports.add(int(line.split()[1].rpartition(":")[2], 16))
    return ports


def half_open(target: Target) -> Iterator[int]:
    """Open TCP connections to the DNS server, and send half a message."""
    held: list[socket.socket] = []
    while True:
        address = random.choice(("127.0.0.1", "::1", *target.addresses))
        with suppress(OSError):
            sock = socket.socket(_AF[family_of(address)], socket.SOCK_STREAM)
            sock.settimeout(0.2)
            held.append(sock)
            sock.connect((address, target.port))
            sock.send(struct.pack("!H", 600) + _QUERY)
            yield 1
        if len(held) >= _HALF_OPEN:
            held.pop(0).close()
        time.sleep(_BREATH_S)
        yield 0


def fork_names(target: Target) -> Iterator[int]:
    """Processes that come and go, with names that break whoever parses them carelessly."""
    while True:
        pids = []
        for _ in range(_FORKED):
            pid = os.fork()
            if not pid:
                name = ctypes.create_string_buffer(random.choice(_NAMES))
                libc.prctl(_SET_NAME, ctypes.addressof(name), 0, 0, 0)
                time.sleep(_LIVES_S)
                os._exit(0)
            pids.append(pid)
        for pid in pids:
            os.waitpid(pid, 0)
        yield _FORKED


Act = Callable[[Target], Iterator[int]]
ACTS: dict[str, Act] = {
    "status connections held": hold_connections,
    "status requests": flood_status,
    "exec granted": ask_for_exec,
    "DNS ports taken": take_port,
    "datagrams forged": forge_datagrams,
    "half-open DNS connections": half_open,
    "processes with odd names": fork_names,
}


def _perform(act: Act, target: Target, output: int) -> None:
    """In a process of its own, until SIGTERM or the parent's end."""
    parent, count, over = os.getppid(), 0, False

    def end(*_: object) -> None:
        nonlocal over
        over = True

    signal.signal(signal.SIGTERM, end)
    for number in act(target):
        count += number
        if over or os.getppid() != parent:
            break
    os.write(output, count.to_bytes(8))


def _start(act: Act, target: Target) -> tuple[int, int]:
    """Return the process and where its count comes from."""
    reading, writing = os.pipe()
    if pid := os.fork():
        os.close(writing)
        return pid, reading
    status = 1
    try:
        _perform(act, target, writing)
        status = 0
    finally:
        os._exit(status)


def _count(pid: int, reading: int) -> int:
    with open(reading, "rb") as file:
        data = file.read()
    os.waitpid(pid, 0)
    return int.from_bytes(data) if data else -1  # it died


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("uplink")
    parser.add_argument("addresses", nargs="+")
    options = parser.parse_args(arguments)
    target = Target(options.run_dir, options.port, options.uplink, tuple(options.addresses))
    privileges.drop(*privileges.possible(_USER, _USER))
    libc.prctl(_SET_DUMPABLE, 1, 0, 0, 0)  # a usual process, whose /proc/PID is its user's
    children = {name: _start(act, target) for name, act in ACTS.items()}
    print("ready", flush=True)
    sys.stdin.read()
    for pid, _ in children.values():
        os.kill(pid, signal.SIGTERM)
    print(json.dumps({name: _count(*child) for name, child in children.items()}))


if __name__ == "__main__":
    main()
