"""The failure detector of servers, and which servers are checked."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ifdefault.health import server_check
from ifdefault.health.server_check import ServerAddress, ServerChecker
from ifdefault.model.config import ForwardConfig, ForwardServer, Ports
from ifdefault.model.health import ServerHealth, Verdict
from ifdefault.plan import servers

WEB1, WEB2 = ("10.0.0.10", 443), ("10.0.0.11", 8443)
RTT_S = 0.01
STEP_S = 1e-6


class Lan:
    """Answers checks by `fate`; "mute": not at all."""

    def __init__(self, *servers: ServerAddress) -> None:
        self.now = 1000.0
        self.judge = ServerChecker()
        self.judge.set_servers(self.now, servers)
        self.fate: Callable[[ServerAddress], str] = lambda _: "answered"
        self.asked: list[tuple[float, ServerAddress]] = []

    def run(self, seconds: float) -> list[tuple[float, ServerHealth]]:
        """Let time pass, and tell what changed when."""
        until_s, changes = self.now + seconds, []
        while (wake_s := max(self.judge.wake_s, self.now)) <= until_s:
            self.now = wake_s
            for seq, server in self.judge.asks(self.now):
                self.asked.append((self.now, server))
                fate = self.fate(server)
                if fate == "mute":
                    continue
                took_s = server_check.TIMEOUT_S if fate == "lost" else RTT_S
                verdict: Verdict = fate  # type: ignore[assignment]
                if changed := self.judge.observe(self.now + took_s, seq, verdict, fate):
                    changes.append((self.now + took_s, changed))
            self.now += STEP_S
        self.now = until_s
        return changes

    def down(self) -> list[ServerAddress]:
        return list(self.judge.down)

    def states(self) -> list[str]:
        return [health.state for health in self.judge.health().values()]


def test_a_server_that_answers_is_asked_every_two_seconds() -> None:
    lan = Lan(WEB1, WEB2)
    assert lan.states() == ["unproven", "unproven"]
    changes = lan.run(20.5)
    assert [(c.was, c.state) for _, c in changes] == [("unproven", "up")] * 2
    assert len(lan.asked) == 2 * 11
    assert lan.down() == []


@pytest.mark.parametrize("failure", ["lost", "wrong"])
def test_the_second_failure_in_a_row_tells_that_it_is_gone(failure: str) -> None:
    lan = Lan(WEB1, WEB2)
    lan.run(10.5)
    lan.fate = lambda server: failure if server == WEB1 else "answered"
    begun_s = lan.now
    ((at_s, down),) = lan.run(30)
    assert (down.address, down.port, down.was, down.state) == (*WEB1, "up", "down")
    assert down.cause == failure
    assert (
        at_s - begun_s < server_check.INTERVAL_S + server_check.RETRY_S + 2 * server_check.TIMEOUT_S
    )
    assert lan.down() == [WEB1]


def test_one_failure_is_none() -> None:
    lan = Lan(WEB1)
    lan.run(10.5)
    fates = iter(["lost", "answered"] * 20)
    lan.fate = lambda _: next(fates)
    assert lan.run(30) == []
    assert lan.states() == ["up"]


def test_two_answers_in_a_row_bring_it_back() -> None:
    lan = Lan(WEB1)
    lan.fate = lambda _: "lost"
    lan.run(10.5)
    fates = iter(["answered", "lost", "answered", "answered"])
    lan.fate = lambda _: next(fates, "answered")
    before = len(lan.asked)
    ((_, back),) = lan.run(30)
    assert (back.was, back.state) == ("down", "up")
    times = [at_s for at_s, _ in lan.asked[before : before + 4]]
    assert times[1] - times[0] == pytest.approx(server_check.HOLD_S, abs=0.1)
    assert times[3] - times[2] == pytest.approx(server_check.HOLD_S, abs=0.1)
    assert lan.down() == []


@pytest.mark.parametrize("fate", ["local", "mute"])
def test_what_went_wrong_on_our_own_side_is_no_evidence(fate: str) -> None:
    lan = Lan(WEB1, WEB2)
    lan.fate = lambda server: fate if server == WEB1 else "lost"
    lan.run(30)
    assert lan.down() == [WEB2]
    before = len(lan.asked)
    lan.fate = lambda server: "answered" if server == WEB2 else fate
    lan.run(30)
    assert lan.down() == []
    assert [server for _, server in lan.asked[before:]].count(WEB1) > 5, "it is asked again"


def test_a_late_outcome_is_nobodys() -> None:
    lan = Lan(WEB1)
    ((seq, _),) = lan.judge.asks(lan.now)
    assert lan.judge.observe(lan.now, seq, "lost", "") is None
    assert lan.judge.observe(lan.now, seq, "lost", "") is None, "told twice"
    lan.now += server_check.RETRY_S
    ((seq, _),) = lan.judge.asks(lan.now)
    lan.judge.set_servers(lan.now, [WEB2])
    assert lan.judge.observe(lan.now, seq, "lost", "") is None, "dropped meanwhile"
    assert lan.down() == []


def test_servers_come_and_go() -> None:
    lan = Lan(WEB1)
    lan.fate = lambda server: "lost" if server == WEB1 else "answered"
    lan.run(10.5)
    lan.judge.set_servers(lan.now, [WEB2, WEB1])
    assert lan.down() == [WEB1], "what is known stays"
    lan.run(1)
    assert sorted(lan.states()) == ["down", "up"]
    lan.judge.set_servers(lan.now, [WEB2])
    assert lan.down() == []
    lan.judge.set_servers(lan.now, [])
    assert lan.judge.wake_s == float("inf")


def test_many_servers_are_asked_less_often() -> None:
    many = [("10.1.0.1", port) for port in range(1, 5001)]
    lan = Lan(*many)
    lan.run(60)
    assert len(lan.asked) <= 60 / server_check.PACE_S + 1
    lan.run(2 * lan.judge.interval_s)
    assert {server for _, server in lan.asked} == set(many)


# --- which there are -----------------------------------------------------------------------

HTTPS, QUIC, RANGE = Ports("tcp", 443, 443), Ports("udp", 443, 443), Ports("tcp", 8000, 8099)


def forward(
    *listen: Ports, check: str = "tcp", to: tuple[ForwardServer, ...] = ()
) -> ForwardConfig:
    return ForwardConfig(listen, to or (ForwardServer("10.0.0.10"),), check=check)


@pytest.mark.parametrize(
    ("forwards", "found"),
    [
        ([forward(HTTPS)], {WEB1: "tcp"}),
        ([forward(HTTPS, check="off")], {}),
        ([forward(HTTPS, QUIC)], {WEB1: "tcp"}),
        ([forward(QUIC)], {}),  # nothing to connect to
        ([forward(RANGE)], {("10.0.0.10", 8000): "tcp"}),
        ([forward(HTTPS, to=(ForwardServer(*WEB2, weight=0),))], {WEB2: "tcp"}),
        ([forward(HTTPS, check="/a"), forward(HTTPS)], {WEB1: "/a"}),
        ([forward(HTTPS), forward(HTTPS, check="/a")], {WEB1: "/a"}),
        ([forward(HTTPS, check="off"), forward(HTTPS)], {WEB1: "tcp"}),
    ],
)
def test_what_is_checked(forwards: list[ForwardConfig], found: dict[ServerAddress, str]) -> None:
    assert servers.checks(forwards) == found


def test_who_shares_the_work() -> None:
    one, two, drained = (
        ForwardServer(*WEB1),
        ForwardServer(*WEB2),
        ForwardServer("10.0.0.12", weight=0),
    )
    both = forward(HTTPS, to=(one, two, drained, ForwardServer("fd00::10")))
    assert servers.pool(both, HTTPS, 4) == {WEB1: one, WEB2: two}
    assert servers.pool(both, HTTPS, 6) == {("fd00::10", 443): ForwardServer("fd00::10")}
    assert list(servers.without_servers(both, {WEB1})) == []
    assert list(servers.without_servers(both, {WEB1, WEB2})) == [(HTTPS, 4)]
    assert list(servers.without_servers(forward(HTTPS, to=(drained,)), {WEB1})) == [], (
        "as was wanted"
    )
