"""`mptcp`: connections that outlive their provider, compared with TCP and with static endpoints.

Rules: every connection begins over the primary uplink, whose provider fails and returns. A
connection is whole if all its bytes came and were right, and none took longer than its client's
patience. Kinds of clients, servers and families are mixed in equal parts.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice, product

from bench import mptcp_cost
from bench.clock import log
from bench.lan import part
from bench.mptcp_clients import KINDS, PATIENCE_S, RATE, SEEN_S, Plan, Spec, Transfer
from bench.mptcp_site import PORTS, Clients, Site
from bench.results import Figure, Report, Table
from bench.stats import median, quantile
from ifdefault.lab import faults
from ifdefault.lab.topology import load
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.errors import HostError

_EACH = 100  # connections of each kind
_PRIMARY = "isp-a"
_ADDRESSES = ("203.0.113.10", "2001:db8:a::10")
_CALM_S, _FAULT_S, _AFTER_S = 3.0, 30.0, 15.0
_ANSWER_S = 3.0  # for the answers to idle connections, while the fault lasts
_USE_S = 10.0  # from the end of the fault until the idle ones are used again
_LAST_S = _CALM_S + _FAULT_S + _ANSWER_S + _AFTER_S + 5
_MEDIAN_S, _MOST_S = 0.5, 1.5
FAULTS = {"blackhole": "silent death", "carrier": "carrier lost"}
_PHASES = ("failure", "return")
_NODES = ("host", "client")
_HOW = f"""\
The lab's world `two`: {_EACH} downloads, {_EACH} uploads and {_EACH} idle connections, in equal
parts by IPv4 and IPv6 and to nginx and HAProxy of Debian, which `mptcpize` has speak MPTCP. All
begin at the addresses of isp-a, the primary, which then fails for {_FAULT_S + _ANSWER_S:g} s: its
provider forwards nothing although its router answers (*silent death*), or the link loses its
carrier. *Whole*: every byte is right, and the connection went on while the provider was dead;
clients give up after {PATIENCE_S:g} s without a byte. *Pause*: the longest time between two
arrivals on a connection, at the client for downloads and at the server for uploads; or until the
answer to a connection that had been idle for {_FAULT_S:g} s when it was used.

*ifdefault*: `announce = true`. *Static endpoints*: one `ip mptcp endpoint add ADDRESS dev DEV
signal` for each address, which nobody deletes, and ifdefault's rules and routes all the same.
*TCP*: the same clients and servers by TCP. Clients ask for MPTCP and accept 8 addresses.

Downloads and uploads carry {RATE / 1000:.0f} kB/s each, in blocks of 4 KiB every 40 ms, by nginx's
`limit_rate` and by the clients; they last until {_AFTER_S:g} s after the end of the fault. Pauses
below {SEEN_S:g} s aren't recorded and count as {SEEN_S:g} s. *At return* is what follows the end of
the fault; idle connections are used {_USE_S:g} s after it. Pauses are of whole connections."""


@dataclass(frozen=True, slots=True)
class Setup:
    name: str
    protocol: str = "mptcp"
    config: str = ""
    static: bool = False


OURS = Setup("MPTCP, ifdefault", config="[mptcp]\nannounce = true\n")
STATIC = Setup("MPTCP, static endpoints", static=True)
TCP = Setup("TCP", "tcp", OURS.config)
SETUPS = (OURS, STATIC, TCP)


@dataclass(frozen=True, slots=True)
class Trial:
    """One fault, with all its connections."""

    fault: str
    setup: str
    failed_s: float
    returned_s: float
    transfers: tuple[Transfer, ...]
    counters: dict[str, dict[str, int]]  # of the kernel, by node

    def select(self, **fields: str) -> list[Transfer]:
        """The transfers whose specs have these values."""
        return [
            one
            for one in self.transfers
            if all(getattr(one.spec, name) == value for name, value in fields.items())
        ]

    def pause_s(self, transfer: Transfer, phase: str) -> float:
        """The longest pause of a phase; the middle of a pause decides where it belongs."""
        middle_s = {"failure": (self.failed_s, self.returned_s), "return": (self.returned_s, 1e99)}
        begin_s, end_s = middle_s[phase]
        lengths = (length for at, length in transfer.pauses if begin_s <= at + length / 2 < end_s)
        return max(lengths, default=SEEN_S)

    def is_whole(self, transfer: Transfer) -> bool:
        """Whether it went on while its provider was dead, and all its bytes were right."""
        return not transfer.error and not any(
            at + _MOST_S < self.returned_s < at + length for at, length in transfer.pauses
        )

    def whole(self, transfers: Sequence[Transfer]) -> list[Transfer]:
        return [one for one in transfers if self.is_whole(one)]


def run() -> Report:
    trials = [trial(fault, setup) for fault in FAULTS for setup in SETUPS]
    return report(trials, mptcp_cost.measure())


def trial(fault: str, setup: Setup) -> Trial:
    with World.up(load("two")) as world:
        site = Site(world, setup.config, last_s=_LAST_S)
        if setup.static:
            site.announce()
        before = {node: site.counters(node) for node in _NODES}
        specs = _specs()
        clients = Clients(site, Plan(setup.protocol, str(site.data), 2, specs))
        if setup.protocol == "mptcp":
            _await_joins(site, len(specs))
        time.sleep(_CALM_S - random.random())  # at any time between two probes
        log(f"{fault}, {setup.name}")
        failed_s = time.monotonic()
        with faults.injected(world, fault, _PRIMARY):
            _sleep_until(failed_s + _FAULT_S)
            clients.use()
            time.sleep(_ANSWER_S)
            returned_s = time.monotonic()
        _sleep_until(returned_s + _USE_S)
        clients.use()
        transfers = clients.result()
        counters = {node: _grown(before[node], site.counters(node)) for node in _NODES}
    lasted = [one.ended_s for one in transfers if not one.error and one.spec.kind != "idle"]
    if min(lasted, default=returned_s + _USE_S) < returned_s + _USE_S:
        raise HostError("the transfers ended before the return was measured")
    return Trial(fault, setup.name, failed_s, returned_s, tuple(transfers), counters)


def _grown(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    grown = {name: value - before.get(name, 0) for name, value in after.items()}
    return {name: value for name, value in grown.items() if value}


def _await_joins(site: Site, least: int) -> None:
    """Wait until so many subflows have joined, and no more do."""
    counts = [0]

    def stand() -> bool:
        counts.append(site.counters("client").get("MPJoinSynAckRx", 0))
        return least <= counts[-1] == counts[-2]

    eventually(stand, what="all connections have more than one subflow", poll_s=1.0)


def _sleep_until(at_s: float) -> None:
    time.sleep(max(0.0, at_s - time.monotonic()))


def _specs() -> tuple[Spec, ...]:
    """So many of each kind, servers and families in equal parts."""
    each = part(_EACH)
    ways = tuple(product(PORTS.items(), _ADDRESSES))
    return tuple(
        Spec(kind, server, address, port)
        for kind in KINDS
        for (server, port), address in islice(cycle(ways), each)
    )


# --- the report ---------------------------------------------------------------------------


def report(trials: Sequence[Trial], cost: mptcp_cost.Cost) -> Report:
    figures = [figure for one in trials for figure in _figures(one)]
    names = {f"{one.fault}, {one.setup}": one for one in trials}
    samples = {
        "pauses": {
            f"{name}, at {phase}": _pauses_by_kind(one, phase)
            for name, one in names.items()
            for phase in _PHASES
        },
        "errors": {name: _errors(one) for name, one in names.items()},
        "counters": {name: one.counters for name, one in names.items()},
        "cost": cost.values,
    }
    by_phase = [_table(phase, trials) for phase in _PHASES]
    return Report(
        "Connections that outlive their provider",
        _HOW + mptcp_cost.HOW,
        (*figures, *cost.figures()),
        (*by_phase, _table_of_wholes(trials), *cost.tables()),
        samples,
    )


def _pauses(one: Trial, phase: str, **fields: str) -> list[float]:
    return [one.pause_s(transfer, phase) for transfer in one.whole(one.select(**fields))]


def _pauses_by_kind(one: Trial, phase: str) -> dict[str, list[float]]:
    return {kind: _pauses(one, phase, kind=kind) for kind in KINDS}


def _errors(one: Trial) -> dict[str, int]:
    errors = [
        transfer.error or "only after the return"
        for transfer in one.transfers
        if not one.is_whole(transfer)
    ]
    return {error: errors.count(error) for error in sorted(set(errors))}


def _figures(one: Trial) -> Iterator[Figure]:
    targets = one.setup == OURS.name
    of = f"{FAULTS[one.fault]}, {one.setup}: "
    all_, whole = len(one.transfers), len(one.whole(one.transfers))
    yield Figure(f"{of}whole of {all_}", whole, target=all_ if targets else None, at_least=True)
    yield Figure(f"{of}lost", all_ - whole, target=0 if targets else None)
    for phase in _PHASES if whole else ():
        pauses, at = _pauses(one, phase), f"{of}pause at {phase}"
        median_s, most_s = (_MEDIAN_S, _MOST_S) if targets else (None, None)
        yield Figure(f"{at}, median", median(pauses), "s", median_s)
        yield Figure(f"{at}, p95", quantile(pauses, 0.95), "s")
        yield Figure(f"{at}, most", max(pauses), "s", most_s)


def _table(phase: str, trials: Sequence[Trial]) -> Table:
    heads = ("", "", "connections", "whole", "pause, median", "p95", "most")
    rows = []
    for one, kind in product(trials, KINDS):
        pauses = _pauses(one, phase, kind=kind)
        spread = (median(pauses), quantile(pauses, 0.95), max(pauses)) if pauses else ()
        cells = [f"{value:.2f}" for value in spread] or ["", "", ""]
        counts = (len(one.select(kind=kind)), len(pauses))
        what = f"{FAULTS[one.fault]}, {one.setup}"
        rows.append((what, kind, *map(str, counts), *cells))
    return Table(f"At {phase}, in seconds", heads, tuple(rows))


def _table_of_wholes(trials: Sequence[Trial]) -> Table:
    ways = tuple(product(PORTS, _ADDRESSES))
    heads = ("", *(f"{server}, IPv{6 if ':' in address else 4}" for server, address in ways))
    rows = []
    for one in trials:
        cells = []
        for server, address in ways:
            some = one.select(server=server, address=address)
            cells.append(f"{len(one.whole(some))} of {len(some)}")
        rows.append((f"{FAULTS[one.fault]}, {one.setup}", *cells))
    return Table("Whole connections by server and family", heads, tuple(rows))
