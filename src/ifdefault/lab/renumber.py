"""Other addresses for the host, or for a provider's router, in a running world. Pure.

Rules: a new address is in the same network as the old one, and unused; it depends on the topology
alone, so that another process computes the same. It replaces the old address everywhere in a node's
spec: interfaces, routes, peers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

from ifdefault.lab.topology import NodeSpec, Provider, Topology

_STEP = 64  # from an old address to the first that may be the new one


def host_addresses(topology: Topology, provider: str) -> dict[str, str]:
    """The host's addresses in a provider's prefixes, and their replacements."""
    old = [t.address for t in topology.targets() if t.provider == provider]
    return _renewed(topology, _named(topology, provider), list(dict.fromkeys(old)))


def gateways(topology: Topology, provider: str) -> dict[str, str]:
    """The addresses of a provider's router on its customers' interface, and their replacements."""
    named = _named(topology, provider)
    return _renewed(topology, named, [text.split()[0].split("/")[0] for text in named.gateways])


def respell(spec: NodeSpec, renewed: Mapping[str, str]) -> NodeSpec:
    """A node's spec with other addresses."""
    if not renewed:
        return spec
    old = "|".join(map(re.escape, sorted(renewed, key=len, reverse=True)))
    pattern = re.compile(rf"(?<![\w:.])({old})(?![\w:.])")

    def fresh(text: str) -> str:
        return pattern.sub(lambda match: renewed[match[1]], text)

    addresses = tuple((dev, tuple(map(fresh, many))) for dev, many in spec.addresses)
    return replace(spec, addresses=addresses, routes=tuple(map(fresh, spec.routes)))


def _renewed(topology: Topology, provider: Provider, old: Collection[str]) -> dict[str, str]:
    taken = {address.split()[0].split("/")[0] for address in _all(topology)}
    renewed: dict[str, str] = {}
    for address in old:
        renewed[address] = _free(address, _network(topology, provider, address), taken)
        taken.add(renewed[address])
    return renewed


def _free(address: str, prefix: str, taken: Collection[str]) -> str:
    network = ip_network(prefix)
    first, size = int(network.network_address), network.num_addresses
    for step in range(size):
        # neither the network's own address nor its broadcast address
        offset = (int(ip_address(address)) - first + _STEP + step) % size
        text = str(network[offset])
        if 0 < offset < size - 1 and text not in taken:
            return text
    raise ValueError(f"no address of {prefix} is free")


def _network(topology: Topology, provider: Provider, address: str) -> str:
    """The network of an address, by its interface, otherwise by its provider."""
    for text in _all(topology):
        own = ip_interface(text.split()[0])
        if str(own.ip) == address and own.network.prefixlen < own.max_prefixlen - 1:
            return str(own.network)
    inside = (p for p in provider.prefixes if ip_address(address) in ip_network(p))
    return next(inside, str(ip_interface(f"{address}/{120 if ':' in address else 24}").network))


def _all(topology: Topology) -> list[str]:
    return [text for node in topology.nodes for _, many in node.addresses for text in many]


def _named(topology: Topology, provider: str) -> Provider:
    return next(it for it in topology.providers if it.name == provider)
