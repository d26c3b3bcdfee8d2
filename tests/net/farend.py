"""What the tests of outgoing connections share: a far end that says from where they come.

Rules: the client accepts in both families, and tells the peer's address; isp-a has three times the
weight of isp-b.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from ifdefault.lab.waiting import PATIENCE_S
from ifdefault.lab.world import World
from ifdefault.model.config import FAMILIES, Family
from tests.net import watched

A: dict[Family, str] = {4: "203.0.113.10", 6: "2001:db8:a::10"}
B: dict[Family, str] = {4: "198.51.100.10", 6: "2001:db8:b::10"}
AF = {4: socket.AF_INET, 6: socket.AF_INET6}
SO_MARK = 36
_AT_ONCE = 100  # connections: a process may have few descriptors
BALANCE = '[outgoing]\nmode = "balance"\n'


def configure(world: World, more: str = BALANCE) -> None:
    """isp-a has three times the weight of isp-b."""
    text = world.topology.config.replace('"wan0"', '"wan0"\nweight = 3', 1)
    world.config.write_text(f"{text}\n{more}", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Far:
    """The client's ends: a socket in each family that accepts, and one for datagrams."""

    world: World
    listeners: dict[Family, socket.socket]
    datagrams: dict[Family, socket.socket]
    kept: list[socket.socket] = field(default_factory=list)  # some of the connections

    def connect(
        self,
        count: int,
        family: Family = 4,
        *,
        mapped: bool = False,
        to: str = "",
        bound: str = "",
        mark: int = 0,
    ) -> Counter[str]:
        """From where the connections that a node makes come, as it and the far end see alike."""
        if count > _AT_ONCE:
            options = {"mapped": mapped, "to": to, "bound": bound, "mark": mark}
            rest = self.connect(count - _AT_ONCE, family, **options)  # type: ignore[arg-type]
            return rest + self.connect(_AT_ONCE, family, **options)  # type: ignore[arg-type]
        target = (to or watched.FAR[family], self.listeners[family].getsockname()[1])
        if mapped:
            target = (f"::ffff:{target[0]}", target[1])

        def make() -> list[socket.socket]:
            made = []
            for _ in range(count):
                sock = socket.socket(AF[6 if mapped else family])
                sock.settimeout(PATIENCE_S)
                if mark:
                    sock.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
                if bound:
                    sock.bind((bound, 0))
                sock.connect(target)
                made.append(sock)
            return made

        own = self.world["host"].python(make)
        theirs = [self.listeners[family].accept() for _ in own]
        seen = Counter(str(peer[0]) for _, peer in theirs)
        mine = Counter(str(sock.getsockname()[0]).removeprefix("::ffff:") for sock in own)
        assert seen == mine
        self.kept.extend((*own, *(sock for sock, _ in theirs)))
        while len(self.kept) > 2 * _AT_ONCE:
            self.kept.pop().close()
        return seen


@contextmanager
def far(world: World) -> Iterator[Far]:
    def listen(family: Family) -> tuple[socket.socket, socket.socket]:
        sock = socket.create_server(("", 0), family=AF[family], backlog=4096)
        datagrams = socket.socket(AF[family], socket.SOCK_DGRAM)
        datagrams.bind(("", sock.getsockname()[1]))
        for each in (sock, datagrams):
            each.settimeout(PATIENCE_S)
        return sock, datagrams

    made = {family: world["client"].python(partial(listen, family)) for family in FAMILIES}
    ends = Far(
        world, {f: tcp for f, (tcp, _) in made.items()}, {f: u for f, (_, u) in made.items()}
    )
    try:
        yield ends
    finally:
        for sock in (*ends.kept, *ends.listeners.values(), *ends.datagrams.values()):
            sock.close()
