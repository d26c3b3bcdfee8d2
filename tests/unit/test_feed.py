"""The feed of the monitor over a real socket: each event once, an engine that goes and comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar

import pytest

from ifdefault.ipc.control.protocol import Counters, Status
from ifdefault.model.report import Event
from ifdefault.monitor import feed
from ifdefault.monitor.feed import Away, Back, NewEvents, Report, Sample, follow
from tests.unit.engine_socket import Engine, running

T = TypeVar("T", bound=Report)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "LEAST_S", 0.02)
    monkeypatch.setattr(feed, "AGAIN_S", 0.01)


def _event(text: str) -> Event:
    return Event(0.0, "path", "isp-a", text)


async def _next(reports: AsyncIterator[Report], kind: type[T]) -> T:
    """The next report of a kind; others are passed over."""
    async with asyncio.timeout(10):
        async for report in reports:
            if isinstance(report, kind):
                return report
    raise AssertionError


def _run(test: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(test())


def test_each_event_comes_once_and_a_sample_after_it(tmp_path: Path) -> None:
    async def test() -> None:
        engine = Engine()
        old = await engine.note(_event("before"))
        async with running(engine, tmp_path), aclosing(follow(tmp_path)) as reports:
            assert await anext(reports) == NewEvents((old,), first=True)
            assert isinstance(await anext(reports), Sample)
            new = await engine.note(_event("down"))
            assert await _next(reports, NewEvents) == NewEvents((new,))
            await _next(reports, Sample)

    _run(test)


def test_who_knows_events_gets_those_since(tmp_path: Path) -> None:
    async def test() -> None:
        engine = Engine()
        known, new = await engine.note(_event("known")), await engine.note(_event("new"))
        reports = follow(tmp_path, after=known.serial)
        async with running(engine, tmp_path), aclosing(reports):
            assert await anext(reports) == NewEvents((new,))

    _run(test)


def test_an_engine_goes_and_comes(tmp_path: Path) -> None:
    async def test() -> None:
        engine = Engine()
        async with aclosing(follow(tmp_path)) as reports:
            assert (await _next(reports, Away)).why == "no daemon runs"
            async with running(engine, tmp_path):
                await _next(reports, Back)
                await _next(reports, Sample)
            await _next(reports, Away)
            missed = await engine.note(_event("meanwhile"))
            async with running(engine, tmp_path):
                await _next(reports, Back)
                assert await anext(reports) == NewEvents((missed,))
                assert isinstance(await anext(reports), Sample)

    _run(test)


def test_an_engine_that_lost_its_serials_is_heard(tmp_path: Path) -> None:
    async def test() -> None:
        engine = Engine()
        event = await engine.note(_event("of now"))
        reports = follow(tmp_path, after=10**12)
        async with running(engine, tmp_path), aclosing(reports):
            assert await anext(reports) == NewEvents((event,))

    _run(test)


def test_an_engine_that_answers_too_late_tells_no_event_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_PATIENCE_S", 0.05)

    async def test() -> None:
        engine = Engine()
        async with running(engine, tmp_path), aclosing(follow(tmp_path, every_s=0.2)) as reports:
            await _next(reports, Sample)
            engine.answers.clear()  # but not what waits for events
            await _next(reports, Away)
            new = await engine.note(_event("meanwhile"))
            engine.answers.set()
            await _next(reports, Back)
            assert await _next(reports, NewEvents) == NewEvents((new,))
            later = await engine.note(_event("later"))
            assert await _next(reports, NewEvents) == NewEvents((later,))

    _run(test)


def test_a_storm_of_events_is_no_storm_of_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "LEAST_S", 3600.0)

    async def test() -> None:
        engine = Engine()
        async with running(engine, tmp_path), aclosing(follow(tmp_path)) as reports:
            await _next(reports, Sample)
            for n in range(20):
                event = await engine.note(_event(str(n)))
                assert await _next(reports, NewEvents) == NewEvents((event,))
            asked = [type(request) for request in engine.asked]
            assert asked.count(Status) == asked.count(Counters) == 1

    _run(test)
