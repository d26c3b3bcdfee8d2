"""Server checks in the controller: the probes, the log, and the decisions that follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ifdefault.daemon import probes
from ifdefault.daemon.controller import effects as f
from ifdefault.daemon.controller import events as e
from ifdefault.daemon.controller.servers import ServerChecks
from ifdefault.health.server_check import PACE_S, RETRY_S
from ifdefault.ipc.messages import TO_FRONTEND, Message, Send, decode, encode
from ifdefault.model.config import Config, ForwardConfig, ForwardServer, Ports
from ifdefault.model.health import Verdict
from tests.unit.controlled import CONFIG, Host

HTTPS = Ports("tcp", 443, 443)
ONE, TWO, SIX = (
    ForwardServer("10.0.0.10"),
    ForwardServer("10.0.0.11", 8443),
    ForwardServer("fd00::10"),
)
SERVICE = ForwardConfig((HTTPS,), (ONE, TWO, SIX))


Fate = Callable[[Send], tuple[Verdict, str]]


def answered(_: Send) -> tuple[Verdict, str]:
    return "answered", ""


def refused(address: str) -> Fate:
    return lambda message: ("answered", "refused" if message.address == address else "")


class Engine:
    """Instead of the engine and the frontend: sends what is asked, and counts decisions."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sent: list[Send] = []
        self.decided = 0
        self.out: list[f.Effect] = []
        self.servers = ServerChecks(self.out)

    def _post(self, message: Message, fds: tuple[int, ...]) -> None:
        assert isinstance(message, Send)
        assert len(fds) == 1
        assert decode(encode(message), TO_FRONTEND) == [message]
        self.sent.append(message)

    def run(self, seconds: float, fate: Fate = answered) -> None:
        """Let time pass, and all that follows be done."""
        until_s = self.now + seconds
        while self.now < until_s:
            self.servers.send_due(self.now)
            asked = [*self.servers.probes]
            self.servers.probes.clear()
            for probe in asked:
                outcome = probes.send(probe, self._post)
                if outcome is None:
                    outcome = e.ProbeOutcome(probe.path, probe.seq, *_fate(fate, self.sent[-1]))
                self.decided += self.servers.observe(self.now, outcome)
            self.now += PACE_S

    @property
    def told(self) -> list[str]:
        return [log.text for log in self.out if isinstance(log, f.Log)]


def _fate(fate: Fate, message: Send) -> tuple[Verdict, int, str]:
    verdict, detail = fate(message)
    return verdict, 0, detail


@pytest.fixture
def engine() -> Engine:
    return Engine()


def follow(engine: Engine, *forwards: ForwardConfig) -> None:
    engine.servers.update(engine.now, Config((), forwards=forwards))


def test_it_asks_by_the_check_of_the_service(engine: Engine) -> None:
    page = ForwardConfig((Ports("tcp", 80, 80),), (SIX,), check="/health?a=b")
    follow(
        engine, SERVICE, page, ForwardConfig((HTTPS,), (ForwardServer("10.0.0.9"),), check="off")
    )
    engine.run(1.0)
    assert {(m.kind, m.address, m.port, m.host, m.query) for m in engine.sent} == {
        ("tcp", "10.0.0.10", 443, "10.0.0.10", ""),
        ("tcp", "10.0.0.11", 8443, "10.0.0.11", ""),
        ("tcp", "fd00::10", 443, "fd00::10", ""),
        ("http", "fd00::10", 80, "fd00::10", "/health?a=b"),
    }
    assert {m.path for m in engine.sent} == {f.SERVER_CHECKS}


def test_what_is_logged_and_decided(engine: Engine) -> None:
    follow(engine, SERVICE)
    engine.run(1.0)
    assert (engine.told, engine.decided, engine.servers.down) == ([], 0, ())
    engine.run(5.0, refused("10.0.0.11"))
    what = "10.0.0.11:8443 is down (connection refused), 1 of 2 left"
    assert engine.told == [f"forward tcp:443: {what}"]
    assert engine.decided == 1
    assert list(engine.servers.down) == [("10.0.0.11", 8443)]
    states = {(c.address, c.state, c.cause) for c in engine.servers.checked()}
    assert ("10.0.0.11", "down", "connection refused") in states
    assert ("10.0.0.10", "up", "answers") in states
    assert {c.forward for c in engine.servers.checked()} == {"tcp:443"}
    engine.run(5.0)
    assert engine.told[1:] == ["forward tcp:443: 10.0.0.11:8443 is back (answers), 2 of 2 left"]
    assert (engine.decided, engine.servers.down) == (2, ())


def test_many_at_once_are_one_decision() -> None:
    many = [ForwardConfig((Ports("tcp", port, port),), (ONE,)) for port in range(1, 6)]
    one_server = [ForwardConfig((Ports("tcp", port, port),), (TWO,)) for port in range(10, 16)]
    host = Host(config=replace(CONFIG, forwards=(*many, *one_server))).start()
    host.run(5.0)
    assert host.every(f.Converge) == []
    host.lost_checks = []
    host.run(3.0)
    host.forget()
    for _ in range(2):  # all outcomes come in one turn
        lost, host.lost_checks = host.lost_checks, []
        host.receive(*lost)
        host.run(RETRY_S + 0.2)
    down = host.controller.servers.down
    assert len(down) == 6
    assert len(host.every(f.Converge)) == 1
    decision = host.controller.state.decision
    assert decision
    assert decision.servers_down == down
    told = [text for text in host.logged("server") if "8443" in text]
    assert told == [
        *(
            f"forward tcp:{n}: 10.0.0.11:8443 is down (no answer), none of 1 left"
            for n in (10, 11, 12)
        ),
        "3 more services: 10.0.0.11:8443 is down (no answer)",
    ]


def test_what_is_decided_of_servers_is_in_the_kernel_however_many_go() -> None:
    """The kernel always reflects the decision; the rate of decisions is limited instead."""
    many = [ForwardConfig((Ports("tcp", port, port),), (ONE,)) for port in range(1, 31)]
    host = Host(config=replace(CONFIG, forwards=(*many,))).start()
    host.fate = lambda probe: e.ProbeOutcome(probe.path, probe.seq, "lost")
    for _ in range(500):
        host.run(0.01)
        state = host.controller.state
        assert state.prepared
        assert state.decision == state.prepared.decision
        assert not state.unapplied
    assert len(host.controller.servers.down) == 30
    assert len(host.every(f.Converge)) < 30


def test_a_server_that_goes_moves_no_name_and_no_default() -> None:
    host = Host(config=replace(CONFIG, forwards=(SERVICE,))).start()
    host.fate = lambda probe: e.ProbeOutcome(probe.path, probe.seq, "lost")
    host.run(5.0)
    assert len(host.controller.servers.down) == 3
    assert host.every(f.Publish) == []
    assert host.every(f.EndConnections) == []
    assert host.leaves_by() == "wan0"


def test_who_drains_is_no_loss(engine: Engine) -> None:
    follow(engine, ForwardConfig((HTTPS,), (ONE, ForwardServer("10.0.0.11", weight=0))))
    engine.run(3.0, refused("10.0.0.11"))
    assert engine.told == [
        "forward tcp:443: 10.0.0.11:443 is down (connection refused), it was draining"
    ]


def test_another_config_drops_and_adds(engine: Engine) -> None:
    follow(engine, SERVICE)
    engine.run(3.0, refused("10.0.0.11"))
    follow(engine, ForwardConfig((HTTPS,), (ONE,)))
    assert engine.servers.down == ()
    assert [c.address for c in engine.servers.checked()] == ["10.0.0.10"]
    follow(engine)
    assert engine.servers.checked() == ()
    assert engine.servers.wake_s == float("inf")


def test_no_socket_is_no_evidence(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(24, "too many open files")

    monkeypatch.setattr("ifdefault.kernel.open_probe_sockets.unbound_socket", none)
    follow(engine, SERVICE)
    engine.run(10.0)
    assert engine.sent == []
    assert {c.state for c in engine.servers.checked()} == {"unproven"}
