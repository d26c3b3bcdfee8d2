"""Short transfers at a steady rate, and long ones that fill a line: `python -m bench.fetches`.

    serve PORT                         sends as many bytes as the first line of input says
    visit PORT PER_SECOND RESOLVER NAME…   from the first address of each name, by IPv4
    fetch PORT PER_SECOND ADDRESS      from this address
    fill PORT COUNT ADDRESS            without end

Rules: visit and fetch print "ready", run until standard input ends, and print as JSON what became
of each transfer of BYTES. Each is a new connection. Times are of the monotonic clock.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import astuple, dataclass

from ifdefault.lab import lookup, services
from ifdefault.lab.node import Node

BYTES = 20_000
TIMEOUT_S = 10.0
_CHUNK = bytes(16384)
_MOST_BUFFERED = 65536
_ENDLESS = 1 << 62


@dataclass(frozen=True, order=True, slots=True)
class Transfer:
    """`first_s`, `whole_s`: from the beginning, the lookup included, to the first and last byte;
    negative if it failed. `own` and `peer` are its addresses."""

    at_s: float
    own: str = ""
    peer: str = ""
    first_s: float = -1.0
    whole_s: float = -1.0


def serve(node: Node, port: int) -> None:
    command = [sys.executable, "-m", "bench.fetches", "serve", str(port)]
    child = services.start(node, "fetches", command)
    services.answering(node, "fetches", child, socket.SOCK_STREAM, port)


class Transfers:
    """A process in a node that fetches, until it is stopped."""

    def __init__(self, node: Node, kind: str, port: int, number: float, *of: str) -> None:
        command = [sys.executable, "-m", "bench.fetches", kind, str(port), str(number), *of]
        self._child = node.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._child.stdout is not None
        self._child.stdout.readline()

    def stop(self) -> list[Transfer]:
        output, _ = self._child.communicate(timeout=60)
        return sorted(Transfer(*row) for row in json.loads(output))


async def _reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, ValueError):
        left = int(await reader.readline())
        writer.transport.set_write_buffer_limits(_MOST_BUFFERED)
        while left > 0:
            writer.write(_CHUNK[:left])
            left -= len(_CHUNK)
            await writer.drain()
    writer.close()


async def _serve(port: int) -> None:
    for address in ("0.0.0.0", "::"):
        await asyncio.start_server(_reply, address, port, backlog=1024)
    await asyncio.Event().wait()


async def _read(
    address: str, port: int, count: int, at_s: float, begun: Callable[[str], None] = lambda _: None
) -> Transfer:
    reader, writer = await asyncio.open_connection(address, port)
    try:
        own = writer.get_extra_info("sockname")[0]
        begun(own)
        writer.write(b"%d\n" % count)
        got = len(await reader.read(65536))
        first_s = time.monotonic() - at_s
        while got < count:
            new = await reader.read(65536)
            if not new:
                raise OSError("ended early")
            got += len(new)
        return Transfer(at_s, own, address, first_s, time.monotonic() - at_s)
    finally:
        writer.transport.abort()


async def _one(find: Callable[[], Awaitable[str]], port: int) -> Transfer:
    at_s, peer, owns = time.monotonic(), "", list[str]()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            peer = await find()
            return await _read(peer, port, BYTES, at_s, owns.append)
    except (OSError, IndexError):  # includes TimeoutError
        return Transfer(at_s, owns[0] if owns else "", peer)


async def _each(
    port: int, per_s: float, finds: Sequence[Callable[[], Awaitable[str]]]
) -> list[Transfer]:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, stop.set)
    begun: list[asyncio.Task[Transfer]] = []
    print("ready", flush=True)
    due_s = time.monotonic()
    while not stop.is_set():
        begun += [asyncio.create_task(_one(find, port)) for find in finds]
        due_s += 1 / per_s
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
    return [await task for task in begun]


def _by_name(resolver: str, name: str) -> Callable[[], Awaitable[str]]:
    async def find() -> str:
        return (await lookup.resolve(resolver, name, "A"))[0]

    return find


def _known(address: str) -> Callable[[], Awaitable[str]]:
    async def find() -> str:
        return address

    return find


async def _fill(port: int, count: int, address: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, stop.set)
    print("ready", flush=True)
    now = time.monotonic()
    tasks = [asyncio.create_task(_read(address, port, _ENDLESS, now)) for _ in range(count)]
    await stop.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print("[]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("serve", "visit", "fetch", "fill"))
    parser.add_argument("port", type=int)
    parser.add_argument("number", type=float, nargs="?", default=1.0)
    parser.add_argument("of", nargs="*")
    options = parser.parse_args()
    port, number, of = options.port, options.number, options.of
    match options.kind:
        case "serve":
            asyncio.run(_serve(port))
        case "fill":
            asyncio.run(_fill(port, int(number), of[0]))
        case kind:
            resolver, *names = of
            finds = [_by_name(resolver, name) for name in names]
            done = asyncio.run(_each(port, number, finds if kind == "visit" else [_known(of[0])]))
            print(json.dumps([astuple(row) for row in done]))


if __name__ == "__main__":
    main()
