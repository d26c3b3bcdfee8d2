"""Checks of the embedded server's zones: what their records lead to, as named-checkzone(1) checks.

Rules: as in `cross`. A name in a zone of ours exists only if the config has it, so that it is known
where a CNAME, an MX or a name server ends; names in other zones are left to `dns check`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from ifdefault.config.cross import Finding, ValidConfig
from ifdefault.config.dns_records import (
    AAAA,
    CNAME,
    HTTPS,
    MX,
    NS,
    PTR,
    SOA,
    SRV,
    SVCB,
    A,
    targets,
)
from ifdefault.model.dns import DnsConfig, Record, zone_of
from ifdefault.model.errors import Problem

_ADDRESSES = {A, AAAA}
_HOSTS = {MX, SRV}  # their targets are hosts, never aliases (RFC 2181, 10.3; RFC 2782)
_LINKS = {CNAME, PTR, SVCB, HTTPS}  # their targets must exist
Fault = tuple[str, str, str]  # what, remedy, what is missing: "names", "addresses" or ""
_CNAMES_MAX = 8  # of a chain: the server follows no more in one response


@dataclass(frozen=True, slots=True)
class End:
    """Where a name leads: `types` of the records there, None if the name doesn't exist; `fault` of
    the chain of CNAMEs."""

    name: str
    types: frozenset[int] | None = None
    fault: str = ""


@dataclass(slots=True)
class ZoneNames:
    """The names of the embedded server's zones, and the types of their records."""

    zones: tuple[str, ...]
    others: tuple[str, ...]  # all zones: a name may be in one below ours
    types: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    aliases: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, valid: ValidConfig, nameservers: Collection[str]) -> ZoneNames:
        names = cls(valid.dns.server.zones, valid.dns.zones)
        for server in nameservers:
            names._add(server, {A})
        for zone in names.zones:
            names._add(zone, {NS, SOA})
        for name in valid.dns.names:
            types = {record.type for record in name.records}
            names._add(name.name, types | ({A} if name.uplinks != () else set()))
            for record in name.records:
                if record.type == CNAME:
                    names.aliases.setdefault(name.name, targets(record)[0])
        return names

    def _add(self, name: str, types: set[int]) -> None:
        """A name, and the empty non-terminals above it (RFC 4592, 2.2.2)."""
        zone = self.zone_of(name)
        self.types[name] |= types
        while zone and name != zone:
            name = name.partition(".")[2]
            self.types[name] |= set()

    def zone_of(self, name: str) -> str:
        """The zone of ours that a name is in, "" if none."""
        zone = zone_of(name, self.others)
        return zone if zone in self.zones else ""

    def find(self, name: str) -> str | None:
        """The name whose records answer for a name: itself, or a wildcard (RFC 4592, 3.3.1)."""
        if name in self.types:
            return name
        while (name := name.partition(".")[2]) and name not in self.types:
            pass
        return f"*.{name}" if f"*.{name}" in self.types else None

    def follow(self, name: str) -> End | None:
        """The end of the CNAMEs that a name begins; None if it leads out of our zones."""
        seen: list[str] = []
        while self.zone_of(name):
            if name in seen:
                return End(name, fault="leads back to itself")
            if (found := self.find(name)) is None:
                return End(name)
            if found not in self.aliases:
                return End(name, frozenset(self.types[found]))
            seen.append(name)
            if len(seen) > _CNAMES_MAX:
                return End(name, fault=f"is a chain of more than {_CNAMES_MAX} CNAMEs")
            name = self.aliases[found]
        return None


def findings(
    valid: ValidConfig, nameservers: Collection[str], unsure: Collection[str]
) -> Iterator[Finding]:
    """`nameservers`: the names generated for uplinks. `unsure`: "names" or "addresses" that seem to
    be missing may be in a part of the config that has another error."""
    names = ZoneNames.of(valid, nameservers)
    for n, name in enumerate(valid.dns.names):
        for k, record in enumerate(name.records if names.zone_of(name.name) else ()):
            for what, remedy, missing in _record(names, record):
                if missing not in unsure:
                    yield ("dns", "name", n, "records", k), what, remedy
    for k, server in enumerate(valid.dns.server.nameservers):
        fault = _host_fault(names, "a name server", server) if server in names.types else None
        if fault and fault[2] not in unsure:
            yield ("dns", "server", "nameservers", k), *fault[:2]


def _record(names: ZoneNames, record: Record) -> Iterator[Fault]:
    kind = record.text.partition(" ")[0]
    for target in targets(record):
        fault = None
        if record.type in _HOSTS:
            fault = _host_fault(names, f"an {kind}", target)
        elif record.type in _LINKS:
            fault = _link_fault(names, target)
        if fault:
            yield fault


def _host_fault(names: ZoneNames, what: str, target: str) -> Fault | None:
    """Why a target in our zones is no host."""
    end = names.follow(target)
    found = names.find(target) if names.zone_of(target) else None
    if found in names.aliases:
        alias = names.aliases[found]
        lost = end and end.fault  # then its target is no better
        remedy = "use a name that has addresses" if lost else f"use its target, {alias}"
        return f"{target} is a CNAME, where {what} needs a host", remedy, ""
    if end is None:
        return None
    if end.types is None:
        return _missing(end.name)
    if not end.types & _ADDRESSES:
        remedy = f"remove uplinks = [] from {end.name}, or use another name"
        return f"{end.name} has no address", remedy, "addresses"
    return None


def _link_fault(names: ZoneNames, target: str) -> Fault | None:
    """Why a target in our zones can't be resolved."""
    end = names.follow(target)
    if end is None:
        return None
    if end.fault:
        return f"{target} {end.fault}", "use a name that has addresses", ""
    return _missing(end.name) if end.types is None else None


def _missing(name: str) -> Fault:
    remedy = f'add [[dns.name]] with name = "{name}", or use another name'
    return f"{name} doesn't exist in the zone", remedy, "names"


# --- host names ---------------------------------------------------------------------------


def host_name_warnings(dns: DnsConfig) -> Iterator[Problem]:
    """Names of hosts with an underscore, which isn't allowed there (RFC 1123, 2.1): some servers
    and clients refuse them, as named's check-names does."""
    for n, name in enumerate(dns.names):
        types = {record.type for record in name.records}
        if "_" in name.name and (name.uplinks != () or types & {A, AAAA, MX}):
            remedy = "rename it, or add uplinks = [] if it needs no address"
            yield _no_host(f"dns.name[{n}].name", name.name, remedy)
        for k, record in enumerate(name.records):
            for target in targets(record) if record.type in _HOSTS else ():
                if "_" in target:
                    yield _no_host(f"dns.name[{n}].records[{k}]", target, "use another name")
    for key, texts, remedy in (
        ("nameservers", dns.server.nameservers, "use another name"),
        ("zones", dns.server.zones, "use another zone: the names of its name servers are in it"),
    ):
        for k, text in enumerate(texts):
            if "_" in text:
                yield _no_host(f"dns.server.{key}[{k}]", text, remedy)


def _no_host(where: str, name: str, remedy: str) -> Problem:
    what = f"{name} has an underscore, which host names must not have"
    return Problem(where, what, remedy, warning=True)
