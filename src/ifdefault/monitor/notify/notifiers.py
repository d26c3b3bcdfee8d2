"""All notifiers: what the monitor's feed reports is put into the outbox, and sent from there.

    events ──select──> outbox ──due──> message ──attempt──> delivered, or again later
                                          └ over each uplink that works

Rules: nobody waits for a notifier: each has a task of its own, and each attempt a process with a
time limit. The first attempt leaves as routing has it, those that follow at once from an address of
each usable uplink. Then it waits, longer and longer, but not when the decision changes or when
there is something new to send.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ifdefault.ipc import tasks
from ifdefault.model.config import FAMILIES, NotifyConfig
from ifdefault.model.health import Decision
from ifdefault.model.report import DaemonStatus, Event
from ifdefault.monitor.config import MonitorConfig
from ifdefault.monitor.feed import NewEvents, Report, Sample
from ifdefault.monitor.notify.attempt import attempt
from ifdefault.monitor.notify.deliver import Deliverer
from ifdefault.monitor.notify.delivery import LIMIT_S, Delivery, Outcome
from ifdefault.monitor.notify.message import compose, message_id
from ifdefault.monitor.notify.outbox import OUTBOX, Outbox
from ifdefault.monitor.notify.report import NotifierReport, means_of, recipient
from ifdefault.monitor.notify.schedule import RETRY_S, due_at, quiet_until, retry_s, select
from ifdefault.monitor.notify.summary import Families
from ifdefault.monitor.status_file import StatusFile

_MOST_SOURCES = 8
_MOST_EARLY = 500
_LOOK_AGAIN_S = 60.0  # the clock may have been set
_OLDEST_S = 86400.0  # of events that are sent when the outbox was damaged
_log = logging.getLogger("ifdefault")


class Notifiers:
    """A Consumer, see `monitor.consumer`. `directory`: of the outbox. `limit_s`: of an attempt."""

    def __init__(
        self,
        directory: Path,
        host: str,
        status: StatusFile,
        deliverer: Deliverer,
        limit_s: float = LIMIT_S,
    ) -> None:
        self.host, self.deliverer, self.limit_s = host, deliverer, limit_s
        self._status = status
        self.outbox = Outbox(directory / OUTBOX)
        self.sources: tuple[str, ...] = ("",)
        self.families: Families = {}
        self._decision = Decision()
        self._notifiers: dict[str, _Notifier] = {}
        self._early: deque[Event] | None = deque(maxlen=_MOST_EARLY)  # until it is configured
        self._log_news()

    @property
    def serial(self) -> int | None:
        """0 if the outbox was damaged: all that the engine has."""
        if self.outbox.cursor is None and self.outbox.begun_anew:
            return 0
        return self.outbox.cursor

    async def configure(self, config: MonitorConfig) -> None:
        named = {notify.name: notify for notify in config.notify}
        for name in self._notifiers.keys() - named.keys():
            await tasks.end(self._notifiers.pop(name).close())
            self._status.say(f"notify {name}", "")
        self.outbox.keep_only(named)
        for name, notify in named.items():
            if name in self._notifiers:
                self._notifiers[name].use_config(notify)
            else:
                self._notifiers[name] = _Notifier(self, notify)
        early, self._early = self._early, None
        if early:
            self._take(early, time.time(), first=False)
        self.report()

    async def receive(self, report: Report) -> None:
        match report:
            case NewEvents(events, first) if events:
                if self._early is None:
                    self._take(events, time.time(), first)
                elif not first:
                    self._early += events
            case Sample(_, status):
                self._use(status)

    async def close(self) -> None:
        """End what is being sent: nobody knows then whether it arrived."""
        await tasks.end(*(notifier.close() for notifier in self._notifiers.values()))
        self.outbox.close()

    # --- reports --------------------------------------------------------------------------

    def _take(self, events: Sequence[Event], now: float, first: bool) -> None:
        """Take in new events. `first`: those that the engine had when there was no outbox yet, of
        which nothing is sent."""
        cursor = self.outbox.cursor
        last = max(event.serial for event in events)
        if cursor is None:
            oldest = now - _OLDEST_S if self.outbox.begun_anew else now if first else 0.0
            new = [event for event in events if event.at > oldest]
        elif 0 < last < cursor:  # the engine lost its serials
            new = [*events]
        else:
            new = [event for event in events if event.serial > cursor or not event.serial]
        # those of the monitor itself have no serial, and need one in the id of a message
        new = [event if event.serial else replace(event, serial=_clock(event)) for event in new]
        items, faults = {}, {}
        for name, notifier in self._notifiers.items():
            faults[name] = self.outbox.faults(name)
            items[name] = select(notifier.config, new, faults[name], now)
        self.outbox.accept(last or cursor, items, faults)
        for name, selected in items.items():
            if selected:
                self._notifiers[name].wake(again_s=RETRY_S)
        self.report()

    def _use(self, status: DaemonStatus) -> None:
        """Use what works now."""
        families: dict[str, set[int]] = {}
        for path in status.health:
            families.setdefault(path.uplink, set()).add(path.family)
        self.families, self.sources = families, choose_sources(status)
        if status.decision != self._decision:
            self._decision = status.decision
            for notifier in self._notifiers.values():
                notifier.wake(again_s=0.0)
        self.outbox.save_again()
        self._log_news()

    # --- what it says ---------------------------------------------------------------------

    def report(self, failed: str = "", why: str = "") -> None:
        """Say how all fare. `failed`: the one that has just failed, or works, and why."""
        self._status.notifiers = tuple(each.report() for each in self._notifiers.values())
        if failed:
            self._status.say(f"notify {failed}", why)
        self._status.write()

    def _log_news(self) -> None:
        for problem in self.outbox.news:
            _log.log(logging.WARNING if problem.warning else logging.ERROR, "%s", problem)
        self.outbox.news.clear()
        self._status.say("outbox", self.outbox.unsaved)


def _clock(event: Event) -> int:
    return int(event.at * 1000)


def choose_sources(status: DaemonStatus) -> tuple[str, ...]:
    """The addresses to send from, "" for what routing chooses: that comes first, and the primary
    uplink, which is what routing chooses in most cases, last."""
    sources: dict[str, None] = {"": None}
    for family in FAMILIES:
        usable = status.decision.usable_in(family)
        ranked = [name for name in status.decision.ranking(family) if name in usable]
        for name in (*ranked[1:], *ranked[:1]):
            for address in status.addresses.get(name, ()):
                if (":" in address) == (family == 6):
                    sources.setdefault(address)
    return tuple(sources)[:_MOST_SOURCES]


class _Notifier:
    """One of them, and the task that sends for it. Times that end in _s are monotonic."""

    def __init__(self, all_: Notifiers, config: NotifyConfig) -> None:
        self._all, self.config = all_, config
        self._retry_s = self._tried_s = 0.0
        self._sending_since = 0.0
        self._said = ""
        self._woken = asyncio.Event()
        self._task = tasks.start(self._run())

    def use_config(self, config: NotifyConfig) -> None:
        if config != self.config:
            self.config = config
            self.wake(again_s=0.0)

    def wake(self, again_s: float) -> None:
        """Look for what is due. After a failure: not before so long after the last attempt."""
        self._retry_s = min(self._retry_s, self._tried_s + again_s)
        self._woken.set()

    def close(self) -> asyncio.Task[None]:
        self._task.cancel()
        return self._task

    def report(self) -> NotifierReport:
        name, outbox, now = self.config.name, self._all.outbox, time.time()
        record, waiting = outbox.record(name), outbox.count(name)
        due, retry_s = self._due_at(now), self._retry_s - time.monotonic()
        is_held = due is not None and due == quiet_until(self.config.quiet, now) > now
        return NotifierReport(
            name=name,
            means=means_of(self.config),
            to=recipient(self.config),
            waiting=waiting,
            omitted=record.omitted,
            sent_at=record.sent_at,
            said=self._said,
            held_until=due if is_held and due is not None else 0.0,
            sending_since=self._sending_since,
            failing_since=record.failing_since,
            failures=record.failures,
            error=record.error,
            retry_at=now + retry_s if record.failures and retry_s > 0 else 0.0,
        )

    # --- sending --------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            if (wait_s := self._wait_s()) <= 0.0:
                await self._send()
                continue
            try:
                async with asyncio.timeout(min(wait_s, _LOOK_AGAIN_S)):
                    await self._woken.wait()
            except TimeoutError:
                pass

    def _due_at(self, now: float) -> float | None:
        outbox, name = self._all.outbox, self.config.name
        if outbox.message(name):
            return now  # it began to be sent, and nobody knows whether it arrived
        return due_at(self.config, outbox.waiting(name), outbox.record(name).sent_at, now)

    def _wait_s(self) -> float:
        now = time.time()
        due = self._due_at(now)
        if due is None:
            return _LOOK_AGAIN_S
        return max(due - now, self._retry_s - time.monotonic())

    async def _send(self) -> None:
        """Send one message: over each uplink, until it is delivered or refused."""
        outbox, name = self._all.outbox, self.config.name
        begun = outbox.message(name)
        if begun is None:
            items = outbox.waiting(name)
            identity = message_id(items)
            outbox.begin(name, identity, len(items))
        else:
            identity, items = begun
        self._sending_since = now = time.time()
        omitted = outbox.record(name).omitted
        message = compose(items, name, self._all.host, self._all.families, now, omitted)
        message = replace(message, id=identity)
        delivery = Delivery(self.config, message, limit_s=self._all.limit_s)
        self._all.report()
        may_have_arrived = begun is not None
        outcomes: list[Outcome] = []
        for source in self._all.sources:
            sent = replace(delivery, source=source)
            outcomes.append(await attempt(sent, self._all.deliverer))
            may_have_arrived |= outcomes[-1].kind == "unknown"
            if outcomes[-1].kind in ("delivered", "refused"):
                break
        # the others were to help with the first one's failure
        outcome = outcomes[-1 if outcomes[-1].kind in ("delivered", "refused") else 0]
        self._sending_since = 0.0
        if outcome.kind == "delivered":
            self._delivered(identity, message.subject, outcome.text)
        else:
            if not may_have_arrived:
                outbox.release(name, identity)
            self._failed(outcome.text)

    def _delivered(self, identity: str, subject: str, said: str) -> None:
        name = self.config.name
        self._all.outbox.delivered(name, identity, time.time())
        self._retry_s, self._said = 0.0, said
        _log.info("notify %s: sent: %s (%s)", name, subject, said)
        self._all.report(name)

    def _failed(self, text: str) -> None:
        outbox, name, now = self._all.outbox, self.config.name, time.time()
        outbox.failed(name, text, now)
        record = outbox.record(name)
        self._tried_s = time.monotonic()
        wait_s = retry_s(record.failures, max(now - record.failing_since, 0.0))
        self._retry_s = self._tried_s + wait_s
        self._all.report(name, text)
