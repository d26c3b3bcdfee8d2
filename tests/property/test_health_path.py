"""Invariants of a path, for any events in any order.

`Things` are what the world may do; times go by in steps from none to hours, also without anybody
calling. Probes are answered, lost, answered late, or never heard of.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ifdefault.health import TRANSITIONS, Memory, Path
from ifdefault.health.target import SPACING_S
from ifdefault.model.config import HealthConfig
from ifdefault.model.health import GATEWAY, PathState, Transition, Verdict

VERDICTS: tuple[Verdict, ...] = ("answered", "lost", "wrong", "local")
CAUSES = ("sockets stall", "half-open connections")
STEPS = st.floats(0, 0.3) | st.floats(0, 5) | st.sampled_from((0.0, 0.05, 0.5, 1.5, 60.0, 7200.0))

call = st.tuples(st.just("call"), STEPS)
skip = st.tuples(st.just("skip"), STEPS)  # time goes by, and nobody calls
answer = st.tuples(st.just("answer"), st.integers(0, 40), st.sampled_from(VERDICTS))
link = st.tuples(st.just("link"), st.booleans())
neighbour = st.tuples(st.just("neighbour"), st.booleans())
suspect = st.tuples(st.just("suspect"), st.sampled_from(CAUSES))
confirm = st.tuples(st.just("confirm"), st.none() | st.floats(0, 2))
Thing = tuple[Any, ...]
things = st.lists(
    st.one_of(call, call, call, answer, answer, answer, skip, link, neighbour, suspect, confirm),
    max_size=120,
)
configs = st.builds(
    HealthConfig,
    rounds_per_s=st.sampled_from((0.1, 1.0, 2.0, 5.0, 20.0)),
    false_alarm_days=st.sampled_from((0.01, 1.0, 60.0)),
    recover_s=st.sampled_from((0.0, 2.5, 100.0)),
    damp_s=st.sampled_from((0.0, 60.0)),
    degraded_loss=st.sampled_from((0.0, 0.1)),
    degraded_rtt_ms=st.sampled_from((0.0, 10.0)),
)


class Play:
    """A path, its probes, and its transitions."""

    def __init__(self, targets: int, config: HealthConfig, **more: Any) -> None:
        self.now = 100.0
        self.path = Path("a", 4, [str(n) for n in range(targets)], config, self.now, **more)
        self.asked: list[tuple[float, int, int]] = []
        self.seen: list[Transition] = []
        self.open: list[int] = []
        self.state = self.path.health().state

    def do(self, thing: Thing) -> None:
        match thing:
            case ("call", step):
                self.call(self.now + step)
            case ("skip", step):
                self.now += step
            case ("answer", at, verdict) if self.open:
                seq = self.open[-1 - at % len(self.open)]
                self.note(self.path.observe(self.now, seq, verdict, 20_000))
                if verdict != "lost":
                    self.open.remove(seq)
            case ("link", up):
                self.note(self.path.link(self.now, up))
            case ("neighbour", reachable):
                self.note(self.path.neighbour(self.now, reachable))
            case ("suspect", cause):
                self.path.suspect(self.now, cause)
            case ("confirm", ago):
                at_s = None if ago is None else self.now - ago
                self.note(self.path.confirm(self.now, at_s))

    def call(self, until: float) -> None:
        """Call whenever it is due, at most some hundred times."""
        for _ in range(200):
            if (wake_s := self.path.wake_s) > until:
                break
            self.now = max(self.now, wake_s)
            self.ask()
        self.now = max(self.now, until)
        self.ask()

    def ask(self) -> None:
        for ask in self.path.asks(self.now):
            self.asked.append((self.now, ask.target, ask.seq))
            self.open = [*self.open[-39:], ask.seq]
        self.note(self.path.tick(self.now))

    def note(self, steps: tuple[Transition, ...]) -> None:
        for step in steps:
            assert step.was == self.state
            assert step.state in TRANSITIONS[step.was]
            assert step.at_s == self.now
            assert step.cause
            self.state = step.state
        self.seen += steps
        assert self.path.health().state == self.state


players = st.builds(
    Play,
    st.integers(0, 5),
    configs,
    has_gateway=st.booleans(),
    presumed=st.sampled_from(("unproven", "up", "degraded", "recovering", "down")),
)


@settings(max_examples=300, deadline=None)
@given(players, things)
def test_every_step_is_in_the_table(play: Play, story: list[Thing]) -> None:
    for thing in story:
        play.do(thing)
    memory = play.path.memory()
    again = Path("a", 4, ["0", "1"], HealthConfig(), play.now, memory)
    assert isinstance(memory, Memory)
    assert again.health().state in (play.state, "unproven")


@settings(max_examples=200, deadline=None)
@given(players, things)
def test_no_target_is_asked_too_often(play: Play, story: list[Thing]) -> None:
    for thing in story:
        play.do(thing)
    times: dict[int, list[float]] = defaultdict(list)
    for at, target, _ in play.asked:
        times[target].append(at)
    for asked in times.values():
        assert all(b - a >= SPACING_S - 1e-9 for a, b in pairwise(asked))
    seqs = [seq for _, _, seq in play.asked]
    assert len(set(seqs)) == len(seqs)


@settings(max_examples=200, deadline=None)
@given(players, things)
def test_only_losses_and_the_link_bring_it_down(play: Play, story: list[Thing]) -> None:
    """Local errors, suspicion, and times without calls don't."""
    for thing in story:
        match thing:
            case ("answer", at, "lost" | "wrong"):
                play.do(("answer", at, "local"))
            case ("link" | "neighbour", _):
                pass
            case _:
                play.do(thing)
    assert "down" not in [step.state for step in play.seen]


@settings(max_examples=200, deadline=None)
@given(players, things, st.booleans())
def test_the_gateway_brings_nothing_up(play: Play, story: list[Thing], reachable: bool) -> None:
    """If there are targets, neither its answers nor its neighbour entry bring a path up."""
    if not play.path.health().targets:
        return
    targets: dict[int, int] = {}
    before = play.state
    for thing in story:
        targets |= {seq: target for _, target, seq in play.asked}
        match thing:
            case ("answer", at, _) if play.open:
                seq = play.open[-1 - at % len(play.open)]
                fate = "answered" if targets[seq] == GATEWAY else "lost"
                play.do(("answer", at, fate))
            case ("confirm", _):
                play.do(("neighbour", reachable))
            case _:
                play.do(thing)
    steps: set[PathState] = {step.state for step in play.seen}
    assert "recovering" not in steps
    if before in ("unproven", "down"):
        assert "up" not in steps


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5), configs, st.floats(10, 200))
@example(4, HealthConfig(), 100.0)
def test_the_quiet_rate_is_kept(targets: int, config: HealthConfig, seconds: float) -> None:
    play = Play(targets, config)
    start = answer_all(play, 5.0)
    answer_all(play, seconds)
    rounds = [at for at, target, _ in play.asked if target != GATEWAY and at > start]
    assert len(rounds) <= (play.now - start) * config.rounds_per_s + 1
    assert play.state == "up"


def answer_all(play: Play, seconds: float) -> float:
    until = play.now + seconds
    while (wake_s := play.path.wake_s) < until:
        play.now = max(play.now, wake_s)
        play.ask()
        for seq in play.open:
            play.note(play.path.observe(play.now, seq, "answered", 1000))
        play.open = []
    play.now = until
    return until
