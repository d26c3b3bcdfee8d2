"""What of a record of chaos contradicts the truth. Pure.

Rules: as the bench's text says; every margin is a constant here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from bench.observer import Sight
from bench.results import Figure, Table
from bench.stats import median, quantile

# The lab's faults that take part, and what the truth is while they hold.
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
_MARGIN_S = 1.0
_ENDING_S = 0.1  # the command that ends a fault takes so long, and it is over before that returns
_KNOWN_S = 2.0  # so long after it was dead, an uplink may not be known to live
PATIENT_S = 3.7  # the bound on a line that showed bursts, as in faults24
HOW = f"""\
An uplink that dies while it carries the default has to be *left* within {BOUND_S:g} s, if another
has been alive for {_KNOWN_S:g} s. That holds on a *clean* line, one that hadn't been impaired or
flapping before: with those that had the judge is more patient for half a day, since bursts of loss
and deaths of such a length look alike, and leaves them within {PATIENT_S:g} s. States are as the
daemon told them, each half a second. A *false alarm* is an uplink that went down though nothing
was wrong with it, nor had been for {_MARGIN_S:g} s. *Untouched* is an uplink at any time at which
nothing is wrong with it, with {_MARGIN_S:g} s before and after: of its packets none may be lost."""


@dataclass(frozen=True, slots=True)
class Spell:
    """A fault at a provider."""

    provider: str
    fault: str
    begin_s: float
    end_s: float

    @property
    def dead(self) -> bool:
        return KINDS[self.fault] == "dead"


@dataclass(frozen=True, slots=True)
class State:
    """What the daemon said of a path."""

    at_s: float
    uplink: str
    family: int
    state: str
    since_s: float
    cause: str


@dataclass(frozen=True, slots=True)
class Stream:
    """The echo requests to an address: how many, and when those were sent that were lost."""

    address: str
    provider: str
    sent: int
    lost: tuple[float, ...]


@dataclass(slots=True)
class Record:
    devices: dict[str, str]  # by provider
    spells: list[Spell] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    defaults: dict[str, list[Sight]] = field(default_factory=dict)  # by far address


@dataclass(frozen=True, slots=True)
class Leaving:
    """A dead uplink carried the default: how long it still did, and whether its line was clean."""

    fault: str
    left_s: float
    clean: bool


def figures(record: Record) -> tuple[Figure, ...]:
    leavings = list(_leavings(record))
    left = [it.left_s for it in leavings]
    clean = [it.left_s for it in leavings if it.clean]
    patient = [it.left_s for it in leavings if not it.clean]
    alarms = list(false_alarms(record))
    lost, sent = _untouched(record)
    waits = _waits(record)
    return (
        Figure("faults", len(record.spells)),
        Figure("default on an uplink that died", len(left)),
        Figure("… left after, all: median", _or_0(median, left), "s"),
        Figure("… all: p95", _or_0(lambda s: quantile(s, 0.95), left), "s"),
        Figure("… all: longest", max(left, default=0), "s"),
        Figure("… of those whose line was clean", len(clean)),
        Figure("… clean: median", _or_0(median, clean), "s", 0.8),
        Figure("… clean: p95", _or_0(lambda s: quantile(s, 0.95), clean), "s", BOUND_S),
        Figure("… clean: longest", max(clean, default=0), "s", BOUND_S),
        Figure("… of the others: median", _or_0(median, patient), "s"),
        Figure("… of the others: longest", max(patient, default=0), "s", PATIENT_S),
        Figure("moved to an uplink that was dead", _moves_to_dead(record), target=0),
        Figure("dead, and called up or degraded: longest", _called_late(record), "s"),
        Figure("false alarms: intact uplinks called down", len(alarms), target=0),
        Figure("impaired uplinks (loss, bursts, delay) called down", _downs_while_impaired(record)),
        Figure("packets to untouched uplinks", sent),
        Figure("… lost", lost, target=0),
        Figure("from a fault's end to up again, median", _or_0(median, waits), "s"),
        Figure("… longest (damped)", max(waits, default=0), "s"),
    )


def tables(record: Record) -> tuple[Table, ...]:
    leavings = list(_leavings(record))
    rows = []
    for fault, kind in KINDS.items():
        spells = [spell for spell in record.spells if spell.fault == fault]
        left = [it.left_s for it in leavings if it.fault == fault]
        times = (f"{median(left):.2f}", f"{max(left):.2f}") if left else ("", "")
        rows.append((fault, kind, str(len(spells)), str(len(left)), *times))
    heads = ("fault", "", "times", "default left it", "after, median, s", "longest, s")
    found = tuple((s.uplink, f"IPv{s.family}", s.state, s.cause) for s in false_alarms(record))
    more = (Table("False alarms:", ("uplink", "", "", "cause"), found),) if found else ()
    return (Table("By fault:", heads, tuple(rows)), *more)


def changes(states: Sequence[State]) -> list[State]:
    """The first of each run of states with the same beginning."""
    known: dict[tuple[str, int], float] = {}
    found = []
    for state in states:
        if known.get((state.uplink, state.family)) != state.since_s:
            known[state.uplink, state.family] = state.since_s
            found.append(state)
    return found


def _or_0(summary: Callable[[Sequence[float]], float], samples: Sequence[float]) -> float:
    return summary(samples) if samples else 0.0


def _leavings(record: Record) -> Iterator[Leaving]:
    for spell in filter(lambda spell: spell.dead, record.spells):
        dev = record.devices[spell.provider]
        clean = not any(
            other.provider == spell.provider and not other.dead and other.begin_s < spell.begin_s
            for other in record.spells
        )
        for seen in record.defaults.values():
            if _at(seen, spell.begin_s) == dev and _has_refuge(record, spell):
                later = (s.at_s for s in seen if s.at_s > spell.begin_s and s.value != dev)
                left_s = min(next(later, spell.end_s), spell.end_s) - spell.begin_s
                yield Leaving(spell.fault, left_s, clean)


def _has_refuge(record: Record, spell: Spell) -> bool:
    """Whether there was another uplink to go to, and it had been alive for long enough."""
    first_s, last_s = spell.begin_s - _KNOWN_S, spell.begin_s + BOUND_S
    gone = {
        other.provider
        for other in record.spells
        if KINDS[other.fault] != "impaired" and other.end_s > first_s and other.begin_s < last_s
    }
    return bool(set(record.devices) - gone - {spell.provider})


def _at(seen: Sequence[Sight], at_s: float) -> str:
    return next((s.value for s in reversed(seen) if s.at_s <= at_s), "")


def _moves_to_dead(record: Record) -> int:
    """How often the default moved to an uplink that had been dead for longer than the bound."""
    return sum(
        spell.begin_s + BOUND_S < sight.at_s < spell.end_s - _ENDING_S
        and sight.value == record.devices[spell.provider]
        for spell in record.spells
        if spell.dead
        for seen in record.defaults.values()
        for sight in seen
    )


def _called_late(record: Record) -> float:
    """The longest for which a dead uplink was said to be well."""
    longest_s = 0.0
    for spell in filter(lambda spell: spell.dead, record.spells):
        for state in record.states:
            inside = spell.begin_s < state.at_s < spell.end_s
            if state.uplink == spell.provider and inside and state.state in _WELL:
                longest_s = max(longest_s, state.at_s - spell.begin_s)
    return longest_s


def _downs(record: Record) -> list[State]:
    return [state for state in changes(record.states) if state.state == "down"]


def _touched(
    record: Record, provider: str, at_s: float, before_s: float = 0.0, kinds: Sequence[str] = ()
) -> bool:
    """Whether something was wrong with an uplink at a time, with a margin on either side."""
    return any(
        spell.provider == provider
        and spell.begin_s - before_s <= at_s <= spell.end_s + _MARGIN_S
        and (not kinds or KINDS[spell.fault] in kinds)
        for spell in record.spells
    )


def false_alarms(record: Record) -> Iterator[State]:
    for state in _downs(record):
        if not _touched(record, state.uplink, state.since_s):
            yield state


def _downs_while_impaired(record: Record) -> int:
    return sum(
        _touched(record, state.uplink, state.since_s, kinds=["impaired"])
        and not _touched(record, state.uplink, state.since_s, kinds=["dead", "flapping"])
        for state in _downs(record)
    )


def lost_untouched(record: Record) -> dict[str, list[float]]:
    """When packets to each address were lost though its uplink was untouched."""
    return {
        stream.address: [
            at_s for at_s in stream.lost if not _touched(record, stream.provider, at_s, _MARGIN_S)
        ]
        for stream in record.streams
    }


def _untouched(record: Record) -> tuple[int, int]:
    """How many packets to untouched uplinks were lost, and of how many."""
    lost = sum(map(len, lost_untouched(record).values()))
    if not record.states:
        return lost, 0
    span_s = record.states[-1].at_s - record.states[0].at_s
    sent = 0.0
    for stream in record.streams:
        own = [spell for spell in record.spells if spell.provider == stream.provider]
        touched_s = sum(spell.end_s - spell.begin_s + 2 * _MARGIN_S for spell in own)
        sent += stream.sent * max(0.0, 1 - touched_s / span_s)
    return lost, int(sent)


def _next_spell_s(record: Record, spell: Spell) -> float:
    same = (other for other in record.spells if other.provider == spell.provider)
    return min((it.begin_s for it in same if it.begin_s > spell.end_s), default=float("inf"))


def _waits(record: Record) -> list[float]:
    """From the end of each fault to the first time that its uplink was said to be up again."""
    found = []
    for spell in filter(lambda spell: spell.dead, record.spells):
        for family in {state.family for state in record.states}:
            own = [s for s in record.states if (s.uplink, s.family) == (spell.provider, family)]
            back = next((s for s in own if s.at_s > spell.end_s and s.state in _WELL), None)
            if back is not None and back.at_s < _next_spell_s(record, spell):
                found.append(back.since_s - spell.end_s)
    return found
