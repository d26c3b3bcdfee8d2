"""What becomes of an exception that nobody expected: its process ends, and says why."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable

import pytest

from ifdefault.ipc import log, tasks


@pytest.fixture(autouse=True)
def _uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_counts", type(log._counts)())


def in_task(_: socket.socket) -> None:
    async def work() -> None:
        raise KeyError("in a task")

    tasks.start(work())


def in_timer(_: socket.socket) -> None:
    asyncio.get_running_loop().call_later(0, at_once, _)


def in_reader(sock: socket.socket) -> None:
    asyncio.get_running_loop().add_reader(sock, at_once, sock)


def at_once(_: socket.socket) -> None:
    raise KeyError("at once")


@pytest.mark.parametrize("begin", [in_task, in_timer, in_reader, at_once])
def test_the_process_ends_and_the_log_has_the_traceback(
    begin: Callable[[socket.socket], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def work(sock: socket.socket) -> int:
        begin(sock)
        await asyncio.Event().wait()
        return 0

    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"x")  # readable for ever
        assert tasks.run(work(ours)) == os.EX_SOFTWARE
    record, *others = caplog.records
    assert not any(other.exc_info for other in others)
    assert record.message.startswith("this process ends: internal error: KeyError: ")
    assert record.exc_info


def test_what_a_query_could_cost_is_said_again_when_it_ends_the_process(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_MOST", 1)  # and many other exceptions were counted

    def fault() -> int:
        raise KeyError("at once")

    async def last() -> int:
        return fault()

    async def work() -> int:
        try:
            fault()
        except KeyError as error:
            log.exception(error, "a query")
        return await tasks.start(last())

    assert tasks.run(work()) == os.EX_SOFTWARE
    query, end, *_ = [record.message.partition(":")[0] for record in caplog.records]
    assert (query, end) == ("a query", "this process ends")
    assert caplog.records[1].exc_info


def test_the_status_is_that_of_the_work() -> None:
    async def work() -> int:
        return 3

    assert tasks.run(work()) == 3


def test_tasks_are_ended_and_a_cancelled_one_is_no_fault() -> None:
    async def work() -> int:
        waiting = tasks.start(asyncio.sleep(3600))
        await asyncio.sleep(0)
        await tasks.end(waiting)
        await tasks.end()
        return int(not waiting.cancelled())

    assert tasks.run(work()) == 0


def test_the_same_exception_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    for number in range(1200):
        try:
            raise ValueError(f"\x1b[31m{number}")
        except ValueError as error:
            log.exception(error, "a query")
    texts = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert len(texts) == 4
    assert texts[0] == "a query: internal error: ValueError: \x1b[31m0"
    assert texts[-1].endswith("999, 1000 times so far")
    assert [bool(record.exc_info) for record in caplog.records] == [True, False, False, False]
