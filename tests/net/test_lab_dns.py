"""The Internet's DNS in the core: BIND's root and parent, and unbound, which starts at that root.

    client ── core ── isp-… ── wan… host      the resolver, the root and the parent are the core's

What the host serves is served by BIND here: a zone that is delegated is anybody's to serve.
"""

from __future__ import annotations

import socket

import pytest

from ifdefault.lab import dns, lookup, services
from ifdefault.lab.clients_by_name import Visits
from ifdefault.lab.faults import injected
from ifdefault.lab.node import Node
from ifdefault.lab.topology import ZONE
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from tests.net import answers
from tests.net.conftest import LabWorld

UNBOUND_S = 60.0  # it may ask the silent ones for some twenty seconds
STATIC = "static.example"


def resolve(world: World, name: str, server: str = dns.RESOLVER[0]) -> list[str]:
    return sorted(world["client"].python(lambda: lookup.resolve_both(server, name, timeout_s=20.0)))


def dig(node: Node, *words: str) -> str:
    return node.run(["dig", "+norecurse", "+time=5", *words]).stdout


def serve_zone(world: World) -> None:
    """Let the host serve its zone on all its addresses. A TTL of 0: it is asked for each time."""
    host = world["host"]
    home = services.home_of(host, "bind")
    own = answers.addresses(world)
    lines = [f"@ 0 SOA ns-isp-a.{ZONE}. hostmaster.{ZONE}. 1 7200 1800 259200 1"]
    for server, addresses in world.topology.delegations()[0].nameservers:
        lines.append(f"@ 3600 NS {server}.")
        lines += [f"{server}. 3600 {kind(it)} {it}" for it in addresses]
    lines += [f"@ 0 {kind(it)} {it}" for it in own]
    (home / "zone").write_text("\n".join([f"$ORIGIN {ZONE}.", *lines, ""]))
    four, six = ("".join(f"{it}; " for it in own if (":" in it) is six) for six in (False, True))
    config = home / "named.conf"
    config.write_text(
        f'options {{ directory "{home}"; pid-file none; session-keyfile "{home}/key";'
        f" listen-on {{ {four}}}; listen-on-v6 {{ {six}}}; recursion no; notify no;"
        " dnssec-validation no; }; controls { };"
        f' zone "{ZONE}" {{ type primary; file "zone"; }};'
    )
    child = services.start(host, "bind", ["named", "-g", "-n", "1", "-c", str(config)])
    services.answering(host, "bind", child, socket.SOCK_DGRAM, 53, own[-1])


def kind(address: str) -> str:
    return "AAAA" if ":" in address else "A"


@pytest.mark.parametrize("name", ["two", "shared-lan", "shared-address", "v6only"])
def test_a_delegated_zone_resolves(lab_world: LabWorld, name: str) -> None:
    """Root, parent and host are each asked over the way that leads there."""
    world = lab_world(name)
    answers.apply(world)
    dns.start(world)
    assert resolve(world, STATIC) == answers.addresses(world)
    assert resolve(world, STATIC, dns.RESOLVER[1]) == answers.addresses(world)
    serve_zone(world)
    eventually(lambda: resolve(world, ZONE) == answers.addresses(world), what="it resolves")
    assert not sum(world.misrouted().values())


def test_root_and_parent_refer_as_those_of_life_do(lab_world: LabWorld) -> None:
    world = lab_world("two")
    dns.start(world)
    client = world["client"]
    for root in dns.ROOT:
        told = dig(client, f"@{root}", ZONE)
        assert "status: NOERROR" in told
        assert "ANSWER: 0" in told
        assert "NS\tparent.lab." in told
    for parent in dns.PARENT:
        told = dig(client, f"@{parent}", ZONE)
        assert "ANSWER: 0" in told
        assert all(f"NS\tns-{uplink}.{ZONE}." in told for uplink in ("isp-a", "isp-b"))
        assert all(f"\t{address}\n" in told for address in answers.addresses(world))
        assert "status: REFUSED" in dig(client, f"@{parent}", "example.net")


def test_the_host_reaches_them_by_either_uplink(lab_world: LabWorld) -> None:
    """As `ifdefault dns check` does, from each of its addresses."""
    world = lab_world("two")
    answers.apply(world)
    dns.start(world)
    for address in answers.addresses(world):
        server = dns.PARENT[":" in address]
        assert "status: NOERROR" in dig(world["host"], "-b", address, f"@{server}", ZONE)


@pytest.mark.parametrize("provider", ["isp-a", "isp-b"])
def test_the_resolver_goes_on_when_a_name_server_is_dead(
    lab_world: LabWorld, provider: str
) -> None:
    """What comes from port 53 leads no question of the core's own astray. One outage a world:
    unbound remembers for minutes who was silent, and may have nobody to ask in the next."""
    world = lab_world("two")
    answers.apply(world)
    dns.start(world)
    serve_zone(world)
    eventually(lambda: resolve(world, ZONE), what="it resolves")
    with injected(world, "blackhole", provider):
        for _ in range(3):
            eventually(lambda: resolve(world, ZONE), UNBOUND_S, what="it resolves")


def test_visitors_are_counted(lab_world: LabWorld) -> None:
    world = lab_world("two")
    answers.serve(world)
    answers.apply(world)
    dns.start(world)
    visits = Visits(world["client"], dns.RESOLVER[0], [STATIC, "nowhere.example"], per_s=50)
    with injected(world, "blackhole", "isp-a"):
        pinged = ["ping", "-nqc", "5", "-i", "0.2", "198.51.100.10"]
        world["client"].run(pinged)
        told = visits.stop()  # when what is under way has waited in vain
    static = [visit for visit in told if visit.name == STATIC]
    assert {visit.family for visit in static} == {4, 6}
    by_a = [v for v in static if v.address in ("203.0.113.10", "2001:db8:a::10")]
    assert {v.outcome for v in static if v not in by_a} == {"answered"}
    assert "hung" in {v.outcome for v in by_a}
    others = {v.outcome for v in told if v.name != STATIC}
    assert others == {"unresolved"}
