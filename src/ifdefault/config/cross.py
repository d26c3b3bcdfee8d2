"""Checks across tables of the config; those of the DNS are in `cross_dns`.

Rules: pure. Only valid tables are checked; the paths of the invalid ones are known, so that nothing
is reported as missing that may be in one of them. A conflict between two tables is reported at the
later one and names the earlier. Paths count valid tables only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import ip_network
from itertools import combinations

from ifdefault.config.host import HostKeys
from ifdefault.config.notify import NotifyKeys
from ifdefault.config.outgoing import OutgoingKeys, RuleKeys
from ifdefault.config.toml_lines import KeyPath
from ifdefault.model.config import ForwardConfig, ForwardServer, UplinkConfig, WebConfig
from ifdefault.model.dns import DnsConfig

MOST_UPLINKS = 31  # numbers that fit five bits of the mark; 0 is none
MOST_RULES = 1000  # each route lookup goes through them

Finding = tuple[KeyPath, str, str]  # path in the config, what is wrong, what would be right
_Range = tuple[int, int, int, int]  # first and last port, number of the forward, of its listen


@dataclass(frozen=True, slots=True)
class ValidConfig:
    """The valid part of the config."""

    uplinks: tuple[UplinkConfig, ...]
    uplink_names: Collection[str]  # including invalid ones
    host: HostKeys
    dns: DnsConfig
    forwards: tuple[ForwardConfig, ...]
    outgoing: OutgoingKeys
    web: WebConfig
    notify: tuple[NotifyKeys, ...]
    invalid: Collection[KeyPath]  # what was left out
    line_of: Callable[[KeyPath], int]
    uid_of: Callable[[str], int | None]

    def unknown_uplinks(self, key: str, names: Sequence[str]) -> Iterator[Finding]:
        for k, name in enumerate(names):
            if self.uplink_names and name not in self.uplink_names:
                near = get_close_matches(name, self.uplink_names, n=1)
                choice = f"use {either(self.uplink_names)}"
                remedy = f"did you mean {near[0]}?" if near else choice
                yield (key, k), f'"{name}" is not an uplink', remedy


def either(names: Collection[str]) -> str:
    """At most four names, joined by "or"."""
    first, *rest = sorted(set(names))[:4]
    return " or ".join([", ".join([first, *rest[:-1]]), *rest[-1:]])


def findings(valid: ValidConfig) -> Iterator[Finding]:
    yield from _check_uplinks(valid.uplinks)
    for n, forward in enumerate(valid.forwards):
        for path, what, remedy in _check_forward(valid, forward):
            yield ("forward", n, *path), what, remedy
    yield from _overlaps(valid)
    rules = valid.outgoing.rule
    for n, rule in enumerate(rules):
        for path, what, remedy in _check_rule(valid, n, rule):
            yield ("outgoing", "rule", n, *path), what, remedy
    yield from _check_rule_count(rules)
    yield from _check_host(valid)
    yield from _check_routed(valid.uplinks)


# --- uplinks ------------------------------------------------------------------------------


def _check_uplinks(uplinks: Sequence[UplinkConfig]) -> Iterator[Finding]:
    if len(uplinks) > MOST_UPLINKS:
        what = f"{len(uplinks)} uplinks"
        yield ("uplink",), what, f"use at most {MOST_UPLINKS}: the packet mark has no room for more"
    for uplink in uplinks:
        for gateway in sorted(set(uplink.gateways) & set(uplink.addresses)):
            path = ("uplink", uplink.name, "gateways")
            yield path, f'"{gateway}" is an address of this host', "use the provider's router"
    for first, second in combinations(uplinks, 2):
        yield from _indistinct(first, second)
        yield from _same_address(first, second)


def _indistinct(first: UplinkConfig, second: UplinkConfig) -> Iterator[Finding]:
    """Two uplinks on one interface that nothing distinguishes."""
    if first.interface != second.interface:
        return
    unspecified = not any((first.addresses, first.gateways, second.addresses, second.gateways))
    if unspecified or _identity(first) == _identity(second):
        yield (
            ("uplink", second.name, "interface"),
            f'"{first.interface}" is also the interface of uplink.{first.name}',
            "give each its own gateways, and addresses if they differ",
        )


def _identity(uplink: UplinkConfig) -> tuple[frozenset[str], ...]:
    return tuple(map(frozenset, (uplink.addresses, uplink.gateways, uplink.router_macs)))


def _same_address(first: UplinkConfig, second: UplinkConfig) -> Iterator[Finding]:
    """Only the router's MAC address shows on which uplink a packet for a shared address came in."""
    for address in sorted(set(first.addresses) & set(second.addresses)):
        no_router = [u.name for u in (first, second) if not u.router_macs and not u.gateways]
        if no_router:
            at = second.addresses.index(address)
            names = " and ".join(f"uplink.{name}" for name in no_router)
            yield (
                ("uplink", second.name, "addresses", at),
                f'"{address}" is also an address of uplink.{first.name}',
                f"remove it from one, or give {names} gateways or router_macs to tell them apart",
            )


# --- the host -----------------------------------------------------------------------------


def _check_host(valid: ValidConfig) -> Iterator[Finding]:
    masquerade = valid.outgoing.masquerade
    forwards = valid.forwards or any(path[0] == "forward" for path in valid.invalid)
    if valid.host.forwarded == "off" and (forwards or masquerade):
        what = '"off" conflicts with [[forward]] and masquerade, whose replies are tracked'
        yield ("host", "forwarded"), what, "remove one or the other"
    interfaces = {uplink.interface: uplink.name for uplink in valid.uplinks}
    for k, name in enumerate(masquerade):
        if name in interfaces:
            what = f'"{name}" is the interface of uplink.{interfaces[name]}'
            remedy = "use the interfaces of the LANs behind the host"
            yield ("outgoing", "masquerade", k), what, remedy


# --- forwards -----------------------------------------------------------------------------


def _check_forward(valid: ValidConfig, forward: ForwardConfig) -> Iterator[Finding]:
    """The errors of one table; paths begin in it."""
    yield from valid.unknown_uplinks("uplinks", forward.uplinks)
    own = {a: u.name for u in valid.uplinks for a in (*u.addresses, *u.public)}
    ranges = [ports for ports in forward.listen if ports.first != ports.last]
    for k, server in enumerate(forward.to):
        if server.port and ranges:
            what = f"{_server_text(server)} has a port, but listen has the range {ranges[0]}"
            yield ("to", k), what, "leave the port out: a range in listen keeps the client's port"
        if server.address in own:
            what = f'"{server.address}" is an address of uplink.{own[server.address]}'
            remedy = "use a server behind the host: the host's own services need no [[forward]]"
            yield ("to", k), what, remedy
    if forward.check.startswith("/") and all(p.transport == "udp" for p in forward.listen):
        what = "an HTTP check needs a TCP port, and the service has only UDP"
        yield ("check",), what, 'add its TCP port to listen, or set check = "off"'
    for k, ports in enumerate(forward.listen):
        if valid.dns.server.zones and ports.first <= valid.dns.server.port <= ports.last:
            what = f"port {valid.dns.server.port} is used by [dns.server]"
            yield ("listen", k), what, "use another port, or change dns.server.port"


def _server_text(server: ForwardServer) -> str:
    host = f"[{server.address}]" if ":" in server.address else server.address
    return f'"{host}:{server.port}"'


def _overlaps(valid: ValidConfig) -> Iterator[Finding]:
    """Ports that two forwards listen on, on the same uplink and in the same family."""
    listeners: dict[tuple[str, int, str], list[_Range]] = defaultdict(list)
    for n, forward in enumerate(valid.forwards):
        for family in {6 if ":" in server.address else 4 for server in forward.to}:
            for k, ports in enumerate(forward.listen):
                for uplink in forward.uplinks or valid.uplink_names:
                    listener = ports.first, ports.last, n, k
                    listeners[uplink, family, ports.transport].append(listener)
    conflicts = {pair for ranges in listeners.values() for pair in _conflicts(sorted(ranges))}
    for (n, k), (earlier, at) in sorted(conflicts):
        one, two = valid.forwards[n].listen[k], valid.forwards[earlier].listen[at]
        line = valid.line_of(("forward", earlier, "listen", at))
        what = f"{one} overlaps {two} in line {line}"
        remedy = "remove one of them, or give each its own uplinks"
        yield ("forward", n, "listen", k), what, remedy


def _conflicts(ranges: list[_Range]) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """(later forward, its listen), (earlier one, its listen) of overlapping ranges. Sorted by their
    first ports, each is compared with the one before it that has the highest last port."""
    furthest = ranges[0]
    for range_ in ranges[1:]:
        if range_[0] <= furthest[1] and range_[2] != furthest[2]:
            earlier, later = sorted((range_[2:], furthest[2:]))
            yield later, earlier
        furthest = max(furthest, range_, key=lambda r: r[1])


# --- outgoing rules -----------------------------------------------------------------------


def _check_rule(valid: ValidConfig, n: int, rule: RuleKeys) -> Iterator[Finding]:
    """The errors of one table; paths begin in it."""
    yield from valid.unknown_uplinks("via", rule.via)
    selectors = rule.to or rule.transport or rule.ports or rule.users
    if not selectors and not rule.cgroups:
        remedy = "add to, transport, users or cgroups, or give the uplink the lowest rank instead"
        yield (), "matches everything", remedy
    if rule.cgroups and selectors:
        yield ("cgroups",), "can't be combined with other selectors", "use a separate rule"
    if rule.ports and not rule.transport:
        yield ("ports",), "no transport for them", 'add transport = "tcp" or "udp"'
    for k, user in enumerate(rule.users):
        if isinstance(user, str) and valid.uid_of(user) is None:
            yield ("users", k), f'"{user}" is not a user of this host', "see `getent passwd`"
    for k, path in enumerate(rule.cgroups):
        if any(path in earlier.cgroups for earlier in valid.outgoing.rule[:n]):
            yield ("cgroups", k), f'"{path}" is already in an earlier rule', "keep it in one"


def _check_rule_count(rules: Sequence[RuleKeys]) -> Iterator[Finding]:
    count = 0
    for n, rule in enumerate(rules):
        before = count
        count += max(1, len(rule.to)) * max(1, len(rule.ports)) * max(1, len(rule.users))
        if before <= MOST_RULES < count:
            what = f"{count} policy rules so far"
            remedy = f"use at most {MOST_RULES}: each route lookup goes through them"
            yield ("outgoing", "rule", n), what, remedy


# --- routed prefixes ----------------------------------------------------------------------


def _check_routed(uplinks: Sequence[UplinkConfig]) -> Iterator[Finding]:
    """Prefixes and addresses of different uplinks must not overlap: their source rules conflict."""
    for m, second in enumerate(uplinks):
        for k, prefix in enumerate(second.routed):
            path = "uplink", second.name, "routed", k
            for first in uplinks:
                yield from _overlaps_another(
                    path, prefix, first, first in uplinks[:m], first == second
                )
            for other in second.routed[:k]:
                if _overlap(prefix, other):
                    yield path, f'"{prefix}" and "{other}" overlap', "keep the wider one"


def _overlaps_another(
    path: KeyPath, prefix: str, first: UplinkConfig, before: bool, itself: bool
) -> Iterator[Finding]:
    if itself:
        return
    for other in first.routed if before else ():
        if _overlap(prefix, other):
            what = f'"{prefix}" overlaps "{other}" of uplink.{first.name}'
            yield path, what, "list each prefix at the uplink whose provider routes it"
    for address in first.addresses:
        if _overlap(prefix, address):
            what = f'"{prefix}" contains {address} of uplink.{first.name}'
            yield path, what, "list the prefixes that this provider routes to the host"


def _overlap(one: str, other: str) -> bool:
    a, b = ip_network(one), ip_network(other)
    return a.version == b.version and a.overlaps(b)
