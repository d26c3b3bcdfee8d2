"""Clients by name, at a steady rate: `python -m ifdefault.lab.clients_by_name RESOLVER NAME…`.

Rules: each visit resolves the name and uses the first address of the answer, as most programs do;
every second one asks for IPv4, the others for IPv6. Prints "ready", runs until its standard input
ends, waits for outstanding visits, and prints all of them as JSON. Times are of the monotonic
clock. Only the standard library.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from itertools import cycle
from typing import TYPE_CHECKING

from ifdefault.lab import lookup
from ifdefault.lab.attempts import KINDS
from ifdefault.lab.traffic import try_once
from ifdefault.model.errors import HostError

if TYPE_CHECKING:
    from ifdefault.lab.node import Node

LOOKUP_S = 5.0  # as most stub resolvers wait (resolv.conf(5))
CONNECT_S = 2.0
_KIND = "tcp"


@dataclass(frozen=True, order=True, slots=True)
class Visit:
    """One connection by name. `outcome` is as in `traffic`, or "unresolved"."""

    at_s: float  # when it began
    name: str
    family: int
    address: str  # "" if unresolved
    outcome: str
    took_s: float

    @property
    def ok(self) -> bool:
        return self.outcome == "answered"


class Visits:
    """Visits from a node; so many per second to each name."""

    def __init__(self, node: Node, server: str, names: Sequence[str], *, per_s: float) -> None:
        command = [sys.executable, "-m", "ifdefault.lab.clients_by_name", server, *names]
        self._child = node.popen(
            [*command, f"--per-second={per_s}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._child.stdout is not None
        if self._child.stdout.readline() != "ready\n":
            raise HostError(f"{node.name}: the clients didn't start; see what they printed above")

    def stop(self) -> list[Visit]:
        """All visits, in the order in which they began."""
        output, _ = self._child.communicate(timeout=60)
        return sorted(Visit(*row) for row in json.loads(output))


async def visit(server: str, name: str, family: int) -> Visit:
    at_s = time.monotonic()
    address, outcome = "", "unresolved"
    try:
        async with asyncio.timeout(LOOKUP_S):
            addresses = await lookup.resolve(server, name, lookup.TYPES[family])
        address = addresses[0] if addresses else ""
    except OSError:  # includes TimeoutError
        pass
    if address:
        outcome = await try_once(KINDS[_KIND], address, "", CONNECT_S)
    return Visit(at_s, name, family, address, outcome, time.monotonic() - at_s)


async def visit_all(server: str, names: Sequence[str], per_s: float) -> list[Visit]:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, stop.set)
    families = cycle(lookup.TYPES)
    begun: list[asyncio.Task[Visit]] = []
    print("ready", flush=True)
    due_s = time.monotonic()
    while not stop.is_set():
        family = next(families)
        begun += [asyncio.create_task(visit(server, name, family)) for name in names]
        due_s += 1 / per_s
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
    return [await task for task in begun]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server", metavar="RESOLVER")
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--per-second", type=float, default=50.0, metavar="N")
    options = parser.parse_args()
    visits = asyncio.run(visit_all(options.server, options.names, options.per_second))
    print(json.dumps([astuple(row) for row in visits]))


if __name__ == "__main__":
    main()
