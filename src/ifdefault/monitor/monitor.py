"""The monitor's process: follows the engine, and passes on what it reports.

Rules: it does without an engine, and says so after `AWAY_S`. It has no privileges, and whatever
happens to it touches no engine. A config that is invalid changes nothing: the last one stays. What
a consumer fails at is logged, and the others go on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from ifdefault.ipc import log, tasks
from ifdefault.ipc.sd_notify import Notifier
from ifdefault.model.config import Severity
from ifdefault.model.errors import IfdefaultError
from ifdefault.model.report import Event
from ifdefault.monitor.config import MonitorConfig, read_apart
from ifdefault.monitor.consumer import Consumer
from ifdefault.monitor.feed import Away, Back, NewEvents, Report, follow
from ifdefault.monitor.history.reader import history_dir
from ifdefault.monitor.history.writer import History
from ifdefault.monitor.notify.deliver import Deliverer
from ifdefault.monitor.notify.notifiers import Notifiers
from ifdefault.monitor.status_file import StatusFile
from ifdefault.monitor.textfile import Textfile

KIND = "monitor"  # of its own events
AWAY_S = 10.0  # a restart of the engine isn't worth an event
_BEAT_S, _WRITE_S = 5.0, 60.0
_log = logging.getLogger("ifdefault")


class Monitor:
    """`deliverer`: sends notifications; without one there are none."""

    def __init__(
        self,
        config_path: Path,
        state_dir: Path,
        run_dir: Path,
        deliverer: Deliverer | None = None,
    ) -> None:
        self._config_path, self._state_dir, self._run_dir = config_path, state_dir, run_dir
        self._deliverer = deliverer
        self.status = StatusFile(run_dir)
        self._consumers: Sequence[Consumer] = ()
        self._delivering = asyncio.Lock()
        self._caught_up = False  # with what consumers know from before the start
        self._reading: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None  # that the engine is away
        self._away: Away | None = None  # as it was told

    async def run(self, config: MonitorConfig | None = None) -> int:
        """Until SIGTERM. `config`: as it was read at the start, if it could be."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        self._consumers = await self._start(config)
        if config is None:
            self._reload()
        notifier = Notifier()
        following = [tasks.start(self._follow()), tasks.start(self._beat(notifier))]
        notifier.ready()
        await stop.wait()
        notifier.stopping()
        await tasks.end(*following, *filter(None, (self._telling, self._reading)))
        for consumer in self._consumers:
            await consumer.close()
        self.status.remove()
        notifier.close()
        return 0

    async def _start(self, config: MonitorConfig | None) -> list[Consumer]:
        """All consumers, in the order in which they get reports."""
        directory, known = history_dir(self._state_dir), config or MonitorConfig()
        history = History(directory, known.history.keep_s, self.status.say)
        await history.open()
        textfile = Textfile(self._state_dir, self._run_dir, known, self.status.say)
        if self._deliverer is None:
            return [history]
        notifiers = Notifiers(directory, os.uname().nodename, self.status, self._deliverer)
        if config is not None:
            await notifiers.configure(config)
        return [history, textfile, notifiers]

    async def _beat(self, notifier: Notifier) -> None:
        """Show that this process is alive."""
        written_s = float("-inf")
        while True:
            now = time.monotonic()
            notifier.alive(now)
            if now - written_s >= _WRITE_S:
                self.status.write()
                written_s = now
            await asyncio.sleep(_BEAT_S)

    # --- reports ----------------------------------------------------------------------------

    async def _follow(self) -> None:
        serials = [c.serial for c in self._consumers if c.serial is not None]
        async with aclosing(follow(self._run_dir, after=min(serials, default=None))) as reports:
            async for report in reports:
                match report:
                    case Away():
                        self._telling = tasks.start(self._tell_away(report))
                    case Back():
                        await self._tell_back(report)
                await self._deliver(report)

    async def _deliver(self, report: Report) -> None:
        async with self._delivering:
            for consumer in self._consumers:
                new: Report | None = report
                if isinstance(report, NewEvents) and not self._caught_up:
                    new = _without(report, consumer.serial)
                if new is not None:
                    await _receive(consumer, new)
        if isinstance(report, NewEvents) and report.events[-1].serial:
            self._caught_up = True
            if any(event.kind == "reload" for event in report.events):
                self._reload()

    async def _tell_away(self, away: Away) -> None:
        """Tell if it isn't back soon."""
        await asyncio.sleep(AWAY_S)
        self._away = away
        since = datetime.fromtimestamp(away.since).astimezone().isoformat(" ", "seconds")
        await self._note(f"the daemon hasn't answered since {since[:19]}: {away.why}", "error")

    async def _tell_back(self, back: Back) -> None:
        if self._telling is not None and self._away is not None:
            await self._telling  # each consumer gets it, or none
        elif self._telling is not None:
            await tasks.end(self._telling)
        if self._away is not None:
            away_s = max(back.at - self._away.since, 0.0)
            self._away = None
            await self._note(f"the daemon answers again, after {away_s:.0f} s", "info")

    async def _note(self, text: str, severity: Severity) -> None:
        _log.log(log.LEVELS[severity], "%s", text)
        await self._deliver(NewEvents((Event(time.time(), KIND, "", text, severity),)))

    # --- the config -------------------------------------------------------------------------

    def _reload(self) -> None:
        """Read the config file again."""
        if self._reading is None or self._reading.done():
            self._reading = tasks.start(self._read())

    async def _read(self) -> None:
        try:
            config = await asyncio.to_thread(read_apart, self._config_path)
        except IfdefaultError as error:
            self.status.say("config", f"{error.problems[0]}; the last one that worked is in use")
            return
        self.status.say("config", "")
        async with self._delivering:
            for consumer in self._consumers:
                await consumer.configure(config)


async def _receive(consumer: Consumer, report: Report) -> None:
    try:
        await consumer.receive(report)
    except Exception as error:
        log.exception(error, type(consumer).__name__)


def _without(report: NewEvents, known: int | None) -> NewEvents | None:
    """Events without those that a consumer has; None if it has them all. If no serial is as great
    as the one that is known, the engine has begun anew."""
    if known is None or report.events[-1].serial < known:
        return report
    events = tuple(event for event in report.events if event.serial > known)
    return replace(report, events=events) if events else None
