"""Clients that resolve a name first: `python -m ifdefault.lab.rotation`.

Rules: each connection resolves the name and uses the first address of the answer, as most programs
do; half of them ask for IPv4, half for IPv6. Prints how many were answered by each address. Only
the standard library.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ifdefault.lab import lookup
from ifdefault.lab.attempts import KINDS
from ifdefault.lab.traffic import try_once

if TYPE_CHECKING:
    from ifdefault.lab.node import Node


@dataclass(frozen=True, slots=True)
class AddressShare:
    """The connections to one of a name's addresses."""

    address: str
    tried: int
    answered: int


def rotate(
    node: Node, server: str, name: str, *, count: int, kind: str = "tcp"
) -> list[AddressShare]:
    """Make `count` connections to a name from a node; one AddressShare per address, sorted."""
    command = [sys.executable, "-m", "ifdefault.lab.rotation", server, name]
    done = node.run([*command, f"--count={count}", f"--kind={kind}"])
    return [AddressShare(**row) for row in json.loads(done.stdout)]


async def visit(server: str, name: str, count: int, kind: str) -> list[AddressShare]:
    tried: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    pending = iter(range(count))
    types = tuple(lookup.TYPES.values())

    async def work() -> None:
        for number in pending:
            address = (await lookup.resolve(server, name, types[number % 2]))[0]
            tried[address] += 1
            outcome = await try_once(KINDS[kind], address, "", 2.0)
            answered[address] += outcome == "answered"

    await asyncio.gather(*(work() for _ in range(50)))
    return [AddressShare(address, tried[address], answered[address]) for address in sorted(tried)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server", metavar="RESOLVER")
    parser.add_argument("name")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--kind", choices=sorted(KINDS), default="tcp")
    options = parser.parse_args()
    shares = asyncio.run(visit(options.server, options.name, options.count, options.kind))
    print(json.dumps([asdict(share) for share in shares]))


if __name__ == "__main__":
    main()
