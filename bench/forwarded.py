"""`forwarded`: thousands of connections to servers behind the host, and the addresses they saw.

Rules: a server replies with the address that it sees, and the client compares; misrouted packets
are counted by the providers' source filters. A client behind the host is masqueraded, so the server
must see the host.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from bench import calls, lan
from bench.clock import log
from bench.lan import CADDY_HTTP, ROUTER, WEB1, WEB2, part
from bench.results import Figure, Report, Table
from bench.subject import Subject
from ifdefault.lab import ports, services
from ifdefault.lab.topology import load
from ifdefault.lab.world import World

_ECHO = 7900
_PUBLISHED, _CONTAINER = 8080, 7000
_HOW = """\
The lab's world `lan`: the host forwards to servers on a LAN, with a `[[forward]]` each: port 80 to
nginx on two of them, 8080 to Caddy's HTTP/1 on another port, UDP port 443 to its HTTP/3 (client:
aioquic), and TCP and UDP 7900 to a server that replies with the client's address and echoes. The
world `docker`: a container published by Docker's own rules, with `forwarded = "follow"`. New flows
go to each of the host's four addresses (two uplinks, IPv4 and IPv6), from four addresses of the
client in each family; and from a client on the LAN (*desk*) and from the host itself (*hairpin*).
*Failed*: no answer within 5 s, or a wrong one. *Another address*: the server saw another address
than the client's, or for a hairpin, than the host's. *Misrouted*: packets dropped by the providers'
source filters."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Calls from a node, `count` to each address of the host."""

    name: str
    node: str
    kind: str
    port: int
    count: int
    concurrency: int = 50


@dataclass(frozen=True, slots=True)
class Row:
    """The outcome of one kind of calls to one address of the host."""

    name: str
    uplink: str
    family: int
    tried: int
    failed: int
    other: int
    misrouted: int  # packets, of all addresses of the kind
    why: dict[str, int]


_LAN = (
    Kind("TCP to nginx", "client", "http", ports.HTTP, 500),
    Kind("TCP to Caddy, HTTP/1", "client", "http", 8080, 500),
    Kind("TCP echo", "client", "tcp", _ECHO, 250),
    Kind("UDP echo", "client", "udp", _ECHO, 500),
    Kind("QUIC, HTTP/3 to Caddy", "client", "quic", ports.QUIC, 125, 8),
    Kind("hairpin from the LAN", "desk", "http", ports.HTTP, 100),
    Kind("hairpin from the LAN, UDP", "desk", "udp", _ECHO, 50),
    Kind("hairpin from the host", "host", "http", ports.HTTP, 75),
)
_DOCKER = (
    Kind("TCP to a container", "client", "tcp", _PUBLISHED, 300),
    Kind("UDP to a container", "client", "udp", _PUBLISHED, 100),
)
_FORWARDS = (
    lan.forward(["tcp:80"], [*WEB1, *WEB2]),
    lan.forward(["tcp:8080"], [f"{WEB1[0]}:{CADDY_HTTP}", f"[{WEB1[1]}]:{CADDY_HTTP}"]),
    lan.forward(["tcp:443", "udp:443"], WEB1),
    lan.forward([f"tcp:{_ECHO}", f"udp:{_ECHO}"], WEB2),
)


def run() -> Report:
    rows: list[Row] = []
    with World.up(load("lan")) as world:
        for name in ("web1", "web2"):
            services.nginx(world[name])
        lan.caddy(world["web1"])
        calls.serve(world["web2"], _ECHO)
        Subject(world).apply(lan.text(*_FORWARDS))
        for kind in _LAN:
            rows += _call(world, kind)
    with World.up(load("docker")) as world:
        calls.serve(world["web"], _CONTAINER)
        Subject(world).apply()
        for kind in _DOCKER:
            rows += _call(world, kind)
    samples = {"rows": [asdict(row) for row in rows]}
    title = "Forwarded connections"
    figures, notes = tuple(_figures(rows)), tuple(_notes(rows))
    return Report(title, _HOW, figures, (_table(rows),), samples, notes)


def _call(world: World, kind: Kind) -> list[Row]:
    before = sum(world.misrouted().values())
    targets = {target.address: target for target in world.topology.targets()}
    # calls from the host don't name a source: the kernel picks one
    sources = world.topology.addresses(kind.node) if kind.node != "host" else ()
    answers = calls.ask(
        world[kind.node],
        kind.kind,
        kind.port,
        targets,
        count=part(kind.count),
        concurrency=kind.concurrency,
        sources=sources,
    )
    misrouted = sum(world.misrouted().values()) - before
    log(f"{kind.name}: {sum(a.answered for a in answers)} of {sum(a.tried for a in answers)}")
    return [
        Row(
            kind.name,
            targets[a.target].provider,
            targets[a.target].family,
            a.tried,
            a.tried - a.answered,
            a.other if kind.node == "client" else _not_ours(a.seen),
            misrouted,
            a.failed,
        )
        for a in answers
    ]


def _not_ours(seen: dict[str, int]) -> int:
    """How many saw another address than the host's."""
    return sum(number for address, number in seen.items() if address not in ROUTER)


def _figures(rows: Sequence[Row]) -> Iterable[Figure]:
    misrouted = {row.name: row.misrouted for row in rows}
    yield Figure("connections", sum(row.tried for row in rows), target=part(10_000), at_least=True)
    yield Figure("failed", sum(row.failed for row in rows), target=0)
    yield Figure("packets misrouted", sum(misrouted.values()), target=0)
    yield Figure("seen with another address", sum(row.other for row in rows), target=0)


def _notes(rows: Sequence[Row]) -> Iterable[str]:
    """Why calls failed."""
    for row in rows:
        if row.why:
            why = ", ".join(f"{number} {what}" for what, number in row.why.items())
            yield f"{row.name}, {row.uplink}, IPv{row.family}: {why}."


def _table(rows: Sequence[Row]) -> Table:
    heads = ("", "uplink", "family", "tried", "failed", "another address", "misrouted, all four")
    cells = tuple(
        (
            row.name,
            row.uplink,
            f"IPv{row.family}",
            *(f"{number:,}" for number in (row.tried, row.failed, row.other, row.misrouted)),
        )
        for row in rows
    )
    return Table("By kind, uplink and family", heads, cells)
