"""What the daemon decided wrongly or late in a record of `chaos`. Pure.

Rules: as HOW describes them; every margin is a constant here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from bench.chaos_host import HOST_FAULTS, HostPeriod, Resources, absence, storm
from bench.observer import Observation
from bench.results import Figure, Table
from bench.round_trips import RoundTrips
from bench.stats import median, quantile
from bench.tcp_streams import TcpStream

DEVICES = {"isp-a": "wan0", "isp-b": "wan1", "isp-c": "wan2"}
# The lab's faults that take part, and the true state while they are active.
KINDS = {
    "blackhole": "dead",
    "carrier": "dead",
    "gateway": "dead",
    "no-inbound": "dead",
    "no-outbound": "dead",
    "loss": "impaired",
    "bursts": "impaired",
    "delay": "impaired",
    "flapping": "flapping",
    "flapping-beyond": "flapping",
}
BOUND_S = 1.2
_WELL = ("up", "degraded")
MARGIN_S = 1.0
_ENDING_S = 0.1  # the command that ends a fault takes so long; the fault is over before it returns
_KNOWN_S = 2.0  # so long after it was dead, an uplink may not be known to work again
PATIENT_S = 3.7  # the bound on a link with bursts of loss before, as in faults24
STORM_S = BOUND_S + 0.1  # the bound while others storm
HOW = f"""\
If the primary uplink dies, the default route must leave it within {BOUND_S:g} s, provided that
another uplink has worked for {_KNOWN_S:g} s. This bound is for *clean* links, which haven't been
impaired or flapping before. The detector waits longer on the others for half a day, because bursts
of loss look like short outages, and must leave them within {PATIENT_S:g} s. During storms the bound
is {STORM_S:g} s; where the daemon was absent, it is {BOUND_S:g} s from its return. States are read
from the daemon every half second, and its events besides. A *false alarm*: an uplink went down
without a fault in the last {MARGIN_S:g} s. An uplink is *without a fault* if none is active within
{MARGIN_S:g} s before and after: none of its packets and DNS queries may be lost, and none of its
established connections may break or stand still for a second, whatever happens to the host. The
daemon's *pause* is the longest time to an answer while it was there, without the time for which it
waited for a processor: an upper bound. Its *memory* is that of all its processes."""


@dataclass(frozen=True, slots=True)
class FaultPeriod:
    """A fault at a provider, from its begin to its end."""

    provider: str
    fault: str
    begin_s: float
    end_s: float

    @property
    def dead(self) -> bool:
        return KINDS[self.fault] == "dead"


@dataclass(frozen=True, slots=True)
class State:
    """A path's state as the daemon reports it."""

    at_s: float
    uplink: str
    family: int
    state: str
    since_s: float
    cause: str


@dataclass(frozen=True, slots=True)
class Stream:
    """The echo requests to an address, or queries: their number, and the send times of those
    lost."""

    address: str
    provider: str
    sent: int
    lost: tuple[float, ...]


@dataclass(slots=True)
class Record:
    devices: dict[str, str]  # by provider
    faults: list[FaultPeriod] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    defaults: dict[str, list[Observation]] = field(default_factory=dict)  # by far address
    host: list[HostPeriod] = field(default_factory=list)
    downs: list[State] = field(default_factory=list)  # from the daemon's events
    queries: list[Stream] = field(default_factory=list)  # DNS, by uplink
    connections: list[tuple[str, TcpStream]] = field(default_factory=list)  # by provider
    round_trips: RoundTrips = field(default_factory=lambda: RoundTrips(0, 0.0, ()))
    resources: list[Resources] = field(default_factory=list)
    faults_of_check: list[str] = field(default_factory=list)  # its output in the end, if it fails


@dataclass(frozen=True, slots=True)
class Failover:
    """The primary died: how long it stayed primary after it could be noticed, and whether its
    link was clean. `during`: the fault of the host meanwhile, which has a group in HOST_FAULTS."""

    fault: str
    took_s: float
    clean: bool
    during: str = ""

    @property
    def group(self) -> str:
        return HOST_FAULTS.get(self.during, "")


def figures(record: Record) -> tuple[Figure, ...]:
    moves = list(failovers(record))
    all_s = [it.took_s for it in moves]
    clean_s = [it.took_s for it in moves if it.clean and not it.during]
    others_s = [it.took_s for it in moves if not it.clean]
    storm_s = [it.took_s for it in moves if it.clean and it.group == "storm"]
    absent_s = [it.took_s for it in moves if it.clean and it.group == "absent"]
    alarms = list(false_alarms(record))
    lost, sent = _without_fault(record)
    waits = _waits(record)
    return (
        Figure("faults", len(record.faults)),
        Figure("false alarms", len(alarms), target=0),
        Figure("default moved to a dead uplink", _moves_to_dead(record), target=0),
        Figure("impaired uplinks (loss, bursts, delay) called down", _downs_while_impaired(record)),
        Figure("dead uplink called up or degraded, longest", _called_late(record), "s"),
        Figure("default left, all: times", len(all_s)),
        Figure("default left, all: median", _or_0(median, all_s), "s"),
        Figure("default left, all: p95", _or_0(lambda s: quantile(s, 0.95), all_s), "s"),
        Figure("default left, all: longest", max(all_s, default=0), "s"),
        Figure("default left, clean links: times", len(clean_s)),
        Figure("default left, clean links: median", _or_0(median, clean_s), "s", 0.8),
        Figure(
            "default left, clean links: p95",
            _or_0(lambda s: quantile(s, 0.95), clean_s),
            "s",
            BOUND_S,
        ),
        Figure("default left, clean links: longest", max(clean_s, default=0), "s", BOUND_S),
        Figure("default left, other links: times", len(others_s)),
        Figure("default left, other links: median", _or_0(median, others_s), "s"),
        Figure("default left, other links: longest", max(others_s, default=0), "s", PATIENT_S),
        Figure("default left, clean links, storms: times", len(storm_s)),
        Figure("default left, clean links, storms: median", _or_0(median, storm_s), "s"),
        Figure("default left, clean links, storms: longest", max(storm_s, default=0), "s", STORM_S),
        Figure("default left after the daemon's return: times", len(absent_s)),
        Figure("default left after the daemon's return: median", _or_0(median, absent_s), "s"),
        Figure(
            "default left after the daemon's return: longest",
            max(absent_s, default=0),
            "s",
            BOUND_S,
        ),
        Figure("up again after a fault (damped): median", _or_0(median, waits), "s"),
        Figure("up again after a fault (damped): longest", max(waits, default=0), "s"),
        Figure("packets to uplinks without a fault: sent", sent),
        Figure("packets to uplinks without a fault: lost", lost, target=0),
    )


def tables(record: Record) -> tuple[Table, ...]:
    moves = list(failovers(record))
    rows = []
    for fault, kind in KINDS.items():
        periods = [period for period in record.faults if period.fault == fault]
        took_s = [it.took_s for it in moves if it.fault == fault]
        times = (f"{median(took_s):.2f}", f"{max(took_s):.2f}") if took_s else ("", "")
        rows.append((fault, kind, str(len(periods)), str(len(took_s)), *times))
    for kind, group in HOST_FAULTS.items():
        count = sum(it.kind == kind for it in record.host)
        took_s = [it.took_s for it in moves if it.during == kind]
        times = (f"{median(took_s):.2f}", f"{max(took_s):.2f}") if took_s else ("", "")
        rows.append((kind, group, str(count), str(len(took_s)), *times))
    heads = ("fault", "", "times", "default left it", "after, median, s", "longest, s")
    alarms = tuple((s.uplink, f"IPv{s.family}", s.state, s.cause) for s in false_alarms(record))
    more = (Table("False alarms", ("uplink", "", "", "cause"), alarms),) if alarms else ()
    return (Table("By fault", heads, tuple(rows)), *more)


def changes(states: Sequence[State]) -> list[State]:
    """The first report of each state of each path."""
    since_s: dict[tuple[str, int], float] = {}
    first = []
    for state in states:
        if since_s.get((state.uplink, state.family)) != state.since_s:
            since_s[state.uplink, state.family] = state.since_s
            first.append(state)
    return first


def _or_0(summary: Callable[[Sequence[float]], float], samples: Sequence[float]) -> float:
    return summary(samples) if samples else 0.0


def failovers(record: Record) -> Iterator[Failover]:
    """For each death of the primary, by family, where another uplink worked."""
    for period in filter(lambda period: period.dead, record.faults):
        dev = record.devices[period.provider]
        clean = not any(
            other.provider == period.provider and not other.dead and other.begin_s < period.begin_s
            for other in record.faults
        )
        for seen in record.defaults.values():
            from_s, away = noticeable(record, period)
            primary = _at(seen, period.begin_s) == dev
            if primary and from_s < period.end_s and _has_alternative(record, period, from_s):
                later = (s.at_s for s in seen if s.at_s > period.begin_s and s.value != dev)
                left_s = min(next(later, period.end_s), period.end_s)
                host = away or storm(record.host, from_s, left_s)
                during = host.kind if host else ""
                yield Failover(period.fault, max(0.0, left_s - from_s), clean, during)


def noticeable(record: Record, period: FaultPeriod) -> tuple[float, HostPeriod | None]:
    """From when on a death could be noticed, and the last absence of the daemon before."""
    at_s, away = period.begin_s, None
    while (again := absence(record.host, at_s, at_s + BOUND_S)) and again is not away:
        at_s, away = max(at_s, again.end_s), again
    return at_s, away


def _has_alternative(record: Record, period: FaultPeriod, from_s: float) -> bool:
    """Whether another uplink worked, and had worked for long enough."""
    first_s, last_s = from_s - _KNOWN_S, from_s + BOUND_S
    unusable = {
        other.provider
        for other in record.faults
        if KINDS[other.fault] != "impaired" and other.end_s > first_s and other.begin_s < last_s
    }
    return bool(set(record.devices) - unusable - {period.provider})


def _at(seen: Sequence[Observation], at_s: float) -> str:
    return next((s.value for s in reversed(seen) if s.at_s <= at_s), "")


def _moves_to_dead(record: Record) -> int:
    """How often the default moved to an uplink that had been dead for longer than the bound."""
    return sum(
        noticeable(record, period)[0] + BOUND_S < sight.at_s < period.end_s - _ENDING_S
        and sight.value == record.devices[period.provider]
        for period in record.faults
        if period.dead
        for seen in record.defaults.values()
        for sight in seen
    )


def _called_late(record: Record) -> float:
    """The longest time for which a dead uplink was reported up or degraded."""
    longest_s = 0.0
    for period in filter(lambda period: period.dead, record.faults):
        for state in record.states:
            inside = period.begin_s < state.at_s < period.end_s
            if state.uplink == period.provider and inside and state.state in _WELL:
                longest_s = max(longest_s, state.at_s - period.begin_s)
    return longest_s


def _downs(record: Record) -> list[State]:
    """As they were read as states, and from events: some are too short for the former."""
    read = [state for state in changes(record.states) if state.state == "down"]
    known = {(state.uplink, state.family, round(state.since_s)) for state in read}
    return read + [
        state
        for state in record.downs
        if not any(
            (state.uplink, state.family, round(state.since_s) + n) in known for n in (-1, 0, 1)
        )
    ]


def has_fault(
    record: Record,
    provider: str,
    at_s: float,
    before_s: float = 0.0,
    kinds: Sequence[str] = (),
    after_s: float = 0.0,
) -> bool:
    """Whether an uplink had a fault at that time, with a margin on either side."""
    return any(
        period.provider == provider
        and period.begin_s - before_s <= at_s <= period.end_s + MARGIN_S + after_s
        and (not kinds or KINDS[period.fault] in kinds)
        for period in record.faults
    )


def false_alarms(record: Record) -> Iterator[State]:
    for state in _downs(record):
        # after its return, the daemon judges what happened meanwhile
        back_s = state.since_s - MARGIN_S
        away = [it for it in record.host if it.absent and it.overlaps(back_s, state.since_s)]
        times_s = [state.since_s, *(it.begin_s for it in away), *(it.end_s for it in away)]
        if not any(has_fault(record, state.uplink, at_s) for at_s in times_s):
            yield state


def _downs_while_impaired(record: Record) -> int:
    return sum(
        has_fault(record, state.uplink, state.since_s, kinds=["impaired"])
        and not has_fault(record, state.uplink, state.since_s, kinds=["dead", "flapping"])
        for state in _downs(record)
    )


def lost_without_fault(record: Record) -> dict[str, list[float]]:
    """When packets to each address were lost though its uplink had no fault."""
    return {
        stream.address: [
            at_s for at_s in stream.lost if not has_fault(record, stream.provider, at_s, MARGIN_S)
        ]
        for stream in record.streams
    }


def _without_fault(record: Record) -> tuple[int, int]:
    """How many packets to uplinks without a fault were lost, and of how many."""
    lost = sum(map(len, lost_without_fault(record).values()))
    if not record.states:
        return lost, 0
    span_s = record.states[-1].at_s - record.states[0].at_s
    sent = 0.0
    for stream in record.streams:
        own = [period for period in record.faults if period.provider == stream.provider]
        faulty_s = sum(period.end_s - period.begin_s + 2 * MARGIN_S for period in own)
        sent += stream.sent * max(0.0, 1 - faulty_s / span_s)
    return lost, int(sent)


def _next_begin_s(record: Record, period: FaultPeriod) -> float:
    same = (other for other in record.faults if other.provider == period.provider)
    return min((it.begin_s for it in same if it.begin_s > period.end_s), default=float("inf"))


def _waits(record: Record) -> list[float]:
    """From the end of each fault to the first time that its uplink is reported up again."""
    waits = []
    for period in filter(lambda period: period.dead, record.faults):
        for family in {state.family for state in record.states}:
            own = [s for s in record.states if (s.uplink, s.family) == (period.provider, family)]
            back = next((s for s in own if s.at_s > period.end_s and s.state in _WELL), None)
            if back is not None and back.at_s < _next_begin_s(record, period):
                waits.append(back.since_s - period.end_s)
    return waits
