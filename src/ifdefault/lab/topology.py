"""Topologies: read `topologies/NAME.toml` into values.

Rules: a file begins with its drawing, in comments. `extends` names a base file: tables are merged,
lists appended, other values replaced, and `without` names nodes of the base to leave out; files
whose name begins with "_" are only bases.
A provider is a router between the core and its customers: its links, routes and source filter are
derived here, so that a file has only what differs.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from hashlib import sha256
from importlib.resources import files
from ipaddress import ip_address, ip_network
from typing import Any

from ifdefault.lab import internet
from ifdefault.lab.filters import source_filter
from ifdefault.model.errors import ConfigError, Problem

_FILES = files("ifdefault.lab") / "topologies"
ZONE = "www.example"  # the host's zone, unless a topology has others
_FORWARD = (("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1"))


@dataclass(frozen=True, slots=True)
class LinkEnd:
    """One end of a link."""

    node: str
    dev: str

    @property
    def mac(self) -> str:
        """The interface's MAC, the same in every run, so that dumps can be compared."""
        return "02:" + sha256(f"{self.node}.{self.dev}".encode()).digest()[:5].hex(":")


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """A namespace: what `world` configures in it, in the order of these fields."""

    name: str
    sysctls: tuple[tuple[str, str], ...] = ()
    bridges: tuple[tuple[str, tuple[str, ...]], ...] = ()  # (bridge, ports)
    macvlans: tuple[tuple[str, str], ...] = ()  # (interface, "PARENT MAC")
    tuns: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()  # any other kind, as `ip link` takes them
    addresses: tuple[tuple[str, tuple[str, ...]], ...] = ()  # (interface, addresses)
    routes: tuple[str, ...] = ()  # as `ip route replace` takes them; "-4 …", "-6 …" to force it
    rules: tuple[str, ...] = ()  # as `ip rule add` takes them; "-6 …" for IPv6
    nft: str = ""
    scripts: tuple[tuple[str, str], ...] = ()  # shell, by name; "up" runs at once
    radvd: str = ""


@dataclass(frozen=True, slots=True)
class Provider:
    """A router that forwards only packets from its own prefixes (BCP 38)."""

    name: str
    number: int
    prefixes: tuple[str, ...]
    gateways: tuple[str, ...] = ()  # its addresses on the customers' interface, cust0
    serves: tuple[str, ...] = ()  # clients that come in through this provider alone
    routes: tuple[str, ...] = ()
    uplink: str = ""  # its name in the host's config, if that can't be a node's name


@dataclass(frozen=True, slots=True)
class DelegatedZone:
    """A zone that its parent delegates. `nameservers`: (name, addresses)."""

    zone: str
    nameservers: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class ProviderAddress:
    """An address of the host, and the provider whose prefix it is in."""

    provider: str
    family: int
    address: str
    sources: tuple[str, ...] = ()  # clients that come in through that provider; () for any


@dataclass(frozen=True, slots=True)
class Topology:
    name: str
    title: str
    drawing: str
    config: str  # its ifdefault.toml
    links: tuple[tuple[LinkEnd, LinkEnd], ...]
    wires: tuple[tuple[LinkEnd, LinkEnd], ...]  # pairs of tun devices: no Ethernet, no neighbours
    providers: tuple[Provider, ...]
    nodes: tuple[NodeSpec, ...]
    zones: tuple[str, ...]  # delegated to the host
    table: str  # the table it was parsed from, as JSON, for other processes

    def node(self, name: str) -> NodeSpec:
        return next(node for node in self.nodes if node.name == name)

    def addresses(self, node: str) -> tuple[str, ...]:
        """All addresses of a node that others can reach, without prefix lengths."""
        texts = [text for _, many in self.node(node).addresses for text in many]
        plain = [text.split()[0].split("/")[0] for text in texts]
        return tuple(address for address in plain if not ip_address(address).is_link_local)

    def targets(self, node: str = "host") -> tuple[ProviderAddress, ...]:
        """A node's addresses in the providers' prefixes, in the order of its interfaces."""
        clients = self.addresses("client")
        addresses = [
            ProviderAddress(
                provider.name,
                ip_address(address).version,
                address,
                tuple(client for client in clients if _within(client, provider.serves)),
            )
            for provider in self.providers
            for address in self.addresses(node)
            if _within(address, provider.prefixes)
        ]
        # a second router of one provider leads to the same address again
        return tuple({(it.address, it.sources): it for it in reversed(addresses)}.values())[::-1]

    def delegations(self) -> tuple[DelegatedZone, ...]:
        """The delegations of the host's zones by their parents: a name server on each uplink."""
        addresses: dict[str, list[str]] = {}
        names = {provider.name: provider.uplink or provider.name for provider in self.providers}
        for target in self.targets():
            addresses.setdefault(names[target.provider], []).append(target.address)
        return tuple(
            DelegatedZone(
                zone,
                tuple((f"ns-{uplink}.{zone}", tuple(own)) for uplink, own in addresses.items()),
            )
            for zone in self.zones
        )


def names() -> tuple[str, ...]:
    """All topologies."""
    all_names = (entry.name.removesuffix(".toml") for entry in _FILES.iterdir())
    return tuple(sorted(name for name in all_names if name[0] not in "_."))


def load(name: str) -> Topology:
    return parse(read(name))


def read(name: str) -> dict[str, Any]:
    """Return the merged table of a topology file, with its `name` and `drawing`."""
    path = _FILES / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(names())
        raise ConfigError(Problem("", f'unknown topology "{name}"', f"use one of {known}"))
    text = path.read_text(encoding="utf-8")
    table = extend(tomllib.loads(text))
    return table | {"name": name, "drawing": _drawing(text)}


def extend(table: dict[str, Any]) -> dict[str, Any]:
    """Merge a table into the one that it extends."""
    base = table.get("extends")
    return _merge(_without(read(base), table.get("without", [])), table) if base else table


def _without(table: dict[str, Any], omitted: list[str]) -> dict[str, Any]:
    """A table without some nodes, and without the links to them."""
    nodes = {name: row for name, row in table.get("nodes", {}).items() if name not in omitted}
    links = [pair for pair in table.get("links", []) if not _nodes(pair).intersection(omitted)]
    return table | {"nodes": nodes, "links": links}


def _nodes(link: str) -> set[str]:
    return {end.partition(".")[0] for end in link.split()}


def parse(table: Mapping[str, Any]) -> Topology:
    providers = tuple(_provider(*item) for item in table.get("providers", {}).items())
    nodes: dict[str, Any] = _merge(_provided(providers), table.get("nodes", {}))
    links = [f"core.{p.name} {p.name}.core0" for p in providers] + table.get("links", [])
    wires = _pairs(table.get("wires", []))
    for end in (end for pair in wires for end in pair):
        nodes = _merge(nodes, {end.node: {"tuns": [end.dev]}})
    return Topology(
        name=table["name"],
        title=table["title"],
        drawing=table["drawing"],
        config=table.get("config", ""),
        links=_pairs(links),
        wires=wires,
        providers=providers,
        nodes=tuple(_node(name, row) for name, row in nodes.items()),
        zones=tuple(table.get("zones", (ZONE,))),
        table=json.dumps(table),
    )


def _provided(providers: tuple[Provider, ...]) -> dict[str, Any]:
    """The core, and a router for each provider."""
    core: dict[str, Any] = {
        "addresses": {"lo": internet.targets()},
        "routes": [],
        "rules": [],
        "sysctls": dict(_FORWARD) | internet.SYSCTLS,
    }
    if providers:
        core["nft"] = internet.returns((p.name, p.number) for p in providers)
    nodes: dict[str, Any] = {"core": core}
    hops: dict[str, list[str]] = {}
    for provider in providers:
        near = (f"198.19.{provider.number}.1", f"2001:db8:ff:{provider.number}::1")
        far = (f"198.19.{provider.number}.2", f"2001:db8:ff:{provider.number}::2")
        lengths = ("/30", "/64")
        core["addresses"][provider.name] = [a + n for a, n in zip(near, lengths, strict=True)]
        table = 100 + provider.number
        for prefix in provider.prefixes:
            hops.setdefault(prefix, []).append(far[":" in prefix])
        core["routes"] += [f"default via {address} table {table}" for address in far]
        core["rules"] += [f"{o} fwmark {provider.number} lookup {table}" for o in ("-4", "-6")]
        for prefix in provider.serves:
            option = "-6" if ":" in prefix else "-4"
            core["rules"].append(f"{option} from {prefix} lookup {table}")
        nodes[provider.name] = {
            "addresses": {
                "core0": [a + n for a, n in zip(far, lengths, strict=True)],
                "cust0": list(provider.gateways),
            },
            "routes": [f"default via {address}" for address in near] + list(provider.routes),
            "sysctls": dict(_FORWARD)
            | {
                # a link that lost its carrier must keep its addresses
                "net.ipv6.conf.default.keep_addr_on_down": "1",
                # routers announce themselves when they come up or change their MAC
                "net.ipv4.conf.all.arp_notify": "1",
                "net.ipv6.conf.all.ndisc_notify": "1",
            },
            "nft": source_filter(provider.prefixes, _served_by_others(provider, providers)),
        }
    for prefix, vias in hops.items():
        core["routes"].append(prefix + "".join(f" nexthop via {via}" for via in vias))
    return nodes


def _served_by_others(provider: Provider, providers: Iterable[Provider]) -> list[str]:
    served = {prefix for other in providers for prefix in other.serves}
    return sorted(served.difference(provider.serves))


def _provider(name: str, row: Mapping[str, Any]) -> Provider:
    return Provider(name, **_known(Provider, f"providers.{name}", row))


def _node(name: str, row: Mapping[str, Any]) -> NodeSpec:
    sysctls = {key: str(value) for key, value in row.get("sysctls", {}).items()}
    return NodeSpec(name, **_known(NodeSpec, f"nodes.{name}", {**row, "sysctls": sysctls}))


def _known(kind: Any, where: str, row: Mapping[str, Any]) -> dict[str, Any]:
    if unknown := sorted(set(row) - {field.name for field in fields(kind)}):
        known = ", ".join(field.name for field in fields(kind))
        raise ConfigError(Problem(where, f'unknown key "{unknown[0]}"', f"use one of {known}"))
    return {key: _frozen(value) for key, value in row.items()}


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple((key, _frozen(item)) for key, item in value.items())
    return tuple(value) if isinstance(value, list) else value


def _pairs(links: list[str]) -> tuple[tuple[LinkEnd, LinkEnd], ...]:
    """Read "host.wan0 isp-a.cust0"."""
    ends = [[LinkEnd(*end.split(".", 1)) for end in link.split()] for link in links]
    return tuple((left, right) for left, right in ends)


def _merge(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in more.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = _merge(old, value)
        elif isinstance(old, list) and isinstance(value, list):
            merged[key] = old + value
        else:
            merged[key] = value
    return merged


def _drawing(text: str) -> str:
    lines = text.splitlines()
    head = lines[: next((i for i, s in enumerate(lines) if not s.startswith("#")), len(lines))]
    return "\n".join(line[2:] for line in head)


def _within(address: str, prefixes: tuple[str, ...]) -> bool:
    return any(ip_address(address) in ip_network(prefix) for prefix in prefixes)
