"""The notifiers as a whole: each event is sent once, whatever receivers and processes do."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path

from ifdefault.ipc import codec
from ifdefault.model.config import NotifyConfig
from ifdefault.model.health import Decision, Health
from ifdefault.model.report import CounterReport, DaemonStatus, Event
from ifdefault.monitor.config import MonitorConfig
from ifdefault.monitor.feed import NewEvents, Sample
from ifdefault.monitor.notify.deliver import Deliverer
from ifdefault.monitor.notify.notifiers import Notifiers, choose_sources
from ifdefault.monitor.notify.report import NotifierReport
from ifdefault.monitor.status_file import read_status
from tests.unit.notified import event, outage
from tests.unit.notifying import EVENTS, deliverer, start
from tests.unit.receivers import HANG, Received, Receiver, http_receiver

STATUS = DaemonStatus(
    1,
    9.0,
    9.0,
    "",
    health=tuple(
        Health(uplink, family, "up", 0.0, "") for uplink in ("isp-a", "isp-b") for family in (4, 6)
    ),
    decision=Decision(
        order=((4, ("isp-a", "isp-b", "isp-c")), (6, ("isp-b", "isp-a"))),
        usable=((4, ("isp-a", "isp-b")), (6, ("isp-b",))),
    ),
    addresses={"isp-a": ("127.0.0.2", "::a"), "isp-b": ("127.0.0.3", "::b"), "isp-c": ("::c",)},
)


def hook(receiver: Receiver, name: str = "ops") -> NotifyConfig:
    return NotifyConfig(name, webhook=f"http://127.0.0.1:{receiver.port}/")


def run(
    directory: Path,
    configs: Sequence[NotifyConfig],
    test: Callable[[Notifiers], Awaitable[None]],
    limit_s: float = 30.0,
) -> None:
    async def whole(delivers: Deliverer) -> None:
        notifiers = start(directory, delivers, limit_s)
        try:
            await notifiers.configure(MonitorConfig(notify=tuple(configs)))
            await use(notifiers, STATUS)
            await test(notifiers)
        finally:
            await notifiers.close()

    with deliverer() as delivers:
        asyncio.run(whole(delivers))


async def until(condition: Callable[[], object], limit_s: float = 20.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.01)


async def take(notifiers: Notifiers, *events: Event) -> None:
    await notifiers.receive(NewEvents(events))


async def use(notifiers: Notifiers, status: DaemonStatus) -> None:
    await notifiers.receive(Sample(time.time(), status, CounterReport(0.0)))


def reported(directory: Path, name: str = "ops") -> NotifierReport:
    found = read_status(directory, time.time())
    assert found
    return next(notifier for notifier in found.notifiers if notifier.name == name)


def test_the_first_is_sent_within_two_seconds_and_what_follows_together(tmp_path: Path) -> None:
    sent_at: list[float] = []

    def answer(_: Received) -> int:
        sent_at.append(time.time())
        return 200

    async def test(notifiers: Notifiers) -> None:
        await notifiers.receive(NewEvents((event(1, "of before"),), first=True))
        began = time.time()
        await take(notifiers, event(1, "of before"), *outage(2))
        await until(lambda: receiver.accepted)
        await take(notifiers, *outage(6))
        await asyncio.sleep(0.2)  # in which it could be sent
        await take(notifiers, event(10, "disk full"))
        await until(lambda: len(receiver.accepted) == 2)
        assert sent_at[0] - began < 2.0
        assert sent_at[1] - sent_at[0] >= 2.0
        await until(lambda: reported(tmp_path).waiting == 0)
        assert reported(tmp_path) == NotifierReport(
            "ops", "webhook", "http://127.0.0.1", sent_at=reported(tmp_path).sent_at, said="200 OK"
        )

    with http_receiver(answer) as receiver:
        run(tmp_path, [replace(hook(receiver), group_s=2)], test)
        bodies = [json.loads(received.body) for received in receiver.accepted]
    assert [len(body["events"]) for body in bodies] == [4, 5]
    assert bodies[0]["subject"].startswith("web1: isp-a is down since ")
    assert bodies[0]["subject"].endswith("; new connections use isp-b")


def test_one_that_hangs_is_reported_and_others_are_not_kept_waiting(tmp_path: Path) -> None:
    async def test(notifiers: Notifiers) -> None:
        await use(notifiers, replace(STATUS, addresses={"isp-b": ("127.0.0.3",)}))
        await take(notifiers, *outage(1))
        await until(lambda: good.accepted)
        hung = reported(tmp_path, "hung")
        assert hung.sending_since
        assert hung.waiting == 4
        await until(lambda: reported(tmp_path, "hung").failures)
        hung = reported(tmp_path, "hung")
        assert hung.error == "no answer in 1.5 s, while sending to 127.0.0.1"
        assert hung.retry_at > time.time()
        assert (hung.waiting, hung.sending_since) == (4, 0.0)
        assert reported(tmp_path, "good").failures == 0
        # what has the same key is not sent again, with more in it, but as it was
        bad.answer = lambda _: 200
        await take(notifiers, event(9, "disk full"))
        await use(notifiers, replace(STATUS, decision=Decision()))  # it tries again at once
        await until(lambda: bad.accepted)
        first, last = bad.all[0], bad.accepted[0]
        assert first.headers["idempotency-key"] == last.headers["idempotency-key"]
        assert json.loads(first.body)["events"] == json.loads(last.body)["events"]

    with http_receiver() as good, http_receiver(lambda _: HANG) as bad:
        run(tmp_path, [hook(bad, "hung"), hook(good, "good")], test, limit_s=1.5)
        assert {received.peer for received in bad.all} == {"127.0.0.1", "127.0.0.3"}


def test_what_was_overtaken_is_one_message(tmp_path: Path) -> None:
    """Also with a restart in between. The failure is one in which nothing can have arrived."""

    async def fail(notifiers: Notifiers) -> None:
        await take(notifiers, *outage(1))
        await until(lambda: reported(tmp_path).failures)
        assert reported(tmp_path).error == "503 Service Unavailable: as it is"

    async def succeed(notifiers: Notifiers) -> None:
        await take(notifiers, *outage(1, up_after_s=203.0))
        await until(lambda: receiver.accepted)

    with http_receiver(lambda _: 503) as receiver:
        run(tmp_path, [hook(receiver)], fail)
        receiver.answer = lambda _: 200
        run(tmp_path, [hook(receiver)], succeed)
        (message,) = [json.loads(received.body) for received in receiver.accepted]
    assert message["subject"] == "web1: isp-a was down 2026-10-28 14:02:10-14:05:33 UTC, 3m23s"
    assert message["id"] == "1-8"


def test_sources_are_those_of_usable_uplinks_the_primary_one_last() -> None:
    assert choose_sources(STATUS) == ("", "127.0.0.3", "127.0.0.2", "::b")
    assert choose_sources(DaemonStatus(1, 0.0, 0.0, "")) == ("",)


def test_after_damage_it_begins_anew_with_what_the_engine_has(tmp_path: Path) -> None:
    (tmp_path / "outbox.sqlite").write_bytes(b"x" * 5000)
    now = time.time()
    recent = replace(event(2, "recent"), at=now - 60.0)
    old = replace(event(1, "old"), at=now - 2 * 86400.0)

    async def test(notifiers: Notifiers) -> None:
        await notifiers.receive(NewEvents((old, recent)))
        await until(lambda: receiver.accepted)
        await take(notifiers, recent, event(3, "new"))
        await until(lambda: len(receiver.accepted) == 2)

    with http_receiver() as receiver:
        run(tmp_path, [replace(hook(receiver), group_s=0)], test)
        assert [json.loads(r.body)["id"] for r in receiver.accepted] == ["2", "3"]


# --- kill -9 ------------------------------------------------------------------------------------


@contextmanager
def notifying(directory: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tests.unit.notifying", str(directory), url]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def test_kill_9_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    """A receiver that fails half of the time, also after it took the message, and a monitor that is
    killed again and again: each event is in one message, by its key."""
    chance, kills, last = random.Random(18), 7, 0
    stored: dict[str, list[list[int]]] = {}

    def answer(received: Received) -> int:
        status = chance.choice((200, 200, 200, 503, 500, HANG))
        if status != 503:
            serials = [each["serial"] for each in json.loads(received.body)["events"]]
            stored.setdefault(received.headers["idempotency-key"], []).append(serials)
        return status

    with http_receiver(answer) as receiver, (tmp_path / EVENTS).open("wb") as file:
        for turn in range(kills + 1):
            last += 5
            for number in range(last - 4, last + 1):
                line = codec.to_json(event(number, f"problem {number}", severity="error"))
                file.write(codec.write(line) + b"\n")
            file.flush()
            with notifying(tmp_path, f"http://127.0.0.1:{receiver.port}/") as process:
                before, end_s = len(receiver.all), time.monotonic() + 20.0
                wanted = chance.randrange(1, 4)
                while len(receiver.all) < before + wanted and time.monotonic() < end_s:
                    if turn < kills and last in chain.from_iterable(chain(*stored.values())):
                        break
                    time.sleep(0.002)
                if turn == kills:
                    receiver.answer = lambda received: answer(received) and 200
                    while reported(tmp_path).waiting and time.monotonic() < end_s:
                        time.sleep(0.02)
                assert process.poll() is None
        assert reported(tmp_path).waiting == 0
    by_key = {key: {tuple(serials) for serials in each} for key, each in stored.items()}
    assert all(len(different) == 1 for different in by_key.values()), by_key
    serials = sorted(serial for (each,) in by_key.values() for serial in each)
    assert serials == list(range(1, last + 1))
    assert len(receiver.all) > len(by_key)  # some were sent again
