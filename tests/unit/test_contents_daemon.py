"""What the engine makes of content servers: what it asks, tells, and lets be decided."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ifdefault.daemon import server_checks
from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.server_checks import ServerChecks
from ifdefault.health.server_check import PACE_S
from ifdefault.host.store import Store
from ifdefault.ipc.messages import TO_FRONTEND, Message, Send, decode, encode
from ifdefault.model.config import Config, ForwardConfig, ForwardServer, Ports
from ifdefault.model.health import Verdict

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
    """Instead of the engine and the frontend: hears what is posted, and counts decisions."""

    def __init__(self, state_dir: Path, runner: asyncio.Runner) -> None:
        self._runner = runner
        self.now = 0.0
        self.sent: list[Send] = []
        self.decided = 0
        self.event_log = EventLog(Store(state_dir))
        self.contents = ServerChecks(self._post, self.event_log, self._decide)

    def _post(self, message: Message, fds: tuple[int, ...]) -> None:
        assert isinstance(message, Send)
        assert len(fds) == 1
        assert decode(encode(message), TO_FRONTEND) == [message]
        self.sent.append(message)

    def _decide(self) -> None:
        self.decided += 1

    def run(self, seconds: float, fate: Fate = answered) -> None:
        """Let time pass, and all that follows be done."""
        self._runner.run(self._run(seconds, fate))

    async def _run(self, seconds: float, fate: Fate) -> None:
        until_s = self.now + seconds
        while self.now < until_s:
            before = len(self.sent)
            self.contents.ask(self.now)
            for message in self.sent[before:]:
                self.contents.hear(self.now, message.seq, *fate(message))
            self.now += PACE_S
        while self.contents.owes:
            await asyncio.sleep(0)

    @property
    def told(self) -> list[str]:
        return [event.text for event in self.event_log.recent(100)]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with asyncio.Runner() as runner:
        yield Engine(tmp_path, runner)


def follow(engine: Engine, *forwards: ForwardConfig) -> None:
    engine.contents.follow(engine.now, Config((), forwards=forwards))


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
    assert {m.path for m in engine.sent} == {server_checks.NUMBER}


def test_what_is_told_and_decided(engine: Engine) -> None:
    follow(engine, SERVICE)
    engine.run(1.0)
    assert (engine.told, engine.decided, engine.contents.gone) == ([], 0, ())
    engine.run(5.0, refused("10.0.0.11"))
    what = "10.0.0.11:8443 is gone (connection refused), 1 of 2 left"
    assert engine.told == [f"forward tcp:443: {what}"]
    assert engine.decided == 1
    assert list(engine.contents.gone) == [("10.0.0.11", 8443)]
    states = {(c.address, c.state, c.cause) for c in engine.contents.standing()}
    assert ("10.0.0.11", "gone", "connection refused") in states
    assert ("10.0.0.10", "up", "answers") in states
    assert {c.forward for c in engine.contents.standing()} == {"tcp:443"}
    engine.run(5.0)
    assert engine.told[1:] == ["forward tcp:443: 10.0.0.11:8443 is back (answers), 2 of 2 left"]
    assert (engine.decided, engine.contents.gone) == (2, ())


def test_many_at_once_are_one_decision(engine: Engine) -> None:
    many = [ForwardConfig((Ports("tcp", port, port),), (ONE,)) for port in range(1, 6)]
    one_server = [ForwardConfig((Ports("tcp", port, port),), (TWO,)) for port in range(10, 16)]
    follow(engine, *many, *one_server)
    lost: tuple[Verdict, str] = ("lost", "no answer")
    engine.run(5.0, lambda _: lost)
    assert engine.decided == 1
    assert len(engine.contents.gone) == 6
    told = [text for text in engine.told if "8443" in text]
    assert told == [
        *(
            f"forward tcp:{n}: 10.0.0.11:8443 is gone (no answer), none of 1 left"
            for n in (10, 11, 12)
        ),
        "3 more services: 10.0.0.11:8443 is gone (no answer)",
    ]


def test_who_drains_is_no_loss(engine: Engine) -> None:
    follow(engine, ForwardConfig((HTTPS,), (ONE, ForwardServer("10.0.0.11", weight=0))))
    engine.run(3.0, refused("10.0.0.11"))
    assert engine.told == [
        "forward tcp:443: 10.0.0.11:443 is gone (connection refused), it drained"
    ]


def test_another_config_drops_and_adds(engine: Engine) -> None:
    follow(engine, SERVICE)
    engine.run(3.0, refused("10.0.0.11"))
    follow(engine, ForwardConfig((HTTPS,), (ONE,)))
    assert engine.contents.gone == ()
    assert [c.address for c in engine.contents.standing()] == ["10.0.0.10"]
    follow(engine)
    assert engine.contents.standing() == ()
    assert engine.contents.wake_s == float("inf")


def test_no_socket_is_no_evidence(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(24, "too many open files")

    monkeypatch.setattr("ifdefault.kernel.open_probe_sockets.unbound_socket", none)
    follow(engine, SERVICE)
    engine.run(10.0)
    assert engine.sent == []
    assert {c.state for c in engine.contents.standing()} == {"unproven"}
