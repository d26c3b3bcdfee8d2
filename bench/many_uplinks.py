"""A host with 31 uplinks, the most that we support, and 16 addresses each: as facts and a world.

host.up1 ── peer.up1   198.18.1.10-17/24, 2001:db8:1::10-17/64
 …                       …
host.up31 ─ peer.up31  198.18.31.10-17/24, 2001:db8:1f::10-17/64
"""

from __future__ import annotations

from collections.abc import Sequence

from bench import subject
from ifdefault.lab.topology import Topology, parse
from ifdefault.model.config import Config, Family, UplinkConfig
from ifdefault.model.kernel import Address, Facts, Hop, Link, Route, Rule
from ifdefault.plan.numbers import UPLINKS_MAX

UPLINKS = range(1, UPLINKS_MAX + 1)
PER_FAMILY = 8
_LENGTH: dict[Family, int] = {4: 24, 6: 64}


def _address(family: Family, uplink: int, last: int) -> str:
    return f"198.18.{uplink}.{last}" if family == 4 else f"2001:db8:{uplink:x}::{last}"


def _network(family: Family, uplink: int) -> str:
    return f"198.18.{uplink}.0/24" if family == 4 else f"2001:db8:{uplink:x}::/64"


def _addresses(uplink: int, per_family: int) -> list[tuple[Family, str]]:
    families: tuple[Family, Family] = (4, 6)
    return [(f, _address(f, uplink, 10 + n)) for f in families for n in range(per_family)]


def config() -> Config:
    return Config(tuple(UplinkConfig(f"isp-{n}", f"up{n}") for n in UPLINKS))


def facts(per_family: int = PER_FAMILY, udp_ports: Sequence[int] = ()) -> Facts:
    """The kernel's state on such a host before the first apply."""
    families: tuple[Family, Family] = (4, 6)
    routes = []
    for family in families:
        for n in UPLINKS:
            hop, gateway = Hop(f"up{n}"), _address(family, n, 1)
            routes.append(Route(family, 254, _network(family, n), hops=(hop,), protocol=2))
            default = Hop(f"up{n}", gateway)
            routes.append(Route(family, 254, "default", 1000 + n, hops=(default,), protocol=3))
    return Facts(
        links=(Link(1, "lo", loopback=True), *(Link(n + 1, f"up{n}") for n in UPLINKS)),
        addresses=tuple(
            Address(family, f"up{n}", address, _LENGTH[family])
            for n in UPLINKS
            for family, address in _addresses(n, per_family)
        ),
        routes=tuple(routes),
        rules=tuple(
            Rule(family, priority, table=table)
            for family in families
            for priority, table in ((0, 255), (32766, 254))
        ),
        wildcard_udp=tuple((family, port) for family in families for port in udp_ports),
    )


def topology(per_family: int = 1, uplinks: Sequence[int] = UPLINKS) -> Topology:
    """A world of two nodes with links between them, and no Internet."""
    addresses: dict[str, dict[str, list[str]]] = {"host": {}, "peer": {}}
    routes = []
    for n in uplinks:
        own = [f"{a}/{_LENGTH[family]}" for family, a in _addresses(n, per_family)]
        addresses["host"][f"up{n}"] = own
        addresses["peer"][f"up{n}"] = [f"{_address(4, n, 1)}/24", f"{_address(6, n, 1)}/64"]
        routes += [f"-4 default via {_address(4, n, 1)} metric {1000 + n}"]
        routes += [f"-6 default via {_address(6, n, 1)} metric {1000 + n}"]
    return parse(
        {
            "name": "many",
            "title": f"{len(uplinks)} uplinks",
            "drawing": "",
            "config": config_text(uplinks=uplinks),
            "links": [f"host.up{n} peer.up{n}" for n in uplinks],
            "nodes": {
                "host": {"addresses": addresses["host"], "routes": routes},
                "peer": {"addresses": addresses["peer"]},
            },
        }
    )


def config_text(first: int = 1, uplinks: Sequence[int] = UPLINKS) -> str:
    """The config file; `first` is the number of the primary uplink."""
    tables = [
        {"name": f"isp-{n}", "interface": f"up{n}", "rank": 0 if n == first else n} for n in uplinks
    ]
    return subject.config(tables)
