"""Checks across names, zones and uplinks.

Rules: as in `cross`.
"""

from __future__ import annotations

from collections.abc import Iterator

from ifdefault.config import cross_zone
from ifdefault.config.cross import Finding, ValidConfig, either
from ifdefault.config.dns import DISCOVER_EXAMPLE, ServerKeys
from ifdefault.config.dns_records import AAAA, CNAME, A, addresses
from ifdefault.config.toml_lines import KeyPath
from ifdefault.model.dns import (
    DISCOVER,
    DnsConfig,
    NameConfig,
    Record,
    ServerConfig,
    contact,
    nameserver,
    within,
    zone_of,
)

_IRRELEVANT = {*ServerKeys.model_fields, "policy", "ttl"} - {"zones"}
_NAME_MAX = 253  # characters of a name (RFC 1035, 2.3.4), without the final dot
_AUTOMATIC = "names get their uplinks' addresses automatically"


def _zones(dns: DnsConfig) -> list[str]:
    """Zones that exist in the DNS: the zone of a program only selects names."""
    updates = (update.zone for update in dns.updates)
    return [*dns.server.zones, *updates, *(provider.zone for provider in dns.providers)]


def _nameservers(valid: ValidConfig) -> set[str]:
    """The names that the embedded server generates for its uplinks."""
    zones = valid.dns.server.zones
    return {nameserver(uplink, zone) for uplink in valid.uplink_names for zone in zones}


def _is_complete(valid: ValidConfig, *tables: str) -> bool:
    """Whether no invalid part of these tables, keys of the file or of [dns], may contain names or
    zones."""
    relevant = (
        path[:2] for path in valid.invalid if path[-1] not in _IRRELEVANT and not _is_record(path)
    )
    return not any(part in tables for path in relevant for part in path)


def _is_record(path: KeyPath) -> bool:
    return path[:2] == ("dns", "name") and path[3:4] == ("records",)


def findings(valid: ValidConfig) -> Iterator[Finding]:
    for n, name in enumerate(valid.dns.names):
        for path, what, remedy in _check_name(valid, n, name):
            yield ("dns", "name", n, *path), what, remedy
    yield from _check_server(valid)
    yield from _check_duplicates(valid.dns)
    unsure = {"addresses"} if any(map(_is_record, valid.invalid)) else set()
    if not _is_complete(valid, "name", "server", "uplink", "update", "provider"):
        unsure |= {"addresses", "names"}
    yield from cross_zone.findings(valid, _nameservers(valid), unsure)
    for uplink in valid.uplinks:
        if DISCOVER in uplink.public and not valid.dns.discover and _is_complete(valid, "dns"):
            remedy = f'add discover = ["{DISCOVER_EXAMPLE}"] to [dns]'
            yield ("uplink", uplink.name, "public"), "no discovery service is configured", remedy


# --- a name -------------------------------------------------------------------------------


def _check_name(valid: ValidConfig, n: int, name: NameConfig) -> Iterator[Finding]:
    """The errors of a name; paths begin in its table."""
    quoted = f'"{name.name}"'
    if name.name in (earlier.name for earlier in valid.dns.names[:n]):
        yield ("name",), f"{quoted} is already defined", "put all its records in one table"
    if name.name in _nameservers(valid):
        yield ("name",), f"{quoted} is the generated name of a name server", "use another name"
    yield from _check_zone(valid, name)
    yield from valid.unknown_uplinks("uplinks", name.uplinks or ())
    if name.uplinks == () and not name.records and not any(map(_is_record, valid.invalid)):
        yield ("uplinks",), "no uplink and no record", "add one, or remove uplinks to use all"
    for k, record in enumerate(name.records):
        yield from ((("records", k), *error) for error in _check_record(valid, name, record))


def _check_zone(valid: ValidConfig, name: NameConfig) -> Iterator[Finding]:
    zones = [*_zones(valid.dns), *(program.zone for program in valid.dns.execs)]
    if any(not zone or within(name.name, zone) for zone in zones):
        unserved = name.records and not zone_of(name.name, valid.dns.server.zones)
        if unserved and _is_complete(valid, "server"):
            remedy = "add them to the zone itself, or delegate it to [dns.server]"
            yield ("records",), "only the embedded server publishes records", remedy
    elif _is_complete(valid, "server", "update", "provider", "exec"):
        remedy = "add its zone to zones of [dns.server], or to a table such as [[dns.update]]"
        if zones:
            remedy = f"use a name in {either(zones)}, or {remedy}"
        yield ("name",), f'"{name.name}" is in no published zone', remedy


def _check_record(
    valid: ValidConfig, name: NameConfig, record: Record
) -> Iterator[tuple[str, str]]:
    if record.type == CNAME:
        if len(name.records) > 1:
            yield "a CNAME can't have other records beside it", "keep it or them (RFC 1034, 3.6.2)"
        if name.uplinks != ():
            yield "a CNAME can't have addresses beside it", "remove it, or add uplinks = []"
        if name.name in _zones(valid.dns):
            remedy = "use the records of its target: the apex has SOA and NS"
            yield "a CNAME at the apex of a zone", remedy
    owned = {a for uplink in valid.uplinks for a in (*uplink.addresses, *uplink.public)}
    foreign = [address for address in addresses(record) if address not in owned]
    if foreign and _is_complete(valid, "uplink"):
        what = f"{foreign[0]} belongs to no uplink"
        yield what, f"remove it ({_AUTOMATIC}), or add it to addresses or public of an uplink"
    elif record.type in (A, AAAA) and name.uplinks != ():
        what = "the name already has the addresses of its uplinks"
        yield what, f"remove it ({_AUTOMATIC}), or add uplinks = [] to publish it alone"


# --- zones, and who serves them -----------------------------------------------------------


def _check_server(valid: ValidConfig) -> Iterator[Finding]:
    server, names = valid.dns.server, {name.name for name in valid.dns.names}
    for k, zone in enumerate(server.zones):
        path: KeyPath = ("dns", "server", "zones", k)
        for other in dict.fromkeys(server.zones):
            if zone != other and within(zone, other):
                remedy = f"remove it: its names can be in {other}"
                yield path, f'"{zone}" is inside "{other}", which delegates nothing', remedy
        if zone in server.zones[:k]:
            yield path, f'"{zone}" is listed twice', "remove one"
        generated = [nameserver(uplink, zone) for uplink in valid.uplink_names]
        generated += [] if server.contact else [contact(zone)]
        if long := [name for name in generated if len(name) > _NAME_MAX]:
            remedy = "use a shorter zone, or shorter names of uplinks"
            yield path, f'"{long[0]}" would be longer than {_NAME_MAX} characters', remedy
    if server != ServerConfig() and not server.zones and _is_complete(valid, "server"):
        remedy = 'list those delegated to this host: zones = ["www.example.net"]'
        yield ("dns", "server"), "no zones", remedy
    for k, name in enumerate(server.nameservers):
        path = ("dns", "server", "nameservers", k)
        if name in _nameservers(valid):
            yield path, f'"{name}" is generated automatically', "remove it"
        elif zone_of(name, server.zones) and name not in names and _is_complete(valid, "name"):
            remedy = "use a name in another zone: this host's own servers are listed automatically"
            yield path, f'"{name}" is in the zone and has no address', remedy
        if name in server.nameservers[:k]:
            yield path, f'"{name}" is listed twice', "remove one"


def _check_duplicates(dns: DnsConfig) -> Iterator[Finding]:
    for kind, zones in (("update", dns.updates), ("provider", dns.providers)):
        names = [table.zone for table in zones]
        for n, zone in enumerate(names):
            if zone in names[:n]:
                remedy = "keep one table" + " with all its servers" * (kind == "update")
                yield ("dns", kind, n, "zone"), f'"{zone}" is already defined', remedy
            elif (outer := zone_of(zone, dns.server.zones)) not in ("", zone):
                what = f'"{zone}" is inside "{outer}" of [dns.server], which delegates nothing'
                remedy = f"remove it: its names can be in {outer}"
                yield ("dns", kind, n, "zone"), what, remedy
    programs = [(table.program, table.zone) for table in dns.execs]
    for n, (program, _) in enumerate(programs):
        if programs[n] in programs[:n]:
            yield ("dns", "exec", n, "program"), f'"{program}" is already defined', "keep one table"
