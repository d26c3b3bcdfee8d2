"""An engine as far as its open socket shows it: what it answers is set by the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ifdefault.daemon.control.parse import parse
from ifdefault.ipc.control.client import OPEN_SOCKET
from ifdefault.ipc.control.protocol import Counters, EventList, Events, Reply, Status, encode_reply
from ifdefault.model.report import CounterReport, DaemonStatus, Event


class Engine:
    """`asked`: the requests so far."""

    def __init__(self) -> None:
        self.status = DaemonStatus(1, 0.0, 0.0, "ifdefault.toml")
        self.counters = CounterReport(0.0)
        self.events: list[Event] = []
        self.last = 1000
        self.asked: list[Any] = []
        self.answers = asyncio.Event()  # else it only listens
        self.answers.set()
        self._new = asyncio.Condition()

    async def note(self, event: Event) -> Event:
        async with self._new:
            self.last += 1
            self.events.append(replace(event, serial=self.last))
            self._new.notify_all()
        return self.events[-1]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = parse(await reader.readline())
            self.asked.append(request)
            await self.answers.wait()
            writer.write(encode_reply(await self._answer(request)))
            await writer.drain()
        finally:
            writer.close()

    async def _answer(self, request: object) -> Reply:
        match request:
            case Status():
                return self.status
            case Counters():
                return self.counters
            case Events(limit, after, wait_s):
                if wait_s and self.last <= after:
                    async with self._new:
                        await asyncio.wait_for(self._new.wait(), wait_s)
                return EventList(
                    tuple(e for e in self.events if e.serial > after)[-limit:], self.last
                )
        raise AssertionError(request)


@asynccontextmanager
async def running(engine: Engine, run_dir: Path) -> AsyncIterator[None]:
    """It listens; at the end it is gone, and its clients' connections with it."""
    held: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(engine.serve(reader, writer))
        held.add(task)
        task.add_done_callback(held.discard)

    path = run_dir / OPEN_SOCKET
    server = await asyncio.start_unix_server(accept, path)
    try:
        yield
    finally:
        server.close()
        path.unlink()
        for task in [*held]:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
