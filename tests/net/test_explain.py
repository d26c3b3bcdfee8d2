"""`explain` says what the kernel does: where a packet goes, by which rule, and why.

in: client ──> host (──> web1), and its answer;  out: host ──> client
forwarded: content ──> client
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from ifdefault.host.explain import End, Explanation, explain
from ifdefault.host.store import Store
from ifdefault.host.transaction import prepare
from ifdefault.lab import ports
from ifdefault.lab.topology import names
from ifdefault.lab.world import World
from tests.net import answers
from tests.net.conftest import LabWorld

# addresses that lead somewhere else: clients, the providers' own, private and unknown ones
ELSEWHERE = (
    "198.18.1.10 198.18.2.10 203.0.113.1 203.0.113.77 198.51.100.77 192.168.1.10 172.17.0.2 "
    "10.20.0.5 100.100.0.2 192.0.2.1 2001:db8:f:1::10 2001:db8:f:2::10 2001:db8:a::77 "
    "2001:db8:b::77 fd00:1::10 fd7a::2 fd00:17::2 2001:db8:dead::1"
).split()


@pytest.mark.parametrize("topology", names())
def test_our_lookup_agrees_with_the_kernels(lab_world: LabWorld, topology: str) -> None:
    """In and out, for every address of the host, before and after VPN and containers."""
    world = lab_world(topology)
    answers.apply(world)
    asked = _all_pairs(world)
    assert len(asked) > 20
    assert [found for found in asked if not found.agrees] == []


@pytest.mark.parametrize("topology", ["containers", "vpn"])
def test_forwarded_packets(lab_world: LabWorld, topology: str) -> None:
    world = lab_world(topology)
    answers.apply(world)
    sources = {"containers": ("br0", "172.17.0.2", "fd00:17::2"), "vpn": ("vpn0", "10.20.0.1", "")}
    iif, *senders = sources[topology]
    for sender in filter(None, senders):
        for target in ("198.18.1.10", "2001:db8:f:1::10"):
            if (":" in sender) == (":" in target):
                found = _ask(world, sender, target, "--iif", iif)
                assert (found["direction"], found["uplink"]) == ("forwarded", "isp-a")
                assert "leave by the uplink that they came in on" in found["mechanism"]
                answer = _ask(world, sender, target, "--iif", iif, "--mark", "0x2000000")
                assert (answer["uplink"], answer["mechanism"]) == ("isp-b", "")
                back = _ask(world, target, sender, "--iif", "wan1")
                assert back["direction"] == "forwarded"
                assert f"dev {iif} " in back["hop"]


@pytest.mark.parametrize("family", [4, 6])
def test_a_foreign_rule_that_takes_the_packet_is_named(lab_world: LabWorld, family: int) -> None:
    world = lab_world("two")
    answers.apply(world)
    client = {4: "198.18.2.10", 6: "2001:db8:f:2::10"}[family]
    host = {4: "198.51.100.10", 6: "2001:db8:b::10"}[family]
    network = {4: "198.18.2.0/24", 6: "2001:db8:f:2::/64"}[family]
    gateway = {4: "203.0.113.1", 6: "2001:db8:a::1"}[family]
    ours = _ask(world, client, host)
    assert (ours["uplink"], ours["rule"].split()[:2]) == ("isp-b", ["pref", "5030"])
    world["host"].ip(f"rule add pref 50 to {network} lookup 77\n", f"-{family}")
    world["host"].ip(f"route add default via {gateway} table 77\n")
    theirs = _ask(world, client, host)
    assert theirs["rule"] == f"pref 50 from all to {network} lookup 77"
    assert theirs["hop"] == f"via {gateway} dev wan0 table 77"
    assert theirs["uplink"] == "isp-a"
    assert theirs["astray"] == "this is isp-b's packet, isp-a's provider may drop it"
    _, _, remedy = theirs["remedy"].partition(f"{theirs['rule']}; ")
    assert remedy == "another program's; give it a priority greater than 5050"
    world["host"].ip(
        f"rule del pref 50\n rule add pref 5051 to {network} lookup 77\n", f"-{family}"
    )
    mended = _ask(world, client, host)
    assert (mended["uplink"], mended["astray"], mended["remedy"]) == ("isp-b", "", "")


def test_apply_is_advised_where_it_helps(lab_world: LabWorld) -> None:
    """Before it, and where it can move our rules before a foreign one."""
    world = lab_world("two")
    before = _ask(world, "198.18.2.10", "198.51.100.10")
    assert (before["uplink"], before["remedy"]) == ("isp-a", "run ifdefault apply")
    answers.apply(world)
    world["host"].ip("rule add not fwmark 51820 lookup 77\n")  # as wg-quick does, before ours
    world["host"].ip("route add default via 203.0.113.1 table 77\n")
    assert _ask(world, "198.18.2.10", "198.51.100.10")["remedy"] == "run ifdefault apply"
    answers.apply(world)
    assert _ask(world, "198.18.2.10", "198.51.100.10")["astray"] == ""


@pytest.mark.parametrize("kind", ["blackhole", "unreachable", "prohibit", "throw"])
def test_a_route_that_refuses_is_agreed_on(lab_world: LabWorld, kind: str) -> None:
    world = lab_world("two")
    world["host"].ip(f"route add {kind} 192.0.2.0/24\n")
    world["host"].ip(f"route add {kind} 2001:db8:dead::/48\n", "-6")
    answers.apply(world)
    for client, host in (("192.0.2.1", "203.0.113.10"), ("2001:db8:dead::1", "2001:db8:a::10")):
        for source, target in ((client, host), (host, client), ("any", client)):
            found = _ask(world, source, target)
            assert found["agrees"], found
            refused = kind != "throw"
            assert (found["hop"] == kind, found["uplink"] == "") == (refused, refused), found


def test_the_public_address_of_an_uplink_behind_nat_is_explained(lab_world: LabWorld) -> None:
    """As the connection that arrives, whose destination has been translated."""
    world = lab_world("two")
    with world.config.open("a") as config:  # of isp-b, the last table
        config.write('public = ["192.0.2.77"]\n')
    answers.apply(world)
    found = _ask(world, "198.18.1.10", "192.0.2.77")
    assert (found["direction"], found["uplink"]) == ("in", "isp-b")
    assert found["source"] == "198.51.100.10"
    assert found["arrival"].endswith("owns 198.51.100.10; 192.0.2.77 is translated to it")
    for own in ("any", "203.0.113.10"):
        assert _ask(world, own, "192.0.2.77")["direction"] == "out"


def test_a_naive_udp_port_is_explained(lab_world: LabWorld) -> None:
    world = lab_world("two")
    answers.serve(world)
    answers.apply(world)
    told = {
        port: _ask(world, "198.18.1.10", "198.51.100.10", protocol="udp", port=port)
        for port in (ports.UDP_BOUND, ports.UDP_WILDCARD)
    }
    assert told[ports.UDP_BOUND]["mechanism"] == "source: its addresses are its own"
    assert "redirected to 203.0.113.10" in told[ports.UDP_WILDCARD]["mechanism"]
    assert {found["uplink"] for found in told.values()} == {"isp-b"}


WEBS = "10.0.0.10:80 (50 %), 10.0.0.11:80 (50 %)"


def test_a_service_is_explained(lab_world: LabWorld) -> None:
    """Who serves it, and that the answer leaves by the uplink that the question came in on."""
    world = lab_world("lan")
    answers.apply(world)
    for host, uplink in (("203.0.113.10", "isp-a"), ("198.51.100.10", "isp-b")):
        found = _ask(world, "198.18.1.10", host, port=80)
        assert (found["direction"], found["uplink"]) == ("in", uplink)
        assert found["goes_to"] == f"forward tcp:80: {WEBS}"
        assert found["source"] == f"{host}, instead of 10.0.0.10"
        assert found["mechanism"].startswith(f"connmark: the connection has {uplink}'s arrival")
    udp = _ask(world, "2001:db8:f:1::10", "2001:db8:b::10", protocol="udp")
    assert udp["uplink"] == "isp-b"
    assert udp["goes_to"] == "forward tcp:443, udp:443: [fd00:10::10]:443"
    ranged = _ask(world, "198.18.1.10", "198.51.100.10", port=7005)
    assert ranged["goes_to"] == "forward tcp:7000-7010, udp:7000-7010: 10.0.0.11:7005"
    assert _ask(world, "198.18.1.10", "198.51.100.10", port=81)["goes_to"] == ""
    hairpin = _ask(world, "10.0.0.20", "198.51.100.10", port=80)
    assert (hairpin["uplink"], hairpin["goes_to"]) == ("", f"forward tcp:80: {WEBS}")
    assert hairpin["mechanism"].startswith("hairpin: ")
    own = _ask(world, "203.0.113.10", "198.51.100.10", port=80)
    assert own["goes_to"] == f"forward tcp:80: {WEBS}"
    assert "dev lan0 " in own["hop"]


def test_the_way_out_of_a_lan_is_explained(lab_world: LabWorld) -> None:
    world = lab_world("lan")
    rule = '[[outgoing.rule]]\nto = ["198.18.2.0/24"]\nvia = ["isp-b"]\n'
    answers.configure(world, rule)
    answers.apply(world)
    out = _ask(world, "10.0.0.20", "198.18.1.10")
    assert (out["direction"], out["uplink"]) == ("forwarded", "isp-a")
    assert out["source"] == "203.0.113.10, instead of 10.0.0.20"
    assert out["mechanism"].startswith("masquerade: it stays on isp-a even ")
    ruled = _ask(world, "10.0.0.20", "198.18.2.10")
    assert ruled["uplink"] == "isp-b"
    assert ruled["source"] == "198.51.100.10, instead of 10.0.0.20"
    assert ruled["mechanism"] == "outgoing.rule: matching connections leave by isp-b"
    near = _ask(world, "10.0.0.20", "10.0.0.10")
    assert (near["uplink"], near["mechanism"], near["source"]) == ("", "", "10.0.0.20")


def test_the_choice_of_an_outgoing_connections_uplink_is_explained(lab_world: LabWorld) -> None:
    world = lab_world("two")
    more = 'weight = 3\n[outgoing]\nmode = "balance"\n[[outgoing.rule]]\n'
    more += 'transport = "tcp"\nports = ["25"]\nvia = ["isp-a"]\n'
    more += '[[outgoing.rule]]\nto = ["198.18.2.0/24"]\nusers = [4711]\nvia = ["isp-a"]\n'
    answers.configure(world, more)
    answers.apply(world)
    drawn = _ask(world, "any", "198.18.2.10")
    assert drawn["mechanism"].startswith("balance: isp-b 75 %, isp-a 25 %, picked for each conn")
    assert (drawn["uplink"], drawn["source"]) == ("isp-b", "198.51.100.10")
    mail = _ask(world, "any", "198.18.2.10", port=25)
    assert mail["mechanism"] == "outgoing.rule: matching connections leave by isp-a"
    whose = _ask(world, "any", "198.18.2.10", "--user", "4711")
    assert (whose["uplink"], whose["mechanism"]) == ("isp-a", mail["mechanism"])
    plain = _ask(world, "any", "198.18.2.10", protocol="udp")
    assert (plain["uplink"], plain["mechanism"]) == ("isp-b", "")
    bound = _ask(world, "203.0.113.10", "198.18.2.10")
    assert (bound["uplink"], bound["mechanism"]) == ("isp-a", "")


def _ask(
    world: World, source: str, target: str, *more: str, protocol: str = "tcp", port: int = 443
) -> dict[str, Any]:
    """What the program says; its exit status tells whether the kernel agrees, and all is well."""
    ends = [source if source == "any" else f"[{source}]:4321", f"[{target}]:{port}"]
    done = world.ifdefault("explain", protocol, *ends, *more, "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["agrees"]
    assert done.returncode == (1 if found["astray"] else 0)
    return found


def _all_pairs(world: World) -> list[Explanation]:
    own = world.topology.addresses("host")

    def every() -> list[Explanation]:
        prepared = prepare(world.config, Store(world.dir / "state"), thorough=False)
        found = []
        for address in (*own, ""):
            for other in ELSEWHERE:
                if other in own or (address and (":" in address) != (":" in other)):
                    continue
                found.append(explain(prepared, "tcp", End(address, 443), End(other, 4321)))
                if address:
                    found.append(explain(prepared, "tcp", End(other, 4321), End(address, 443)))
        return found

    return world["host"].python(every)
