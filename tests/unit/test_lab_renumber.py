"""A new address lies beside the old one, and whatever names the old one follows."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from ifdefault.lab.renumber import gateways, host_addresses, respell
from ifdefault.lab.topology import Topology, load, names

WORLDS = [(name, provider.name) for name in names() for provider in load(name).providers]


def everybodys(topology: Topology) -> set[str]:
    return {address for node in topology.nodes for address in topology.addresses(node.name)}


@pytest.mark.parametrize(("name", "provider"), WORLDS)
def test_new_addresses_are_nobodys_and_in_the_same_network(name: str, provider: str) -> None:
    topology = load(name)
    hosts, routers = host_addresses(topology, provider), gateways(topology, provider)
    assert routers
    for old, new in (*hosts.items(), *routers.items()):
        assert ip_address(old).version == ip_address(new).version
        assert new not in everybodys(topology)
        length = 64 if ":" in old else 24
        assert ip_address(new) in ip_network(f"{old}/{length}", strict=False)
    for renewed in (hosts, routers):
        assert len(set(renewed.values())) == len(renewed)


@pytest.mark.parametrize(("name", "provider"), WORLDS)
def test_all_that_names_an_old_address_names_the_new_one(name: str, provider: str) -> None:
    topology = load(name)
    renewed = host_addresses(topology, provider) | gateways(topology, provider)
    back = {new: old for old, new in renewed.items()}
    for node in topology.nodes:
        other = respell(node, renewed)
        words = str((other.addresses, other.routes))
        assert not any(f"'{old}/" in words or f" {old} " in words for old in renewed)
        assert respell(other, back) == node


def test_peers_and_next_hops() -> None:
    node = load("p2p").node("isp-b")
    renewed = {"198.51.100.10": "198.51.100.74", "2001:db8:b::10": "2001:db8:b::50"}
    other = respell(node, renewed)
    told = dict(other.addresses)["cust0"]
    assert told == ("198.51.100.1 peer 198.51.100.74/32", "2001:db8:b::1/128")
    assert "2001:db8:b::50 dev cust0" in other.routes
    # 198.51.100.1 isn't 198.51.100.10, nor is 2001:db8:b::1 part of 2001:db8:b::10
    assert respell(node, {"198.51.100.1": "x"}).addresses != other.addresses
    assert "2001:db8:b::10 dev cust0" in respell(node, {"2001:db8:b::1": "x"}).routes
