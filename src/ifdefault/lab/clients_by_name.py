"""Visitors by name: `python -m ifdefault.lab.clients_by_name RESOLVER NAME…`, at a steady pace.

Rules: each asks the resolver anew, and takes the first address of the answer, as most programs do;
every second one asks for IPv4, the others for IPv6. Prints "ready", goes on until its standard
input ends, waits for what is under way, and prints what became of each as JSON. Times are of the
monotonic clock. The standard library alone.
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
    from ifdefault.lab.world import Node

LOOKUP_S = 5.0  # as most stub resolvers wait (resolv.conf(5))
CONNECT_S = 2.0
_KIND = "tcp"


@dataclass(frozen=True, order=True, slots=True)
class Visit:
    """One connection by name. `outcome` is as in `traffic`, or "unresolved"."""

    at_s: float  # when it was begun
    name: str
    family: int
    address: str  # "" if the name led nowhere
    outcome: str
    took_s: float

    @property
    def ok(self) -> bool:
        return self.outcome == "answered"


class Visits:
    """Visitors at work in a node; so many connections a second to each name."""

    def __init__(self, node: Node, server: str, names: Sequence[str], *, per_s: float) -> None:
        command = [sys.executable, "-m", "ifdefault.lab.clients_by_name", server, *names]
        self._child = node.popen(
            [*command, f"--per-second={per_s}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._child.stdout is not None
        if self._child.stdout.readline() != "ready\n":
            raise HostError(f"{node.name}: the visitors didn't start")

    def stop(self) -> list[Visit]:
        """All of them, in the order in which they began."""
        told, _ = self._child.communicate(timeout=60)
        return sorted(Visit(*row) for row in json.loads(told))


async def visit(server: str, name: str, family: int) -> Visit:
    at_s = time.monotonic()
    address, outcome = "", "unresolved"
    try:
        async with asyncio.timeout(LOOKUP_S):
            found = await lookup.resolve(server, name, lookup.TYPES[family])
        address = found[0] if found else ""
    except OSError:  # TimeoutError is one, too
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
    return [await each for each in begun]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server", metavar="RESOLVER")
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--per-second", type=float, default=50.0, metavar="N")
    chosen = parser.parse_args()
    visits = asyncio.run(visit_all(chosen.server, chosen.names, chosen.per_second))
    print(json.dumps([astuple(each) for each in visits]))


if __name__ == "__main__":
    main()
