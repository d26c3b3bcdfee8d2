"""Clients that learn the address that the server sees: `python -m bench.calls`.

    serve PORT               replies with the client's address by TCP and UDP, and echoes the rest
    ask KIND PORT TARGET…    new calls; each compares the address in the reply with its own
    hold PORT COUNT TARGET…  long-lived TCP connections; each line of input checks them

Rules: a call is answered when a reply came, whatever address it names. Each call is a new flow.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import cycle, islice

from ifdefault.lab import services
from ifdefault.lab.node import Node
from ifdefault.lab.serve import drain, open_udp
from ifdefault.lab.traffic import try_once
from ifdefault.model.errors import HostError

Seen = tuple[str, str]  # the address that the server saw, and the caller's own
_LINE = 128
_ALIVE_S = 5.0
_END_S = 30.0
_AT_ONCE = 64
_BIND_ADDRESS_NO_PORT = 24  # linux/in.h; Python has no name for it
_LINGER_NONE = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Answers:
    """The outcome of all calls of one kind to one target."""

    kind: str
    target: str
    tried: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)  # by the address in the reply
    other: int = 0  # replies with another address than the client's

    @property
    def answered(self) -> int:
        return sum(self.seen.values())


# --- from a bench -------------------------------------------------------------------------


def serve(node: Node, port: int, *, name: str = "calls") -> None:
    command = [sys.executable, "-m", "bench.calls", "serve", str(port)]
    child = services.start(node, name, command, stdout=subprocess.PIPE)
    _expect(child, "ready")


def ask(
    node: Node,
    kind: str,
    port: int,
    targets: Iterable[str],
    *,
    count: int,
    concurrency: int = 50,
    sources: Iterable[str] = (),
    timeout_s: float = 5.0,
) -> list[Answers]:
    """Make `count` calls to each target; all targets at once."""
    command = [sys.executable, "-m", "bench.calls", "ask", kind, str(port), *targets]
    command += [f"--source={source}" for source in sources]
    command += [f"--count={count}", f"--concurrency={concurrency}", f"--timeout={timeout_s}"]
    limit_s = 60 + timeout_s * (2 + count / concurrency)
    return [Answers(**row) for row in json.loads(node.run(command, timeout_s=limit_s).stdout)]


class Connections:
    """Long-lived TCP connections of a node."""

    def __init__(self, node: Node, port: int, targets: Iterable[str], count: int) -> None:
        command = [sys.executable, "-m", "bench.calls", "hold", str(port), str(count), *targets]
        self._child = node.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.failed = int(_expect(self._child, "ready"))  # couldn't be opened

    def check(self) -> dict[str, tuple[int, int]]:
        """By the address that the server sees: how many were opened, and how many no longer
        echo."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        counts = json.loads(self._child.stdout.readline())
        return {address: (opened, broken) for address, (opened, broken) in counts.items()}

    def end(self) -> None:
        self._child.communicate(timeout=_END_S)


def _expect(child: subprocess.Popen[str], word: str) -> str:
    """The rest of a line of output that begins with that word."""
    assert child.stdout is not None
    first, _, rest = child.stdout.readline().strip().partition(" ")
    if first != word:
        raise HostError(f"bench.calls printed {first!r} instead of {word!r}")
    return rest


# --- the server ---------------------------------------------------------------------------


def _reply_udp(sock: socket.socket) -> None:
    data, peer = sock.recvfrom(_LINE)
    sock.sendto(data + f" {peer[0]}".encode(), peer)


async def _reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.write(f"{writer.get_extra_info('peername')[0]}\n".encode())
        while data := await reader.read(4096):
            writer.write(data)
        writer.close()


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    for address in ("0.0.0.0", "::"):
        await asyncio.start_server(_reply, address, port, backlog=4096)
        loop.add_reader(sock := open_udp(address, port), drain, sock, _reply_udp)
    print("ready", flush=True)
    await asyncio.Event().wait()


# --- the clients --------------------------------------------------------------------------


def _open(kind: int, target: str, source: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    if kind == socket.SOCK_STREAM:
        sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        # otherwise thousands of calls leave as many ports in TIME_WAIT
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
    if source:
        sock.bind((source, 0))
    return sock


async def _tcp(target: str, port: int, source: str) -> Seen:
    with closing(_open(socket.SOCK_STREAM, target, source)) as sock:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (target, port))
        seen = (await loop.sock_recv(sock, _LINE)).decode().strip()
        return seen, sock.getsockname()[0]


async def _http(target: str, port: int, source: str) -> Seen:
    with closing(_open(socket.SOCK_STREAM, target, source)) as sock:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (target, port))
        await loop.sock_sendall(
            sock, b"GET /you HTTP/1.1\r\nHost: www\r\nConnection: close\r\n\r\n"
        )
        answer = b""
        while chunk := await loop.sock_recv(sock, 4096):
            answer += chunk
        head, _, body = answer.partition(b"\r\n\r\n")
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise OSError(f"unexpected answer {head[:20]!r}")
        return body.decode().strip(), sock.getsockname()[0]


async def _udp(target: str, port: int, source: str) -> Seen:
    with closing(_open(socket.SOCK_DGRAM, target, source)) as sock:
        loop = asyncio.get_running_loop()
        nonce = os.urandom(8).hex()
        await loop.sock_connect(sock, (target, port))
        await loop.sock_sendall(sock, nonce.encode())
        echoed, _, seen = (await loop.sock_recv(sock, _LINE)).decode().partition(" ")
        if echoed != nonce:
            raise OSError("answer to another query")
        return seen, sock.getsockname()[0]


async def _quic(target: str, port: int, source: str) -> Seen:
    from ifdefault.lab.http3 import read

    return await read(target, port, source), source


KINDS: dict[str, Callable[[str, int, str], Awaitable[Seen]]] = {
    "tcp": _tcp,
    "http": _http,
    "udp": _udp,
    "quic": _quic,
}


async def _ask(kind: str, target: str, options: argparse.Namespace) -> Answers:
    answers, failed, seen = Answers(kind, target), Counter[str](), Counter[str]()

    async def call(_: str, source: str) -> None:
        replied, own = await KINDS[kind](target, options.port, source)
        seen[replied] += 1
        answers.other += replied != own

    async def work(sources: Iterator[str]) -> None:
        for source in sources:
            answers.tried += 1
            outcome = await try_once(call, target, source, options.timeout)
            if outcome != "answered":
                failed[outcome] += 1

    own = [source for source in options.source if (":" in source) == (":" in target)]
    pending = islice(cycle(own or [""]), options.count)
    await asyncio.gather(*(work(pending) for _ in range(min(options.count, options.concurrency))))
    answers.failed, answers.seen = dict(failed), dict(seen)
    return answers


async def _ask_all(options: argparse.Namespace) -> None:
    by_target = await asyncio.gather(*(_ask(options.kind, t, options) for t in options.targets))
    print(json.dumps([asdict(answers) for answers in by_target]))


@dataclass(slots=True)
class _Connection:
    seen: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def is_broken(self) -> bool:
        nonce = os.urandom(8)
        try:
            self.writer.write(nonce)
            async with asyncio.timeout(_ALIVE_S):
                return await self.reader.readexactly(len(nonce)) != nonce
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return True


async def _connect(target: str, port: int) -> _Connection | None:
    """None if it can't be opened."""
    try:
        async with asyncio.timeout(_ALIVE_S):
            reader, writer = await asyncio.open_connection(target, port)
            return _Connection((await reader.readline()).decode().strip(), reader, writer)
    except (OSError, TimeoutError):
        return None


async def _hold(port: int, count: int, targets: Sequence[str]) -> None:
    connections: list[_Connection] = []
    ends = list(islice(cycle(targets), count))
    for first in range(0, count, _AT_ONCE):
        some = ends[first : first + _AT_ONCE]
        opened = await asyncio.gather(*(_connect(target, port) for target in some))
        connections += filter(None, opened)
    print(f"ready {count - len(connections)}", flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        broken = await asyncio.gather(*(it.is_broken() for it in connections))
        counts: dict[str, list[int]] = {}
        for connection, is_broken in zip(connections, broken, strict=True):
            row = counts.setdefault(connection.seen, [0, 0])
            row[0] += 1
            row[1] += is_broken
        print(json.dumps(counts), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve")
    serving.add_argument("port", type=int)
    asking = commands.add_parser("ask")
    asking.add_argument("kind", choices=sorted(KINDS))
    asking.add_argument("port", type=int)
    asking.add_argument("targets", nargs="+", metavar="TARGET")
    asking.add_argument("--source", action="append", default=[], metavar="ADDRESS")
    asking.add_argument("--count", type=int, default=20)
    asking.add_argument("--concurrency", type=int, default=50)
    asking.add_argument("--timeout", type=float, default=5.0, metavar="SECONDS")
    holding = commands.add_parser("hold")
    holding.add_argument("port", type=int)
    holding.add_argument("count", type=int)
    holding.add_argument("targets", nargs="+", metavar="TARGET")
    options = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError):  # each call holds a descriptor
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with contextlib.suppress(KeyboardInterrupt):
        if options.command == "serve":
            asyncio.run(_serve(options.port))
        elif options.command == "ask":
            asyncio.run(_ask_all(options))
        else:
            asyncio.run(_hold(options.port, options.count, options.targets))


if __name__ == "__main__":
    main()
