"""Whatever happens to updates, the server finally has the wanted addresses, and other hosts'
records are unchanged."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from ifdefault.dns.update import UNKNOWN_OUTCOME_S, Change, UpdateState

OURS = [f"203.0.113.{number}" for number in range(4)]
THEIRS = [f"192.0.2.{number}" for number in range(4)]
FATES = ("done", "refused", "lost", "done, unheard", "late")


@dataclass
class Server:
    """Its records; pending operations, and when they are applied."""

    records: set[str] = field(default_factory=set)
    late: list[tuple[float, Change]] = field(default_factory=list)

    def carry_out(self, change: Change) -> None:
        assert not {*change.add, *change.remove} & set(THEIRS)
        self.records -= set(change.remove)
        self.records |= set(change.add)

    def catch_up(self, now: float) -> None:
        for due in sorted(each for each in self.late if each[0] <= now):
            self.late.remove(due)
            self.carry_out(due[1])


def say(course: UpdateState, server: Server, now: float, fate: str, delay_s: float) -> None:
    change = course.change()
    match fate:
        case "done":
            server.carry_out(change)
            course.accepted(now, change)
            return
        case "done, unheard":
            server.carry_out(change)
        case "late":
            server.late.append((now + delay_s, change))
    if fate != "refused":
        course.outcome_unknown(now)
    course.failed(now, 1)


def go_on(course: UpdateState, server: Server, until_s: float, fates: list[str]) -> None:
    """Perform what is due; updates have these outcomes, and then succeed."""
    now = -inf
    while (now := max(now, min(course.due_s, course.look_s))) <= until_s:
        server.catch_up(now)
        if course.due_s <= now:
            say(course, server, now, fates.pop() if fates else "done", UNKNOWN_OUTCOME_S / 2)
        else:
            seen = set(server.records)
            fits = not (course.wanted ^ seen) & set(OURS)
            course.observed(now, seen, all_fit=fits)
    server.catch_up(until_s)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["want", "crash", "theirs", "taken away", "ways"]),
        st.sets(st.sampled_from(OURS)),
        st.sets(st.sampled_from(THEIRS)),
        st.floats(0, 200),
        st.lists(st.sampled_from(FATES), max_size=4),
    ),
    max_size=12,
)


@given(STEPS)
def test_at_last_it_is_right(steps: list[tuple[str, set[str], set[str], float, list[str]]]) -> None:
    server, course, now = Server(), UpdateState(), 0.0
    theirs: set[str] = set()
    course.want(now, OURS[:1], 30)
    for what, ours, others, wait_s, fates in steps:
        match what:
            case "want":
                course.want(now, ours, 30)
            case "crash":  # in the middle of an update, or not
                say(course, server, now, fates[0] if fates else "done", wait_s)
                wanted, course = course.wanted, UpdateState(course.ours)
                course.outcome_unknown(now)
                course.want(now, wanted, 30)
            case "theirs":
                server.records = server.records - set(THEIRS) | others
                theirs = others
            case "taken away":
                server.records -= ours
            case "ways":
                course.retry(now)
        now += wait_s
        go_on(course, server, now, fates)
    go_on(course, server, now + 3 * UNKNOWN_OUTCOME_S + 1200, [])
    assert server.records == course.wanted | theirs
    assert course.ours == course.wanted
