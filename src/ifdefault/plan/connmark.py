"""Forwarded flows keep to their uplink: chains of the nftables table `inet ifdefault`.

Base chains, in the order in which a packet passes them:
  restore_prerouting  packets that don't come from an uplink get the mark of their flow, and so take
                      the flow's uplink; new flows of masqueraded LANs are balanced, if configured
  save_forward        a flow that has none of our marks gets one: the arrival mark of the uplink
                      that it came in on, or the outgoing mark of the uplink by which it leaves a
                      masqueraded LAN
  source_nat          postrouting: flows of masqueraded LANs get their uplink's address; connections
                      to a server through an uplink's address that don't come from an uplink get the
                      host's own address

Rules: flows of the host itself and flows between LANs get no mark here. The rules match flows
without a mark rather than new flows, so flows that began before `apply` get one too. The address
that a client connected to decides before the interface does, since it is the source of the reply.
Neighbour discovery is never tracked (nf_conntrack_proto_icmpv6.c), so it is never marked.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from ifdefault.model.address import BITS, family_of
from ifdefault.model.config import FAMILIES, Config, Family
from ifdefault.model.kernel import FORWARDING, TABLE_MAIN, Facts, Hook, Route, Rule, Uplink
from ifdefault.plan import prefixes
from ifdefault.plan.nft_text import IP, chain, names, values

_PROTOCOLS = {6: "tcp", 17: "udp"}
_SEED = 0x1FDE  # fixed, so that a destination keeps its uplink when the ruleset is loaded anew


@dataclass(frozen=True, slots=True)
class Passing:
    """What of the forwarded is ours to lead, on a host whose forwarded flows are followed."""

    needed: tuple[Family, ...] = ()  # families that the host must forward
    lans: tuple[str, ...] = ()  # interfaces of content servers and of masqueraded LANs
    masquerade: tuple[str, ...] = ()
    balance: Hook | None = None


def passing(
    config: Config, facts: Facts, uplinks: Sequence[Uplink], hook: Hook | None
) -> Passing | None:
    """What is to be followed; None if nothing is."""
    masquerade = config.outgoing.masquerade
    if not uplinks or not follows(config, facts):
        return None
    servers = tuple({s.address: None for forward in config.forwards for s in forward.to})
    routes = tuple(r for r in facts.routes if r.table == TABLE_MAIN and r.kind == "unicast")
    between = _devices(servers, routes) - {u.interface for u in uplinks}
    served = {family_of(address) for address in servers}
    led = {family for u in uplinks for family, _ in u.gateways}
    return Passing(
        needed=tuple(f for f in FAMILIES if f in led and (masquerade or f in served)),
        lans=tuple(sorted(between | set(masquerade))),
        masquerade=masquerade,
        balance=hook if masquerade and hook and hook.marks else None,
    )


def follows(config: Config, facts: Facts) -> bool:
    """Whether forwarded flows are followed, where there is an uplink."""
    others = forwards(facts) and config.host.forwarded == "follow"
    return others or bool(config.forwards or config.outgoing.masquerade)


def forwards(facts: Facts) -> bool:
    """Whether the host forwards packets of others."""
    return any(dict(facts.sysctls).get(name) == "1" for name in FORWARDING.values())


@functools.lru_cache(maxsize=4)
def _devices(addresses: tuple[str, ...], routes: tuple[Route, ...]) -> set[str]:
    """The devices by which main's specific routes lead to these addresses."""
    found = set()
    for family in FAMILIES:
        bits = BITS[family]
        known = [(*prefixes.network(r.dst), r) for r in routes if r.family == family]
        known.sort(key=lambda entry: (-entry[1], entry[2].metric))
        of_family = [prefixes.number(a) for a in addresses if family_of(a) == family]
        for number in of_family:
            for first, length, route in known:
                if length and number >> (bits - length) << (bits - length) == first:
                    found |= {hop.dev for hop in route.hops}
                    break
    return found


def render(uplinks: Sequence[Uplink], passing: Passing | None) -> Iterator[str]:
    """The chains that do it; `mark_N`, which give a packet an arrival mark, are there already."""
    if passing:
        yield from _goals(uplinks, passing)
        yield from _keep(uplinks, passing)
        yield from _came(uplinks)
        yield from _follow(uplinks, passing)
        yield from _leave(uplinks, passing)


def _goals(uplinks: Iterable[Uplink], passing: Passing) -> Iterator[str]:
    """Small chains to jump to: `adopt` and `pin` mark flows, `choose` marks packets."""
    for u in uplinks:
        yield from chain(f"save_arrival_{u.number}", [f"ct mark set ct {bits(u, u.arrival_mark)}"])
        if passing.masquerade:
            chosen = bits(u, u.outgoing_mark)
            yield from chain(f"save_outgoing_{u.number}", [f"ct mark set ct {chosen}"])
            yield from chain(f"mark_outgoing_{u.number}", [f"meta mark set meta {chosen}"])


def bits(uplink: Uplink, mark: int) -> str:
    """A mark with every bit that isn't ours left as it is."""
    return f"mark & {~uplink.mark_mask & 0xFFFFFFFF:#010x} | {mark:#010x}"


# --- keep ---------------------------------------------------------------------------------


def _keep(uplinks: Sequence[Uplink], passing: Passing) -> Iterator[str]:
    ways = [f"{u.arrival_mark:#010x} : goto mark_arrival_{u.number}" for u in uplinks]
    if passing.masquerade:
        ways += [f"{u.outgoing_mark:#010x} : goto mark_outgoing_{u.number}" for u in uplinks]
    mask = uplinks[0].mark_mask
    lines = [
        f"iifname {_interfaces(uplinks)} return",
        f"ct mark & {mask:#010x} vmap {values(ways)}",
    ]
    if hook := passing.balance:
        yield from chain("balance", _draw(uplinks, hook))
        kinds = "{ tcp, udp }" if hook.udp else "tcp"
        lines.append(
            f"iifname {names(passing.masquerade)} ct state new meta l4proto {kinds}"
            " fib daddr type unicast goto balance"
        )
    yield from chain("restore_prerouting", lines, "filter hook prerouting priority mangle")


def _draw(uplinks: Sequence[Uplink], hook: Hook) -> Iterator[str]:
    """As the hook does with the host's own: with the same shares, and the same flows spared."""
    for rule in hook.spared:
        if rule.uids == (-1, -1):  # forwarded packets are nobody's
            yield f"{_selectors(rule)} return"
    owners = {u.outgoing_mark: u.number for u in uplinks}
    for family, marks in hook.marks:
        slots = [owners[mark] for mark in marks]
        lot = f"jhash {IP[family]} daddr mod {len(slots)} seed {_SEED:#x}"
        if not hook.sticky:
            lot = f"meta nfproto ipv{family} numgen inc mod {len(slots)}"
        yield f"{lot} vmap {values(_runs(slots))}"


def _runs(numbers: Iterable[int]) -> Iterator[str]:
    """Slots with the uplinks that they lead to, neighbours of one uplink together."""
    for number, run in groupby(enumerate(numbers), key=lambda slot: slot[1]):
        slots = [place for place, _ in run]
        yield f"{slots[0]}-{slots[-1]} : goto mark_outgoing_{number}"


def _selectors(rule: Rule) -> str:
    """An outgoing rule's selectors as an nft match."""
    found = [
        f"{IP[rule.family]} daddr {rule.dst}" if rule.dst else f"meta nfproto ipv{rule.family}"
    ]
    if rule.ip_proto:
        found.append(f"meta l4proto {_PROTOCOLS[rule.ip_proto]}")
    if rule.dport != (0, 0):
        first, last = rule.dport
        found.append(f"th dport {first}{f'-{last}' if last != first else ''}")
    return " ".join(found)


# --- follow -------------------------------------------------------------------------------


def _follow(uplinks: Sequence[Uplink], passing: Passing) -> Iterator[str]:
    lines = []
    outside = _interfaces(uplinks)
    if passing.lans:
        yield from chain("guard_internal", _fence(uplinks))
        clamp = "tcp flags syn / syn,rst tcp option maxseg size set rt mtu"
        lines = [
            # before all else: packets may bear marks of ours as they come in
            (
                f"ct state new,invalid iifname {outside} oifname {names(passing.lans)}"
                " jump guard_internal"
            ),
            *(f"{way} {outside} {clamp}" for way in ("iifname", "oifname")),
        ]
    lines += [
        f"ct mark & {uplinks[0].mark_mask:#010x} != 0 return",
        f"iifname {outside} goto by_arrival",
    ]
    if passing.masquerade:
        chains, ways = _ways(uplinks, "save_outgoing", "by_next_hop", _by_gateway)
        yield from chains
        match = f"iifname {names(passing.masquerade)} ct direction original"
        lines.append(f"{match} oifname vmap {ways}")
    yield from chain("save_forward", lines, "filter hook forward priority mangle")


def _fence(uplinks: Sequence[Uplink]) -> Iterator[str]:
    """We make a router of the host, for nobody but those that services and masquerading let in;
    what came out of IPsec was let in by its policy."""
    yield "ct status & dnat != 0 return"
    yield "meta ipsec exists return"
    for family in FAMILIES:
        if routed := _routed(uplinks, family):
            yield f"{IP[family]} daddr {values(routed)} return"
    yield "counter drop"


def _came(uplinks: Sequence[Uplink]) -> Iterator[str]:
    """Of a flow that has no mark yet, a packet that came in over an uplink."""
    chains, ways = _ways(uplinks, "save_arrival", "by_source_mac", _by_router)
    yield from chains
    yield from chain("by_arrival", [*_by_address(uplinks), f"iifname vmap {ways}"])


def _ways(
    uplinks: Sequence[Uplink],
    goal: str,
    among: str,
    told: Callable[[Sequence[Uplink]], Iterable[str]],
) -> tuple[list[str], str]:
    """From interfaces to the uplinks' goals; where several share one, by a chain that tells them
    apart, which is given first."""
    chains: list[str] = []
    ways: list[str] = []
    by_interface: dict[str, list[Uplink]] = {}
    for u in uplinks:
        by_interface.setdefault(u.interface, []).append(u)
    for interface, own in sorted(by_interface.items()):
        target = f"{goal}_{own[0].number}"
        if len(own) > 1:
            target = f"{among}_{own[0].number}"
            chains += chain(target, told(own))
        ways.append(f'"{interface}" : goto {target}')
    return chains, values(ways)


def _by_address(uplinks: Sequence[Uplink]) -> Iterator[str]:
    """By the address that was asked, where it is one uplink's alone."""
    for family in FAMILIES:
        owners = _owners(uplinks, family)
        ways = [
            f"{address} : goto save_arrival_{owners[address][0]}"
            for address in sorted(owners, key=prefixes.number)
            if len(owners[address]) == 1
        ]
        if ways:
            yield f"ct original {IP[family]} daddr vmap {values(ways)}"


def _by_router(own: Sequence[Uplink]) -> Iterator[str]:
    """Of uplinks on one interface: that whose router sent the packet."""
    for u in own:
        if u.router_macs:
            yield f"ether saddr {values(u.router_macs)} goto save_arrival_{u.number}"


def _by_gateway(own: Sequence[Uplink]) -> Iterator[str]:
    """Of uplinks on one interface: that whose router the packet goes to, else the first."""
    for u in own:
        for family, gateway in u.gateways:
            if gateway and family_of(gateway) == family:
                yield f"rt {IP[family]} nexthop {gateway} goto save_outgoing_{u.number}"
    yield f"goto save_outgoing_{own[0].number}"


# --- leave --------------------------------------------------------------------------------


def _leave(uplinks: Sequence[Uplink], passing: Passing) -> Iterator[str]:
    lines = []
    outside, mask = _interfaces(uplinks), uplinks[0].mark_mask
    for family in FAMILIES:
        ip = IP[family]
        sources = [f"{u.outgoing_mark:#010x} : {s}" for u in uplinks if (s := u.source(family))]
        if passing.masquerade and sources:
            routed = _routed(uplinks, family)
            lines.append(
                f"iifname {names(passing.masquerade)} oifname {outside}"
                f" {f'{ip} saddr != {values(routed)}' if routed else f'meta nfproto ipv{family}'}"
                f" snat {ip} to ct mark & {mask:#010x} map {values(sources)}"
            )
        own = sorted(_owners(uplinks, family), key=prefixes.number)
        if passing.lans and own:
            lines.append(
                f"iifname != {outside} oifname {names(passing.lans)} ct status dnat"
                f" ct original {ip} daddr {values(own)} masquerade"
            )
    if lines:
        yield from chain("source_nat", lines, "nat hook postrouting priority srcnat - 5")


# --- what they share ----------------------------------------------------------------------


def _interfaces(uplinks: Iterable[Uplink]) -> str:
    return names(u.interface for u in uplinks)


def _owners(uplinks: Iterable[Uplink], family: Family) -> dict[str, list[int]]:
    """The uplinks' addresses, with the numbers of those whose each is."""
    found: dict[str, list[int]] = {}
    for u in uplinks:
        for a in u.addresses:
            if a.family == family:
                found.setdefault(a.address, []).append(u.number)
    return found


def _routed(uplinks: Iterable[Uplink], family: Family) -> list[str]:
    of_family = {p for u in uplinks for p in u.routed if family_of(p) == family}
    return prefixes.disjoint(family, of_family)
