"""One turn of the controller: a failover is one look at the kernel, one change, one publication.

wan0  isp-a  203.0.113.10, 2001:db8:a::10, primary
wan1  isp-b  198.51.100.10, 2001:db8:b::10
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ifdefault.daemon.controller import effects as f
from ifdefault.daemon.controller import events as e
from ifdefault.daemon.controller.controller import Controller
from ifdefault.model.config import Config
from ifdefault.model.dns import DnsConfig, NameConfig
from ifdefault.model.flow import Flow
from ifdefault.model.host import Observation
from ifdefault.model.kernel import Facts
from ifdefault.plan.diff import record_tables
from ifdefault.plan.lookup import Fib
from ifdefault.plan.originals import settled
from ifdefault.plan.prepare import Prepared
from ifdefault.plan.self_check import ask
from tests.property.fakekernel import perform
from tests.unit.test_lookup import CONFIG, FAR, HOST, goes

RTT_S = 0.01


class Host:
    """The engine and its host, as far as outcomes are immediate; the test answers probes."""

    def __init__(self, config: Config, facts: Facts) -> None:
        self.controller = Controller()
        self.observation = Observation(facts)
        self.now = 100.0
        self.turn(e.Started(config), e.FrontendStarted())

    def turn(self, *events: e.Event) -> list[f.Effect]:
        """Process events until none are left; return the effects."""
        performed: list[f.Effect] = []
        queue: Sequence[e.Event] = events
        while queue:
            effects = self.controller.receive(queue, self.now)
            answers = [self._answer(effect) for effect in effects]
            performed += effects
            queue = [answer for answer in answers if answer]
        return performed

    def _answer(self, effect: f.Effect) -> e.Event | None:
        match effect:
            case f.Look(questions=questions):
                answers = ask(Fib.of(self.observation.facts), questions)
                return e.Observed(replace(self.observation, answers=answers), 0.001)
            case f.Converge(prepared):
                return e.Applied(self._perform(prepared), 0.001)
            case f.Commit(prepared):
                return e.Committed(self._perform(prepared), 0.001)
            case f.SaveForced(id):
                return e.ForcedSaved(id)
        return None

    def _perform(self, prepared: Prepared) -> Observation:
        facts = self.observation.facts
        for operation in prepared.operations:
            facts = perform(facts, operation)
        state, loaded = settled(prepared.state, facts), record_tables(facts, prepared.desired)
        answers = ask(Fib.of(facts), prepared.questions)
        now = replace(self.observation, facts=facts, state=state, loaded=loaded)
        self.observation = replace(now, answers=answers)
        return self.observation

    def live(self, for_s: float, silent: str = "") -> list[list[f.Effect]]:
        """Turns that follow from time and probes; over the interface `silent` none is answered."""
        turns: list[list[f.Effect]] = []
        due: list[tuple[float, e.Event]] = []
        end_s = self.now + for_s
        while (next_s := min([self.controller.wake_s, *(at_s for at_s, _ in due)])) < end_s:
            self.now = max(self.now, next_s)
            events = [event for at_s, event in due if at_s <= self.now]
            due = [each for each in due if each[0] > self.now]
            turns.append(self.turn(*(events or [e.Woke()])))
            for probe in turns[-1]:
                if isinstance(probe, f.SendProbe):
                    due.append(self._outcome(probe, silent))
        self.now = end_s
        return turns

    def _outcome(self, probe: f.SendProbe, silent: str) -> tuple[float, e.Event]:
        if probe.source and probe.source.dev == silent:
            at_s = self.now + probe.timeout_ms / 1000
            return at_s, e.ProbeOutcome(probe.path, probe.seq, "lost")
        rtt_us = round(RTT_S * 1e6)
        return self.now + RTT_S, e.ProbeOutcome(probe.path, probe.seq, "answered", rtt_us)

    def default(self) -> str:
        return goes(Fib.of(self.observation.facts), Flow(4, FAR[4]))


HEAVY = (f.Look, f.Publish, f.Converge, f.Commit, f.EndConnections)


def heavy(turn: Sequence[f.Effect]) -> list[str]:
    return [type(effect).__name__ for effect in turn if isinstance(effect, HEAVY)]


def with_name() -> Host:
    host = Host(replace(CONFIG, dns=DnsConfig((NameConfig("www.example.net"),))), HOST)
    host.live(20.0)
    return host


def test_a_quiet_host_is_left_alone() -> None:
    host = with_name()
    assert host.default() == "wan0"
    turns = [heavy(turn) for turn in host.live(20.0) if heavy(turn)]
    assert turns == [["Look"]]  # for once in 30 s it looks without being told


def test_a_failover_is_one_look_one_publication_one_change() -> None:
    host = with_name()
    turns = [heavy(turn) for turn in host.live(10.0, silent="wan0") if heavy(turn)]
    assert host.default() == "wan1"
    assert turns == [["Look", "Publish", "Converge", "EndConnections", "EndConnections"]]


def test_what_the_operator_forces_is_one_look_one_publication_one_change() -> None:
    host = with_name()
    turn = host.turn(e.UplinkRequested(1, "isp-a", "down"))
    assert heavy(turn) == ["Look", "Publish", "Converge", "EndConnections", "EndConnections"]
    assert host.default() == "wan1"
