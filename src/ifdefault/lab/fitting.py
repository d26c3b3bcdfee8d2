"""A topology for a user's config, or for a number of uplinks: a provider for each. Pure.

Rules: interfaces, gateways and addresses are those of the config; what it leaves to the kernel is
taken from documentation prefixes. Uplinks with the same interface share a LAN. The lab's DNS
delegates the zones of the embedded server to the host.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from ifdefault.lab import internet
from ifdefault.lab.topology import Topology, extend, parse
from ifdefault.model.config import FAMILIES, Config, Probe, UplinkConfig

_PREFIXES = {  # where the config has none; RFC 5737 and RFC 3849
    1: ("203.0.113", "2001:db8:a:"),
    2: ("198.51.100", "2001:db8:b:"),
    3: ("192.0.2", "2001:db8:c:"),
}
_LENGTHS = {4: 24, 6: 64}
_NAME_MAX = 13  # IFNAMSIZ - 1, less "p-"


def fit(config: Config, text: str, name: str) -> Topology:
    """Return a world for a config; `text` and `name` are those of its file."""
    return _build(config, text, name="config", title=f"a world that fits {name}")


def many(count: int) -> Topology:
    """Return a world with so many uplinks, `isp-1` on `wan1` and so on, in both families."""
    uplinks = tuple(UplinkConfig(f"isp-{n}", f"wan{n}") for n in range(1, count + 1))
    text = "\n".join(f'[uplink.{it.name}]\ninterface = "{it.interface}"\n' for it in uplinks)
    return _build(Config(uplinks), text, name="many", title=f"{count} uplinks")


def _build(config: Config, text: str, *, name: str, title: str) -> Topology:
    uplinks = config.uplinks
    shared = Counter(uplink.interface for uplink in uplinks)
    table: dict[str, Any] = {"extends": "_internet", "config": text, "links": [], "providers": {}}
    host: dict[str, Any] = {"addresses": {}, "routes": []}
    lans: dict[str, list[str]] = {}
    for number, uplink in enumerate(uplinks, start=1):
        node = _node(uplink.name, number)
        table["providers"][node] = _provider(uplink, number, host)
        if node != uplink.name:
            table["providers"][node]["uplink"] = uplink.name
        if shared[uplink.interface] == 1:
            table["links"].append(f"{node}.cust0 host.{uplink.interface}")
        else:
            lans.setdefault(uplink.interface, []).append(node)
    if config.dns.server.zones:
        table["zones"] = list(config.dns.server.zones)
    table["nodes"] = {"host": host} | {
        f"lan{number}": _lan(table, number, dev, members)
        for number, (dev, members) in enumerate(lans.items())
    }
    table["nodes"]["core"] = {"addresses": {"lo": _targets(config, table["providers"])}}
    table |= {"name": name, "title": title, "drawing": _draw(uplinks)}
    return parse(extend(table))


def dns_targets(config: Config, topology: Topology) -> list[str]:
    """The targets of the config's DNS probes, as far as they are the core's."""
    hosts = {probe.host for probe in _probes(config) if (probe.kind, probe.port) == ("dns", 53)}
    return sorted(hosts.intersection(topology.addresses("core")))


def _probes(config: Config) -> tuple[Probe, ...]:
    return (*config.health.probes, *(p for u in config.uplinks for p in u.probes or ()))


def _targets(config: Config, providers: dict[str, Any]) -> list[str]:
    """The targets of the config's probes, except those inside a provider's network."""
    networks = [ip_network(prefix) for row in providers.values() for prefix in row["prefixes"]]
    targets = [ip_interface(text) for text in internet.targets(_probes(config))]
    inside = {target for target in targets for network in networks if target.ip in network}
    existing = {ip_interface(text) for text in internet.targets()} | inside
    return [str(target) for target in targets if target not in existing]


def _node(uplink: str, number: int) -> str:
    """A provider has its uplink's name, if that can be part of an interface name."""
    taken = uplink in ("client", "core", "host") or uplink.startswith("lan")
    return f"isp-{number}" if taken or len(uplink) > _NAME_MAX else uplink


def _provider(uplink: UplinkConfig, number: int, host: dict[str, Any]) -> dict[str, Any]:
    """The provider of an uplink; its side of the host is added to `host`."""
    provider: dict[str, Any] = {"number": number, "prefixes": [], "gateways": []}
    for family in FAMILIES:
        addresses = _of(family, uplink.addresses)
        gateways = _of(family, uplink.gateways)
        if (uplink.addresses or uplink.gateways) and not (addresses or gateways):
            continue  # the config has the other family alone
        addresses = addresses or [_nth(family, 10, gateways) or _made_up(family, number)]
        gateways = gateways or [_nth(family, 1, addresses)]
        for address in addresses:
            prefix = str(ip_interface(f"{address}/{_LENGTHS[family]}").network)
            if prefix not in provider["prefixes"]:
                provider["prefixes"].append(prefix)
            own = host["addresses"].setdefault(uplink.interface, [])
            own.append(f"{address}/{_LENGTHS[family]}")
        provider["gateways"].append(f"{gateways[0]}/{_LENGTHS[family]}")
        metric = 100 * number if family == 4 else 1024 * number
        route = f"default via {gateways[0]} dev {uplink.interface} onlink metric {metric}"
        host["routes"].append(f"-{family} {route}")
    return provider


def _nth(family: int, nth: int, neighbours: list[str]) -> str:
    """An address in the same network, "" if a link-local neighbour doesn't identify it."""
    if not neighbours or ip_address(neighbours[0]).is_link_local:
        return ""
    return str(ip_interface(f"{neighbours[0]}/{_LENGTHS[family]}").network[nth])


def _made_up(family: int, number: int) -> str:
    v4, v6 = _PREFIXES.get(number, (f"198.51.{number}", f"2001:db8:{number:x}00:"))
    return f"{v4}.10" if family == 4 else f"{v6}:10"


def _lan(table: dict[str, Any], number: int, dev: str, members: list[str]) -> dict[str, Any]:
    """A bridge between the host and several providers."""
    ports = ["host", *members]
    ends = [f"host.{dev}", *(f"{node}.cust0" for node in members)]
    table["links"] += [f"{end} lan{number}.p-{p}" for end, p in zip(ends, ports, strict=True)]
    return {"bridges": {"br0": [f"p-{port}" for port in ports]}}


def _of(family: int, addresses: Iterable[str]) -> list[str]:
    return [address for address in addresses if ip_address(address).version == family]


def _draw(uplinks: Sequence[UplinkConfig]) -> str:
    name = max(len(uplink.name) for uplink in uplinks)
    dev = max(len(uplink.interface) for uplink in uplinks)
    lines = []
    for number, uplink in enumerate(uplinks):
        middle = number == len(uplinks) // 2
        head = "client ── core ─" if middle else " " * 16
        row = f"{uplink.name:<{name}} ── {uplink.interface:<{dev}}"
        lines.append(f"{head}┤ {row} ├{' host' if middle else ''}")
    return "\n".join(lines)
