"""What only several tables of the config together can get wrong; for the DNS, see `cross_dns`.

Rules: pure; sees tables whose own keys are sound, and hears what was left out as unsound: what may
be there after all isn't missed. Of two that clash the problem stands at the later one and names the
earlier. Paths count the sound tables alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import ip_network
from itertools import combinations

from ifdefault.config.host import HostKeys
from ifdefault.config.outgoing import OutgoingKeys, RuleKeys
from ifdefault.config.toml_lines import KeyPath
from ifdefault.model.config import ForwardConfig, ForwardServer, UplinkConfig
from ifdefault.model.dns import DnsConfig

MOST_UPLINKS = 31  # numbers that fit five bits of the mark; 0 is none
MOST_RULES = 1000  # every route lookup walks them

Finding = tuple[KeyPath, str, str]  # path in the config, what is wrong, what would be right
_Range = tuple[int, int, int, int]  # first and last port, number of the forward, of its listen


@dataclass(frozen=True, slots=True)
class SoundConfig:
    """What the whole config holds, as far as it is sound."""

    uplinks: tuple[UplinkConfig, ...]
    uplink_names: Collection[str]  # those of unsound ones too
    host: HostKeys
    dns: DnsConfig
    forwards: tuple[ForwardConfig, ...]
    outgoing: OutgoingKeys
    unsound: Collection[KeyPath]  # what was left out
    line_of: Callable[[KeyPath], int]
    uid_of: Callable[[str], int | None]

    def unknown_uplinks(self, key: str, names: Sequence[str]) -> Iterator[Finding]:
        for k, name in enumerate(names):
            if self.uplink_names and name not in self.uplink_names:
                near = get_close_matches(name, self.uplink_names, n=1)
                remedy = f"the nearest is {near[0]}" if near else f"use {either(self.uplink_names)}"
                yield (key, k), f'"{name}" is no uplink', remedy


def either(names: Collection[str]) -> str:
    """A few names, as a choice."""
    first, *rest = sorted(set(names))[:4]
    return " or ".join([", ".join([first, *rest[:-1]]), *rest[-1:]])


def findings(sound: SoundConfig) -> Iterator[Finding]:
    yield from _of_uplinks(sound.uplinks)
    for n, forward in enumerate(sound.forwards):
        for path, what, remedy in _of_forward(sound, forward):
            yield ("forward", n, *path), what, remedy
    yield from _overlaps(sound)
    rules = sound.outgoing.rule
    for n, rule in enumerate(rules):
        for path, what, remedy in _of_rule(sound, n, rule):
            yield ("outgoing", "rule", n, *path), what, remedy
    yield from _of_number(rules)
    yield from _of_host(sound)
    yield from _routed(sound.uplinks)


# --- uplinks ------------------------------------------------------------------------------


def _of_uplinks(uplinks: Sequence[UplinkConfig]) -> Iterator[Finding]:
    if len(uplinks) > MOST_UPLINKS:
        what = f"{len(uplinks)} uplinks"
        yield ("uplink",), what, f"keep at most {MOST_UPLINKS}, that many fit the packet mark"
    for uplink in uplinks:
        for gateway in sorted(set(uplink.gateways) & set(uplink.addresses)):
            path = ("uplink", uplink.name, "gateways")
            yield path, f'"{gateway}" is the host\'s own', "name the provider's router"
    for first, second in combinations(uplinks, 2):
        yield from _alike(first, second)
        yield from _same_address(first, second)


def _alike(first: UplinkConfig, second: UplinkConfig) -> Iterator[Finding]:
    """Two uplinks that are one interface and nothing else can't be told apart."""
    if first.interface != second.interface:
        return
    blank = not any((first.addresses, first.gateways, second.addresses, second.gateways))
    if blank or _distinction(first) == _distinction(second):
        yield (
            ("uplink", second.name, "interface"),
            f'"{first.interface}" is the interface of uplink.{first.name} too',
            "give each gateways of its own, and addresses where they differ",
        )


def _distinction(uplink: UplinkConfig) -> tuple[frozenset[str], ...]:
    return tuple(map(frozenset, (uplink.addresses, uplink.gateways, uplink.router_macs)))


def _same_address(first: UplinkConfig, second: UplinkConfig) -> Iterator[Finding]:
    """Only the router's MAC address tells which uplink a packet for a shared address came by."""
    for address in sorted(set(first.addresses) & set(second.addresses)):
        mute = [u.name for u in (first, second) if not u.router_macs and not u.gateways]
        if mute:
            at = second.addresses.index(address)
            names = " and ".join(f"uplink.{name}" for name in mute)
            yield (
                ("uplink", second.name, "addresses", at),
                f'"{address}" is an address of uplink.{first.name} too',
                f"drop it from one, or give {names} gateways or router_macs to tell them apart",
            )


# --- the host -----------------------------------------------------------------------------


def _of_host(sound: SoundConfig) -> Iterator[Finding]:
    masquerade = sound.outgoing.masquerade
    forwards = sound.forwards or any(path[0] == "forward" for path in sound.unsound)
    if sound.host.forwarded == "off" and (forwards or masquerade):
        what = '"off", and [[forward]] or masquerade, whose answers must follow'
        yield ("host", "forwarded"), what, "drop it, or them"
    interfaces = {uplink.interface: uplink.name for uplink in sound.uplinks}
    for k, name in enumerate(masquerade):
        if name in interfaces:
            what = f'"{name}" is the interface of uplink.{interfaces[name]}'
            yield ("outgoing", "masquerade", k), what, "name those of the LANs behind the host"


# --- forwards -----------------------------------------------------------------------------


def _of_forward(sound: SoundConfig, forward: ForwardConfig) -> Iterator[Finding]:
    """What is wrong with one; paths begin in its table."""
    yield from sound.unknown_uplinks("uplinks", forward.uplinks)
    own = {a: u.name for u in sound.uplinks for a in (*u.addresses, *u.public)}
    ranges = [ports for ports in forward.listen if ports.first != ports.last]
    for k, content in enumerate(forward.to):
        if content.port and ranges:
            what = f"{_shown(content)} has a port, and {ranges[0]} is a range"
            yield ("to", k), what, "drop the port: a range keeps those that clients ask for"
        if content.address in own:
            what = f'"{content.address}" is an address of uplink.{own[content.address]}'
            remedy = "name a server behind the host: its own services need no table"
            yield ("to", k), what, remedy
    if forward.check.startswith("/") and all(p.transport == "udp" for p in forward.listen):
        what = "the service is UDP alone, and HTTP is asked over TCP"
        yield ("check",), what, 'add its TCP port to listen, or write check = "off"'
    for k, ports in enumerate(forward.listen):
        if sound.dns.server.zones and ports.first <= sound.dns.server.port <= ports.last:
            what = f"port {sound.dns.server.port} is that of [dns.server]"
            yield ("listen", k), what, "leave it to that, or give that another port"


def _shown(content: ForwardServer) -> str:
    host = f"[{content.address}]" if ":" in content.address else content.address
    return f'"{host}:{content.port}"'


def _overlaps(sound: SoundConfig) -> Iterator[Finding]:
    """Ports that two forwards listen on, over one uplink and in one family."""
    places: dict[tuple[str, int, str], list[_Range]] = defaultdict(list)
    for n, forward in enumerate(sound.forwards):
        for family in {6 if ":" in each.address else 4 for each in forward.to}:
            for k, ports in enumerate(forward.listen):
                for uplink in forward.uplinks or sound.uplink_names:
                    place = ports.first, ports.last, n, k
                    places[uplink, family, ports.transport].append(place)
    found = {clash for there in places.values() for clash in _clashes(sorted(there))}
    for (n, k), (other, at) in sorted(found):
        one, two = sound.forwards[n].listen[k], sound.forwards[other].listen[at]
        line = sound.line_of(("forward", other, "listen", at))
        what = f"{one} is taken by {two} in line {line}"
        remedy = "keep one of them, or offer them on uplinks of their own"
        yield ("forward", n, "listen", k), what, remedy


def _clashes(places: list[_Range]) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """(later forward, its listen), (earlier one, its listen) of ranges that meet, in order of
    their first ports: each is held against that of those before it which reaches furthest."""
    furthest = places[0]
    for place in places[1:]:
        if place[0] <= furthest[1] and place[2] != furthest[2]:
            earlier, later = sorted((place[2:], furthest[2:]))
            yield later, earlier
        furthest = max(furthest, place, key=lambda p: p[1])


# --- outgoing rules -----------------------------------------------------------------------


def _of_rule(sound: SoundConfig, n: int, rule: RuleKeys) -> Iterator[Finding]:
    """What is wrong with one; paths begin in its table."""
    yield from sound.unknown_uplinks("via", rule.via)
    others = rule.to or rule.transport or rule.ports or rule.users
    if not others and not rule.cgroups:
        remedy = "add to, transport, users or cgroups, or give its uplink the lowest rank"
        yield (), "selects everything", remedy
    if rule.cgroups and others:
        yield ("cgroups",), "beside other selectors", "make them a rule of their own"
    if rule.ports and not rule.transport:
        yield ("ports",), "ports of no transport", 'add transport = "tcp", or "udp"'
    for k, user in enumerate(rule.users):
        if isinstance(user, str) and sound.uid_of(user) is None:
            yield ("users", k), f'"{user}" is no user of this host', "see `getent passwd`"
    for k, path in enumerate(rule.cgroups):
        if any(path in earlier.cgroups for earlier in sound.outgoing.rule[:n]):
            yield ("cgroups", k), f'"{path}" is in a rule before', "keep it in one"


def _of_number(rules: Sequence[RuleKeys]) -> Iterator[Finding]:
    count = 0
    for n, rule in enumerate(rules):
        before = count
        count += max(1, len(rule.to)) * max(1, len(rule.ports)) * max(1, len(rule.users))
        if before <= MOST_RULES < count:
            what = f"{count} policy rules up to here"
            remedy = f"keep at most {MOST_RULES}: every route lookup walks them"
            yield ("outgoing", "rule", n), what, remedy


# --- routed prefixes ----------------------------------------------------------------------


def _routed(uplinks: Sequence[UplinkConfig]) -> Iterator[Finding]:
    """A source in two uplinks' prefixes, or in one's and of another, has no way of its own."""
    for m, second in enumerate(uplinks):
        for k, prefix in enumerate(second.routed):
            path = "uplink", second.name, "routed", k
            for first in uplinks:
                yield from _of_another(path, prefix, first, first in uplinks[:m], first == second)
            for other in second.routed[:k]:
                if _meet(prefix, other):
                    yield path, f'"{prefix}" and "{other}" overlap', "keep the wider one"


def _of_another(
    path: KeyPath, prefix: str, first: UplinkConfig, before: bool, itself: bool
) -> Iterator[Finding]:
    if itself:
        return
    for other in first.routed if before else ():
        if _meet(prefix, other):
            what = f'"{prefix}" overlaps "{other}" of uplink.{first.name}'
            yield path, what, "give each prefix to the uplink that its provider routes it over"
    for address in first.addresses:
        if _meet(prefix, address):
            what = f'"{prefix}" holds {address} of uplink.{first.name}'
            yield path, what, "name the prefixes that this provider routes to the host"


def _meet(one: str, other: str) -> bool:
    a, b = ip_network(one), ip_network(other)
    return a.version == b.version and a.overlaps(b)
