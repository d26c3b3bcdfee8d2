"""What the network tests of the return path share: a host that serves, and clients that ask it.

Rules: what is misrouted is counted by the providers, never by us.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ifdefault.lab import services
from ifdefault.lab.node import Node
from ifdefault.lab.traffic import Tally, measure
from ifdefault.lab.waiting import PATIENCE_S
from ifdefault.lab.world import World

# every kind that the lab's own servers answer
KINDS = "tcp udp-bound udp-pktinfo udp-wildcard udp-dual icmp rst unreachable".split()
BRIEF_S = 0.3  # for what is expected to hang


def configure(world: World, more: str) -> None:
    """Give the topology's config more text, such as a [host]."""
    world.config.write_text(f"{world.topology.config}\n{more}", encoding="utf-8")


def apply(world: World) -> None:
    world.ifdefault("apply", "--quiet", check=True)


def status(world: World) -> dict[str, Any]:
    """What `ifdefault status` tells, whatever it thinks of it."""
    found: dict[str, Any] = json.loads(world.ifdefault("status", "--json").stdout)
    return found


def addresses(world: World) -> list[str]:
    """The addresses under which the world knows the host, each once."""
    return sorted({target.address for target in world.topology.targets()})


def ask(
    world: World,
    kinds: Sequence[str] = tuple(KINDS),
    targets: Iterable[str] = (),
    *,
    node: str = "client",
    count: int = 8,
    timeout_s: float = PATIENCE_S,
) -> tuple[Tally, ...]:
    """Let a node ask from all its addresses in turn: `count` times each kind and target."""
    return measure(
        world[node],
        kinds,
        list(targets) or addresses(world),
        count=count,
        timeout_s=timeout_s,
        sources=world.topology.addresses(node),
    )


def assert_answered(
    world: World,
    kinds: Sequence[str] = tuple(KINDS),
    targets: Iterable[str] = (),
    *,
    node: str = "client",
    count: int = 8,
) -> None:
    """Everything is answered, and no provider has refused a packet meanwhile."""
    before = world.misrouted()
    tallies = ask(world, kinds, targets, node=node, count=count)
    assert [tally for tally in tallies if not tally.ok] == []
    assert world.misrouted() == before, world.refusals()


def assert_hangs(world: World, kinds: Sequence[str], targets: Iterable[str] = ()) -> None:
    """Something isn't answered, since a provider refuses the answer."""
    before = sum(world.misrouted().values())
    tallies = ask(world, kinds, targets, count=4, timeout_s=BRIEF_S)
    assert [tally for tally in tallies if not tally.ok]
    assert sum(world.misrouted().values()) > before


def assert_none_answered(
    world: World, kinds: Sequence[str], targets: Iterable[str] = (), *, node: str = "client"
) -> None:
    """Nothing is answered, or not from the address that was asked."""
    tallies = ask(world, kinds, targets, node=node, count=4, timeout_s=BRIEF_S)
    assert [tally for tally in tallies if tally.answered] == []


def serve(world: World) -> None:
    services.builtin(world["host"])


def udp_socket(
    node: Node,
    address: str = "",
    port: int = 0,
    options: Mapping[str, int | str] = MappingProxyType({}),
) -> socket.socket:
    """A UDP socket in a node; options by their names, as {"SO_MARK": 1}."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with node.enter():
        sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.settimeout(PATIENCE_S)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for name, value in options.items():
        raw = value if isinstance(value, int) else value.encode()
        sock.setsockopt(socket.SOL_SOCKET, getattr(socket, name), raw)
    sock.bind((address, port))
    return sock


def exchange(sock: socket.socket, target: str, port: int, count: int = 1, size: int = 64) -> int:
    """Send datagrams to an echo server and count those that came back from where they went.

    A few are under way at a time, so that no buffer overflows.
    """
    right = 0
    for start in range(0, count, 16):
        sent = {f"{n:08}".encode().ljust(size, b".") for n in range(start, min(start + 16, count))}
        for data in sorted(sent):
            sock.sendto(data, (target, port))
        for _ in range(len(sent)):
            data, peer = sock.recvfrom(65536)
            right += data in sent and peer[:2] == (target, port)
    return right


def answered(sock: socket.socket, target: str, port: int, size: int = 64) -> bool:
    """Whether one datagram is echoed soon; a lost or too large one isn't."""
    sock.settimeout(BRIEF_S)
    try:
        return exchange(sock, target, port, 1, size) == 1
    except (TimeoutError, OSError):  # the path's MTU may be learned just now: EMSGSIZE
        return False


def kernel_state(node: Node) -> str:
    """Rules, routes and rulesets as their tools show them."""
    return "\n".join(
        node.run(command.split()).stdout
        for command in (
            "ip -4 rule",
            "ip -6 rule",
            "ip -4 route show table all",
            "ip -6 route show table all",
            "nft -s list ruleset",
        )
    )
