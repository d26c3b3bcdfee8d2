"""The headline figures of docs/figures.md, and what peers reach in the same bench.

Rules: GROUPS is the table; values are looked up in the results. A figure that the results don't
have is left out of the page; `missing` lists those, and a test checks that there are none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bench.results import Figure, Report


@dataclass(frozen=True, slots=True)
class Of:
    """A peer's value is this figure of the same bench."""

    figure: str


@dataclass(frozen=True, slots=True)
class Cell:
    """A peer's value is in a table whose title begins so, in the row that begins so."""

    table: str
    row: tuple[str, ...]
    column: str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Headline:
    what: str
    bench: str
    figure: str
    peers: tuple[tuple[str, Of | Cell], ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    title: str
    headlines: tuple[Headline, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A headline with its values; `section`: the title of the bench's report."""

    headline: Headline
    section: str
    figure: Figure
    peers: tuple[tuple[str, Figure | str], ...]


Results = Mapping[str, Report]


def _blackhole(*rows: tuple[str, str]) -> tuple[tuple[str, Cell], ...]:
    return tuple(
        (name, Cell("Blackhole", (name, settings), "down, median", "s")) for name, settings in rows
    )


def _visitors(*names: str) -> tuple[tuple[str, Cell], ...]:
    return tuple((name, Cell("Blackhole", (name,), "failed")) for name in names)


def _quickest(link: str) -> tuple[tuple[str, Cell], ...]:
    title = "Peers at their fastest"
    return tuple(
        (name, Cell(title, (link, name), "delay, median")) for name in ("dpinger", "lsm", "mwan3")
    )


def _beside_ours(measure: str) -> tuple[tuple[str, Of], ...]:
    names = (("static endpoints", "MPTCP, static endpoints"), ("TCP", "TCP"))
    return tuple((name, Of(f"silent death, {setup}: {measure}")) for name, setup in names)


_TUNED = _blackhole(
    ("keepalived", "steady"), ("lsm", "steady"), ("PowerDNS", "steady"), ("gdnsd", "steady")
)
_DEFAULTS = _blackhole(
    ("keepalived", "default"), ("PowerDNS", "default"), ("lsm", "default"), ("gdnsd", "default")
)
_DNS_PEERS = tuple((n, Of(f"plain: {n}, answers per second")) for n in ("BIND", "Knot", "gdnsd"))

GROUPS = (
    Group(
        "Failover",
        (
            Headline(
                "provider forwards nothing: traffic moved, median (peers: default settings)",
                "failover",
                "default, blackhole: down, median",
                _DEFAULTS,
            ),
            Headline(
                "the same, 95th percentile (peers: median, tuned as far as a lone loss allows)",
                "failover",
                "default, blackhole: down, p95",
                _TUNED,
            ),
            Headline(
                "carrier lost: traffic moved, longest",
                "failover",
                "default, carrier: down, longest",
                (("keepalived", Cell("Carrier", ("keepalived", "default"), "longest", "s")),),
            ),
            Headline(
                "from the decision to the rule in the kernel, median",
                "turn",
                "2 uplinks, now: median",
            ),
            Headline(
                "provider forwards nothing: open connections that go on, of 300 (MPTCP)",
                "mptcp",
                "silent death, MPTCP, ifdefault: whole of 300",
                _beside_ours("whole of 300"),
            ),
            Headline(
                "… their longest pause, median",
                "mptcp",
                "silent death, MPTCP, ifdefault: pause at failure, median",
                _beside_ours("pause at failure, median")[:1],
            ),
            Headline(
                "… most",
                "mptcp",
                "silent death, MPTCP, ifdefault: pause at failure, most",
                _beside_ours("pause at failure, most")[:1],
            ),
            Headline(
                "ending 1,000 sockets and 25,000 flows, longest",
                "end_connections",
                "IPv4: longest",
            ),
            Headline(
                "detection at 1 % loss, simulated, median (peers: fastest good setting)",
                "judge",
                "delay at 1 % loss, round trip 30 ms: median",
                _quickest("1 % loss"),
            ),
            Headline(
                "false alarms in 300 days at 5 % loss, simulated (peers: default, in 30 days)",
                "judge",
                "5 % loss: false alarms in 300 days",
                tuple(
                    (n, Cell("Peers with default", ("5 % loss", n), "false alarms in 30 days"))
                    for n in ("dpinger", "lsm", "mwan3")
                ),
            ),
        ),
    ),
    Group(
        "DNS",
        (
            Headline(
                "from detection to the embedded server's answers, longest",
                "dns_failover",
                "embedded, blackhole: lag, longest",
            ),
            Headline(
                "from detection to BIND's answers by RFC 2136, longest",
                "dns_failover",
                "RFC 2136, BIND, blackhole: lag, longest",
            ),
            Headline(
                "failed connections in a 20 s outage, by name, TTL 10 s, of about 5,000",
                "dns_clients",
                "ifdefault, rotate, blackhole: failed connections, median",
                _visitors("PowerDNS", "gdnsd", "round robin"),
            ),
            Headline(
                "answers per second, plain questions",
                "dns_speed",
                "plain: ifdefault, answers per second",
                _DNS_PEERS,
            ),
            Headline("… as a ratio to BIND", "dns_speed", "plain: ifdefault's ratio to BIND"),
            Headline("exceptions in 1,000,000 mutated queries", "dns_fuzz", "exceptions"),
        ),
    ),
    Group(
        "Cost",
        (
            Headline(
                "connections per second, ratio to a plain host",
                "throughput",
                "default mode: connections per second, ratio to the plain host",
                (
                    (
                        "rules like mwan3's",
                        Of("rules like mwan3's: connections per second, ratio to the plain host"),
                    ),
                ),
            ),
            Headline(
                "connections per second with 10,000 forwarded services, ratio to one service",
                "forward_speed",
                "ifdefault, 10,000 services: connections per second, ratio to 1 service",
                tuple(
                    (n, Of(f"{n}: connections per second, ratio to 1 service"))
                    for n in ("HAProxy", "Shorewall")
                ),
            ),
            Headline(
                "balancing, added to a connect() (the kernel's own count)",
                "hook_cost",
                "balance, IPv4: by the kernel's count",
            ),
            Headline("idle daemon, 4 uplinks: processor", "idle", "4 uplinks: processor"),
            Headline("idle daemon, 4 uplinks: memory", "idle", "4 uplinks: resident memory"),
            Headline("idle daemon, 31 uplinks: processor", "idle", "31 uplinks: processor"),
            Headline(
                "longest pause of the daemon beside 1,000,000 routes of others",
                "foreign_routes",
                "1,000,000 routes: pause, longest",
            ),
            Headline(
                "… provider forwards nothing: traffic moved, median",
                "foreign_routes",
                "1,000,000 routes: failover, median",
            ),
            Headline("`ifdefault status`, median", "processes", "`ifdefault status`: median"),
            Headline(
                "`apply` of a change, 31 uplinks, in process, median",
                "planner",
                "apply, 31 uplinks, change: median",
            ),
            Headline(
                "reading 31 uplinks' addresses, routes and rules",
                "netlink",
                "ours: dump",
                (("pyroute2", Of("pyroute2: dump")),),
            ),
        ),
    ),
    Group(
        "Correctness",
        (
            Headline("TCP connections not answered, of 60,000", "connections", "TCP: not answered"),
            Headline(
                "UDP and QUIC flows not answered, of 41,000",
                "connections",
                "UDP and QUIC: not answered",
            ),
            Headline("packets lost in 100 applies", "reapply", "source rules: packets lost"),
            Headline("forwarded connections failed, of 10,000", "forwarded", "failed"),
            Headline(
                "balance 3:1, the worst after a return", "balance", "after a return, worst: off"
            ),
            Headline(
                "rule deleted by others: restored, median", "repair", "a rule deleted: median"
            ),
            Headline("… longest", "repair", "a rule deleted: longest"),
            Headline(
                "uplink renumbered: answers from the new address, longest",
                "repair",
                "renumbered, IPv4: longest",
            ),
            Headline(
                "random faults: dead default left, 95th percentile",
                "chaos",
                "default left, clean links: p95",
            ),
            Headline("random faults: false alarms", "chaos", "false alarms"),
            Headline(
                "random faults: packets lost on uplinks without a fault",
                "chaos",
                "packets to uplinks without a fault: lost",
            ),
            Headline(
                "simulated hours with a violated invariant",
                "simulate",
                "hours with a violated invariant",
            ),
        ),
    ),
)


def find(group: Group, reports: Results) -> Iterator[Found]:
    for headline in group.headlines:
        report = reports.get(headline.bench)
        figure = report and _figure(report, headline.figure)
        if report and figure:
            peers = ((name, _value(report, source)) for name, source in headline.peers)
            known = tuple((name, value) for name, value in peers if value is not None)
            yield Found(headline, report.title, figure, known)


def missing(reports: Results) -> Iterator[str]:
    """Headlines, and values of peers, that the results don't have."""
    for headline in (headline for group in GROUPS for headline in group.headlines):
        report = reports.get(headline.bench)
        if report is None or _figure(report, headline.figure) is None:
            yield f"{headline.bench}: {headline.figure}"
        else:
            for name, source in headline.peers:
                if _value(report, source) is None:
                    yield f"{headline.bench}: {headline.figure}: {name}"


def _figure(report: Report, name: str) -> Figure | None:
    return next((figure for figure in report.figures if figure.what == name), None)


def _value(report: Report, source: Of | Cell) -> Figure | str | None:
    if isinstance(source, Of):
        return _figure(report, source.figure)
    for table in report.tables:
        if table.title.startswith(source.table) and source.column in table.heads:
            for row in table.rows:
                pairs = zip(row, source.row, strict=False)
                if all(cell.startswith(beginning) for cell, beginning in pairs):
                    return f"{row[table.heads.index(source.column)]} {source.unit}".strip()
    return None
