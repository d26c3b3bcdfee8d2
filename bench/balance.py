"""`balance`: outgoing connections of a host and a LAN, balanced 3:1 while uplinks fail and return.

Rules: a server beyond the providers replies with the address that it sees, which names the uplink.
A packet that leaves by another uplink is counted by that provider's source filter. The daemon runs
and decides which uplinks take part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field

from bench import calls, lan
from bench.clock import log
from bench.daemon import Daemon
from bench.lan import part
from bench.results import Figure, Report, Table
from ifdefault.lab.faults import injected
from ifdefault.lab.topology import load
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World

_PORT = 7900
_MANY = 10_000
_WHILE_DEAD = 2000
_OPEN = 200
_WEIGHTS = {"isp-a": 3, "isp-b": 1}
_TARGET = 2.0
_DOWN_S, _UP_S = 10.0, 90.0
_FAULT = "blackhole"
# to the client, one address for each family
_TARGETS = {4: "198.18.1.10", 6: "2001:db8:f:1::10"}
_NODES = {"host": "the host", "desk": "the LAN"}
_HOW = f"""\
The lab's world `lan` with `ifdefault run`, `[outgoing] mode = "balance"`, weights 3 and 1, and a
masqueraded LAN. {_MANY:,} new TCP connections in each family, from the host and from a client on
the LAN, go to a server beyond the providers, which replies with the address that it sees. *Off* is
the difference of the ratio from 3:1. Then each provider in turn stops forwarding ({_FAULT}) while
{_OPEN} connections of each node and family are open: when the daemon has declared its paths down,
{_WHILE_DEAD:,} new connections each; when they are up again, {_MANY:,}. *Broken* is an open
connection of the working uplink that no longer echoes. *Wrong source* is an address that isn't the
client's own (host) or none of the host's (LAN). *Misrouted* are packets that the providers' source
filters drop."""


@dataclass(frozen=True, slots=True)
class Row:
    """New connections of a node in one family, by the uplink that they took."""

    when: str
    node: str
    family: int
    tried: int
    failed: int
    wrong: int
    taken: dict[str, int]
    why: dict[str, int] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """How many times as many took isp-a as isp-b."""
        return self.taken["isp-a"] / max(1, self.taken["isp-b"])

    @property
    def off(self) -> float:
        """How far that is from the weights', in per cent of theirs."""
        return abs(self.ratio * _WEIGHTS["isp-b"] / _WEIGHTS["isp-a"] - 1) * 100


@dataclass(frozen=True, slots=True)
class OpenConnections:
    """Long-lived connections of a node over the working uplink: `open`, and `broken` of them."""

    when: str
    node: str
    open: int
    broken: int
    failed: int  # couldn't be opened, of both uplinks


def run() -> Report:
    with World.up(load("lan")) as world:
        calls.serve(world["client"], _PORT)
        outgoing = '[outgoing]\nmode = "balance"\nmasquerade = ["lan0"]\n'
        weights = _WEIGHTS["isp-a"], _WEIGHTS["isp-b"]
        daemon = Daemon(world, lan.text(outgoing, weights=weights))
        daemon.start()
        site = Site(world, daemon)
        rows = site.call("all is well", _MANY)
        opened: list[OpenConnections] = []
        for provider in ("isp-b", "isp-a"):
            rows += site.outage(provider, opened)
        misrouted = sum(world.misrouted().values())
    samples = {
        "connections": [asdict(row) for row in rows],
        "open": [asdict(row) for row in opened],
    }
    figures = tuple(_figures(rows, opened, misrouted))
    return Report(
        "Balancing outgoing connections", _HOW, figures, tuple(_tables(rows, opened)), samples
    )


class Site:
    """The world, its daemon, and the provider of each address."""

    def __init__(self, world: World, daemon: Daemon) -> None:
        self.world, self.daemon = world, daemon
        self.owners = {t.address: t.provider for t in world.topology.targets()}

    def call(self, when: str, count: int) -> list[Row]:
        rows = []
        for node in _NODES:
            both = calls.ask(
                self.world[node], "tcp", _PORT, _TARGETS.values(), count=part(count), concurrency=25
            )
            for family, answers in zip(_TARGETS, both, strict=True):
                taken = dict.fromkeys(_WEIGHTS, 0)
                wrong = answers.other if node == "host" else 0
                for address, number in answers.seen.items():
                    if owner := self.owners.get(address):
                        taken[owner] += number
                    elif node != "host":
                        wrong += number
                failed = answers.tried - answers.answered
                row = Row(when, node, family, answers.tried, failed, wrong, taken, answers.failed)
                log(f"{when}, {_NODES[node]}, IPv{family}: {row.ratio:.2f}:1")
                rows.append(row)
        return rows

    def outage(self, provider: str, opened: list[OpenConnections]) -> list[Row]:
        """A provider stops forwarding and resumes."""
        (working,) = set(_WEIGHTS) - {provider}
        before = self._open(part(_OPEN))
        with injected(self.world, _FAULT, provider):
            self._wait(provider, "down", _DOWN_S)
            rows = self.call(f"{provider} is dead", _WHILE_DEAD)
            opened += self._check(f"{provider} is dead", before, working)
            meanwhile = self._open(part(_OPEN))
        self._wait(provider, "up", _UP_S)
        when = f"{provider} is back"
        rows += self.call(when, _MANY)
        opened += self._check(when, before, working)
        opened += self._check(f"{when}, opened meanwhile", meanwhile, working)
        for connections in (*before.values(), *meanwhile.values()):
            connections.end()
        return rows

    def _open(self, count: int) -> dict[str, calls.Connections]:
        """So many of each node and family."""
        targets = _TARGETS.values()
        return {
            node: calls.Connections(self.world[node], _PORT, targets, count * len(targets))
            for node in _NODES
        }

    def _check(
        self, when: str, by_node: dict[str, calls.Connections], working: str
    ) -> Iterator[OpenConnections]:
        for node, connections in by_node.items():
            counts = [
                pair
                for address, pair in connections.check().items()
                if self.owners.get(address) == working
            ]
            total, broken = sum(n for n, _ in counts), sum(number for _, number in counts)
            yield OpenConnections(when, node, total, broken, connections.failed)

    def _wait(self, provider: str, state: str, limit_s: float) -> None:
        def is_so() -> bool:
            states = self.daemon.states()
            return all(states[provider, family] == state for family in _TARGETS)

        eventually(is_so, limit_s, what=f"{provider} is {state}", poll_s=0.1)


# --- the report ---------------------------------------------------------------------------


def _figures(rows: list[Row], opened: list[OpenConnections], misrouted: int) -> Iterable[Figure]:
    well = [row for row in rows if row.when == "all is well"]
    back = [row for row in rows if row.when.endswith("back")]
    for row in well:
        yield Figure(f"{_NODES[row.node]}, IPv{row.family}: off", row.off, "%", _TARGET)
    yield Figure("after a return, worst: off", max(row.off for row in back), "%", _TARGET)
    dead = [row for row in rows if row.when.endswith("dead")]
    strays = sum(row.taken[row.when.split()[0]] for row in dead)
    yield Figure("new connections", sum(row.tried for row in rows))
    yield Figure("failed", sum(row.failed for row in rows), target=0)
    yield Figure("by an uplink that was down", strays, target=0)
    yield Figure("wrong source", sum(row.wrong for row in rows), target=0)
    yield Figure("packets misrouted", misrouted, target=0)
    yield Figure("open connections of the working uplink", sum(row.open for row in opened))
    yield Figure(
        "open connections of both uplinks that couldn't be opened, at most",
        max(row.failed for row in opened),
        target=0,
    )
    yield Figure("broken", sum(row.broken for row in opened), target=0)


def _tables(rows: list[Row], opened: list[OpenConnections]) -> Iterator[Table]:
    yield Table(
        "New connections",
        ("", "of", "family", "tried", "failed", "wrong source", "isp-a", "isp-b", "ratio"),
        tuple(
            (
                row.when,
                _NODES[row.node],
                f"IPv{row.family}",
                *(f"{n:,}" for n in (row.tried, row.failed, row.wrong, *row.taken.values())),
                f"{row.ratio:.3f}:1" if all(row.taken.values()) else "",
            )
            for row in rows
        ),
    )
    yield Table(
        "Open connections of the working uplink",
        ("", "of", "open", "not opened, of both", "broken"),
        tuple(
            (row.when, _NODES[row.node], *(f"{n:,}" for n in (row.open, row.failed, row.broken)))
            for row in opened
        ),
    )
