"""Zones by the config (ConfiguredZone), and their delegation: NS records and glue at the parent.

Rules: pure. The embedded server's zones are fully known; of other zones only our names in them, and
the servers in the config.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ifdefault.dns.publish import NAMESERVER_TTL_S, serve
from ifdefault.model.address import family_of
from ifdefault.model.dns import (
    CandidateAddresses,
    DnsConfig,
    Endpoint,
    NameConfig,
    Zone,
    within,
    zone_of,
)

ZoneLine = tuple[str, str, str]  # owner, type, value


@dataclass(frozen=True, slots=True)
class ConfiguredZone:
    """A zone by the config. `zone` "": not in the config, to be discovered."""

    zone: str
    names: tuple[NameConfig, ...] = ()
    embedded: bool = False
    nameservers: tuple[tuple[str, tuple[str, ...]], ...] = ()  # (host, addresses)
    servers: tuple[Endpoint, ...] = ()  # in the config, in addition to the zone's NS records
    port: int = 53


def configured_zones(
    config: DnsConfig, offers: Sequence[CandidateAddresses]
) -> tuple[ConfiguredZone, ...]:
    """All zones of the config; a name without a zone is an entry of its own."""
    programs = tuple(program.zone for program in config.execs if program.zone)
    zone_by_name = {
        name: zone_of(name.name, config.zones) or zone_of(name.name, programs)
        for name in config.names
    }
    embedded = {zone.zone: zone for zone in serve(config, (), offers)}
    zones = []
    for zone in dict.fromkeys((*config.zones, *programs)):
        names = tuple(name for name in config.names if zone_by_name[name] == zone)
        servers = tuple(s for u in config.updates if u.zone == zone for s in u.servers)
        if own := embedded.get(zone):
            glue = {n.name: tuple(record.address for record in n.addresses) for n in own.names}
            hosts = tuple((host, glue.get(host, ())) for host in own.nameservers)
            servers += config.server.secondaries
            zones.append(ConfiguredZone(zone, names, True, hosts, servers, config.server.port))
        else:
            zones.append(ConfiguredZone(zone, names, servers=servers))
    zones += [ConfiguredZone("", (name,)) for name in config.names if not zone_by_name[name]]
    return tuple(zones)


def delegate(zone: ConfiguredZone) -> tuple[ZoneLine, ...]:
    """The records of a zone's delegation: its NS records, and glue for servers within it."""
    hosts = tuple((zone.zone, "NS", f"{host}.") for host, _ in zone.nameservers)
    return hosts + tuple(
        line
        for host, addresses in zone.nameservers
        if within(host, zone.zone)
        for line in glue(host, addresses)
    )


def zone_glue(zone: Zone) -> dict[str, str]:
    """The glue of an embedded server's zone: owner and type to address."""
    addresses = {n.name: [record.address for record in n.addresses] for n in zone.names}
    hosts = (host for host in zone.nameservers if within(host, zone.zone))
    lines = (line for host in hosts for line in glue(host, addresses.get(host, ())))
    return {f"{owner} {kind}": address for owner, kind, address in lines}


def glue(host: str, addresses: Iterable[str]) -> tuple[ZoneLine, ...]:
    return tuple((host, {4: "A", 6: "AAAA"}[family_of(a)], a) for a in addresses)


def zone_file(lines: Iterable[ZoneLine]) -> list[str]:
    """The lines in zone file format (RFC 1035, 5), independent of $ORIGIN and $TTL."""
    rows = [(f"{owner}.", kind, value) for owner, kind, value in lines]
    width = max((len(owner) for owner, _, _ in rows), default=0)
    return [f"{o:<{width}} {NAMESERVER_TTL_S} IN {kind:<4} {value}" for o, kind, value in rows]


def one_line(lines: Iterable[ZoneLine]) -> str:
    """The records in one line, for display."""
    return "; ".join(f"{owner}. {kind} {value}" for owner, kind, value in lines)


def listed(texts: Iterable[str]) -> str:
    return ", ".join(sorted(texts))
