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

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from ifdefault.model.address import BITS, family_of
from ifdefault.model.config import FAMILIES, Config, Family
from ifdefault.model.kernel import FORWARDING, TABLE_MAIN, Facts, Hook, Rule, Uplink
from ifdefault.plan import prefixes, tables
from ifdefault.plan.nft_text import IP, chain, names, values

_PROTOCOLS = {6: "tcp", 17: "udp"}
_SEED = 0x1FDE  # fixed, so that a destination keeps its uplink when the table is reloaded


@dataclass(frozen=True, slots=True)
class ForwardedFlows:
    """How forwarded flows are handled, on a host that tracks them."""

    needed: tuple[Family, ...] = ()  # families whose forwarding must be enabled
    lans: tuple[str, ...] = ()  # internal interfaces: of servers and of masqueraded LANs
    masquerade: tuple[str, ...] = ()
    balance: Hook | None = None


def forwarded_flows(
    config: Config, facts: Facts, uplinks: Sequence[Uplink], hook: Hook | None
) -> ForwardedFlows | None:
    """How to handle forwarded flows; None if they aren't tracked."""
    masquerade = config.outgoing.masquerade
    if not uplinks or not tracks_forwarded(config, facts):
        return None
    servers = tuple({s.address: None for forward in config.forwards for s in forward.to})
    server_devices = _devices(servers, facts) - {u.interface for u in uplinks}
    server_families = {family_of(address) for address in servers}
    uplink_families = {family for u in uplinks for family, _ in u.gateways}
    needed = uplink_families if masquerade else uplink_families & server_families
    return ForwardedFlows(
        needed=tuple(f for f in FAMILIES if f in needed),
        lans=tuple(sorted(server_devices | set(masquerade))),
        masquerade=masquerade,
        balance=hook if masquerade and hook and hook.marks else None,
    )


def tracks_forwarded(config: Config, facts: Facts) -> bool:
    """Whether forwarded flows are tracked (if there is an uplink)."""
    follow = host_forwards(facts) and config.host.forwarded == "follow"
    return follow or bool(config.forwards or config.outgoing.masquerade)


def host_forwards(facts: Facts) -> bool:
    """Whether the host forwards packets."""
    return any(dict(facts.sysctls).get(name) == "1" for name in FORWARDING.values())


def _devices(addresses: Iterable[str], facts: Facts) -> set[str]:
    """The devices of main's non-default routes to these addresses."""
    devices = set()
    for address in addresses:
        number, bits = prefixes.number(address), BITS[family_of(address)]
        by_length = tables.index(tables.of(facts, family_of(address), TABLE_MAIN))
        for length, first in prefixes.covering(by_length, number, bits):
            unicast = [route for route in by_length[length][first] if route.kind == "unicast"]
            if length and unicast:
                best = min(unicast, key=lambda route: route.metric)
                devices |= {hop.dev for hop in best.hops}
                break
    return devices


def render(uplinks: Sequence[Uplink], forwarded: ForwardedFlows | None) -> Iterator[str]:
    """The chains of the module docstring. plan.ruleset renders `mark_arrival_N`."""
    if forwarded:
        yield from _mark_chains(uplinks, forwarded)
        yield from _restore_prerouting(uplinks, forwarded)
        yield from _by_arrival(uplinks)
        yield from _save_forward(uplinks, forwarded)
        yield from _source_nat(uplinks, forwarded)


def _mark_chains(uplinks: Iterable[Uplink], forwarded: ForwardedFlows) -> Iterator[str]:
    """Chains for each uplink: `save_…_N` mark flows, `mark_…_N` mark packets."""
    for u in uplinks:
        yield from chain(f"save_arrival_{u.number}", [f"ct mark set ct {bits(u, u.arrival_mark)}"])
        if forwarded.masquerade:
            outgoing = bits(u, u.outgoing_mark)
            yield from chain(f"save_outgoing_{u.number}", [f"ct mark set ct {outgoing}"])
            yield from chain(f"mark_outgoing_{u.number}", [f"meta mark set meta {outgoing}"])


def bits(uplink: Uplink, mark: int) -> str:
    """The nft expression that sets our bits of a mark and leaves all others unchanged."""
    return f"mark & {~uplink.mark_mask & 0xFFFFFFFF:#010x} | {mark:#010x}"


# --- restore_prerouting -------------------------------------------------------------------


def _restore_prerouting(uplinks: Sequence[Uplink], forwarded: ForwardedFlows) -> Iterator[str]:
    targets = [f"{u.arrival_mark:#010x} : goto mark_arrival_{u.number}" for u in uplinks]
    if forwarded.masquerade:
        targets += [f"{u.outgoing_mark:#010x} : goto mark_outgoing_{u.number}" for u in uplinks]
    mask = uplinks[0].mark_mask
    lines = [
        f"iifname {_interfaces(uplinks)} return",
        f"ct mark & {mask:#010x} vmap {values(targets)}",
    ]
    if hook := forwarded.balance:
        yield from chain("balance", _balance(uplinks, hook))
        kinds = "{ tcp, udp }" if hook.udp else "tcp"
        lines.append(
            f"iifname {names(forwarded.masquerade)} ct state new meta l4proto {kinds}"
            " fib daddr type unicast goto balance"
        )
    yield from chain("restore_prerouting", lines, "filter hook prerouting priority mangle")


def _balance(uplinks: Sequence[Uplink], hook: Hook) -> Iterator[str]:
    """Balance like the programs on connect(): the same weights, and the same flows left alone."""
    for rule in hook.spared:
        if rule.uids == (-1, -1):  # rules with users don't apply to forwarded packets
            yield f"{_selectors(rule)} return"
    owners = {u.outgoing_mark: u.number for u in uplinks}
    for family, marks in hook.marks:
        slots = [owners[mark] for mark in marks]
        slot = f"jhash {IP[family]} daddr mod {len(slots)} seed {_SEED:#x}"
        if not hook.sticky:
            slot = f"meta nfproto ipv{family} numgen inc mod {len(slots)}"
        yield f"{slot} vmap {values(_runs(slots))}"


def _runs(numbers: Iterable[int]) -> Iterator[str]:
    """Map elements from ranges of slots to their uplinks, given the uplink number of each slot."""
    for number, run in groupby(enumerate(numbers), key=lambda slot: slot[1]):
        slots = [slot for slot, _ in run]
        yield f"{slots[0]}-{slots[-1]} : goto mark_outgoing_{number}"


def _selectors(rule: Rule) -> str:
    """An outgoing rule's selectors as an nft match."""
    match = [
        f"{IP[rule.family]} daddr {rule.dst}" if rule.dst else f"meta nfproto ipv{rule.family}"
    ]
    if rule.ip_proto:
        match.append(f"meta l4proto {_PROTOCOLS[rule.ip_proto]}")
    if rule.dport != (0, 0):
        first, last = rule.dport
        match.append(f"th dport {first}{f'-{last}' if last != first else ''}")
    return " ".join(match)


# --- save_forward -------------------------------------------------------------------------


def _save_forward(uplinks: Sequence[Uplink], forwarded: ForwardedFlows) -> Iterator[str]:
    lines = []
    outside = _interfaces(uplinks)
    if forwarded.lans:
        yield from chain("guard_internal", _guard_internal(uplinks))
        clamp = "tcp flags syn / syn,rst tcp option maxseg size set rt mtu"
        lines = [
            # first, since packets may already have one of our marks
            (
                f"ct state new,invalid iifname {outside} oifname {names(forwarded.lans)}"
                " jump guard_internal"
            ),
            *(f"{device} {outside} {clamp}" for device in ("iifname", "oifname")),
        ]
    lines += [
        f"ct mark & {uplinks[0].mark_mask:#010x} != 0 return",
        f"iifname {outside} goto by_arrival",
    ]
    if forwarded.masquerade:
        chains, targets = _targets(uplinks, "save_outgoing", "by_next_hop", _by_next_hop)
        yield from chains
        match = f"iifname {names(forwarded.masquerade)} ct direction original"
        lines.append(f"{match} oifname vmap {targets}")
    yield from chain("save_forward", lines, "filter hook forward priority mangle")


def _guard_internal(uplinks: Sequence[Uplink]) -> Iterator[str]:
    """Forwarding for our services and masqueraded LANs mustn't open internal networks to others:
    accept DNAT, routed prefixes, and packets from IPsec, which its policy has accepted."""
    yield "ct status & dnat != 0 return"
    yield "meta ipsec exists return"
    for family in FAMILIES:
        if routed := _routed(uplinks, family):
            yield f"{IP[family]} daddr {values(routed)} return"
    yield "counter drop"


def _by_arrival(uplinks: Sequence[Uplink]) -> Iterator[str]:
    """For packets from an uplink whose flow has no mark yet."""
    chains, targets = _targets(uplinks, "save_arrival", "by_source_mac", _by_source_mac)
    yield from chains
    yield from chain("by_arrival", [*_by_address(uplinks), f"iifname vmap {targets}"])


def _targets(
    uplinks: Sequence[Uplink],
    target: str,
    shared: str,
    rules: Callable[[Sequence[Uplink]], Iterable[str]],
) -> tuple[list[str], str]:
    """A map from each interface to the chain `{target}_N` of its uplink, and the chains
    `{shared}_N` to which an interface with several uplinks leads; `rules` renders those."""
    chains: list[str] = []
    elements: list[str] = []
    by_interface: dict[str, list[Uplink]] = {}
    for u in uplinks:
        by_interface.setdefault(u.interface, []).append(u)
    for interface, own in sorted(by_interface.items()):
        name = f"{target}_{own[0].number}"
        if len(own) > 1:
            name = f"{shared}_{own[0].number}"
            chains += chain(name, rules(own))
        elements.append(f'"{interface}" : goto {name}')
    return chains, values(elements)


def _by_address(uplinks: Sequence[Uplink]) -> Iterator[str]:
    """By the flow's original destination, if it is the address of only one uplink."""
    for family in FAMILIES:
        owners = _owners(uplinks, family)
        targets = [
            f"{address} : goto save_arrival_{owners[address][0]}"
            for address in sorted(owners, key=prefixes.number)
            if len(owners[address]) == 1
        ]
        if targets:
            yield f"ct original {IP[family]} daddr vmap {values(targets)}"


def _by_source_mac(own: Sequence[Uplink]) -> Iterator[str]:
    """For uplinks on one interface: the one whose router sent the packet."""
    for u in own:
        if u.router_macs:
            yield f"ether saddr {values(u.router_macs)} goto save_arrival_{u.number}"


def _by_next_hop(own: Sequence[Uplink]) -> Iterator[str]:
    """For uplinks on one interface: the one whose gateway is the next hop, otherwise the first."""
    for u in own:
        for family, gateway in u.gateways:
            if gateway and family_of(gateway) == family:
                yield f"rt {IP[family]} nexthop {gateway} goto save_outgoing_{u.number}"
    yield f"goto save_outgoing_{own[0].number}"


# --- source_nat ---------------------------------------------------------------------------


def _source_nat(uplinks: Sequence[Uplink], forwarded: ForwardedFlows) -> Iterator[str]:
    lines = []
    outside, mask = _interfaces(uplinks), uplinks[0].mark_mask
    for family in FAMILIES:
        ip = IP[family]
        sources = [f"{u.outgoing_mark:#010x} : {s}" for u in uplinks if (s := u.source(family))]
        if forwarded.masquerade and sources:
            routed = _routed(uplinks, family)
            lines.append(
                f"iifname {names(forwarded.masquerade)} oifname {outside}"
                f" {f'{ip} saddr != {values(routed)}' if routed else f'meta nfproto ipv{family}'}"
                f" snat {ip} to ct mark & {mask:#010x} map {values(sources)}"
            )
        own = sorted(_owners(uplinks, family), key=prefixes.number)
        if forwarded.lans and own:
            lines.append(
                f"iifname != {outside} oifname {names(forwarded.lans)} ct status dnat"
                f" ct original {ip} daddr {values(own)} masquerade"
            )
    if lines:
        yield from chain("source_nat", lines, "nat hook postrouting priority srcnat - 5")


# --- shared -------------------------------------------------------------------------------


def _interfaces(uplinks: Iterable[Uplink]) -> str:
    return names(u.interface for u in uplinks)


def _owners(uplinks: Iterable[Uplink], family: Family) -> dict[str, list[int]]:
    """The addresses of the uplinks, each with the numbers of the uplinks that have it."""
    owners: dict[str, list[int]] = {}
    for u in uplinks:
        for a in u.addresses:
            if a.family == family:
                owners.setdefault(a.address, []).append(u.number)
    return owners


def _routed(uplinks: Iterable[Uplink], family: Family) -> list[str]:
    of_family = {p for u in uplinks for p in u.routed if family_of(p) == family}
    return prefixes.disjoint(family, of_family)
