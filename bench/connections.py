"""`connections`: thousands of connections over two uplinks, and the outcome of each.

Rules: answered, hung, wrong and failed are counted by the clients, misrouted packets by the
providers' source filters. The server with UDP sockets starts after the first apply, so that the
first rows measure the default mode: no wildcard UDP socket and no conntrack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from bench.clock import log
from bench.results import Figure, Report, Table
from bench.subject import Subject
from ifdefault.lab import services
from ifdefault.lab.topology import load
from ifdefault.lab.traffic import measure
from ifdefault.lab.world import World

_MANY = 2500  # to each of four targets: two uplinks, two families
_QUIC = 250
_HOW = f"""\
The lab's world `two` after `ifdefault apply`: {_MANY:,} new flows of each kind to each of the
host's four addresses (two uplinks, IPv4 and IPv6), up to 400 at a time; QUIC {_QUIC} to each.
`http` is nginx, `quic` is HTTP/3 to Caddy, the rest are the lab's own servers. *Hung*: no answer
within 5 s. *Misrouted*: packets dropped by the providers' source filters."""


@dataclass(frozen=True, slots=True)
class Row:
    """All targets of one kind together."""

    kind: str
    mode: str
    tried: int
    answered: int
    hung: int
    other: int
    misrouted: int


def run() -> Report:
    rows: list[Row] = []
    with World.up(load("two")) as world:
        host, subject = world["host"], Subject(world)
        services.nginx(host)
        subject.apply()
        rows.append(_send(world, "http", "source rules"))
        rows.append(_with_syncookies(world, "http"))
        services.builtin(host)  # the next apply finds its wildcard UDP sockets
        rows.append(_send(world, "tcp", "source rules"))
        rows.append(_with_syncookies(world, "tcp"))
        rows += [_send(world, kind, "source rules") for kind in ("udp-bound", "udp-pktinfo")]
        services.caddy(host)
        subject.apply()
        rows += [
            _send(world, kind, "wildcard UDP redirected")
            for kind in ("tcp", "http", "udp-wildcard", "udp-dual", "quic")
        ]
    return Report(
        "Connections", _HOW, _figures(rows), _tables(rows), {"rows": list(map(asdict, rows))}
    )


def _send(world: World, kind: str, mode: str) -> Row:
    count = _QUIC if kind == "quic" else _MANY
    before = sum(world.misrouted().values())
    targets = [target.address for target in world.topology.targets()]
    tallies = measure(
        world["client"],
        [kind],
        targets,
        count=count,
        concurrency=10 if kind == "quic" else 100,
        timeout_s=5.0,
    )
    misrouted = sum(world.misrouted().values()) - before
    tried, answered, hung = (
        sum(numbers)
        for numbers in zip(*((t.tried, t.answered, t.hung) for t in tallies), strict=True)
    )
    other = tried - answered - hung
    row = Row(kind, mode, tried, answered, hung, other, misrouted)
    log(f"{kind}, {mode}: {answered} of {tried} answered")
    return row


def _with_syncookies(world: World, kind: str) -> Row:
    """Use a SYN cookie for every connection, whether the queue is full or not."""
    original = world["host"].sysctl("net.ipv4.tcp_syncookies", 2)
    try:
        return _send(world, kind, "SYN cookies")
    finally:
        world["host"].sysctl("net.ipv4.tcp_syncookies", original)


def _figures(rows: Sequence[Row]) -> tuple[Figure, ...]:
    tcp = [row for row in rows if row.kind in ("tcp", "http")]
    rest = [row for row in rows if row not in tcp]
    figures = []
    for name, some in (("TCP", tcp), ("UDP and QUIC", rest)):
        tried = sum(row.tried for row in some)
        unanswered = tried - sum(row.answered for row in some)
        figures += [
            Figure(f"{name}: tried", tried),
            Figure(f"{name}: not answered", unanswered, target=0),
            Figure(f"{name}: misrouted packets", sum(row.misrouted for row in some), target=0),
        ]
    return tuple(figures)


def _tables(rows: Sequence[Row]) -> tuple[Table, ...]:
    heads = ("kind", "", "tried", "answered", "hung", "wrong or failed", "misrouted")
    cells = tuple(
        (
            row.kind,
            row.mode,
            *(f"{n:,}" for n in (row.tried, row.answered, row.hung, row.other, row.misrouted)),
        )
        for row in rows
    )
    return (Table("By kind", heads, cells),)
