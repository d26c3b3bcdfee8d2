"""What the kernel does with a default route, an uplink does after `apply`, too.

         ┌─ isp-a ── wan0 ┐   203.0.113.10, 2001:db8:a::10
client ──┤                ├ host
         └─ isp-b ── wan1 ┘   198.51.100.10, 2001:db8:b::10
"""

from __future__ import annotations

import pytest

from ifdefault import config
from ifdefault.lab.node import Node
from ifdefault.lab.world import World
from tests.net.conftest import LabWorld
from tests.net.evidence import TCP, Talk
from tests.net.kernelstate import apply

FAR = {4: "198.18.1.10", 6: "2001:db8:f:1::10"}  # the client
AUTO = '[uplink.isp-a]\ninterface = "wan0"\n[uplink.isp-b]\ninterface = "wan1"\n'


@pytest.fixture
def world(lab_world: LabWorld) -> World:
    world = lab_world("two")
    world.config.write_text(AUTO)
    return world


def route(host: Node, family: int = 4, source: str = "") -> list[str]:
    """Gateway, device and source of a packet to the client, as the kernel says."""
    options = ["from", source] if source else []
    said = host.run(["ip", "route", "get", FAR[family], *options]).stdout.split()
    return [said[said.index(word) + 1] for word in ("via", "dev", "src" if not source else "from")]


def found(world: World) -> str:
    return world.ifdefault("init", "--print", check=True).stdout


def test_source_of_the_default_on_loopback_over_a_transfer_net(world: World) -> None:
    host, provider = world["host"], world["isp-a"]
    provider.ip("address add 10.1.0.1/30 dev cust0\nroute add 203.0.113.77 via 10.1.0.2\n")
    host.ip(
        "address flush dev wan0 to 203.0.113.0/24\n"
        "address add 10.1.0.2/30 dev wan0\naddress add 203.0.113.77/32 dev lo\n"
        "route add default via 10.1.0.1 src 203.0.113.77\n"
    )
    before = route(host)
    apply(world)
    assert route(host) == before == ["10.1.0.1", "wan0", "203.0.113.77"]
    assert route(host, source="203.0.113.77")[:2] == ["10.1.0.1", "wan0"]
    assert Talk(world["client"], host, "203.0.113.77", TCP).answered


def test_source_specific_default(world: World) -> None:
    host = world["host"]
    host.ip("route del default via 2001:db8:b::1\n")
    new = "default from 2001:db8:b::/48 via 2001:db8:b::1 dev wan1 metric 512"
    host.run(["ip", "-6", "route", "add", *new.split()])
    before = route(host, 6, "2001:db8:b::10")
    apply(world)
    assert route(host, 6, "2001:db8:b::10") == before
    assert before[:2] == ["2001:db8:b::1", "wan1"]


def test_address_that_a_local_route_holds(world: World) -> None:
    host = world["host"]
    host.ip("route add local 198.51.100.50/32 dev wan1 proto 66 scope host\n")
    host.ip("route add local 2001:db8:b:7::/64 dev lo\n")
    apply(world)
    assert route(host, source="198.51.100.50")[1] == "wan1"
    wanted = 'addresses = ["198.51.100.50", "198.51.100.10", "2001:db8:b:7::5", "2001:db8:b::10"]\n'
    world.config.write_text(AUTO + wanted)
    assert world.ifdefault("check").stdout.startswith("ok: 2 uplinks")
    apply(world)
    assert route(host, 6, "2001:db8:b:7::5")[1] == "wan1"
    default = host.run("ip route show table 1002 default".split()).stdout
    assert "src 198.51.100.50" in default, "the first of addresses is the source"
    said = world.ifdefault("explain", "tcp", f"{FAR[4]}:1", "198.51.100.50:80").stdout
    assert "over isp-b (wan1), which owns 198.51.100.50" in said


def test_first_configured_alias_is_the_source(world: World) -> None:
    world["host"].ip("address add 203.0.113.25/24 dev wan0\n")
    text = AUTO.replace('"wan0"\n', '"wan0"\naddresses = ["203.0.113.25", "203.0.113.10"]\n')
    world.config.write_text(text)
    apply(world)
    assert route(world["host"])[2] == "203.0.113.25"


def test_default_of_a_nexthop_object_without_hops(world: World) -> None:
    host = world["host"]
    host.sysctl("net.ipv4.nexthop_compat_mode", 0)
    host.ip(
        "route del default via 203.0.113.1\nroute del default via 198.51.100.1\n"
        "nexthop add id 1 via 203.0.113.1 dev wan0\nnexthop add id 2 via 198.51.100.1 dev wan1\n"
        "nexthop add id 9 group 1,3/2\nroute add default nhid 9\n"
    )
    parsed = config.parse(found(world), "f.toml")
    assert parsed.outgoing.mode == "balance"
    assert [u.weight for u in parsed.uplinks] == [3, 1]
    apply(world)
    for address, dev in (("203.0.113.10", "wan0"), ("198.51.100.10", "wan1")):
        assert route(host, source=address)[1] == dev


def test_init_takes_a_bridge_that_carries_the_uplink(world: World) -> None:
    """No port, no container's bridge, no VRRP address."""
    host = world["host"]
    host.ip(
        "link add br-wan type bridge\nlink set br-wan up\nlink set wan1 master br-wan\n"
        "address flush dev wan1\naddress add 198.51.100.10/24 dev br-wan\n"
        "route add default via 198.51.100.1 dev br-wan metric 100\n"
        "link add docker0 type bridge\nlink set docker0 up\n"
        "address add 2001:db8:d::1/64 dev docker0\n"
        "link add veth1 type veth peer name veth2\nlink set veth1 master docker0 up\n"
        "link add vrrp.51 link wan0 type macvlan mode private\nlink set vrrp.51 up\n"
        "address add 203.0.113.50/24 dev vrrp.51\n"
        "link property add dev wan0 altname enp3s0\n"
    )
    text = found(world)
    parsed = config.parse(text, "f.toml")
    assert [u.interface for u in parsed.uplinks] == ["wan0", "br-wan"]
    assert "# vrrp.51 (203.0.113.50) is a macvlan that has no default route" in text
    assert "# lan0 (192.168.1.1, fd00:1::1) has a private address and no default route" in text
    assert "docker0" not in text
    world.config.write_text(AUTO.replace("wan0", "enp3s0"))
    assert 'set uplink.isp-a.interface = "wan0"' in world.ifdefault("check").stderr
