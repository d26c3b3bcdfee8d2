"""Names at a provider: the real API of a real PowerDNS, by the real dns-lexicon, without any right.

client ── core ── isp-a ── wan0 host     PowerDNS is on the client, the publisher (this process) in
                                         the host's namespace
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ifdefault.daemon.controller.effects import Publish
from ifdefault.daemon.dns import programs
from ifdefault.daemon.dns.programs import Programs
from ifdefault.daemon.event_log import EventLog
from ifdefault.host.store import Store
from ifdefault.ipc import privileges
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.config import Config, DaemonConfig
from ifdefault.model.dns import AddressRecord, DnsConfig, NameConfig, ProviderConfig, Published
from ifdefault.model.report import PublisherStatus
from tests.net.conftest import LabWorld
from tests.net.test_frontend import stopped

A, B, OTHERS = "203.0.113.10", "198.51.100.10", "192.0.2.99"
A6, B6 = "2001:db8:a::10", "2001:db8:b::10"
SERVER, API, TOKEN = "198.18.1.10", 8081, "a-real-secret"
NAME = "www.example.net"
SCHEMAS = "/usr/share/pdns-backend-sqlite3/schema", "/usr/share/doc/pdns-backend-sqlite3"


class Provider:
    """PowerDNS on the client, with a zone in which somebody else has an address of our name."""

    def __init__(self, world: World, home: Path) -> None:
        self.node, self.host, self.home = world["client"], world["host"], home
        database = home / "pdns.sqlite3"
        schema = next(p for d in SCHEMAS if (p := Path(d, "schema.sqlite3.sql")).exists())
        with sqlite3.connect(database) as connection:
            connection.executescript(schema.read_text())
        connection.close()
        (home / "pdns.conf").write_text(
            f"""\
launch=gsqlite3
gsqlite3-database={database}
local-address={SERVER}
socket-dir={home}
api=yes
api-key={TOKEN}
webserver=yes
webserver-address={SERVER}
webserver-port={API}
webserver-allow-from=0.0.0.0/0
cache-ttl=0
query-cache-ttl=0
negquery-cache-ttl=0
zone-cache-refresh-interval=0
daemon=no
guardian=no
"""
        )
        self._util("create-zone", "example.net", "ns.example.net")
        self._util("add-record", "example.net", "www", "A", "60", OTHERS)

    def start(self) -> subprocess.Popen[str]:
        with (self.home / "log").open("a") as log:
            command = ["pdns_server", f"--config-dir={self.home}"]
            child = self.node.popen(command, stdout=log, stderr=log, what="pdns")
        listing = ["ss", "-Hltn", f"sport = :{API}"]
        eventually(
            lambda: child.poll() is not None or self.node.run(listing).stdout.strip(),
            what="PowerDNS listens",
        )
        assert child.poll() is None, (self.home / "log").read_text()
        return child

    def stop(self) -> None:
        self.node.world.end("pdns")

    def records(self, kind: str) -> set[str]:
        """What the world is told."""
        command = ["dig", f"@{SERVER}", "+short", "+tries=3", "+time=2", NAME, kind]
        return set(self.host.run(command).stdout.split())

    def _util(self, *arguments: str) -> None:
        self.node.run(["pdnsutil", f"--config-dir={self.home}", *arguments])


class Office:
    """The publisher, as of one engine or of several that follow each other."""

    def __init__(self, world: World, home: Path) -> None:
        self.world = world
        self.state = home / "state"
        self.state.mkdir()
        self.credentials = home / "powerdns.toml"
        self.timeout_s = 60.0
        self.user = privileges.possible(*privileges.choose_user("nobody")[:2])
        self.publisher: Programs
        self.event_log: EventLog
        self.give(TOKEN)

    def give(self, token: str) -> None:
        """Write the credentials, for the user alone."""
        self.credentials.unlink(missing_ok=True)
        self.credentials.write_text(
            f'auth_token = "{token}"\npdns_server = "http://{SERVER}:{API}"\n'
        )
        self.credentials.chmod(0o400)
        os.chown(self.credentials, *self.user)

    def play(self, part: Callable[[], Awaitable[None]]) -> None:
        async def main() -> None:
            store = Store(self.state)
            self.event_log = EventLog(store)
            self.publisher = Programs(self.event_log, store)
            try:
                await part()
            finally:
                await self.publisher.close()

        with self.world["host"].enter():
            asyncio.run(main())

    def take(self, *addresses: str) -> None:
        """Say it to a config that was just read."""
        handed = tuple(AddressRecord("isp-a", address) for address in addresses)
        place = ProviderConfig("example.net", "powerdns", str(self.credentials), self.timeout_s)
        dns = DnsConfig(names=(NameConfig(NAME, ttl=45),), providers=(place,))
        config = Config((), daemon=DaemonConfig(user="nobody"), dns=dns)
        now = asyncio.get_running_loop().time()
        published = (Published(NAME, "rotate", 5, handed),)
        self.publisher.publish(now, Publish(config, (), (), published, ()))

    @property
    def standing(self) -> PublisherStatus:
        (standing,) = self.publisher.statuses()
        return standing

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.02)

    async def current(self) -> None:
        await self.until(lambda: self.standing.state == "current")


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(programs, "LONGEST_WAIT_S", 1.0)
    with tempfile.TemporaryDirectory() as directory:  # a test's own only its user can read
        os.chmod(directory, 0o755)
        yield Path(directory)


def test_ours_come_and_go_and_others_stay(lab_world: LabWorld, home: Path) -> None:
    world = lab_world("one")
    provider, office = Provider(world, home), Office(world, home)
    provider.start()

    async def first() -> None:
        office.take(A, B, A6, B6)
        await office.current()
        assert provider.records("A") == {A, B, OTHERS}
        assert provider.records("AAAA") == {A6, B6}
        assert (office.standing.kind, office.standing.where) == ("provider", "powerdns")
        office.take(A, A6)
        await office.current()
        assert provider.records("A") == {A, OTHERS}
        assert provider.records("AAAA") == {A6}

    async def next_engine() -> None:
        office.take(A, A6)
        assert office.standing.state == "current"
        office.take(B, B6)
        await office.current()
        assert provider.records("A") == {B, OTHERS}
        assert provider.records("AAAA") == {B6}

    office.play(first)
    ttls = world["host"].run(["dig", f"@{SERVER}", "+noall", "+answer", NAME, "AAAA"]).stdout
    assert ttls.split()[1] == "45"  # the configured one, though the uplink was in doubt
    office.play(next_engine)


def test_what_the_provider_refuses_is_told_and_tried_again(lab_world: LabWorld, home: Path) -> None:
    world = lab_world("one")
    provider, office = Provider(world, home), Office(world, home)

    async def part() -> None:
        office.take(A)
        await office.until(lambda: office.standing.state == "failing")
        assert "onnection refused" in office.standing.detail
        office.give("a-wrong-secret")
        provider.start()
        await office.until(lambda: "401" in office.standing.detail)
        assert "a-wrong-secret" not in office.standing.detail
        office.give(TOKEN)
        await office.current()
        assert provider.records("A") == {A, OTHERS}
        provider.stop()
        office.take(A, B)
        await office.until(lambda: office.standing.state == "failing")
        provider.start()
        await office.current()
        assert provider.records("A") == {A, B, OTHERS}
        assert [e.text.split(": ")[0] for e in office.event_log.recent(99)][-2:] == [
            f"{NAME} by powerdns fails",
            f"{NAME} by powerdns works again",
        ]

    office.play(part)


def test_it_has_no_right_and_is_ended_when_it_hangs(lab_world: LabWorld, home: Path) -> None:
    world = lab_world("one")
    provider, office = Provider(world, home), Office(world, home)
    server = provider.start()
    office.timeout_s = 5.0

    async def part() -> None:
        with stopped(server.pid):
            office.take(A)
            (run,) = office.publisher._runner._running.values()
            status = Path(f"/proc/{run._child.pid}/status")
            await office.until(lambda: not privileges.left_over(status.read_text(), office.user[0]))
            await office.until(lambda: office.standing.state == "failing")
            assert office.standing.detail.startswith("killed after 5 s (timeout)")
        await office.current()
        assert provider.records("A") == {A, OTHERS}

    office.play(part)
