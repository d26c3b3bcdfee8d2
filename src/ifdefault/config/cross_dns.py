"""What names, zones and uplinks can only get wrong together.

Rules: as in `cross`.
"""

from __future__ import annotations

from collections.abc import Iterator

from ifdefault.config.cross import Finding, SoundConfig, either
from ifdefault.config.dns import DISCOVER_EXAMPLE, ServerKeys
from ifdefault.config.dns_records import AAAA, CNAME, A, addresses
from ifdefault.config.toml_lines import KeyPath
from ifdefault.model.dns import (
    DISCOVER,
    DnsConfig,
    NameConfig,
    Record,
    ServerConfig,
    within,
    zone_of,
)

_ASIDE = {*ServerKeys.model_fields, "policy", "ttl"} - {"zones"}
_BY_ITSELF = "a name gets its uplinks' addresses by itself"


def _zones(dns: DnsConfig) -> list[str]:
    """Zones that exist in the DNS: a program's is just a choice of names."""
    updates = (each.zone for each in dns.updates)
    return [*dns.server.zones, *updates, *(each.zone for each in dns.providers)]


def _nameservers(sound: SoundConfig) -> set[str]:
    """Names that the embedded server makes by itself."""
    zones = sound.dns.server.zones
    return {f"ns-{uplink}.{zone}" for uplink in sound.uplink_names for zone in zones}


def _is_complete(sound: SoundConfig, *tables: str) -> bool:
    """Whether nothing was left out of these tables, each a key of the file or of [dns], but what
    says neither names nor zones."""
    wide = (path[:2] for path in sound.unsound if path[-1] not in _ASIDE)
    return not any(part in tables for path in wide for part in path)


def findings(sound: SoundConfig) -> Iterator[Finding]:
    for n, name in enumerate(sound.dns.names):
        for path, what, remedy in _of_name(sound, n, name):
            yield ("dns", "name", n, *path), what, remedy
    yield from _of_server(sound)
    yield from _twice(sound.dns)
    for uplink in sound.uplinks:
        if DISCOVER in uplink.public and not sound.dns.discover and _is_complete(sound, "dns"):
            remedy = f'name one below [dns]: discover = ["{DISCOVER_EXAMPLE}"]'
            yield ("uplink", uplink.name, "public"), "nobody to discover it from", remedy


# --- a name -------------------------------------------------------------------------------


def _of_name(sound: SoundConfig, n: int, name: NameConfig) -> Iterator[Finding]:
    """What is wrong with a name; paths begin in its table."""
    told = f'"{name.name}"'
    if name.name in (earlier.name for earlier in sound.dns.names[:n]):
        yield ("name",), f"{told} is there already", "keep one table with all its records"
    if name.name in _nameservers(sound):
        yield ("name",), f"{told} is a name server's, made for its uplink", "use another name"
    yield from _outside(sound, name)
    yield from sound.unknown_uplinks("uplinks", name.uplinks or ())
    if name.uplinks == () and not name.records:
        yield ("uplinks",), "no uplink, and no record", "name one, or drop uplinks to have all"
    for k, record in enumerate(name.records):
        yield from ((("records", k), *told) for told in _of_record(sound, name, record))


def _outside(sound: SoundConfig, name: NameConfig) -> Iterator[Finding]:
    zones = [*_zones(sound.dns), *(each.zone for each in sound.dns.execs)]
    if any(not zone or within(name.name, zone) for zone in zones):
        unserved = name.records and not zone_of(name.name, sound.dns.server.zones)
        if unserved and _is_complete(sound, "server"):
            remedy = "write them in the zone itself, or have it delegated to [dns.server]"
            yield ("records",), "only the embedded server publishes records", remedy
    elif _is_complete(sound, "server", "update", "provider", "exec"):
        remedy = "add its zone: to zones of [dns.server], or with a table such as [[dns.update]]"
        if zones:
            remedy = f"use a name in {either(zones)}, or {remedy}"
        yield ("name",), f'"{name.name}" is in no zone that is published', remedy


def _of_record(sound: SoundConfig, name: NameConfig, record: Record) -> Iterator[tuple[str, str]]:
    if record.type == CNAME:
        if len(name.records) > 1:
            yield "a CNAME beside other records", "keep it or them (RFC 1034, 3.6.2)"
        if name.uplinks != ():
            yield "a CNAME beside addresses", "drop it, or add uplinks = [] to have no addresses"
        if name.name in _zones(sound.dns):
            yield "a CNAME for a whole zone", "write what it leads to: a zone has SOA and NS too"
    owned = {a for uplink in sound.uplinks for a in (*uplink.addresses, *uplink.public)}
    foreign = [address for address in addresses(record) if address not in owned]
    if foreign and _is_complete(sound, "uplink"):
        what = f"{foreign[0]} is an address that no uplink owns"
        yield what, f"drop it: {_BY_ITSELF}; or name it in addresses or public of an uplink"
    elif record.type in (A, AAAA) and name.uplinks != ():
        what = "an address beside those of the name's uplinks"
        yield what, f"drop it: {_BY_ITSELF}; or add uplinks = [] to have this one alone"


# --- zones, and who has them --------------------------------------------------------------


def _of_server(sound: SoundConfig) -> Iterator[Finding]:
    server, names = sound.dns.server, {name.name for name in sound.dns.names}
    for k, zone in enumerate(server.zones):
        path: KeyPath = ("dns", "server", "zones", k)
        for other in dict.fromkeys(server.zones):
            if zone != other and within(zone, other):
                remedy = f"drop it: its names can be in {other}"
                yield path, f'"{zone}" is inside "{other}", which delegates nothing', remedy
        if zone in server.zones[:k]:
            yield path, f'"{zone}" is there twice', "drop one"
    if server != ServerConfig() and not server.zones and _is_complete(sound, "server"):
        remedy = 'name those that are delegated here: zones = ["www.example.net"]'
        yield ("dns", "server"), "no zones", remedy
    for k, name in enumerate(server.nameservers):
        path = ("dns", "server", "nameservers", k)
        if name in _nameservers(sound):
            yield path, f'"{name}" is there by itself', "drop it"
        elif zone_of(name, server.zones) and name not in names and _is_complete(sound, "name"):
            remedy = "use a name of another zone: this host's own servers are there already"
            yield path, f'"{name}" is in the zone, and has no address', remedy
        if name in server.nameservers[:k]:
            yield path, f'"{name}" is there twice', "drop one"


def _twice(dns: DnsConfig) -> Iterator[Finding]:
    for kind, zones in (("update", dns.updates), ("provider", dns.providers)):
        had = [each.zone for each in zones]
        for n, zone in enumerate(had):
            if zone in had[:n]:
                remedy = "keep one table" + " with all its servers" * (kind == "update")
                yield ("dns", kind, n, "zone"), f'"{zone}" is there already', remedy
    programs = [(each.program, each.zone) for each in dns.execs]
    for n, (program, _) in enumerate(programs):
        if programs[n] in programs[:n]:
            yield ("dns", "exec", n, "program"), f'"{program}" is there already', "keep one table"
