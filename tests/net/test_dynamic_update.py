"""Dynamic updates, at a real BIND, Knot and PowerDNS.

                ┌─ isp-a ── wan0 ┐
client ── core ─┤                ├ host     the publisher is in this process, its frontend is real;
        server  └─ isp-b ── wan1 ┘          the server is in the core, a secondary at the client
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.query
import pytest

from bench import peers_dns
from bench.dns_updater import Publication, Publisher, running
from ifdefault.daemon.dns.dynamic_update import UPDATES
from ifdefault.dns import update
from ifdefault.lab import services
from ifdefault.lab.topology import ZONE
from ifdefault.lab.waiting import PATIENCE_S, eventually
from ifdefault.lab.world import World
from ifdefault.model.dns import Endpoint
from ifdefault.model.health import Way
from tests.net.conftest import LabWorld
from tests.net.test_frontend import clear, lay, until

A, B, A6 = "203.0.113.10", "198.51.100.10", "2001:db8:a::10"
RENUMBERED, OTHER = "203.0.113.77", "192.0.2.99"
WAN0, WAN1 = Way("isp-a", 4, A, "wan0", 0), Way("isp-b", 4, B, "wan1", 0)
WAN0_V6 = Way("isp-a", 6, A6, "wan0", 0)
WAYS = (WAN0, WAN1, WAN0_V6)
SERVER, SERVER_V6 = peers_dns.OUTSIDE
CLIENT = "198.18.1.10"
WWW = f"www.{ZONE}"
_SCHEMA = Path("/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql")  # Debian's


def powerdns(world: World) -> None:
    """PowerDNS, which lets a key change the zone."""
    core = peers_dns.settle_outside(world)
    home = services.home_of(core, "pdns")
    with closing(sqlite3.connect(home / "db")) as database:
        database.executescript(_SCHEMA.read_text())
    settings = {
        "launch": "gsqlite3",
        "gsqlite3-database": home / "db",
        "local-address": ", ".join(peers_dns.OUTSIDE),
        "socket-dir": home,
        "dnsupdate": "yes",
        "allow-dnsupdate-from": "0.0.0.0/0, ::/0",
        "security-poll-suffix": "",  # it would ask the Internet for news of itself
    }
    text = "".join(f"{key}={value}\n" for key, value in settings.items())
    (home / "pdns.conf").write_text(text, encoding="utf-8")
    for line in (
        f"create-zone {ZONE} {peers_dns.NAMESERVER}",
        f"add-record {ZONE} ns A {SERVER}",
        f"import-tsig-key {peers_dns.KEY_NAME} hmac-sha256 {peers_dns.SECRET}",
        f"set-meta {ZONE} TSIG-ALLOW-DNSUPDATE {peers_dns.KEY_NAME}",
    ):
        core.run(["pdnsutil", f"--config-dir={home}", *line.split()])
    command = ["pdns_server", f"--config-dir={home}", "--daemon=no", "--guardian=no"]
    child = services.start(core, "pdns_server", command)
    services.answering(core, "pdns_server", child, socket.SOCK_DGRAM, 53, SERVER_V6)


SERVERS: dict[str, Callable[[World], None]] = {
    "bind": peers_dns.bind_updated,
    "knot": peers_dns.knot_updated,
    "powerdns": powerdns,
}
ROOT = Path(__file__).parents[2]
PROMPT_S = 0.5  # from the decision to the answers
DEAD_WAY_S = 5.0  # what waits for a dead way takes as long


@pytest.fixture
def key() -> Iterator[Path]:
    with peers_dns.key_file() as path:
        yield path


@pytest.fixture(params=SERVERS)
def world(request: pytest.FixtureRequest, lab_world: LabWorld) -> World:
    """One with a server that takes updates."""
    made = lab_world("two")
    SERVERS[request.param](made)
    await_zone(made)
    return made


def publication(
    key: Path | str,
    names: Mapping[str, Sequence[str]],
    *,
    servers: Sequence[str] = (SERVER,),
    ways: Sequence[Way] = WAYS,
    ttl: int = 30,
    zone: str = ZONE,
) -> Publication:
    return Publication({zone: [Endpoint(a, 53, str(key)) for a in servers]}, names, ways, ttl)


def query(question: dns.message.Message, server: str) -> dns.message.Message:
    """A server's answer by UDP; as any resolver, it asks again when none comes."""
    for _ in range(20):
        with suppress(dns.exception.Timeout):
            return dns.query.udp(question, server, timeout=1)
    raise TimeoutError(f"{server} doesn't answer")


def await_zone(world: World, server: str = SERVER) -> None:
    """Until a server has loaded its zone, which is after it listens."""

    def loaded() -> bool:
        question = dns.message.make_query(ZONE, "SOA")
        return bool(query(question, server).answer)

    eventually(lambda: world["client"].python(loaded), what="the zone is loaded")


def keep(world: World, scenario: Callable[[Publisher], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario with a publisher on the host."""

    async def main() -> None:
        async with running(world.dir / "state") as publisher:
            await scenario(publisher)

    with world["host"].enter():
        asyncio.run(main())


def records(world: World, name: str = WWW, server: str = SERVER) -> dict[str, int]:
    """The addresses that a server has of a name, with their TTLs."""

    def ask() -> dict[str, int]:
        found: dict[str, int] = {}
        for kind in ("A", "AAAA"):
            question = dns.message.make_query(name, kind, flags=dns.flags.Flag(0))
            answer = query(question, server)
            found |= {str(each): rrset.ttl for rrset in answer.answer for each in rrset}
        return found

    return world["client"].python(ask)


async def say_it(world: World, name: str, addresses: set[str], server: str = SERVER) -> None:
    """Until a server says just this of a name."""
    found: dict[str, int] = {}
    over = time.monotonic() + PATIENCE_S
    while time.monotonic() < over:
        found = await asyncio.to_thread(records, world, name, server)
        if set(found) == addresses:
            return
        await asyncio.sleep(0.005)
    assert set(found) == addresses


def change(world: World, *lines: str) -> None:
    """What somebody else does at the server, by nsupdate."""
    text = "\n".join((f"server {SERVER}", f"zone {ZONE}", *lines, "send", ""))
    key = f"hmac-sha256:{peers_dns.KEY_NAME}:{peers_dns.SECRET}"
    world["client"].run(["nsupdate", "-v", "-y", key], stdin=text)


def failing(publisher: Publisher, detail: str, where: str = SERVER) -> bool:
    return any(s.state == "failing" and s.detail == detail for s in publisher.statuses(where=where))


# --- what is said -------------------------------------------------------------------------


def test_an_address_is_added_withdrawn_and_returns(world: World, key: Path) -> None:
    change(world, f"update add {WWW} 60 A {OTHER}", f"update add {WWW} 60 TXT theirs")

    async def scenario(publisher: Publisher) -> None:
        loop = asyncio.get_running_loop()
        took_s = []
        for addresses in ([A, B, A6], [B], [A, B, A6], [RENUMBERED, B]):
            start_s = loop.time()
            publisher.publish(publication(key, {WWW: addresses}))
            await say_it(world, WWW, {OTHER, *addresses})
            took_s.append(loop.time() - start_s)
            assert await publisher.settled()
            (status,) = publisher.statuses(WWW, SERVER)
            assert set(status.seen) == {OTHER, *addresses}
            assert status.detail.startswith("serial ")
        assert min(took_s) < PROMPT_S  # a busy machine, or Knot, may hold one of them back
        assert not publisher.events()

    keep(world, scenario)


def test_over_ipv6_without_ipv4(world: World, key: Path) -> None:
    async def scenario(publisher: Publisher) -> None:
        publisher.publish(publication(key, {WWW: [A]}, servers=[SERVER_V6], ways=[WAN0_V6]))
        assert await publisher.settled()
        await say_it(world, WWW, {A})

    keep(world, scenario)


def test_the_ttl_follows_alone(world: World, key: Path) -> None:
    async def scenario(publisher: Publisher) -> None:
        for ttl in (30, 5, 30):
            publisher.publish(publication(key, {WWW: [A, A6]}, ttl=ttl))
            assert await publisher.settled()
            wanted = {A: ttl, A6: ttl}
            assert await asyncio.to_thread(records, world) == wanted

    keep(world, scenario)


def test_a_name_that_is_published_no_more_is_withdrawn(world: World, key: Path) -> None:
    async def scenario(publisher: Publisher) -> None:
        publisher.publish(publication(key, {WWW: [A], ZONE: [A]}))
        assert await publisher.settled()
        publisher.publish(publication(key, {ZONE: [A]}))
        await say_it(world, WWW, set())
        await until(lambda: not publisher.statuses(WWW), "nothing is left to see to")
        publisher.publish(
            publication(key, {ZONE: []})
        )  # nothing is known any more: what is there stays
        publisher.publish(publication(key, {ZONE: [], WWW: [B]}))
        await say_it(world, WWW, {B})
        await say_it(world, ZONE, {A})

    keep(world, scenario)


def test_what_somebody_deletes_is_put_back(
    world: World, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update, "CALM_S", 0.2)

    async def scenario(publisher: Publisher) -> None:
        publisher.publish(publication(key, {WWW: [A, B]}))
        assert await publisher.settled()
        await asyncio.to_thread(change, world, f"update delete {WWW} A {A}")
        await say_it(world, WWW, {A, B})
        told = f"dns.update {ZONE} at {SERVER}: {WWW}: {A} had been removed"
        await until(lambda: publisher.events() == [told], "it is told")

    keep(world, scenario)


def test_two_hosts_share_a_name(world: World, key: Path) -> None:
    async def scenario(publisher: Publisher) -> None:
        async with running(world.dir / "other") as other:
            theirs = ["203.0.113.20", "198.51.100.20"]
            for ours, of_them in (([A, B], theirs), ([B], theirs), ([A], theirs[1:])):
                publisher.publish(publication(key, {WWW: ours}))
                other.publish(publication(key, {WWW: of_them}))
                assert await publisher.settled()
                assert await other.settled()
                await say_it(world, WWW, {*ours, *of_them})

    keep(world, scenario)


def test_a_view_that_the_key_chooses(lab_world: LabWorld, key: Path) -> None:
    """BIND shows others another zone, in which the name has an address that isn't ours."""
    world = lab_world("two")
    core, ours = peers_dns.settle_outside(world), f"$ORIGIN {ZONE}.\n{peers_dns.apex(10)}"
    (world.dir / "others").write_text(f"{ours}www 60 A {OTHER}\n")
    with_key = f'{{ key "{peers_dns.KEY_NAME}"; }}'
    views = f"""
view key {{
  match-clients {with_key};
  zone "{ZONE}" {{
    type primary; file "zone"; allow-update {with_key}; allow-query {with_key};
  }};
}};
view others {{
  match-clients {{ any; }};
  zone "{ZONE}" {{ type primary; file "{world.dir}/others"; }};
}};"""
    peers_dns.bind(core, peers_dns.OUTSIDE, 53, ours, "", peers_dns.KEY, views)

    async def scenario(publisher: Publisher) -> None:
        publisher.publish(publication(key, {WWW: [A, B]}, servers=[SERVER, SERVER_V6]))
        assert await publisher.settled()
        assert {status.seen for status in publisher.statuses(WWW)} == {(B, A)}
        assert await asyncio.to_thread(records, world) == {OTHER: 60}
        assert not publisher.events()

    keep(world, scenario)


# --- servers that refuse ------------------------------------------------------------------


@pytest.mark.parametrize(("wrong", "fault"), [("secret", "BADSIG"), ("name", "BADKEY")])
def test_a_wrong_key_is_named_and_tried_until_it_is_right(
    world: World, key: Path, wrong: str, fault: str
) -> None:
    right, said = key.read_text(), [f"NOTAUTH ({fault})"]
    if (world.dir / "pdns-core").exists():
        said = ["REFUSED"]  # that is all it says
    elif fault == "BADKEY":
        said.append("NOTAUTH")  # Knot 3.4 signs no error about a key that it doesn't know
    changed = {"secret": peers_dns.SECRET, "name": peers_dns.KEY_NAME}[wrong]
    key.write_text(right.replace(changed, changed[::-1]))

    async def scenario(publisher: Publisher) -> None:
        publisher.publish(publication(key, {WWW: [A]}))
        await until(lambda: any(failing(publisher, fault) for fault in said), "it is refused")
        key.write_text(right)
        assert await publisher.settled()
        where = f"dns.update {ZONE} at {SERVER}"
        assert publisher.events() in [
            [f"{where}: failing ({fault})", f"{where}: current again"] for fault in said
        ]

    keep(world, scenario)


def test_words_of_servers(world: World, key: Path) -> None:
    """No key where one is asked for; a zone that isn't there; a key that can't be read."""

    async def scenario(publisher: Publisher) -> None:
        publisher.publish(publication("", {WWW: [A]}))
        await until(lambda: any(s.state == "failing" for s in publisher.statuses()), "refused")
        assert publisher.statuses()[0].detail in ("REFUSED", "NOTAUTH")
        publisher.publish(publication(key, {"www.other.test": [A]}, zone="other.test"))
        await until(lambda: failing(publisher, "NOTAUTH"), "not its zone")
        key.chmod(0)
        publisher.publish(publication(key, {WWW: [A]}))
        lacking = f"this host: {key}: permission denied; make daemon.user its owner, with mode 0400"
        await until(lambda: failing(publisher, lacking), "the key")

    keep(world, scenario)


def test_a_cname_is_in_the_way_of_its_own_name_alone(world: World, key: Path) -> None:
    change(world, f"update add {WWW} 60 CNAME elsewhere.example.")

    async def scenario(publisher: Publisher) -> None:
        publisher.publish(publication(key, {WWW: [A], ZONE: [A]}))
        await until(lambda: failing(publisher, f"{WWW} is a CNAME at {SERVER}"), "a CNAME")
        await say_it(world, ZONE, {A})
        await until(lambda: publisher.statuses(ZONE)[0].state == "current", "the other is well")
        await asyncio.to_thread(change, world, f"update delete {WWW} CNAME")
        assert await publisher.settled()

    keep(world, scenario)


# --- servers that can't be reached --------------------------------------------------------


def test_another_server_takes_it(world: World, key: Path) -> None:
    """One refuses connections, one is silent."""

    async def scenario(publisher: Publisher) -> None:
        publisher.publish(publication(key, {WWW: [A]}, servers=[CLIENT, SERVER]))
        await say_it(world, WWW, {A})
        await until(lambda: failing(publisher, "connection refused", CLIENT), "it doesn't listen")
        lay(world["client"], "input", "tcp dport 53 drop")
        publisher.publish(publication(key, {ZONE: [A]}, servers=[CLIENT, SERVER]))
        await say_it(world, ZONE, {A})
        publisher.publish(publication(key, {ZONE: [B]}, servers=[CLIENT, SERVER]))
        await say_it(world, ZONE, {B})

    keep(world, scenario)


def test_a_server_behind_a_dead_uplink(world: World, key: Path) -> None:
    """Another way is tried by itself, and at once when that is the only one."""

    async def scenario(publisher: Publisher) -> None:
        loop = asyncio.get_running_loop()
        lay(world["isp-a"], "forward", "drop")
        publisher.publish(publication(key, {WWW: [A, B]}))
        await until(lambda: failing(publisher, "no answer in 5 s"), "it is tried by the dead one")
        await say_it(world, WWW, {A, B})
        assert await publisher.settled()
        publisher.publish(publication(key, {WWW: [A]}))
        start_s = loop.time()
        publisher.publish(publication(key, {WWW: [B]}, ways=[WAN1]))
        await say_it(world, WWW, {B})
        assert loop.time() - start_s < DEAD_WAY_S
        # what was on its way over the dead one doesn't come after all
        clear(world["isp-a"])
        assert await publisher.settled()
        await say_it(world, WWW, {B})

    keep(world, scenario)


def test_no_way_is_no_server_s_fault(world: World, key: Path) -> None:
    async def scenario(publisher: Publisher) -> None:
        publisher.publish(publication(key, {WWW: [A]}, ways=[WAN0_V6]))
        await until(lambda: failing(publisher, "no usable uplink reaches it"), "no way")
        publisher.publish(publication(key, {WWW: [A]}))
        await say_it(world, WWW, {A})

    keep(world, scenario)


def test_a_face_that_dies_takes_nothing_with_it(world: World, key: Path) -> None:
    async def scenario(publisher: Publisher) -> None:
        lay(world["core"], "input", "tcp dport 53 drop")
        publisher.publish(publication(key, {WWW: [A]}))
        assert publisher.frontend
        publisher.frontend.kill("for a test")
        await until(
            lambda: publisher.statuses()[0].detail.startswith("this host: the frontend"),
            "it is told",
        )
        clear(world["core"])
        await publisher.start_frontend()
        await say_it(world, WWW, {A})
        assert await publisher.settled()

    keep(world, scenario)


# --- a host that dies ---------------------------------------------------------------------


class Other:
    """An publisher in a process of its own, to be killed."""

    def __init__(self, world: World) -> None:
        command = [sys.executable, "-m", "bench.dns_updater", str(world.dir / "state")]
        env = {"PYTHONPATH": os.pathsep.join((str(ROOT), *sys.path))}
        pipe = subprocess.PIPE
        self.child = world["host"].popen(command, stdin=pipe, stdout=pipe, env=env)

    def tell(self, line: str) -> None:
        assert self.child.stdin
        self.child.stdin.write(line)
        self.child.stdin.flush()

    def settled(self) -> str:
        self.tell("settle\n")
        assert self.child.stdout
        return self.child.stdout.readline().strip()

    def kill(self) -> None:
        self.child.kill()
        self.child.wait()


@pytest.mark.parametrize("moment", ["remembered", "said"])
def test_a_killed_engine_leaves_nothing_stale(world: World, key: Path, moment: str) -> None:
    """It is killed as soon as what it will say is on disk, or as soon as it is there; its host is
    renumbered meanwhile."""
    file = world.dir / "state" / UPDATES.name
    for number in range(20, 24):
        address = f"203.0.113.{number}"
        other = Other(world)
        other.tell(publication(key, {WWW: [address], f"{number}.{ZONE}": [address]}).to_line())

        def at_the_moment(address: str = address) -> bool:
            if moment == "said":
                return address in records(world)
            return file.exists() and address in json.loads(file.read_text())["content"][ZONE][WWW]

        eventually(at_the_moment, poll_s=0.001)
        other.kill()
    last = Other(world)
    last.tell(publication(key, {WWW: [A]}).to_line())
    assert last.settled() == "settled"
    eventually(lambda: set(records(world)) == {A})
    for number in range(20, 24):
        eventually(lambda number=number: not records(world, f"{number}.{ZONE}"))  # type: ignore[misc]


# --- all servers of a zone ----------------------------------------------------------------


def test_each_server_of_the_zone_is_looked_at(lab_world: LabWorld, key: Path) -> None:
    """A secondary that follows, is silent, and follows again; it is in the NS set alone."""
    world = lab_world("two")
    core = peers_dns.settle_outside(world)
    more = (
        f'{{ type primary; file "zone"; allow-update {{ key "{peers_dns.KEY_NAME}"; }};'
        f" allow-transfer {{ any; }}; notify explicit; also-notify {{ {CLIENT}; }}; notify-delay 0;"
        f" notify-source {SERVER}; }}"
    )
    apex = f"{peers_dns.apex(10)}@ 3600 NS ns2.{ZONE}.\nns2 3600 A {CLIENT}\n"
    peers_dns.bind(core, peers_dns.OUTSIDE, 53, f"$ORIGIN {ZONE}.\n{apex}", more, peers_dns.KEY)
    await_zone(world)
    secondary = f'{{ type secondary; primaries {{ {SERVER}; }}; file "copy"; }}'
    peers_dns.bind(world["client"], [CLIENT], 53, "", secondary)

    async def scenario(publisher: Publisher) -> None:
        def places() -> dict[str, str]:
            return {each.where: each.state for each in publisher.statuses(WWW)}

        both = {SERVER: "current", CLIENT: "current", SERVER_V6: "current"}
        publisher.publish(publication(key, {WWW: [A]}))
        await until(lambda: places() == both, "all say it")
        lay(world["client"], "input", f"ip saddr {{ {A}, {B} }} udp dport 53 drop")
        publisher.publish(publication(key, {WWW: [B]}))
        await until(lambda: places() == both | {CLIENT: "failing"}, "it is silent")
        assert failing(publisher, "no answer in 2 s", CLIENT)
        clear(world["client"])
        await until(lambda: places() == both, "it speaks")
        (told,) = publisher.statuses(WWW, CLIENT)
        assert told.seen == (B,)
        where = f"dns.update {ZONE} at {CLIENT}"
        assert publisher.events() == [
            f"{where}: failing (no answer in 2 s)",
            f"{where}: current again",
        ]

    keep(world, scenario)
