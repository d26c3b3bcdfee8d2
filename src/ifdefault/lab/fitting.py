"""A topology that fits a user's own config: a provider for each uplink. Pure.

Rules: what the config says of interfaces, gateways and addresses comes true; what it leaves to
the kernel is made up from documentation prefixes. Uplinks that name one interface share a LAN.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Mapping
from ipaddress import ip_address, ip_interface
from typing import Any

from ifdefault.errors import ConfigError, Problem
from ifdefault.lab.topology import Topology, extend, parse

_PREFIXES = {  # where the config says nothing; RFC 5737 and RFC 3849
    1: ("203.0.113", "2001:db8:a:"),
    2: ("198.51.100", "2001:db8:b:"),
    3: ("192.0.2", "2001:db8:c:"),
}
_LENGTHS = {4: 24, 6: 64}
_FAMILIES = (4, 6)


def fit(text: str, name: str) -> Topology:
    """Return a world for a config's text."""
    try:
        uplinks = tomllib.loads(text).get("uplink", {})
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(Problem(name, f"not TOML: {error}")) from None
    if not isinstance(uplinks, dict) or not all(isinstance(u, dict) for u in uplinks.values()):
        raise ConfigError(Problem(name, "[uplink] must be a table of tables"))
    if not uplinks:
        raise ConfigError(Problem(name, "no uplink", "a config has at least one [uplink.NAME]"))
    shared = Counter(row.get("interface") for row in uplinks.values())
    table: dict[str, Any] = {"extends": "_internet", "config": text, "links": [], "providers": {}}
    host: dict[str, Any] = {"addresses": {}, "routes": []}
    lans: dict[str, list[str]] = {}
    for number, (uplink, row) in enumerate(uplinks.items(), start=1):
        _add(table, host, uplink, number, row)
        if shared[row["interface"]] == 1:
            table["links"].append(f"{uplink}.cust0 host.{row['interface']}")
        else:
            lans.setdefault(row["interface"], []).append(uplink)
    table["nodes"] = {"host": host} | {
        f"lan{number}": _lan(table, number, dev, members)
        for number, (dev, members) in enumerate(lans.items())
    }
    table |= {"name": "config", "title": f"a world that fits {name}", "drawing": _draw(uplinks)}
    return parse(extend(table))


def _add(
    table: dict[str, Any], host: dict[str, Any], uplink: str, number: int, row: Mapping[str, Any]
) -> None:
    """Add one uplink's provider, and its side of the host."""
    where = f"uplink.{uplink}.interface"
    if not isinstance(dev := row.get("interface"), str):
        raise ConfigError(Problem(where, "missing", "the name of a network interface"))
    provider: dict[str, list[str]] = {"prefixes": [], "gateways": [], "routes": []}
    for family in _FAMILIES:
        addresses = _of(family, row.get("addresses", ()))
        gateways = _of(family, row.get("gateways", ()))
        if (row.get("addresses") or row.get("gateways")) and not (addresses or gateways):
            continue  # the config has the other family alone
        addresses = addresses or [_nth(family, 10, gateways) or _made_up(family, number)]
        gateways = gateways or [_nth(family, 1, addresses)]
        for address in addresses:
            prefix = str(ip_interface(f"{address}/{_LENGTHS[family]}").network)
            if prefix not in provider["prefixes"]:
                provider["prefixes"].append(prefix)
            host["addresses"].setdefault(dev, []).append(f"{address}/{_LENGTHS[family]}")
        provider["gateways"].append(f"{gateways[0]}/{_LENGTHS[family]}")
        metric = 100 * number if family == 4 else 1024 * number
        route = f"default via {gateways[0]} dev {dev} onlink metric {metric}"
        host["routes"].append(f"-{family} {route}")
    table["providers"][uplink] = {"number": number, **provider}


def _nth(family: int, nth: int, neighbours: list[str]) -> str:
    """An address beside others, "" where a link-local one doesn't tell the network."""
    if not neighbours or ip_address(neighbours[0]).is_link_local:
        return ""
    return str(ip_interface(f"{neighbours[0]}/{_LENGTHS[family]}").network[nth])


def _made_up(family: int, number: int) -> str:
    v4, v6 = _PREFIXES.get(number, (f"198.51.{number}", f"2001:db8:{number:x}00:"))
    return f"{v4}.10" if family == 4 else f"{v6}:10"


def _lan(table: dict[str, Any], number: int, dev: str, members: list[str]) -> dict[str, Any]:
    ports = ["host", *members]
    ends = [f"host.{dev}", *(f"{uplink}.cust0" for uplink in members)]
    table["links"] += [f"{end} lan{number}.p-{p}" for end, p in zip(ends, ports, strict=True)]
    return {"bridges": {"br0": [f"p-{port}" for port in ports]}}


def _of(family: int, addresses: Any) -> list[str]:
    found = [ip_interface(address).ip for address in addresses]
    return [str(address) for address in found if address.version == family]


def _draw(uplinks: Mapping[str, Mapping[str, Any]]) -> str:
    width = max(map(len, uplinks))
    devs = [str(row.get("interface", "")) for row in uplinks.values()]
    longest = max(map(len, devs))
    rows = [f"{n:<{width}} ── {d:<{longest}}" for n, d in zip(uplinks, devs, strict=True)]
    middle = len(rows) // 2
    lines = []
    for number, row in enumerate(rows):
        head, tail = ("client ── core ─", " host") if number == middle else (" " * 16, "")
        lines.append(f"{head}┤ {row} ├{tail}")
    return "\n".join(lines)
