"""Topology files are values: they parse, build on each other, and say what is to be tested."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from ifdefault.config import parse as parse_config
from ifdefault.lab import build
from ifdefault.lab.topology import ProviderAddress, Topology, load, names, parse
from ifdefault.model.config import HealthConfig
from ifdefault.model.errors import ConfigError

# and RFC 1918's, in which clouds have their hosts
DOCUMENTATION = [
    ip_network(prefix)
    for prefix in "203.0.113.0/24 198.51.100.0/24 192.0.2.0/24 2001:db8::/32 10.0.0.0/8".split()
]


@pytest.fixture(params=names())
def topology(request: pytest.FixtureRequest) -> Topology:
    return load(request.param)


def test_every_file_is_drawn_and_titled(topology: Topology) -> None:
    assert topology.drawing.strip()
    assert len(topology.title) < 90
    assert all(len(line) < 100 for line in topology.drawing.splitlines())


def test_every_config_names_interfaces_of_the_host(topology: Topology) -> None:
    config = parse_config(topology.config, "ifdefault.toml")
    ends = (*topology.links, *topology.wires)
    devs = {end.dev for pair in ends for end in pair if end.node == "host"}
    assert {uplink.interface for uplink in config.uplinks} <= devs


def test_every_link_ends_in_two_nodes(topology: Topology) -> None:
    nodes = {node.name for node in topology.nodes}
    ends = [end for pair in topology.links for end in pair]
    assert {end.node for end in ends} <= nodes
    assert len(set(ends)) == len({end.mac for end in ends}) == len(ends)
    # iproute2 takes "a" for "address"; the kernel takes 15 characters
    assert all(3 <= len(end.dev) <= 15 for end in ends)


def test_every_uplink_has_a_target_within_documentation_prefixes(topology: Topology) -> None:
    config = parse_config(topology.config, "ifdefault.toml")
    assert {t.provider for t in topology.targets()} == {uplink.name for uplink in config.uplinks}
    for target in topology.targets():
        address = ip_address(target.address)
        assert any(address in prefix for prefix in DOCUMENTATION)
        assert target.family == address.version


def test_another_process_reads_the_same_topology(topology: Topology) -> None:
    assert parse(json.loads(topology.table)) == topology


def test_every_world_has_what_is_probed_by_default(topology: Topology) -> None:
    answering = topology.addresses("core")
    assert {probe.host for probe in HealthConfig().probes} <= set(answering)
    assert len(set(answering)) == len(answering)
    assert not set(answering) & {target.address for target in topology.targets()}


def test_two_uplinks() -> None:
    assert load("two").targets() == (
        ProviderAddress("isp-a", 4, "203.0.113.10"),
        ProviderAddress("isp-a", 6, "2001:db8:a::10"),
        ProviderAddress("isp-b", 4, "198.51.100.10"),
        ProviderAddress("isp-b", 6, "2001:db8:b::10"),
    )


def test_one_address_behind_two_routers_is_two_targets() -> None:
    via_a, via_b = (t for t in load("shared-address").targets() if t.family == 4)
    assert via_a.address == via_b.address
    assert not set(via_a.sources) & set(via_b.sources)


def test_two_routers_of_one_provider_are_one_target() -> None:
    addresses = [target.address for target in load("vrrp").targets()]
    assert len(addresses) == len(set(addresses)) == 4


def test_a_router_knows_its_own_prefixes_alone() -> None:
    topology = load("two")
    for provider in topology.providers:
        addresses = dict(topology.node(provider.name).addresses)["cust0"]
        inside = [ip_interface(address).network for address in addresses]
        assert {str(network) for network in inside} == set(provider.prefixes)
        assert all(prefix in topology.node(provider.name).nft for prefix in provider.prefixes)


def test_unknown_names_are_told() -> None:
    with pytest.raises(ConfigError, match='unknown topology "tow"; use one of aws, '):
        load("tow")
    table = {"name": "x", "title": "x", "drawing": "x", "nodes": {"host": {"adresses": {}}}}
    with pytest.raises(ConfigError, match=r'nodes\.host: unknown key "adresses"'):
        parse(table)


def test_lines_for_ip() -> None:
    topology = load("vrrp")
    node = topology.node("isp-b")
    assert "link add link cust0 name cust1 address 00:00:5e:00:01:01" in build.interface_lines(
        topology, node
    )
    assert "address replace 2001:db8:b::1/128 dev cust2 nodad\n" in build.address_lines(node)
    vpn = load("vpn").node("host")
    assert build.rule_lines(vpn, "-6").count("rule add pref") == 4
    assert "-6" not in build.rule_lines(vpn, "-6") + build.route_lines(vpn, "-6")
