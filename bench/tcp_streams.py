"""Established connections, and what happened to them: `python -m bench.tcp_streams`.

Prints "ready", keeps a TCP connection to the echo port of each ADDRESS, sends a number over it at a
steady rate until standard input ends, and prints as JSON, by address, how many were sent, when
those were sent that came back late or never, and when a connection broke.

Rules: a connection that breaks is opened again. Late is what takes longer than a retransmission.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from ifdefault.lab import ports
from ifdefault.lab.node import Node
from ifdefault.model.errors import HostError

EVERY_S = 0.05
_LATE_S = 1.0  # the first retransmission is after 0.2 s at least; RFC 6298, Linux's TCP_RTO_MIN
_GRACE_S = 3.0
_CONNECT_S = 5.0


@dataclass(slots=True)
class TcpStream:
    """To one address. `broken`: when the first number that was lost was sent, and why."""

    address: str
    sent: int = 0
    late: list[float] = field(default_factory=list)
    broken: list[tuple[float, str]] = field(default_factory=list)


class TcpStreams:
    """Connections from a node, by their own process."""

    def __init__(self, node: Node, addresses: Sequence[str]) -> None:
        command = [sys.executable, "-m", "bench.tcp_streams", *addresses]
        self._child = node.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._child.stdout is not None
        if self._child.stdout.readline() != "ready\n":
            raise HostError(f"{node.name}: the connections didn't start")

    def stop(self) -> list[TcpStream]:
        output, _ = self._child.communicate(timeout=60)
        return [TcpStream(**row) for row in json.loads(output)]


async def _keep(stream: TcpStream, stop: asyncio.Event) -> None:
    while not stop.is_set():
        waiting: deque[float] = deque()
        begin_s = time.monotonic()
        try:
            async with asyncio.timeout(_CONNECT_S):
                reader, writer = await asyncio.open_connection(stream.address, ports.TCP_ECHO)
        except (OSError, TimeoutError):
            await asyncio.sleep(0.2)  # a new connection isn't an established one
            continue
        receiving = asyncio.create_task(_receive(stream, reader, waiting))
        try:
            await _send(stream, writer, waiting, receiving, stop)
        except (OSError, asyncio.IncompleteReadError) as error:
            stream.broken.append((waiting[0] if waiting else begin_s, str(error)))
        finally:
            receiving.cancel()
            writer.close()
        stream.late += waiting


async def _send(
    stream: TcpStream,
    writer: asyncio.StreamWriter,
    waiting: deque[float],
    receiving: asyncio.Task[None],
    stop: asyncio.Event,
) -> None:
    while not stop.is_set():
        waiting.append(time.monotonic())
        stream.sent += 1
        writer.write(struct.pack("!I", stream.sent & 0xFFFFFFFF))
        await asyncio.wait([receiving], timeout=EVERY_S)
        if receiving.done():
            receiving.result()
    if waiting:
        await asyncio.wait([receiving], timeout=_GRACE_S)


async def _receive(stream: TcpStream, reader: asyncio.StreamReader, waiting: deque[float]) -> None:
    while True:
        await reader.readexactly(4)
        sent_s = waiting.popleft()
        if time.monotonic() - sent_s > _LATE_S:
            stream.late.append(sent_s)


async def _keep_all(addresses: Sequence[str]) -> list[TcpStream]:
    streams, stop = [TcpStream(address) for address in addresses], asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, stop.set)
    print("ready", flush=True)
    await asyncio.gather(*(_keep(stream, stop) for stream in streams))
    return streams


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("addresses", nargs="+", metavar="ADDRESS")
    streams = asyncio.run(_keep_all(parser.parse_args().addresses))
    print(json.dumps([asdict(stream) for stream in streams]))


if __name__ == "__main__":
    main()
