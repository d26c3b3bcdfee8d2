"""`ifdefault lab up --config FILE`: a world in which the user's own config is right."""

from __future__ import annotations

import json

from ifdefault.config import parse
from ifdefault.lab.fitting import fit, many
from ifdefault.lab.topology import Topology
from ifdefault.lab.topology import parse as parse_topology


def fitting(text: str) -> Topology:
    return fit(parse(text, "my.toml"), text, "my.toml")


def addresses(topology: Topology, node: str, dev: str) -> tuple[str, ...]:
    return dict(topology.node(node).addresses)[dev]


def test_what_the_config_leaves_open_is_made_up() -> None:
    topology = fitting('[uplink.x]\ninterface = "eth0"\n[uplink.y]\ninterface = "eth1"\n')
    assert addresses(topology, "host", "eth0") == ("203.0.113.10/24", "2001:db8:a::10/64")
    assert addresses(topology, "y", "cust0") == ("198.51.100.1/24", "2001:db8:b::1/64")
    assert [target.provider for target in topology.targets()] == ["x", "x", "y", "y"]


def test_what_the_config_says_comes_true() -> None:
    config = """
    [uplink.x]
    interface = "eth0"
    addresses = ["192.0.2.77", "192.0.2.78"]
    [uplink.y]
    interface = "ppp0"
    gateways = ["10.1.1.1", "fe80::1"]
    """
    topology = fitting(config)
    assert addresses(topology, "host", "eth0") == ("192.0.2.77/24", "192.0.2.78/24")
    assert addresses(topology, "x", "cust0") == ("192.0.2.1/24",)
    assert addresses(topology, "y", "cust0") == ("10.1.1.1/24", "fe80::1/64")
    assert addresses(topology, "host", "ppp0") == ("10.1.1.10/24", "2001:db8:b::10/64")
    assert "-6 default via fe80::1 dev ppp0 onlink metric 2048" in topology.node("host").routes
    assert topology.config == config


def test_uplinks_on_one_interface_share_a_lan() -> None:
    config = """
    [uplink.x]
    interface = "eth0"
    addresses = ["192.0.2.77"]
    [uplink.y]
    interface = "eth0"
    addresses = ["198.51.100.77"]
    """
    topology = fitting(config)
    ports = dict(topology.node("lan0").bridges)["br0"]
    assert ports == ("p-host", "p-x", "p-y")


def test_an_uplink_whose_name_cannot_be_a_node() -> None:
    names = ("host", "a-very-long-name-of-an-uplink", "isp-a")
    topology = fitting("".join(f'[uplink.{n}]\ninterface = "if-{n[:3]}"\n' for n in names))
    assert [provider.name for provider in topology.providers] == ["isp-1", "isp-2", "isp-a"]


def test_the_targets_of_all_probes_answer() -> None:
    config = """
    [health]
    probes = ["icmp://1.1.1.1", "tcp://example.net:443", "https://198.18.7.7/", "dns://203.0.113.53/x"]
    [uplink.x]
    interface = "eth0"
    addresses = ["203.0.113.77"]
    probes = ["icmp://[2001:db8:7::7]"]
    [uplink.y]
    interface = "eth1"
    """
    internet = addresses(fitting(config), "core", "lo")
    assert {"1.1.1.1/32", "9.9.9.9/32", "2620:fe::fe/128"} <= set(internet)
    assert internet[-2:] == ("198.18.7.7/32", "2001:db8:7::7/128")
    assert len(set(internet)) == len(internet)
    assert not any("203.0.113.53" in text for text in internet)  # the provider's own network


def test_as_many_uplinks_as_there_can_be() -> None:
    topology = many(31)
    config = parse(topology.config, "ifdefault.toml")
    assert len(config.uplinks) == 31
    targets = topology.targets()
    assert {(t.provider, t.family) for t in targets} == {
        (uplink.name, family) for uplink in config.uplinks for family in (4, 6)
    }
    prefixes = [prefix for provider in topology.providers for prefix in provider.prefixes]
    assert len(set(prefixes)) == len(prefixes) == 62
    assert parse_topology(json.loads(topology.table)) == topology
