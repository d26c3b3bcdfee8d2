"""What forwards, outgoing rules, LANs and uplinks can only get wrong together.

Rules: as in `config.crossdns`: pure, sees tables whose own keys are sound, and hears what was left
out. Of two that clash the problem stands at the later one and names the line of the earlier.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import ip_network
from typing import Literal

from ifdefault.config.cross import Fault
from ifdefault.config.forward import RuleKeys
from ifdefault.config.toml_lines import Path
from ifdefault.model.config import ForwardConfig, ForwardServer, UplinkConfig
from ifdefault.model.dns import ServerConfig

MOST_RULES = 1000  # every route lookup walks them

_Place = tuple[int, int, int, int]  # first and last port, number of the forward, of its listen


@dataclass(frozen=True, slots=True)
class Known:
    """What the whole config holds, as far as it is sound."""

    forwards: Sequence[ForwardConfig]
    rules: Sequence[RuleKeys]
    masquerade: Sequence[str]
    forwarded: Literal["follow", "off"]
    server: ServerConfig  # of the DNS
    uplinks: Sequence[UplinkConfig]
    uplink_names: Collection[str]  # those of unsound ones too
    unsound: Collection[Path]  # what was left out
    line_of: Callable[[Path], int]
    uid_of: Callable[[str], int | None]


def faults(known: Known) -> Iterator[Fault]:
    for n, forward in enumerate(known.forwards):
        for path, what, remedy in _of_forward(known, forward):
            yield ("forward", n, *path), what, remedy
    yield from _overlaps(known)
    for n, rule in enumerate(known.rules):
        for path, what, remedy in _of_rule(known, n, rule):
            yield ("outgoing", "rule", n, *path), what, remedy
    yield from _of_number(known.rules)
    yield from _of_host(known)
    yield from _routed(known.uplinks)


def _of_host(known: Known) -> Iterator[Fault]:
    left_out = {path[0] for path in known.unsound}
    if known.forwarded == "off" and (known.forwards or known.masquerade or "forward" in left_out):
        what = '"off", and [[forward]] or masquerade, whose answers must follow'
        yield ("host", "forwarded"), what, "drop it, or them"
    interfaces = {uplink.interface: uplink.name for uplink in known.uplinks}
    for k, name in enumerate(known.masquerade):
        if name in interfaces:
            what = f'"{name}" is the interface of uplink.{interfaces[name]}'
            yield ("outgoing", "masquerade", k), what, "name those of the LANs behind the host"


def _unknown(known: Known, key: str, names: Sequence[str]) -> Iterator[Fault]:
    for k, name in enumerate(names):
        if known.uplink_names and name not in known.uplink_names:
            near = get_close_matches(name, known.uplink_names, n=1) or [*known.uplink_names][:4]
            remedy = f"the nearest is {near[0]}" if len(near) == 1 else f"use {' or '.join(near)}"
            yield (key, k), f'"{name}" is no uplink', remedy


# --- forwards -----------------------------------------------------------------------------


def _of_forward(known: Known, forward: ForwardConfig) -> Iterator[Fault]:
    """What is wrong with one; paths begin in its table."""
    yield from _unknown(known, "uplinks", forward.uplinks)
    own = {a: u.name for u in known.uplinks for a in (*u.addresses, *u.public)}
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
        if known.server.zones and ports.first <= known.server.port <= ports.last:
            what = f"port {known.server.port} is that of [dns.server]"
            yield ("listen", k), what, "leave it to that, or give that another port"


def _shown(content: ForwardServer) -> str:
    host = f"[{content.address}]" if ":" in content.address else content.address
    return f'"{host}:{content.port}"'


def _overlaps(known: Known) -> Iterator[Fault]:
    """Ports that two forwards listen on, over one uplink and in one family."""
    places: dict[tuple[str, int, str], list[_Place]] = defaultdict(list)
    for n, forward in enumerate(known.forwards):
        for family in {6 if ":" in each.address else 4 for each in forward.to}:
            for k, ports in enumerate(forward.listen):
                for uplink in forward.uplinks or known.uplink_names:
                    place = ports.first, ports.last, n, k
                    places[uplink, family, ports.transport].append(place)
    found = {clash for there in places.values() for clash in _clashes(sorted(there))}
    for (n, k), (other, at) in sorted(found):
        one, two = known.forwards[n].listen[k], known.forwards[other].listen[at]
        line = known.line_of(("forward", other, "listen", at))
        what = f"{one} is taken by {two} in line {line}"
        remedy = "keep one of them, or offer them on uplinks of their own"
        yield ("forward", n, "listen", k), what, remedy


def _clashes(places: list[_Place]) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """(later forward, its listen), (earlier one, its listen) of ranges that meet, in order of
    their first ports: each is held against that of those before it which reaches furthest."""
    furthest = places[0]
    for place in places[1:]:
        if place[0] <= furthest[1] and place[2] != furthest[2]:
            earlier, later = sorted((place[2:], furthest[2:]))
            yield later, earlier
        furthest = max(furthest, place, key=lambda p: p[1])


# --- outgoing rules -----------------------------------------------------------------------


def _of_rule(known: Known, n: int, rule: RuleKeys) -> Iterator[Fault]:
    """What is wrong with one; paths begin in its table."""
    yield from _unknown(known, "via", rule.via)
    others = rule.to or rule.transport or rule.ports or rule.users
    if not others and not rule.cgroups:
        remedy = "add to, transport, users or cgroups, or give its uplink the lowest rank"
        yield (), "selects everything", remedy
    if rule.cgroups and others:
        yield ("cgroups",), "beside other selectors", "make them a rule of their own"
    if rule.ports and not rule.transport:
        yield ("ports",), "ports of no transport", 'add transport = "tcp", or "udp"'
    for k, user in enumerate(rule.users):
        if isinstance(user, str) and known.uid_of(user) is None:
            yield ("users", k), f'"{user}" is no user of this host', "see `getent passwd`"
    for k, path in enumerate(rule.cgroups):
        if any(path in earlier.cgroups for earlier in known.rules[:n]):
            yield ("cgroups", k), f'"{path}" is in a rule before', "keep it in one"


def _of_number(rules: Sequence[RuleKeys]) -> Iterator[Fault]:
    count = 0
    for n, rule in enumerate(rules):
        before = count
        count += max(1, len(rule.to)) * max(1, len(rule.ports)) * max(1, len(rule.users))
        if before <= MOST_RULES < count:
            what = f"{count} policy rules up to here"
            remedy = f"keep at most {MOST_RULES}: every route lookup walks them"
            yield ("outgoing", "rule", n), what, remedy


# --- routed prefixes ----------------------------------------------------------------------


def _routed(uplinks: Sequence[UplinkConfig]) -> Iterator[Fault]:
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
    path: Path, prefix: str, first: UplinkConfig, before: bool, itself: bool
) -> Iterator[Fault]:
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
