"""`end_connections`: how long it takes to end all connections of a dead uplink.

Rules: real TCP sockets with both ends; tracked flows are added to the kernel's table by ctnetlink.
There are as many of another uplink, and inbound ones. After each round the bench counts what should
have stayed.
"""

from __future__ import annotations

import resource
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass

from bench.clock import log, time_ms
from bench.results import Figure, Report, Table
from bench.stats import median
from bench.subject import Subject
from ifdefault.kernel import sockdiag, sysctl
from ifdefault.kernel.kill_connections import Killed, kill
from ifdefault.kernel.netlink import Netlink, attribute
from ifdefault.kernel.rtnetlink import AF, packed
from ifdefault.kernel.socket_filter import Prefixes, program
from ifdefault.kernel.uapi import inet_diag as diag
from ifdefault.kernel.uapi.netlink import NETLINK_NETFILTER, NETLINK_SOCK_DIAG, NLM_F_CREATE
from ifdefault.lab.node import Node
from ifdefault.lab.topology import load
from ifdefault.lab.world import World
from ifdefault.model.config import FAMILIES, Family

TARGET_MS = 200
_SOCKETS, _FLOWS, _INBOUND, _ROUNDS = 1000, 25_000, 500, 12
_DEAD = {4: "203.0.113.10", 6: "2001:db8:a::10"}
_OTHER = {4: "198.51.100.10", 6: "2001:db8:b::10"}
_CLIENT = {4: "198.18.1.10", 6: "2001:db8:f:1::10"}
_PORT = 7902
_HOW = f"""\
The lab's world `two`: {_SOCKETS:,} outgoing TCP sockets and {_FLOWS:,} tracked flows of one uplink
are ended, {_ROUNDS} times, while as many of the other uplink, and {_INBOUND} inbound connections
and as many flows of the first, must stay. *Left* counts what should have ended; *wrongly ended*
what should have stayed. IPv6 flows are listed and deleted one by one, because Linux's filter
compares IPv6 addresses incorrectly; the list leaves out those of the other uplink."""

# enables connection tracking
_TRACKED = """\
table inet tracked {
  chain output { type filter hook output priority 0; ct state new accept; }
  chain input { type filter hook input priority 0; ct state new accept; }
}
"""
Pairs = list[tuple[socket.socket, socket.socket]]


@dataclass(frozen=True, slots=True)
class Round:
    ms: float
    killed: Killed
    left: int
    wrong: int


def run() -> Report:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    figures: list[Figure] = []
    rows = []
    samples: dict[str, list[float]] = {}
    for family in FAMILIES:
        with World.up(load("two")) as world:
            Subject(world).apply()
            world["host"].nft(_TRACKED)
            log(f"IPv{family}: {_SOCKETS:,} sockets and {_FLOWS:,} flows, {_ROUNDS} rounds")
            rounds = list(_rounds(world, family))
        times = samples[f"IPv{family}"] = [one.ms for one in rounds]
        of = f"IPv{family}: "
        figures += [
            Figure(f"{of}median", median(times), "ms", TARGET_MS),
            Figure(f"{of}longest", max(times), "ms", TARGET_MS),
            Figure(f"{of}left", sum(one.left for one in rounds), target=0),
            Figure(f"{of}wrongly ended", sum(one.wrong for one in rounds), target=0),
        ]
        rows.append(_row(family, rounds))
    heads = ("", "sockets", "flows", "fastest", "median", "longest")
    return Report(
        "Ending a dead uplink's connections",
        _HOW,
        tuple(figures),
        (Table("Medians of a round", heads, tuple(rows)),),
        samples,
    )


def _row(family: Family, rounds: list[Round]) -> tuple[str, ...]:
    times = [one.ms for one in rounds]
    ended = (
        median([one.killed.sockets for one in rounds]),
        median([one.killed.flows for one in rounds]),
    )
    cells = (f"{time_ms:.1f} ms" for time_ms in (min(times), median(times), max(times)))
    return f"IPv{family}", *(f"{number:,.0f}" for number in ended), *cells


def _rounds(world: World, family: Family) -> Iterator[Round]:
    host, client = world["host"], world["client"]
    with ExitStack() as stack:
        there = stack.enter_context(_server(client, _CLIENT[family], family))
        here = stack.enter_context(_server(host, _DEAD[family], family))
        _connect(stack, host, there, _OTHER[family], _CLIENT[family], _SOCKETS)
        _connect(stack, client, here, _CLIENT[family], _DEAD[family], _INBOUND)
        host.python(lambda: _track(_OTHER[family], _CLIENT[family], _FLOWS))
        host.python(lambda: _track(_CLIENT[family], _DEAD[family], _INBOUND))
        for number in range(_ROUNDS + 1):
            with ExitStack() as doomed:
                stays = host.python(_tracked), host.python(_connected)
                _connect(doomed, host, there, _DEAD[family], _CLIENT[family], _SOCKETS)
                host.python(lambda: _track(_DEAD[family], _CLIENT[family], _FLOWS))
                result = host.python(_end)
                now = host.python(_tracked), host.python(_connected)
            surplus = [after - before for after, before in zip(now, stays, strict=True)]
            left = sum(max(0, count) for count in surplus)
            wrong = sum(max(0, -count) for count in surplus)
            if number:  # the first round imports lazily loaded modules
                yield Round(*result, left, wrong)


def _end() -> tuple[float, Killed]:
    killed: list[Killed] = []
    ms = time_ms(lambda: killed.append(kill(tuple(_DEAD.values()), others=tuple(_OTHER.values()))))
    return ms, killed[0]


def _server(node: Node, address: str, family: Family) -> socket.socket:
    return node.python(
        lambda: socket.create_server((address, _PORT), family=AF[family], backlog=_SOCKETS)
    )


def _connect(
    stack: ExitStack, node: Node, server: socket.socket, source: str, target: str, count: int
) -> None:
    """Open connections from a node to a server, until the stack is unwound."""

    def make() -> None:
        for _ in range(count):
            near = socket.create_connection((target, _PORT), source_address=(source, 0))
            stack.enter_context(closing(near))
            stack.enter_context(closing(server.accept()[0]))

    node.python(make)


def _connected() -> int:
    """TCP connections of both uplinks' addresses."""
    own = Prefixes(address for own in (_DEAD, _OTHER) for address in own.values())
    query = sockdiag.query_both((diag.TCP_ESTABLISHED,), program(own.sources(), ()))
    with Netlink(NETLINK_SOCK_DIAG) as netlink:
        return len(netlink.dump(diag.TCPDIAG_GETSOCK, query))


def _tracked() -> int:
    return int(sysctl.read("net/netfilter/nf_conntrack_count") or 0)


# --- flows by ctnetlink (linux/netfilter/nfnetlink_conntrack.h) ------------------------------

_NEW, _NESTED = 0x100, 0x8000
_ORIGINAL, _REPLY, _STATUS, _TIMEOUT = 1, 2, 3, 7
_CONFIRMED, _TIMEOUT_S = 8, 3600


def _track(source: str, target: str, count: int) -> None:
    """Add UDP flows to the conntrack table."""
    with Netlink(NETLINK_NETFILTER) as netlink:
        flows = [_flow(source, target, number) for number in range(count)]
        made = netlink.change_many(_NEW, flows, NLM_F_CREATE)
    if made != count:
        raise OSError(f"the kernel took {made} of {count} flows")


def _flow(source: str, target: str, number: int) -> bytes:
    ports = 1024 + number % 60_000, 5000 + number // 60_000
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    return (
        struct.pack("=BBH", family, 0, 0)
        + _tuple(_ORIGINAL, source, target, ports)
        + _tuple(_REPLY, target, source, (ports[1], ports[0]))
        + attribute(_STATUS, struct.pack("!I", _CONFIRMED))
        + attribute(_TIMEOUT, struct.pack("!I", _TIMEOUT_S))
    )


def _tuple(kind: int, source: str, target: str, ports: tuple[int, int]) -> bytes:
    first = 3 if ":" in source else 1  # CTA_IP_V6_SRC, CTA_IP_V4_SRC
    ip = attribute(first, packed(source)) + attribute(first + 1, packed(target))
    protocol = attribute(1, bytes([socket.IPPROTO_UDP])) + b"".join(
        attribute(2 + index, struct.pack("!H", port)) for index, port in enumerate(ports)
    )
    return attribute(kind | _NESTED, attribute(1 | _NESTED, ip) + attribute(2 | _NESTED, protocol))
