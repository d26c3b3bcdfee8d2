"""Names published by real programs: their environment, when they run, and what is saved."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ifdefault.daemon.controller.effects import Publish
from ifdefault.daemon.dns import programs
from ifdefault.daemon.dns.programs import PROGRAMS, RUNNING, Programs
from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.process import spawn
from ifdefault.host.store import Store
from ifdefault.model.config import Config, DaemonConfig
from ifdefault.model.dns import AddressRecord, DnsConfig, ExecConfig, NameConfig, Published
from ifdefault.model.report import PublisherStatus
from tests.unit.open_files import open_files

A, B, C = "203.0.113.10", "198.51.100.10", "203.0.113.20"
A6, B6 = "2001:db8:a::10", "2001:db8:b::10"
NAME = "www.example.net"


def named(*addresses: str, name: str = NAME, ttl: int = 30) -> Published:
    return Published(
        name, "rotate", ttl, tuple(AddressRecord("isp-a", address) for address in addresses)
    )


class Shop:
    """A program that records how it was called, and a publisher that calls it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.program = root / "publish"
        self.state = root / "state"
        self.state.mkdir()
        self.store = Store(self.state)
        self.names: tuple[str, ...] = (NAME,)
        self.timeout_s = 20.0
        self.publisher: Programs  # in a running loop
        self.event_log: EventLog
        self.script("")

    def script(self, more: str) -> None:
        note = 'echo "$IFDEFAULT_NAME $IFDEFAULT_TTL +$IFDEFAULT_A +$IFDEFAULT_AAAA'
        note += ' -$IFDEFAULT_WAS_A -$IFDEFAULT_WAS_AAAA" >> notes'
        self.program.write_text(f"#!/bin/sh\ncd {self.root}\n{note}\n{more}\n")
        self.program.chmod(0o755)

    def play(self, part: Callable[[], Awaitable[None]]) -> None:
        """Do a part with a publisher of its own, as of one engine."""
        before = open_files()

        async def main() -> None:
            self.event_log = EventLog(self.store)
            self.publisher = Programs(self.event_log, self.store)
            try:
                await part()
            finally:
                await self.publisher.close()

        asyncio.run(main())
        assert open_files() == before

    def config(self, zone: str = "example.net") -> Config:
        program = ExecConfig(str(self.program), zone, self.timeout_s)
        names = tuple(NameConfig(name) for name in self.names)
        dns = DnsConfig(names=names, execs=(program,))
        return Config((), daemon=DaemonConfig(hook_user="nobody"), dns=dns)

    def take(self, *published: Published, config: Config | None = None) -> None:
        now = asyncio.get_running_loop().time()
        self.publisher.publish(now, Publish(config or self.config(), (), (), published, ()))

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.005)

    async def current(self) -> None:
        await self.until(lambda: {each.state for each in self.statuses()} == {"current"})

    def statuses(self) -> Sequence[PublisherStatus]:
        return tuple(self.publisher.statuses())

    def noted(self) -> list[str]:
        path = self.root / "notes"
        return path.read_text().splitlines() if path.exists() else []

    def events(self) -> list[str]:
        return [event.text for event in self.event_log.recent(100)]


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setattr(programs, "FIRST_WAIT_S", 0.01)
    with tempfile.TemporaryDirectory() as directory:  # a test's own only its user can read
        os.chmod(directory, 0o777)
        yield Shop(Path(directory))


def test_a_program_gets_the_complete_state(shop: Shop) -> None:
    shop.script("env | grep ^IFDEFAULT_ | sort > told; echo done; echo all well")

    async def part() -> None:
        shop.take(named(B, A, A6))
        assert [each.state for each in shop.statuses()] == ["pending"]
        await shop.current()
        (standing,) = shop.statuses()
        assert (standing.kind, standing.where) == ("exec", str(shop.program))
        assert (standing.zone, standing.name) == ("example.net", NAME)
        assert standing.detail == "all well"

    shop.play(part)
    assert (shop.root / "told").read_text().splitlines() == [
        f"IFDEFAULT_A={B} {A}",
        f"IFDEFAULT_AAAA={A6}",
        "IFDEFAULT_EVENT=publish",
        f"IFDEFAULT_NAME={NAME}",
        "IFDEFAULT_TTL=30",
        "IFDEFAULT_WAS_A=",
        "IFDEFAULT_WAS_AAAA=",
        "IFDEFAULT_ZONE=example.net",
    ]


def test_it_runs_for_what_changed_alone(shop: Shop) -> None:
    async def part() -> None:
        for published in (named(A, B), named(B, A), named(A), named(A, ttl=5)):
            shop.take(published)
            shop.take(published)
            await shop.current()

    shop.play(part)
    assert shop.noted() == [
        f"{NAME} 30 +{B} {A} + - -",
        f"{NAME} 30 +{A} + -{B} -",
        f"{NAME} 5 +{A} + - -",
    ]


def test_only_the_latest_of_what_changes_meanwhile_is_run(shop: Shop) -> None:
    shop.script("until [ -e go ]; do sleep 0.02; done")

    async def part() -> None:
        shop.take(named(A, B))
        await shop.until(lambda: len(shop.noted()) == 1)
        for published in (named(A), named(B), named(C)):
            shop.take(published)
        (shop.root / "go").touch()
        await shop.current()

    shop.play(part)
    assert shop.noted() == [f"{NAME} 30 +{B} {A} + - -", f"{NAME} 30 +{C} + -{B} {A} -"]


def test_what_failed_is_tried_again(shop: Shop) -> None:
    shop.script("[ $(wc -l < notes) -gt 3 ] || { echo 'no such zone' >&2; exit 3; }")

    async def part() -> None:
        shop.take(named(A))
        await shop.until(lambda: shop.statuses()[0].state == "failing")
        assert shop.statuses()[0].detail == "exit status 3: no such zone"
        await shop.current()
        assert shop.statuses()[0].detail == ""

    shop.play(part)
    assert shop.noted() == [f"{NAME} 30 +{A} + - -"] * 4
    head = f"{NAME} by {shop.program}"
    assert shop.events() == [f"{head} fails: exit status 3: no such zone", f"{head} works again"]


def test_it_waits_twice_as_long_each_time(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "LONGEST_WAIT_S", 0.05)
    shop.script("exit 1")
    waits: list[float] = []

    async def part() -> None:
        shop.take(named(A))
        job = next(iter(shop.publisher._jobs.values()))

        def waited() -> int:
            if job.wait_s not in (waits or [0.0])[-1:]:
                waits.append(job.wait_s)
            return len(waits)

        await shop.until(lambda: waited() == 4)
        shop.take(named(B))  # what is new is tried at once
        assert job.wait_s == 0.0
        await shop.until(lambda: job.wait_s)
        shop.take(named(B), config=replace(shop.config()))  # after a reload as well
        assert job.wait_s == 0.0

    shop.play(part)
    assert waits == [0.01, 0.02, 0.04, 0.05]


def test_one_that_hangs_is_ended_and_tried_again(shop: Shop) -> None:
    shop.timeout_s = 1.0
    shop.script("[ $(wc -l < notes) -gt 1 ] || { echo waiting; sleep 1000; }")

    async def part() -> None:
        shop.take(named(A))
        await shop.until(lambda: shop.statuses()[0].state == "failing")
        assert shop.statuses()[0].detail == "killed after 1 s (timeout): waiting"
        await shop.current()

    shop.play(part)


def test_a_restart_goes_on_where_the_last_one_stopped(shop: Shop) -> None:
    async def first() -> None:
        shop.take(named(A, B))
        await shop.current()

    async def same() -> None:
        shop.take(named(A, B))
        assert [each.state for each in shop.statuses()] == ["current"]

    async def other() -> None:
        shop.take(named(B))
        await shop.current()

    for part in (first, same, other):
        shop.play(part)
    assert shop.noted() == [f"{NAME} 30 +{B} {A} + - -", f"{NAME} 30 +{B} + -{A} -"]


def test_what_a_killed_run_may_have_left_is_withdrawn(shop: Shop) -> None:
    """And it is run again, though what it did last with success is just what is wanted."""

    async def first() -> None:
        shop.take(named(A))
        await shop.current()

    async def killed() -> None:
        shop.script("sleep 1000")
        shop.take(named(B))
        await shop.until(lambda: len(shop.noted()) == 2)

    async def back() -> None:
        shop.script("")
        shop.take(named(A))
        await shop.current()

    for part in (first, killed, back):
        shop.play(part)
    assert shop.noted()[1:] == [f"{NAME} 30 +{B} + -{A} -", f"{NAME} 30 +{A} + -{B} -"]


def test_the_last_addresses_of_a_family_stay(shop: Shop) -> None:
    async def first() -> None:
        shop.take(named(A, A6))
        await shop.current()

    async def bare() -> None:  # nothing is known yet
        shop.take(named())
        shop.take(named(A))
        assert shop.statuses()[0].state == "current"
        shop.take(named(B))
        await shop.current()

    for part in (first, bare):
        shop.play(part)
    assert shop.noted()[1:] == [f"{NAME} 30 +{B} +{A6} -{A} -"]


def test_nothing_is_run_while_no_address_is_known(shop: Shop) -> None:
    async def part() -> None:
        shop.take(named())
        (standing,) = shop.statuses()
        assert (standing.state, standing.detail) == ("pending", "no address is known yet")
        shop.take(named(A))
        await shop.current()

    shop.play(part)
    assert len(shop.noted()) == 1


def test_names_of_its_zone_alone_and_never_too_many_at_once(shop: Shop) -> None:
    shop.names = tuple(f"n{number}.example.net" for number in range(RUNNING + 3))
    shop.script("touch running.$$; ls running.* | wc -l >> at_once; sleep 0.1; rm running.$$")

    async def part() -> None:
        others = named(A, name="www.example.org")
        shop.take(*(named(A, name=name) for name in shop.names), others)
        assert len(shop.statuses()) == len(shop.names)
        await shop.current()

    shop.play(part)
    assert {line.split()[0] for line in shop.noted()} == set(shop.names)
    assert max(map(int, (shop.root / "at_once").read_text().split())) <= RUNNING


def test_a_name_that_isnt_configured_any_more_is_left(shop: Shop) -> None:
    async def part() -> None:
        shop.take(named(A))
        await shop.current()
        empty = replace(shop.config(), dns=DnsConfig())
        shop.take(config=empty)
        assert shop.statuses() == ()
        shop.take(named(B))
        await shop.current()

    shop.play(part)
    assert shop.noted() == [f"{NAME} 30 +{A} + - -", f"{NAME} 30 +{B} + -{A} -"]


@pytest.mark.parametrize("content", ["{", "[1]", '[{"key": ["exec"]}]', '{"a": 1}'])
def test_what_was_kept_and_cant_be_read(shop: Shop, content: str) -> None:
    (shop.state / PROGRAMS.name).write_text(content)

    async def part() -> None:
        shop.take(named(A))
        await shop.current()

    shop.play(part)


def test_a_host_that_can_start_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    async def part() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(spawn, "Child", refuse)
            shop.take(named(A))
            (standing,) = shop.statuses()
            assert standing.detail == "can't be run: resource temporarily unavailable"
        await shop.current()

    shop.play(part)


def test_a_missing_user_is_logged(shop: Shop) -> None:
    async def part() -> None:
        config = replace(shop.config(), daemon=DaemonConfig(hook_user="no-such-user"))
        shop.take(named(A), config=config)
        (event,) = shop.events()
        assert event.startswith("daemon.hook_user: user no-such-user does not exist; using")

    shop.play(part)
