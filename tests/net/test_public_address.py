"""The address that the Internet sees is found out through the uplink itself, behind real NAT.

         ┌─ isp-a (NAT) ── wan0 ┐   10.0.0.10, fd00:a::10, seen as 203.0.113.77, 2001:db8:a::77
client ──┤                      ├ host
         └─ isp-b ──────── wan1 ┘   198.51.100.10, 2001:db8:b::10, seen as they are

The client has a web server (nginx) and a DNS server (PowerDNS) that answer with who asks. The
engine's part is this process's, in the host's namespace; the frontend is a real one.
"""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ifdefault.daemon.dns import public_address
from ifdefault.daemon.dns.public_address import Discovery
from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.process.frontend_connection import start_frontend
from ifdefault.daemon.requests import Requests
from ifdefault.host.store import Store
from ifdefault.ipc import privileges
from ifdefault.ipc.messages import Reply
from ifdefault.lab import faults, ports, services
from ifdefault.lab.node import Node
from ifdefault.lab.topology import Topology, extend, parse
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.config import Config, Family, UplinkConfig
from ifdefault.model.dns import DISCOVER, DnsConfig
from ifdefault.model.health import Way
from tests.net.conftest import LabWorld
from tests.net.watched import await_states, standing
from tests.unit.certificates import Authority

WEB, DNS = ("198.18.1.10", "2001:db8:f:1::10"), ("198.18.1.11", "2001:db8:f:1::11")
WAYS = (
    Way("isp-a", 4, "10.0.0.10", "wan0", 0),
    Way("isp-a", 6, "fd00:a::10", "wan0", 0),
    Way("isp-b", 4, "198.51.100.10", "wan1", 0),
    Way("isp-b", 6, "2001:db8:b::10", "wan1", 0),
)
B = {("isp-b", 4): "198.51.100.10", ("isp-b", 6): "2001:db8:b::10"}


def seen(number: int) -> dict[tuple[str, int], str]:
    a = {("isp-a", 4): f"203.0.113.{number}", ("isp-a", 6): f"2001:db8:a::{number}"}
    return a | B


def topology() -> Topology:
    return parse(
        extend(
            {
                "extends": "_internet",
                "name": "nat",
                "title": "an uplink behind its provider's NAT, and one that isn't",
                "drawing": "",
                "links": ["isp-a.cust0 host.wan0", "isp-b.cust0 host.wan1"],
                "providers": {
                    "isp-a": {
                        "number": 1,
                        "prefixes": [
                            *("203.0.113.0/24", "2001:db8:a::/48"),
                            *("10.0.0.0/24", "fd00:a::/64"),
                        ],
                        "gateways": ["10.0.0.1/24", "fd00:a::1/64"],
                    },
                    "isp-b": {
                        "number": 2,
                        "prefixes": ["198.51.100.0/24", "2001:db8:b::/48"],
                        "gateways": ["198.51.100.1/24", "2001:db8:b::1/48"],
                    },
                },
                "nodes": {
                    "host": {
                        "addresses": {
                            "wan0": ["10.0.0.10/24", "fd00:a::10/64"],
                            "wan1": ["198.51.100.10/24", "2001:db8:b::10/48"],
                        },
                        "routes": [
                            "default via 10.0.0.1",
                            "default via fd00:a::1 metric 512",
                            "default via 198.51.100.1 metric 100",
                            "default via 2001:db8:b::1 metric 2048",
                        ],
                    }
                },
            }
        )
    )


def translate(provider: Node, number: int) -> None:
    """Have the provider translate its customers to a public address, from now on."""
    provider.nft(
        f"""\
table inet nat
delete table inet nat
table inet nat {{
  chain postrouting {{
    type nat hook postrouting priority srcnat;
    oifname core0 ip saddr 10.0.0.0/24 snat ip to 203.0.113.{number}
    oifname core0 ip6 saddr fd00:a::/64 snat ip6 to 2001:db8:a::{number}
  }}
}}
"""
    )


def power_dns(node: Node) -> None:
    """A DNS server whose answer for who.example is who asks (a LUA record of PowerDNS)."""
    home = services.home_of(node, "pdns")
    (home / "zone").write_text(
        """\
$ORIGIN example.
@ 5 IN SOA ns hostmaster 1 3600 600 86400 5
@ 5 IN NS ns.example.
who 5 IN LUA A "who:toString()"
who 5 IN LUA AAAA "who:toString()"
private 5 IN A 10.0.0.10
"""
    )
    (home / "named.conf").write_text(f'zone "example" {{ type master; file "{home}/zone"; }};\n')
    (home / "pdns.conf").write_text(
        f"""\
launch=bind
bind-config={home}/named.conf
local-address={",".join(DNS)}
socket-dir={home}
enable-lua-records=yes
cache-ttl=0
daemon=no
guardian=no
"""
    )
    services.start(node, "pdns", ["pdns_server", f"--config-dir={home}"])
    ask = ["dig", f"@{DNS[0]}", "+short", "+tries=1", "+time=1", "private.example"]
    eventually(lambda: node.run(ask, check=False).stdout == "10.0.0.10\n", what="PowerDNS answers")


class Engine:
    """A discovery whose questions a real frontend asks."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.found: dict[tuple[str, Family], str] = {}
        self.discovery: Discovery

    def play(self, state: Path, part: Callable[[], Awaitable[None]]) -> None:
        with self.world["host"].enter():
            asyncio.run(self._live(state, part))

    async def _live(self, state: Path, part: Callable[[], Awaitable[None]]) -> None:
        def hear(message: Any) -> None:
            if isinstance(message, Reply):
                exchanges.receive(message)

        def note(uplink: str, family: Family, address: str) -> None:
            self.found[uplink, family] = address

        ends: list[str] = []
        user = privileges.choose_user("nobody")[:2]
        frontend = await start_frontend(user, hear, ends.append)
        exchanges = Requests(frontend.send)
        store = Store(state)
        self.discovery = Discovery(exchanges, EventLog(store), store, note)
        try:
            await part()
            assert ends == []
        finally:
            await self.discovery.close()
            frontend.kill("the test is over")
            await frontend.over()

    def follow(self, *services: str, ways: tuple[Way, ...] = WAYS) -> None:
        uplinks = tuple(
            UplinkConfig(name, dev, public=(DISCOVER,))
            for name, dev in (("isp-a", "wan0"), ("isp-b", "wan1"))
        )
        self.discovery.update(Config(uplinks, dns=DnsConfig(discover=services)), ways)

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.01)


SERVICES = {
    "web": [f"http://{WEB[0]}/you", f"http://[{WEB[1]}]/you"],
    "dns": [f"dns://{DNS[0]}/who.example", f"dns://[{DNS[1]}]/who.example"],
}


@pytest.mark.parametrize("kind", SERVICES)
def test_what_the_internet_sees_is_found(lab_world: LabWorld, tmp_path: Path, kind: str) -> None:
    world = lab_world(topology())
    translate(world["isp-a"], 77)
    if kind == "web":
        services.nginx(world["client"])
    else:
        power_dns(world["client"])
    engine = Engine(world)

    async def part() -> None:
        engine.follow(*SERVICES[kind])
        await engine.until(lambda: engine.found == seen(77))
        assert engine.discovery.problems == ()
        translate(world["isp-a"], 78)
        engine.follow(*SERVICES[kind], ways=())  # the paths go down …
        engine.follow(*SERVICES[kind])  # … and come up again
        await engine.until(lambda: engine.found == seen(78))

    engine.play(tmp_path, part)
    assert not any(world.misrouted().values())


def test_whoever_refuses_is_told_and_the_next_is_asked(
    lab_world: LabWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(public_address, "SOON_S", 0.1)
    world = lab_world(topology())
    translate(world["isp-a"], 77)
    services.nginx(world["client"])
    power_dns(world["client"])
    engine, way = Engine(world), WAYS[:1]
    bad = {
        f"http://{WEB[0]}/no-such": f"{WEB[0]}: status 404",
        f"http://{WEB[0]}:{ports.CLOSED}/you": f"{WEB[0]}: refused",
        f"https://{WEB[0]}:80/you": f"{WEB[0]}: TLS: ",
        f"dns://{DNS[0]}:{ports.CLOSED}/who.example": f"{DNS[0]}: connection refused",
        f"dns://{DNS[0]}/who.example.net": f"{DNS[0]} refuses: REFUSED",
        f"dns://{DNS[0]}/nobody.example": "no address",
        f"dns://{DNS[0]}/private.example": "10.0.0.10 is not a public IPv4 address",
    }

    async def part() -> None:
        engine.follow(*bad, ways=way)
        await engine.until(lambda: engine.discovery.problems)
        (problem,) = engine.discovery.problems
        head, *told = problem.split(" unknown: ")[1].split("; ")
        assert head.startswith(f"http://{WEB[0]}/no-such: ")
        for (service, why), text in zip(bad.items(), [head, *told], strict=True):
            assert text.startswith(f"{service}: {why}")
        engine.follow(*bad, *SERVICES["dns"], ways=way)
        await engine.until(lambda: engine.found == {("isp-a", 4): "203.0.113.77"})
        assert engine.discovery.problems == ()

    engine.play(tmp_path, part)


def test_it_is_asked_again_when_nobody_answered(
    lab_world: LabWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(public_address, "SOON_S", 0.1)
    world = lab_world(topology())
    translate(world["isp-a"], 77)
    engine, way = Engine(world), WAYS[:1]
    world["isp-a"].nft(
        "table inet test {\nchain c {\ntype filter hook forward priority 0\ndrop\n}\n}\n"
    )
    power_dns(world["client"])

    async def part() -> None:
        engine.follow(SERVICES["dns"][0], ways=way)
        await engine.until(lambda: engine.discovery.problems)
        assert engine.discovery.problems[0].endswith(f"{DNS[0]}: no answer in 2 s")
        world["isp-a"].nft("delete table inet test")
        await engine.until(lambda: engine.found == {("isp-a", 4): "203.0.113.77"})

    engine.play(tmp_path, part)


def test_over_tls(lab_world: LabWorld, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A certificate that fits is believed, and no other."""
    world = lab_world(topology())
    translate(world["isp-a"], 77)
    engine = Engine(world)
    with tempfile.TemporaryDirectory() as directory:  # the frontend's user must be able to read it
        Path(directory).chmod(0o755)
        authority = Authority(Path(directory))
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))

        async def part() -> None:
            fit = await serve(world["client"], 443, authority.context(WEB[0]))
            unfit = await serve(world["client"], 444, authority.context("www.example"))
            engine.follow(f"https://{WEB[0]}:444/", ways=WAYS[:1])
            await engine.until(lambda: engine.discovery.problems)
            assert "certificate: IP address mismatch" in engine.discovery.problems[0]
            engine.follow(f"https://{WEB[0]}/", ways=WAYS[:1])
            await engine.until(lambda: engine.found == {("isp-a", 4): "203.0.113.77"})
            for server in (fit, unfit):
                server.close()

        engine.play(tmp_path, part)


async def serve(node: Node, port: int, context: ssl.SSLContext) -> asyncio.Server:
    """A web server that answers with who asks, and leaves it to the client to see that it's all."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        who = writer.get_extra_info("peername")[0].encode()
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(who), who))
        writer.close()

    with node.enter():
        return await asyncio.start_server(answer, WEB[0], port, ssl=context)


# --- the whole daemon ---------------------------------------------------------------------


def test_the_daemon_publishes_what_it_discovered(lab_world: LabWorld) -> None:
    """By a program of the operator's: it is told of what is seen, and of what can't be reached."""
    world = lab_world(topology())
    translate(world["isp-a"], 77)
    services.nginx(world["client"])
    with tempfile.TemporaryDirectory() as directory:  # its user must be able to write there
        home = Path(directory)
        home.chmod(0o777)
        program, notes = home / "publish", home / "notes"
        said = 'echo "$IFDEFAULT_A $IFDEFAULT_AAAA / $IFDEFAULT_WAS_A $IFDEFAULT_WAS_AAAA"'
        program.write_text(f"#!/bin/sh\n{said} >> {notes}\n")
        program.chmod(0o755)
        services_said = ", ".join(f'"{url}"' for url in SERVICES["web"])
        world.config.write_text(
            f"""\
[uplink.isp-a]
interface = "wan0"
public = "discover"

[uplink.isp-b]
interface = "wan1"
gateways = ["198.51.100.1", "2001:db8:b::1"]

[health]
recover_s = 0.3

[daemon]
hook_user = "nobody"

[dns]
discover = [{services_said}]

[[dns.name]]
name = "www.example.net"

[[dns.exec]]
program = "{program}"
"""
        )

        def last() -> str:
            return notes.read_text().splitlines()[-1] if notes.exists() else ""

        def publisher() -> str:
            (told,) = standing(world).dns.publishers
            return f"{told.kind} {told.name}: {told.state}"

        both = "198.51.100.10 203.0.113.77 2001:db8:a::77 2001:db8:b::10 /"
        daemon = world.daemon()
        await_states(world, ["up"])
        eventually(lambda: last().startswith(both), what="both are published")
        with faults.injected(world, "blackhole", "isp-b"):
            alone = "203.0.113.77 2001:db8:a::77 / 198.51.100.10 2001:db8:b::10"
            eventually(lambda: last() == alone, what="isp-b is withdrawn")
        eventually(lambda: last().startswith(both), what="isp-b is back")
        eventually(lambda: publisher() == "exec www.example.net: current")

        ran = notes.read_text()
        daemon.kill()
        daemon.wait()
        world.daemon()
        await_states(world, ["up"])
        eventually(lambda: publisher() == "exec www.example.net: current")
        assert notes.read_text() == ran, "a restart moves nothing"
