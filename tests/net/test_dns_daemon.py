"""The daemon answers DNS on every uplink, and what it answers follows the uplinks.

                ┌─ isp-a ── wan0 ┐   203.0.113.10, ns-isp-a.www.example
client ── core ─┤                ├ host: ifdefault run
                └─ isp-b ── wan1 ┘   198.51.100.10, ns-isp-b.www.example
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from functools import partial

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import pytest

from ifdefault.ipc.control.protocol import Reload
from ifdefault.lab import faults, registry
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.errors import ConfigError
from tests.net.conftest import LabWorld
from tests.net.watched import await_states, events, request, standing

A, B = "203.0.113.10", "198.51.100.10"
A6, B6 = "2001:db8:a::10", "2001:db8:b::10"
NAME = "www.example"
DNS = f"""\
[[dns.name]]
name = "{NAME}"

[dns.server]
zones = ["{NAME}"]
"""


def ask(
    world: World,
    wanted: str = "A",
    *,
    at: str = A,
    name: str = NAME,
    source: str | None = None,
    timeout_s: float = 10.0,
) -> dns.message.Message:
    query = dns.message.make_query(name, wanted)
    return world["client"].python(
        lambda: dns.query.udp(query, at, timeout=timeout_s, source=source)
    )


def addresses(world: World, wanted: str = "A", *, at: str = A, name: str = NAME) -> set[str]:
    return {row.to_text() for rrset in ask(world, wanted, at=at, name=name).answer for row in rrset}


def serial(world: World, at: str = A) -> int:
    (rrset,) = ask(world, "SOA", at=at).answer
    return int(rrset[0].serial)


def answered(world: World) -> bool:
    try:
        ask(world, timeout_s=1.0)
    except (dns.exception.Timeout, OSError):
        return False
    return True


def configure(world: World, more: str = DNS, **uplinks: str) -> None:
    """Write the config; `uplinks` are more keys for some, as `isp_a='public = …'`."""
    text = world.topology.config
    for name, keys in uplinks.items():
        head = f"[uplink.{name.replace('_', '-')}]\n"
        assert head in text
        text = text.replace(head, f"{head}{keys}\n")
    world.config.write_text(f"{text}\n[health]\nrecover_s = 0.3\n{more}")


def serve(world: World, more: str = DNS, also: Sequence[str] = (), **uplinks: str) -> None:
    """Run the daemon; isp-b may be in those states `also`."""
    configure(world, more, **uplinks)
    world.daemon()
    await_states(world, ["up"], "isp-a")
    await_states(world, ["up", *also], "isp-b")
    eventually(lambda: answered(world), what="the server answers")


def test_every_address_answers_in_both_families_over_both_transports(lab_world: LabWorld) -> None:
    world = lab_world("two")
    serve(world)
    query = dns.message.make_query(NAME, "A")
    for at in (A, B, A6, B6):
        said = ask(world, at=at)
        assert (said.rcode(), bool(said.flags & dns.flags.AA)) == (dns.rcode.NOERROR, True)
        over_tcp = world["client"].python(partial(dns.query.tcp, query, at, timeout=20.0))
        assert {str(row) for row in over_tcp.answer[0]} == {str(row) for row in said.answer[0]}
        assert addresses(world, at=at) == {A, B}
        assert addresses(world, "AAAA", at=at) == {A6, B6}
    named = {row.target.to_text() for rrset in ask(world, "NS").answer for row in rrset}
    assert named == {"ns-isp-a.www.example.", "ns-isp-b.www.example."}
    assert addresses(world, name="ns-isp-b.www.example") == {B}
    assert sum(world.misrouted().values()) == 0, "an answer leaves by the uplink that asked"


def test_a_dead_uplink_leaves_the_dns_and_returns(lab_world: LabWorld) -> None:
    world = lab_world("two")
    serve(world)
    first = serial(world)
    with faults.injected(world, "blackhole", "isp-b"):
        eventually(lambda: addresses(world) == {A}, what="isp-b is withdrawn")
        assert addresses(world, "AAAA") == {A6}
        during = serial(world)
        assert during > first
        assert addresses(world, name="ns-isp-b.www.example") == {B}, "glue stays"
    eventually(lambda: addresses(world) == {A, B}, what="isp-b is back")
    assert serial(world) > during
    told = events(world, "dns")
    assert any(f"-{B} (isp-b)" in text for text in told)
    assert any(f"+{B} (isp-b)" in text for text in told)


def test_when_all_look_dead_all_are_named(lab_world: LabWorld) -> None:
    """A client in the LAN asks, since no other can."""
    world = lab_world("two")
    serve(world)
    with (
        faults.injected(world, "blackhole", "isp-a"),
        faults.injected(world, "blackhole", "isp-b"),
    ):
        await_states(world, ["down"])
        query = dns.message.make_query(NAME, "A")
        said = world["host"].python(lambda: dns.query.udp(query, A, timeout=20.0))
        assert {row.to_text() for row in said.answer[0]} == {A, B}


def test_a_query_that_came_by_an_uplink_gets_its_address_first(lab_world: LabWorld) -> None:
    world = lab_world("two")
    serve(world, DNS.replace("[dns.server]", 'policy = "arrival"\n[dns.server]'))
    for at in (A, B, A, B, A):
        (rrset,) = ask(world, at=at).answer
        assert rrset[0].to_text() == at


def test_uplinks_that_share_an_address_are_told_apart_by_the_mark(lab_world: LabWorld) -> None:
    """Each is behind a NAT of its own, so that its public address differs."""
    world = lab_world("shared-address")
    arrival = DNS.replace("[dns.server]", 'policy = "arrival-only"\n[dns.server]')
    serve(world, arrival, isp_a='public = ["192.0.2.1"]', isp_b='public = ["192.0.2.2"]')
    query = dns.message.make_query(NAME, "A")
    for source, public in (("198.18.1.10", "192.0.2.1"), ("198.18.2.10", "192.0.2.2")):
        for _ in range(3):
            said = ask(world, source=source)
            assert [row.to_text() for row in said.answer[0]] == [public]
            over_tcp = world["client"].python(
                partial(dns.query.tcp, query, A, timeout=20.0, source=source)
            )
            assert [row.to_text() for row in over_tcp.answer[0]] == [public]
    assert sum(world.misrouted().values()) == 0


def end(world: World, number: int = signal.SIGTERM) -> None:
    """End the engine."""
    pid = standing(world).pid
    os.kill(pid, number)
    eventually(lambda: not registry.start_time(pid), what="the engine has ended")


def test_a_restart_goes_on_with_the_serial(lab_world: LabWorld) -> None:
    world = lab_world("two")
    serve(world)
    before = serial(world)
    for number in (signal.SIGINT, signal.SIGKILL):  # with its DNS server, and without
        end(world, number)
        world.daemon()
        eventually(
            lambda: [o.state for o in standing(world).dns.publishers] == ["current"],
            what="the next one has a DNS server",
        )
        assert serial(world) == before, "nothing changed"


def test_a_config_that_changes_is_taken_in_whole(lab_world: LabWorld) -> None:
    world = lab_world("two")
    serve(world)
    text = world.config.read_text()
    world.config.write_text(text.replace(f'name = "{NAME}"', f'name = "a.{NAME}"\nttl = 7'))
    request(world, Reload())
    said = ask(world, name=f"a.{NAME}")
    assert said.answer[0].ttl == 7
    assert ask(world).answer == []
    world.config.write_text(text.replace(f'name = "{NAME}"', 'name = "other.test"'))
    with pytest.raises(ConfigError):
        request(world, Reload())
    assert ask(world, name=f"a.{NAME}").answer, "the old one goes on"


@pytest.mark.parametrize(("kind", "transport"), [("SOCK_DGRAM", "udp"), ("SOCK_STREAM", "tcp")])
def test_a_port_that_is_taken_is_told_and_taken_when_free(
    lab_world: LabWorld, kind: str, transport: str
) -> None:
    world = lab_world("two")

    def bind() -> socket.socket:
        taker = socket.socket(socket.AF_INET, getattr(socket, kind))
        taker.bind((B, 53))
        if kind == "SOCK_STREAM":
            taker.listen()
        return taker

    with world["host"].python(bind):
        serve(world)
        told = [o.detail for o in standing(world).dns.publishers if o.state == "failing"]
        (detail,) = told
        assert detail.startswith(f"port 53 of {B} ({transport}) is in use by ")
        assert f"(pid {os.getpid()})" in detail
        assert addresses(world) == {A, B}, "the others answer"
    eventually(
        lambda: not [o for o in standing(world).dns.publishers if o.state == "failing"],
        what="it is taken when it is free",
    )
    query = dns.message.make_query(NAME, "A")
    ask_it = dns.query.udp if transport == "udp" else dns.query.tcp
    assert world["client"].python(lambda: ask_it(query, B, timeout=20.0)).answer


def test_a_private_address_is_named_as_such_and_not_published(lab_world: LabWorld) -> None:
    world = lab_world("two")
    world["host"].ip("address add 192.168.77.10/24 dev wan1\n")
    serve(world, also=["unproven"], isp_b='addresses = ["192.168.77.10", "2001:db8:b::10"]')
    assert addresses(world) == {A}
    (problem,) = standing(world).dns.problems
    assert "192.168.77.10" in problem
    assert "set public" in problem
