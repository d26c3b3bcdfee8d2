"""How much the engine takes from its processes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from ifdefault.daemon.dns.listeners import Listeners, _Fault
from ifdefault.daemon.dns.publisher import Publishers
from ifdefault.daemon.process.bounds import TOO_MANY_ANSWERS, Allowance, Owed
from ifdefault.daemon.process.frontend import FrontendProcess
from ifdefault.daemon.process.frontend_connection import FrontendChild
from ifdefault.ipc.messages import Message, Ping, Resolved, Send, Served, Unbind, Unconfined
from ifdefault.model.config import DaemonConfig
from tests.unit.test_messages import SAMPLES


def test_an_answer_needs_a_request() -> None:
    owed = Owed()
    assert not owed.answer()
    owed = Owed()
    owed.ask(Unbind(1))  # has no answer
    owed.ask(Ping(1))
    assert owed.answer()
    assert not owed.answer()


def test_a_late_answer_to_a_probe_is_a_second_one() -> None:
    owed, send = Owed(), next(m for m in SAMPLES if isinstance(m, Send))
    owed.ask(send)
    assert [owed.answer() for _ in range(3)] == [True, True, False]


def test_what_isnt_answered_for_days_adds_up_to_no_flood() -> None:
    owed = Owed()
    for token in range(100_000):
        owed.ask(Ping(token))
    assert sum(owed.answer() for _ in range(100_000)) == 16384


def test_an_allowance() -> None:
    allowance = Allowance(3, 0.5)
    assert [allowance.take(10.0) for _ in range(5)] == [True, True, True, False, False]
    assert allowance.refused == 2
    assert [allowance.take(12.0), allowance.take(12.0)] == [True, False]
    assert [allowance.take(1e6) for _ in range(4)] == [True, True, True, False]


class Log:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, kind: str, text: str, uplink: str = "", severity: str = "") -> None:
        self.texts.append(text)


def test_a_dns_server_can_flood_neither_log_nor_status_nor_pass_for_the_engine() -> None:
    log = Log()
    publishers = Publishers(log, ())  # type: ignore[arg-type]
    forged = ("isp-a IPv4: up -> down", "secondary 192.0.2.9: no answer to NOTIFY")
    for number in range(1000):
        publishers.receive(Served(((f"u{number}", 0, (1 << 63) - 1),), forged))
    assert len(log.texts) < 110
    assert log.texts[0] == "the DNS server reports: isp-a IPv4: up -> down"
    assert log.texts[1] == forged[1]
    assert publishers.queries == ()


@pytest.mark.parametrize(
    ("addresses", "where"),
    [(1, "192.0.2.1"), (2, "192.0.2.1 and 1 more"), (3, "192.0.2.1 and 2 more")],
)
def test_a_port_in_use_on_many_addresses_is_one_fault(addresses: int, where: str) -> None:
    listeners = Listeners(SimpleNamespace(), Log())  # type: ignore[arg-type]
    listeners._port = 53
    for number in range(1, 1 + addresses):
        listeners._faults["udp", f"192.0.2.{number}"] = _Fault(1.0, "in use by named (pid 7)")
    ((what, _, text),) = listeners.faults()
    assert what == f"{where} udp"
    assert text.startswith(f"port 53 of {where} (udp) is in use by named (pid 7): ")


@pytest.mark.parametrize(("starts", "times"), [(2, "once"), (3, "2 times")])
def test_restarts_of_the_frontend(starts: int, times: str) -> None:
    process = FrontendProcess(Path(), DaemonConfig(), Log(), print)  # type: ignore[arg-type]
    process._frontend, process._warning = Frontend(), ""  # type: ignore[assignment]
    process.starts = starts
    assert process.problems == (f"the frontend was restarted {times}",)


class Frontend:
    """What `FrontendProcess` sends to."""

    cause = ""

    def kill(self, cause: str) -> None:
        self.cause = cause

    def send(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        pass


def test_only_names_that_were_asked_for_are_taken_and_what_isnt_confined_is_said_once() -> None:
    log, taken = Log(), list[object]()
    process = FrontendProcess(Path(), DaemonConfig(), log, taken.append)  # type: ignore[arg-type]
    process._frontend = Frontend()  # type: ignore[assignment]
    process.resolve(["www.example.net"])
    answer = Resolved("www.example.net", ("192.0.2.1",))
    for message in (answer, answer, Resolved("forged.example.net", ("192.0.2.1",))):
        process._receive(message)
    assert taken == [answer]
    missing = ("Landlock (function not implemented)",)
    for _ in range(3):  # one frontend after another
        process._receive(Unconfined(missing))
        process._has_said = False
    assert log.texts == ["the frontend runs without Landlock (function not implemented)"]


def test_a_frontend_says_once_what_it_isnt_confined_by() -> None:
    log, frontend = Log(), Frontend()
    process = FrontendProcess(Path(), DaemonConfig(), log, print)  # type: ignore[arg-type]
    process._receive(Unconfined(("seccomp (operation not permitted)",)))
    process._frontend = frontend  # type: ignore[assignment]
    for number in range(1000):
        process._receive(Unconfined((f"forged {number}",)))
    assert len(log.texts) == 1
    assert frontend.cause == TOO_MANY_ANSWERS


def test_lines_of_a_frontend_that_are_not_logged_are_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now, faults = [0.0], list[str]()
    child = object.__new__(FrontendChild)
    child._lines, child._failed = Allowance(2, 0.1), faults.append
    child._loop = SimpleNamespace(time=lambda: now[0])  # type: ignore[assignment]
    child._output = SimpleNamespace(close=lambda: None)  # type: ignore[assignment]
    for number in range(900):
        child._log_line(f"<4>{number}", 1)
    now[0] += 10
    child._log_line("<4>the last", 101)
    for number in range(900):  # as many again: that it goes on for long is no fault
        child._log_line(f"<4>{number}", 1)
    assert [record.message for record in caplog.records] == [
        "frontend: 0",
        "frontend: 1",
        "frontend: 998 more lines are not logged",
        "frontend: the last",
    ]
    assert not faults
    child._log_line("<4>and much at once", 200)
    assert faults == ["it logs too much"]
