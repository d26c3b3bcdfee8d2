"""The dynamic update publisher with fake servers: what it sends, when, and what it reports."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest

from ifdefault.daemon.controller.effects import Publish
from ifdefault.daemon.dns.dynamic_update import UPDATES, Memory, Updates
from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.requests import Requests
from ifdefault.dns import update
from ifdefault.host.store import Store
from ifdefault.ipc.messages import Reply
from ifdefault.model.config import Config
from ifdefault.model.dns import AddressRecord, DnsConfig, Endpoint, Published, UpdateConfig
from ifdefault.model.health import Way

ZONE, WWW = "example.net", "www.example.net"
ONE, TWO = Endpoint("192.0.2.53"), Endpoint("192.0.2.54")
A, B = "203.0.113.10", "198.51.100.10"
WAN0, WAN1 = Way("isp-a", 4, A, "wan0", 0), Way("isp-b", 4, B, "wan1", 0)


@dataclass
class Servers:
    """One zone, at whatever address it is asked for; `errors` by server, or by name."""

    records: dict[str, set[str]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)  # servers that never reply
    nameservers: tuple[str, ...] = ()
    sent: list[tuple[str, str, str]] = field(default_factory=list)  # server, name, uplink
    on_disk: Callable[[], Any] = dict
    numbers: count[int] = field(default_factory=count)
    going: int = 0
    most: int = 0

    async def update(
        self,
        way: Way,
        server: Endpoint,
        zone: str,
        name: str,
        ttl: int,
        *,
        add: tuple[str, ...],
        remove: tuple[str, ...],
    ) -> Reply:
        assert not set(add) - set(self.on_disk().get(zone, {}).get(name, ()))
        self.sent.append((server.address, name, way.uplink))
        self.going += 1
        self.most = max(self.most, self.going)
        try:
            if server.address in self.silent:
                await asyncio.Event().wait()
            await asyncio.sleep(0)
        finally:
            self.going -= 1
        error = self.errors.get(server.address) or self.errors.get(name) or ""
        if not error:
            held = self.records.setdefault(name, set())
            held -= set(remove)
            held |= set(add)
        return Reply(next(self.numbers), error)

    async def query(self, way: Way, server: Endpoint, name: str, wanted: str) -> Reply:
        await asyncio.sleep(0)
        if error := self.errors.get(f"ask {server.address}"):
            return Reply(next(self.numbers), error)
        told = {"NS": self.nameservers, "SOA": ("7",)}.get(wanted)
        if told is None:
            family = {"A": ".", "AAAA": ":"}[wanted]
            told = tuple(sorted(a for a in self.records.get(name, ()) if family in a))
        return Reply(next(self.numbers), "", told)


class Stage:
    def __init__(self, directory: Path, servers: Servers) -> None:
        self.servers, self.file = servers, directory / UPDATES.name
        servers.on_disk = self.remembered
        store = Store(directory, daemon=True)
        self.event_log = EventLog(store)
        self.updates = Updates(cast(Requests, servers), store, self.event_log)

    def remembered(self) -> Any:
        return json.loads(self.file.read_text())["content"] if self.file.exists() else {}

    def say(
        self,
        names: dict[str, Sequence[str]],
        servers: Sequence[Endpoint] = (ONE,),
        ways: Sequence[Way] = (WAN0, WAN1),
        zones: Sequence[str] = (ZONE,),
    ) -> None:
        published = [
            Published(name, "rotate", 30, tuple(AddressRecord("isp", a) for a in addresses))
            for name, addresses in names.items()
        ]
        its = tuple(UpdateConfig(zone, tuple(servers)) for zone in zones)
        config = Config((), dns=DnsConfig(updates=its))
        publish = Publish(config, (), (), tuple(published), tuple(ways))
        self.updates.publish(asyncio.get_running_loop().time(), publish)

    def states(self) -> dict[tuple[str, str], str]:
        return {(each.where, each.name): each.state for each in self.updates.statuses()}

    def events(self) -> list[str]:
        return [event.text for event in self.event_log.recent(100) if event.kind == "dns"]

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.001)

    async def current(self) -> None:
        await self.until(lambda: set(self.states().values()) == {"current"})


Story = Callable[[Stage], Coroutine[Any, Any, None]]


def tell(directory: Path, servers: Servers, story: Story) -> None:
    async def main() -> None:
        stage = Stage(directory, servers)
        faults: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        await story(stage)
        await stage.updates.close()
        assert not faults

    asyncio.run(main())


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update, "LOOKS_S", (0.01,))
    monkeypatch.setattr(update, "FIRST_WAIT_S", 0.01)


def test_what_is_ours_is_on_disk_before_it_is_sent(tmp_path: Path) -> None:
    servers = Servers({WWW: {"192.0.2.9"}})

    async def story(stage: Stage) -> None:
        for addresses in ([A], [A, B], [B]):
            stage.say({WWW: addresses})
            await stage.current()
            assert servers.records[WWW] == {"192.0.2.9", *addresses}
            assert stage.remembered() == {ZONE: {WWW: sorted(addresses)}}
        stage.say({})
        await stage.until(lambda: not stage.remembered())
        assert servers.records[WWW] == {"192.0.2.9"}
        assert not stage.states()

    tell(tmp_path, servers, story)


def test_nothing_new_is_not_sent_again(tmp_path: Path) -> None:
    servers = Servers()

    async def story(stage: Stage) -> None:
        stage.say({WWW: [A]})
        await stage.current()
        sent = list(servers.sent)
        stage.say({WWW: [A]})
        stage.say({WWW: [A]}, ways=(WAN1,))
        stage.updates.frontend_started()
        await asyncio.sleep(0.01)
        assert servers.sent == sent
        stage.say({WWW: [A]}, servers=(TWO,))  # another server may know nothing of it
        await stage.until(lambda: servers.sent[-1][0] == TWO.address)
        await stage.current()

    tell(tmp_path, servers, story)


def test_one_name_that_fails_holds_up_no_other(tmp_path: Path) -> None:
    servers = Servers(errors={WWW: f"{WWW} is a CNAME at {ONE.address}"})
    names = {f"n{number}.{ZONE}": [A] for number in range(40)}

    async def story(stage: Stage) -> None:
        stage.say({WWW: [A], **names})
        await stage.until(lambda: Counter(stage.states().values())["current"] == 40)
        assert stage.states()[ONE.address, WWW] == "failing"
        assert 1 < servers.most <= 8
        tries = Counter(name for _, name, _ in servers.sent)
        assert set(tries[name] for name in names) == {1}  # noqa: C401
        told = f"dns.update {ZONE} at {ONE.address}: failing ({servers.errors[WWW]})"
        assert stage.events() == [told]
        await stage.until(lambda: Counter(n for _, n, _ in servers.sent)[WWW] > 2)
        del servers.errors[WWW]
        await stage.current()
        assert stage.events() == [told, f"dns.update {ZONE} at {ONE.address}: current again"]

    tell(tmp_path, servers, story)


def test_a_zone_whose_server_is_silent_holds_up_no_other(tmp_path: Path) -> None:
    servers = Servers(silent={ONE.address})

    async def story(stage: Stage) -> None:
        stage.say({f"n{number}.{ZONE}": [A] for number in range(20)})
        await stage.until(lambda: servers.going == 8)
        updates = (UpdateConfig(ZONE, (ONE,)), UpdateConfig("example.org", (TWO,)))
        names = [
            Published(n, "rotate", 30, (AddressRecord("isp", A),)) for n in (WWW, "example.org")
        ]
        config = Config((), dns=DnsConfig(updates=updates))
        stage.updates.publish(0, Publish(config, (), (), tuple(names), (WAN0,)))
        await stage.until(lambda: stage.states().get((TWO.address, "example.org")) == "current")

    tell(tmp_path, servers, story)


def test_each_try_is_another_server_by_another_way(tmp_path: Path) -> None:
    servers = Servers(errors={a: f"{a}: no answer in 5 s" for a in (ONE.address, TWO.address)})

    async def story(stage: Stage) -> None:
        stage.say({WWW: [A]}, servers=(ONE, TWO))
        await stage.until(lambda: len(servers.sent) >= 4)
        assert [(server, uplink) for server, _, uplink in servers.sent[:4]] == [
            (ONE.address, "isp-a"), (TWO.address, "isp-b"),
            (ONE.address, "isp-b"), (TWO.address, "isp-a"),
        ]  # fmt: skip
        details = {each.where: each.detail for each in stage.updates.statuses()}
        assert details == dict.fromkeys((ONE.address, TWO.address), "no answer in 5 s")
        del servers.errors[TWO.address]
        await stage.current()
        # the next name doesn't begin with the one that is silent
        before = len(servers.sent)
        stage.say({WWW: [A], ZONE: [A]}, servers=(ONE, TWO))
        await stage.current()
        assert [server for server, _, _ in servers.sent[before:]] == [TWO.address]

    tell(tmp_path, servers, story)


def test_a_refusal_is_shown_though_another_server_accepted(tmp_path: Path) -> None:
    servers = Servers(errors={ONE.address: f"{ONE.address} refuses: NOTAUTH (BADKEY)"})

    async def story(stage: Stage) -> None:
        stage.say({WWW: [A]}, servers=(ONE, TWO))
        await stage.until(lambda: stage.states().get((TWO.address, WWW)) == "current")
        first, second = stage.updates.statuses()
        assert (first.state, first.detail) == ("failing", "NOTAUTH (BADKEY)")
        assert (first.seen, second.seen) == ((A,), (A,))
        assert second.detail == "serial 7"

    tell(tmp_path, servers, story)


def test_what_is_sent_is_overtaken_by_what_is_to_be_said_now(tmp_path: Path) -> None:
    servers = Servers(silent={ONE.address})

    async def story(stage: Stage) -> None:
        stage.say({WWW: [A, B]})
        await stage.until(lambda: servers.going)
        servers.silent.clear()
        stage.say({WWW: [B]})
        await stage.until(lambda: servers.records.get(WWW) == {B})
        assert stage.remembered()[ZONE][WWW] == [B, A]  # the first one may yet be carried out
        servers.records[WWW] = {A, B}
        await stage.until(lambda: servers.records[WWW] == {B})

    tell(tmp_path, servers, story)


def test_another_engine_withdraws_what_a_killed_one_left(tmp_path: Path) -> None:
    left: Memory = {ZONE: {WWW: (A,), ZONE: (A,)}, "other": {"x": (A,)}}
    Store(tmp_path).write(UPDATES, left)
    servers = Servers({WWW: {A, "192.0.2.9"}, ZONE: {A}})

    async def story(stage: Stage) -> None:
        stage.say({WWW: [], ZONE: [B]})
        await stage.current()
        assert servers.records == {WWW: {A, "192.0.2.9"}, ZONE: {B}}  # not known yet is not gone
        stage.say({WWW: [B], ZONE: [B]})
        await stage.until(lambda: servers.records[WWW] == {B, "192.0.2.9"})
        assert stage.remembered()["other"] == {"x": [A]}

    tell(tmp_path, servers, story)


@pytest.mark.parametrize("text", ["{", "[1]", '{"example.net": []}', '{"a": {"b": ["c"]}}'])
def test_a_memory_that_can_t_be_read_is_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / UPDATES.name).write_text(text)

    async def story(stage: Stage) -> None:
        stage.servers.on_disk = lambda: {ZONE: {WWW: [A]}}
        stage.say({WWW: [A]})
        await stage.current()
        stage.event_log.note_state()
        assert f"{UPDATES.name}: is damaged: " in stage.event_log.recent(1)[0].text
        assert stage.remembered() == {ZONE: {WWW: [A]}}

    tell(tmp_path, Servers(), story)


def test_what_can_t_be_saved_is_published_and_logged(tmp_path: Path) -> None:
    (tmp_path / f".{UPDATES.name}.new").mkdir()

    async def story(stage: Stage) -> None:
        stage.servers.on_disk = lambda: {ZONE: {WWW: [A]}}
        stage.say({WWW: [A]})
        await stage.current()
        stage.event_log.note_state()
        assert f"{UPDATES.name}: can't be saved: " in stage.event_log.recent(1)[0].text

    tell(tmp_path, Servers(), story)


def test_the_zone_s_other_servers_are_looked_at(tmp_path: Path) -> None:
    """Addresses that the updated server doesn't know are looked up by the resolver."""
    hosts = ("ns1.example.net", "ns2.example.com", r"no\032host")
    servers = Servers({hosts[0]: {ONE.address, "::ffff:192.0.2.77"}}, nameservers=hosts)

    async def story(stage: Stage) -> None:
        stage.say({WWW: [A]})
        await stage.until(lambda: stage.updates.hosts() == (hosts[1],))
        servers.errors[f"ask {TWO.address}"] = f"{TWO.address} refuses: REFUSED"
        stage.updates.resolved(hosts[1], (TWO.address, "2001:db8::54"), "")
        stage.say({WWW: [B]})
        await stage.until(lambda: stage.states().get((TWO.address, WWW)) == "failing")
        assert set(stage.states()) == {(ONE.address, WWW), (TWO.address, WWW)}
        assert stage.events() == [f"dns.update {ZONE} at {TWO.address}: failing (REFUSED)"]
        assert stage.updates.hosts() == (hosts[1],)  # it may be elsewhere some day

    tell(tmp_path, servers, story)


def test_zones_that_are_configured_no_more_are_let_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        update, "UNKNOWN_OUTCOME_S", 0.02
    )  # whether what was left there is gone for good
    servers = Servers()

    async def story(stage: Stage) -> None:
        stage.say({WWW: [A]})
        await stage.current()
        stage.say({WWW: [A]}, zones=())
        assert not stage.states()
        assert stage.remembered() == {ZONE: {WWW: [A]}}
        stage.say({})
        await stage.until(lambda: not stage.remembered())
        assert not servers.records[WWW]

    tell(tmp_path, servers, story)


def test_without_a_way_it_waits_for_one(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        stage.say({WWW: [A]}, ways=())
        await stage.until(lambda: "failing" in stage.states().values())
        (standing,) = stage.updates.statuses()
        assert standing.detail == "no usable uplink reaches it"
        assert not stage.servers.sent
        stage.say({WWW: [A]})
        await stage.current()

    tell(tmp_path, Servers(), story)
