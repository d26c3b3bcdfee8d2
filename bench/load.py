"""Load until standard input ends: `python -m bench.load ADDRESS…`.

To each address: new connections one after another, echo requests at a steady rate, and one long TCP
stream whose every byte must come back in order. Prints "ready", ends with its standard input, waits
for outstanding answers, and prints the counts as JSON.

Rules: a packet or connection is lost if no answer came within the grace time, also at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import struct
import sys
from collections import Counter
from dataclasses import asdict, dataclass, field
from itertools import count

from ifdefault.lab import ports
from ifdefault.lab.attempts import KINDS, checksum
from ifdefault.lab.traffic import try_once

_GRACE_S = 3.0
_ECHO = {4: (8, 0, 20), 6: (128, 129, 0)}  # request, reply, bytes of IP header that are received
_BLOCK = 1024
_BLOCK_EVERY_S = 0.002


@dataclass(slots=True)
class Counts:
    """The results for one address."""

    target: str
    connections: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    echoes: int = 0
    echoes_lost: int = 0
    stream_bytes: int = 0
    stream_broken: str = ""


async def connect(counts: Counts, kind: str, pause_s: float, stop: asyncio.Event) -> None:
    failed: Counter[str] = Counter()
    while not stop.is_set():
        outcome = await try_once(KINDS[kind], counts.target, "", _GRACE_S)
        counts.connections += 1
        if outcome != "answered":
            failed[f"{kind}: {outcome}"] += 1
        await asyncio.sleep(pause_s)
    for what, number in failed.items():
        counts.failed[what] = counts.failed.get(what, 0) + number


async def echo(counts: Counts, every_s: float, stop: asyncio.Event) -> None:
    six = ":" in counts.target
    request, reply, header = _ECHO[6 if six else 4]
    protocol = socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP
    sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, protocol)
    sock.setblocking(False)
    tag = os.urandom(8)
    waiting: set[int] = set()

    def receive() -> None:
        data = sock.recv(2048)[header:]
        if data[0] == reply and data[8:16] == tag:  # a raw socket receives all replies
            waiting.discard(struct.unpack_from("!I", data, 16)[0])

    loop = asyncio.get_running_loop()
    loop.add_reader(sock, receive)
    for number in count():
        if stop.is_set():
            break
        body = tag + struct.pack("!I", number)
        message = struct.pack("!BBHHH", request, 0, 0, 1, number & 0xFFFF) + body
        if not six:
            message = message[:2] + checksum(message).to_bytes(2) + message[4:]
        waiting.add(number)
        counts.echoes += 1
        await loop.sock_sendto(sock, message, (counts.target, 0))
        await asyncio.sleep(every_s)
    await _until_empty(waiting)
    counts.echoes_lost = len(waiting)
    loop.remove_reader(sock)
    sock.close()


async def _until_empty(waiting: set[int]) -> None:
    """Late answers count as answers."""
    for _ in range(int(_GRACE_S / 0.05)):
        if not waiting:
            return
        await asyncio.sleep(0.05)


async def stream(counts: Counts, stop: asyncio.Event) -> None:
    try:
        reader, writer = await asyncio.open_connection(counts.target, ports.TCP_ECHO)
        for number in count():
            if stop.is_set():
                break
            block = struct.pack("!I", number & 0xFFFFFFFF) * (_BLOCK // 4)
            writer.write(block)
            async with asyncio.timeout(_GRACE_S):
                if await reader.readexactly(_BLOCK) != block:
                    counts.stream_broken = "other bytes came back"
                    return
            counts.stream_bytes += _BLOCK
            await asyncio.sleep(_BLOCK_EVERY_S)
        writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        counts.stream_broken = str(error) or type(error).__name__


async def send(targets: list[str], kinds: list[str], every_s: float) -> list[Counts]:
    stop, by_target = asyncio.Event(), [Counts(target) for target in targets]
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, stop.set)
    print("ready", flush=True)
    async with asyncio.TaskGroup() as group:
        for counts in by_target:
            group.create_task(echo(counts, every_s, stop))
            group.create_task(stream(counts, stop))
            for kind in kinds:
                group.create_task(connect(counts, kind, every_s, stop))
    return by_target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="+", metavar="ADDRESS")
    parser.add_argument("--kind", action="append", choices=sorted(KINDS), required=True)
    parser.add_argument("--every", type=float, default=0.01, metavar="SECONDS")
    options = parser.parse_args()
    by_target = asyncio.run(send(options.targets, options.kind, options.every))
    print(json.dumps([asdict(counts) for counts in by_target]))


if __name__ == "__main__":
    main()
