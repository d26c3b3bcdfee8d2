"""Discovery: which services it asks, which answers it accepts, and what it saves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ifdefault.daemon.dns import public_address
from ifdefault.daemon.dns.public_address import Discovery
from ifdefault.daemon.event_log import EventLog
from ifdefault.host.saved_state import DISCOVERED
from ifdefault.host.store import Store
from ifdefault.ipc.messages import Reply
from ifdefault.model.address import is_public
from ifdefault.model.config import Config, Family, UplinkConfig
from ifdefault.model.dns import DISCOVER, DnsConfig, Endpoint
from ifdefault.model.health import Way

DNS4, DNS6 = "dns://192.0.2.53/my.address.example", "dns://[2001:db8::53]:5353/my.address.example"
WEB = "https://who.example/ip"
SEEN, OTHER, SEEN6 = "203.0.113.10", "203.0.113.11", "2001:db8:a::10"
WAY4 = Way("isp-a", 4, "10.0.0.2", "wan0", 0)
WAY6 = Way("isp-a", 6, "fd00::2", "wan0", 0)


class Requests:
    """What services say, by address; whoever isn't named says nothing for now."""

    def __init__(self) -> None:
        self.said: dict[str, Reply] = {}
        self.asked: list[tuple[Any, ...]] = []

    async def query(
        self, way: Way, server: Endpoint, name: str, wanted: str, *, recurse: bool
    ) -> Reply:
        return await self._reply(way.dev, server, name, wanted, recurse, at=server.address)

    async def fetch(
        self, way: Way, address: str, port: int, host: str, path: str, *, secure: bool
    ) -> Reply:
        return await self._reply(way.dev, address, port, host, path, secure, at=address)

    async def _reply(self, *asked: Any, at: str) -> Reply:
        self.asked.append(asked)
        while at not in self.said:
            await asyncio.sleep(0.001)
        return self.said[at]


def says(*texts: str, error: str = "") -> Reply:
    return Reply(1, error, texts)


def config(*services: str, public: str = DISCOVER) -> Config:
    uplinks = (UplinkConfig("isp-a", "wan0", public=(public,)), UplinkConfig("isp-b", "wan1"))
    return Config(uplinks, dns=DnsConfig(discover=services))


class Desk:
    def __init__(self, root: Path) -> None:
        self.store = Store(root)
        self.exchanges = Requests()
        self.found: list[tuple[str, Family, str]] = []
        self.discovery: Discovery  # in a running loop
        self.event_log: EventLog

    def play(self, part: Callable[[], Awaitable[None]]) -> None:
        async def main() -> None:
            self.event_log = EventLog(self.store)
            exchanges: Any = self.exchanges
            self.discovery = Discovery(exchanges, self.event_log, self.store, self._note)
            await part()
            await self.discovery.close()
            assert len(asyncio.all_tasks()) == 1

        asyncio.run(main())

    def _note(self, uplink: str, family: Family, address: str) -> None:
        self.found.append((uplink, family, address))

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.001)

    async def asked(self, times: int) -> None:
        await self.until(lambda: len(self.exchanges.asked) >= times)

    def events(self) -> list[str]:
        return [event.text for event in self.event_log.recent(100)]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_each_family_is_asked_over_its_own_way(desk: Desk) -> None:
    desk.exchanges.said = {"192.0.2.53": says(SEEN), "2001:db8::53": says(SEEN6)}

    async def part() -> None:
        desk.discovery.update(config(DNS4, DNS6), [WAY4, WAY6, Way("isp-b", 4, OTHER, "wan1", 0)])
        await desk.until(lambda: len(desk.found) == 2)
        assert desk.discovery.problems == ()

    desk.play(part)
    assert sorted(desk.found) == [("isp-a", 4, SEEN), ("isp-a", 6, SEEN6)]
    assert desk.exchanges.asked == [
        ("wan0", Endpoint("192.0.2.53"), "my.address.example", "A", True),
        ("wan0", Endpoint("2001:db8::53", 5353), "my.address.example", "AAAA", True),
    ]
    assert sorted(desk.events()) == [
        f"isp-a: public IPv4 address {SEEN} (from {DNS4})",
        f"isp-a: public IPv6 address {SEEN6} (from {DNS6})",
    ]


def test_a_service_by_name_is_asked_when_the_name_is_resolved(desk: Desk) -> None:
    desk.exchanges.said = {"192.0.2.80": says(SEEN)}

    async def part() -> None:
        assert desk.discovery.hosts() == set()
        desk.discovery.update(config(WEB), [WAY4])
        assert desk.discovery.hosts() == {"who.example"}
        await desk.until(lambda: desk.discovery.problems)
        desk.discovery.resolved("who.example", (), "no such name")
        desk.discovery.resolved("other.example", ("192.0.2.81",), "")
        desk.discovery.resolved("who.example", ("2001:db8::80", "192.0.2.80"), "")
        await desk.until(lambda: desk.found)

    desk.play(part)
    assert desk.found == [("isp-a", 4, SEEN)]
    assert desk.exchanges.asked == [("wan0", "192.0.2.80", 443, "who.example", "/ip", True)]


def test_the_first_sound_answer_has_the_last_word(desk: Desk) -> None:
    hosts = [f"192.0.2.{number}" for number in range(1, 6)]
    answers = [
        says(error="192.0.2.1: no answer in 2 s"),
        says(),
        says("10.0.0.2", SEEN6),
        says("192.168.0.1", SEEN),
        says(OTHER),
    ]
    desk.exchanges.said = dict(zip(hosts, answers, strict=True))

    async def part() -> None:
        desk.discovery.update(config(*(f"dns://{host}/me.example" for host in hosts)), [WAY4])
        await desk.until(lambda: desk.found)

    desk.play(part)
    assert desk.found == [("isp-a", 4, SEEN)]
    assert len(desk.exchanges.asked) == 4


def test_if_no_service_answers_it_is_logged_and_retried_soon(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(public_address, "SOON_S", 0.001)
    desk.exchanges.said = {"192.0.2.53": says("10.0.0.2")}

    async def part() -> None:
        desk.discovery.update(config(DNS4, WEB), [WAY4])
        await desk.until(lambda: len(desk.exchanges.asked) > 2)
        (problem,) = desk.discovery.problems
        assert problem == (
            f"uplink.isp-a: public IPv4 address unknown: {DNS4}: 10.0.0.2 is not a"
            f" public IPv4 address; {WEB}: its name is not resolved yet"
        )
        assert desk.events() == [problem]  # once
        desk.exchanges.said = {"192.0.2.53": says(SEEN)}
        await desk.until(lambda: desk.found)
        assert desk.discovery.problems == ()

    desk.play(part)


def test_no_service_of_a_family(desk: Desk) -> None:
    async def part() -> None:
        desk.discovery.update(config(DNS4), [WAY6])
        await desk.until(lambda: desk.discovery.problems)
        assert desk.discovery.problems[0].endswith("no service of dns.discover has an IPv6 address")

    desk.play(part)
    assert desk.exchanges.asked == []


def test_it_is_asked_anew_when_a_way_comes_back_or_changes(desk: Desk) -> None:
    desk.exchanges.said = {"192.0.2.53": says(SEEN)}

    async def part() -> None:
        following = config(DNS4)
        moved = Way("isp-a", 4, "10.0.0.3", "wan0", 0)
        for number, ways in enumerate(([WAY4], [moved], [WAY4]), start=1):
            desk.discovery.update(following, ways)
            desk.discovery.update(following, ways)
            await desk.asked(number)
        desk.discovery.update(following, [])
        desk.discovery.update(following, [WAY4])
        await desk.asked(4)
        desk.exchanges.said = {"192.0.2.53": says(OTHER)}
        desk.discovery.frontend_started()
        await desk.until(lambda: len(desk.found) == 2)

    desk.play(part)
    assert desk.found == [("isp-a", 4, SEEN), ("isp-a", 4, OTHER)]
    assert len(desk.exchanges.asked) == 5


def test_it_is_asked_again_from_time_to_time(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public_address, "AGAIN_S", 0.001)
    desk.exchanges.said = {"192.0.2.53": says(SEEN)}

    async def part() -> None:
        desk.discovery.update(config(DNS4), [WAY4])
        await desk.asked(3)

    desk.play(part)
    assert desk.found == [("isp-a", 4, SEEN)]


def test_saved_addresses_are_used_at_the_next_start(desk: Desk) -> None:
    desk.exchanges.said = {"192.0.2.53": says(SEEN)}

    async def first() -> None:
        desk.discovery.update(config(DNS4), [WAY4])
        await desk.until(lambda: desk.found)

    async def second() -> None:
        desk.found.clear()
        desk.discovery.update(config(DNS4, public="192.0.2.1"), [])
        assert desk.found == []
        desk.discovery.update(config(DNS4), [])
        desk.discovery.update(config(DNS4), [])
        assert desk.found == [("isp-a", 4, SEEN)]
        assert desk.discovery.hosts() == set()

    desk.play(first)
    desk.play(second)


@pytest.mark.parametrize("content", ["{", "1", '[["isp-a", 4]]', '[["isp-a", 4, 1]]'])
def test_what_was_kept_and_cant_be_read(desk: Desk, content: str) -> None:
    (desk.store.directory / DISCOVERED.name).write_text(content)

    async def part() -> None:
        desk.discovery.update(config(DNS4), [])

    desk.play(part)
    assert desk.found == []


@pytest.mark.parametrize(
    ("text", "family", "sound"),
    [
        (SEEN, 4, True),
        (SEEN6, 6, True),
        (SEEN, 6, False),
        (SEEN6, 4, False),
        ("10.1.2.3", 4, False),
        ("100.64.0.1", 4, False),
        ("127.0.0.1", 4, False),
        ("0.0.0.0", 4, False),
        ("224.0.0.1", 4, False),
        ("255.255.255.255", 4, False),
        ("169.254.1.1", 4, False),
        ("::1", 6, False),
        ("::", 6, False),
        ("::ffff:203.0.113.10", 6, False),
        ("fe80::1", 6, False),
        ("fd00::1", 6, False),
        ("ff02::1", 6, False),
        ("who", 4, False),
        ("", 4, False),
    ],
)
def test_public_addresses(text: str, family: Family, sound: bool) -> None:
    assert is_public(text, family) == sound
