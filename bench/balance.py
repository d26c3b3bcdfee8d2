"""`balance`: outgoing connections of a host and a LAN, shared 3:1; members die and return.

Rules: a server beyond the providers tells each caller the address that it sees: that is the uplink
that was taken, and had it left by another one, that one's source filter would have refused and
counted it. The daemon runs, and alone decides who is a member.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field

from bench import behind, calls
from bench.behind import part
from bench.clock import say
from bench.daemon import Daemon
from bench.results import Figure, Report, Table
from ifdefault.lab.faults import suffering
from ifdefault.lab.topology import load
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World

_PORT = 7900
_MANY = 10_000
_WHILE_DEAD = 2000
_HELD = 200
_WEIGHTS = {"isp-a": 3, "isp-b": 1}
_TARGET = 2.0
_DOWN_S, _UP_S = 10.0, 90.0
_FAULT = "blackhole"
# to the client, one address for each family
_TARGETS = {4: "198.18.1.10", 6: "2001:db8:f:1::10"}
_NODES = {"host": "the host", "desk": "the LAN"}
_HOW = f"""\
The lab's world `lan` with `ifdefault run`, `[outgoing] mode = "balance"`, weights 3 and 1, and a
LAN that is masqueraded. {_MANY:,} new TCP connections in each family, from the host itself and from
a client on the LAN, to a server beyond the providers, which tells each the address that it sees.
*Off* is how far the ratio is from 3:1. Then each provider in turn goes silent behind its router
({_FAULT}), while {_HELD} connections of each node and family are held: as soon as the daemon calls
its paths down, {_WHILE_DEAD:,} new connections each, and as many held ones; when they are up again,
{_MANY:,} new ones. *Broken* is a connection of the uplink that lived whose bytes are no longer
echoed; *wrong source* an address that isn't the caller's own (the host's), or isn't the host's at
all (the LAN's); *misrouted* counts packets refused by the providers' own source filters."""


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
class Kept:
    """Held connections of a node: `held` of the uplink that lived, and `broken` of them."""

    when: str
    node: str
    held: int
    broken: int
    failed: int  # to be opened, of both uplinks


def run() -> Report:
    with World.up(load("lan")) as world:
        calls.serve(world["client"], _PORT)
        outgoing = '[outgoing]\nmode = "balance"\nmasquerade = ["lan0"]\n'
        weights = _WEIGHTS["isp-a"], _WEIGHTS["isp-b"]
        daemon = Daemon(world, behind.text(outgoing, weights=weights))
        daemon.start()
        site = Site(world, daemon)
        rows = site.call("all is well", _MANY)
        kept: list[Kept] = []
        for provider in ("isp-b", "isp-a"):
            rows += site.outage(provider, kept)
        misrouted = sum(world.misrouted().values())
    samples = {"calls": [asdict(row) for row in rows], "kept": [asdict(one) for one in kept]}
    figures = tuple(_figures(rows, kept, misrouted))
    return Report(
        "Balance of outgoing connections", _HOW, figures, tuple(_tables(rows, kept)), samples
    )


class Site:
    """The world, its daemon, and whose each address is."""

    def __init__(self, world: World, daemon: Daemon) -> None:
        self.world, self.daemon = world, daemon
        self.owners = {t.address: t.provider for t in world.topology.targets()}

    def call(self, when: str, count: int) -> list[Row]:
        rows = []
        for node in _NODES:
            found = calls.ask(
                self.world[node], "tcp", _PORT, _TARGETS.values(), count=part(count), concurrency=25
            )
            for family, answers in zip(_TARGETS, found, strict=True):
                taken = dict.fromkeys(_WEIGHTS, 0)
                wrong = answers.other if node == "host" else 0
                for address, number in answers.seen.items():
                    if owner := self.owners.get(address):
                        taken[owner] += number
                    elif node != "host":
                        wrong += number
                failed = answers.tried - answers.answered
                row = Row(when, node, family, answers.tried, failed, wrong, taken, answers.failed)
                say(f"{when}, {_NODES[node]}, IPv{family}: {row.ratio:.2f}:1")
                rows.append(row)
        return rows

    def outage(self, provider: str, kept: list[Kept]) -> list[Row]:
        """A provider goes silent and returns."""
        (living,) = set(_WEIGHTS) - {provider}
        before = self._hold(part(_HELD))
        with suffering(self.world, _FAULT, provider):
            self._wait(provider, "down", _DOWN_S)
            rows = self.call(f"{provider} is dead", _WHILE_DEAD)
            kept += self._look(f"{provider} is dead", before, living)
            meanwhile = self._hold(part(_HELD))
        self._wait(provider, "up", _UP_S)
        when = f"{provider} is back"
        rows += self.call(when, _MANY)
        kept += self._look(when, before, living)
        kept += self._look(f"{when}, begun meanwhile", meanwhile, living)
        for held in (*before.values(), *meanwhile.values()):
            held.end()
        return rows

    def _hold(self, count: int) -> dict[str, calls.Held]:
        """So many of each node and family."""
        goals = _TARGETS.values()
        return {
            node: calls.Held(self.world[node], _PORT, goals, count * len(goals)) for node in _NODES
        }

    def _look(self, when: str, held: dict[str, calls.Held], living: str) -> Iterator[Kept]:
        for node, some in held.items():
            found = [pair for a, pair in some.look().items() if self.owners.get(a) == living]
            whole, broken = sum(n for n, _ in found), sum(number for _, number in found)
            yield Kept(when, node, whole, broken, some.failed)

    def _wait(self, provider: str, state: str, limit_s: float) -> None:
        def is_so() -> bool:
            states = self.daemon.states()
            return all(states[provider, family] == state for family in _TARGETS)

        eventually(is_so, limit_s, what=f"{provider} is {state}", poll_s=0.1)


# --- what was found -----------------------------------------------------------------------


def _figures(rows: list[Row], kept: list[Kept], misrouted: int) -> Iterable[Figure]:
    well = [row for row in rows if row.when == "all is well"]
    back = [row for row in rows if row.when.endswith("back")]
    for row in well:
        yield Figure(f"{_NODES[row.node]}, IPv{row.family}: off", row.off, "%", _TARGET)
    yield Figure("after a return, the worst: off", max(row.off for row in back), "%", _TARGET)
    dead = [row for row in rows if row.when.endswith("dead")]
    strays = sum(row.taken[row.when.split()[0]] for row in dead)
    yield Figure("New connections, all", sum(row.tried for row in rows))
    yield Figure("failed", sum(row.failed for row in rows), target=0)
    yield Figure("by an uplink that was called dead", strays, target=0)
    yield Figure("wrong source", sum(row.wrong for row in rows), target=0)
    yield Figure("packets misrouted", misrouted, target=0)
    yield Figure("Held connections of the uplink that lived", sum(one.held for one in kept))
    yield Figure(
        "not opened, of those of both uplinks, at most", max(one.failed for one in kept), target=0
    )
    yield Figure("broken", sum(one.broken for one in kept), target=0)


def _tables(rows: list[Row], kept: list[Kept]) -> Iterator[Table]:
    yield Table(
        "New connections:",
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
        "Held connections of the uplink that lived:",
        ("", "of", "held", "not opened, of both", "broken"),
        tuple(
            (one.when, _NODES[one.node], *(f"{n:,}" for n in (one.held, one.failed, one.broken)))
            for one in kept
        ),
    )
