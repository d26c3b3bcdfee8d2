"""Clients that ask a resolver first: `python -m ifdefault.lab.rotation`.

Rules: each connection asks anew, and takes the first address of the answer, as most programs do;
half of them ask for IPv4, half for IPv6. Prints how many were answered by each address. The
standard library alone.
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
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from ifdefault.lab.attempts import KINDS
from ifdefault.lab.traffic import judge

if TYPE_CHECKING:
    from ifdefault.lab.world import Node

_A, _AAAA, _IN = 1, 28, 1  # RFC 1035, RFC 3596
_HEADER = struct.Struct("!6H")
_RECORD = struct.Struct("!HHIH")  # type, class, TTL, length
_POINTER = 0xC0


@dataclass(frozen=True, order=True, slots=True)
class Share:
    """What came of the connections to one of a name's addresses."""

    address: str
    tried: int
    answered: int


def rotate(node: Node, server: str, name: str, *, count: int, kind: str = "tcp") -> list[Share]:
    """Make `count` connections to a name from a node; one Share an address, in order."""
    command = [sys.executable, "-m", "ifdefault.lab.rotation", server, name]
    done = node.run([*command, f"--count={count}", f"--kind={kind}"])
    return [Share(**row) for row in json.loads(done.stdout)]


def render_query(number: int, name: str, kind: int) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    recurse = 0x0100
    return _HEADER.pack(number, recurse, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, kind, _IN)


def parse_answer(message: bytes) -> list[str]:
    """Return the addresses of an answer, in its order."""
    _, _, questions, answers, _, _ = _HEADER.unpack_from(message)
    at = _HEADER.size
    for _ in range(questions):
        at = _skip_name(message, at) + 4
    found = []
    for _ in range(answers):
        at = _skip_name(message, at)
        kind, _, _, length = _RECORD.unpack_from(message, at)
        at += _RECORD.size
        if kind in (_A, _AAAA):
            found.append(str(ip_address(message[at : at + length])))
        at += length
    return found


def _skip_name(message: bytes, at: int) -> int:
    while (length := message[at]) and length < _POINTER:
        at += length + 1
    return at + (2 if length else 1)


async def resolve(server: str, name: str, kind: int) -> list[str]:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        await loop.sock_connect(sock, (server, 53))
        await loop.sock_sendall(sock, render_query(int.from_bytes(os.urandom(2)), name, kind))
        return parse_answer(await loop.sock_recv(sock, 4096))


async def visit(server: str, name: str, count: int, kind: str) -> list[Share]:
    tried: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    pending = iter(range(count))

    async def work() -> None:
        for number in pending:
            address = (await resolve(server, name, (_A, _AAAA)[number % 2]))[0]
            tried[address] += 1
            outcome = await judge(KINDS[kind], address, "", 2.0)
            answered[address] += outcome == "answered"

    await asyncio.gather(*(work() for _ in range(50)))
    return [Share(address, tried[address], answered[address]) for address in sorted(tried)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server", metavar="RESOLVER")
    parser.add_argument("name")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--kind", choices=sorted(KINDS), default="tcp")
    chosen = parser.parse_args()
    shares = asyncio.run(visit(chosen.server, chosen.name, chosen.count, chosen.kind))
    print(json.dumps([asdict(share) for share in shares]))


if __name__ == "__main__":
    main()
