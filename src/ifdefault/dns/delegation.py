"""What a zone should be (Wanted), and what its parent is to say of it: NS records and glue.

Rules: pure. Of the embedded server's zones all is known; of others' zones only which names of ours
are in them, and which servers the config names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ifdefault.dns.publish import NAMESERVER_TTL_S, serve
from ifdefault.model.address import family_of
from ifdefault.model.dns import CandidateAddresses, DnsConfig, Endpoint, NameConfig, within, zone_of

ZoneLine = tuple[str, str, str]  # owner, type, value


@dataclass(frozen=True, slots=True)
class Wanted:
    """A zone as the config has it. `zone` "" where it leaves the zone to be found out."""

    zone: str
    names: tuple[NameConfig, ...] = ()
    embedded: bool = False
    nameservers: tuple[tuple[str, tuple[str, ...]], ...] = ()  # (host, addresses)
    servers: tuple[Endpoint, ...] = ()  # that the config names, beside those that the DNS does
    port: int = 53


def wanted(config: DnsConfig, offers: Sequence[CandidateAddresses]) -> tuple[Wanted, ...]:
    """Every zone that the config speaks of; names of no zone stand by themselves."""
    programs = tuple(each.zone for each in config.execs if each.zone)
    zone_by_name = {
        name: zone_of(name.name, config.zones) or zone_of(name.name, programs)
        for name in config.names
    }
    embedded = {zone.zone: zone for zone in serve(config, (), offers)}
    found = []
    for zone in dict.fromkeys((*config.zones, *programs)):
        names = tuple(name for name in config.names if zone_by_name[name] == zone)
        servers = tuple(s for u in config.updates if u.zone == zone for s in u.servers)
        if own := embedded.get(zone):
            glue = {n.name: tuple(handed.address for handed in n.addresses) for n in own.names}
            hosts = tuple((host, glue.get(host, ())) for host in own.nameservers)
            servers += config.server.secondaries
            found.append(Wanted(zone, names, True, hosts, servers, config.server.port))
        else:
            found.append(Wanted(zone, names, servers=servers))
    found += [Wanted("", (name,)) for name in config.names if not zone_by_name[name]]
    return tuple(found)


def delegate(zone: Wanted) -> tuple[ZoneLine, ...]:
    """What the parent is to say of a zone: its NS records, and glue for those within it."""
    hosts = tuple((zone.zone, "NS", f"{host}.") for host, _ in zone.nameservers)
    return hosts + tuple(
        line
        for host, many in zone.nameservers
        if within(host, zone.zone)
        for line in glue(host, many)
    )


def glue(host: str, addresses: Iterable[str]) -> tuple[ZoneLine, ...]:
    return tuple((host, {4: "A", 6: "AAAA"}[family_of(a)], a) for a in addresses)


def zone_file(lines: Iterable[ZoneLine]) -> list[str]:
    """Those lines for a zone file (RFC 1035, 5), wherever in it."""
    rows = [(f"{owner}.", kind, value) for owner, kind, value in lines]
    width = max((len(owner) for owner, _, _ in rows), default=0)
    return [f"{o:<{width}} {NAMESERVER_TTL_S} IN {kind:<4} {value}" for o, kind, value in rows]


def told(lines: Iterable[ZoneLine]) -> str:
    """The same in one line, for people."""
    return "; ".join(f"{owner}. {kind} {value}" for owner, kind, value in lines)
