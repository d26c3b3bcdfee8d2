"""The text of the nftables table `inet ifdefault`.

Base chains, in the order in which a packet passes them:
  mark_arrival        prerouting, after conntrack: sets the arrival mark, where one is needed
  restore_prerouting, save_forward, source_nat   keep forwarded flows on their uplink (see
                      plan.connmark)
  udp_wildcard        prerouting, after DNAT by others: redirects packets to wildcard UDP servers
  restore_output      output: restores the arrival mark on replies of tracked flows, and reroutes
                      them
  source_check        postrouting, after srcnat: the source check (BCP 38)

Rules: only the bits of the mark mask are changed; nft 1.0.6 can't copy a mark under a mask, so
each uplink has small chains with constants. ICMPv6 133-137 is never marked, as that breaks
neighbour discovery. The text depends on the plan alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ifdefault.model.address import family_of
from ifdefault.model.config import FAMILIES, Family, HostConfig
from ifdefault.model.kernel import NFT_TABLE, Redirect, Uplink
from ifdefault.plan import connmark, prefixes
from ifdefault.plan.nft_text import IP, chain, named_set, names, packet_set, table, values

UNKNOWN_MACS = "unknown_macs"  # routers on a shared LAN that no uplink names
STRANGERS: dict[Family, str] = {4: "strangers_4", 6: "strangers_6"}  # sources that nobody owns
OWNED: dict[Family, str] = {4: "owned_4", 6: "owned_6"}  # the uplinks' addresses
_DISCOVERY = "icmpv6 type { 133, 134, 135, 136, 137 } return"
# The source check never judges sources that name no uplink, nor what stays on the link
_EXEMPT = (
    "ip saddr { 0.0.0.0/8, 169.254.0.0/16 } return",
    "ip daddr { 224.0.0.0/4, 255.255.255.255 } return",
    "ip6 saddr { ::, fe80::/10 } return",
    "ip6 daddr { fe80::/10, ff00::/8 } return",
    "udp sport { 67, 68, 546, 547 } return",
)


@dataclass(frozen=True, slots=True)
class Needs:
    """What the ruleset is for: the usable uplinks, and the UDP ports to redirect by family."""

    host: HostConfig
    uplinks: tuple[Uplink, ...]
    ports: dict[Family, tuple[int, ...]]
    redirects: tuple[Redirect, ...]
    forwards: bool = False  # whether the host forwards packets of others
    passing: connmark.Passing | None = None  # which of them are followed

    def redirecting(self) -> list[Family]:
        covered = {r.family for r in self.redirects}
        return [f for f in FAMILIES if self.ports.get(f) and f in covered]

    def marking(self) -> bool:
        """Whether any packet gets an arrival mark."""
        return bool(self.redirecting() or self.marked_interfaces())

    def metering(self) -> bool:
        """Whether packets are judged as they leave. By itself only where something may bend them
        after their route was chosen by their source: a hook costs every packet, and the rules
        hold the host's own packets as well."""
        mode = self.host.source_check
        return mode in ("drop", "count") or (mode == "auto" and (self.forwards or self.marking()))

    def marked_interfaces(self) -> list[str]:
        """Interfaces whose every packet is marked, since addresses don't tell uplinks apart."""
        return sorted({u.interface for u in self.uplinks if u.mechanism != "source"})

    def own(self, family: Family, interface: str = "") -> list[str]:
        """The uplinks' addresses, or those of the uplinks on one interface."""
        there = [u for u in self.uplinks if interface in ("", u.interface)]
        found = {a.address for u in there for a in u.addresses if a.family == family}
        return sorted(found, key=prefixes.number)

    def sources(self, family: Family, interface: str = "") -> list[str]:
        """What the uplinks may be left by with: their addresses, and prefixes routed to them."""
        there = [u for u in self.uplinks if interface in ("", u.interface)]
        routed = {p for u in there for p in u.routed if family_of(p) == family}
        own = self.own(family, interface)
        return prefixes.disjoint(family, (*routed, *own)) if routed else own


def meter(uplink: Uplink) -> str:
    """The name of the counter of packets that the source check caught leaving by this uplink."""
    return f"misrouted_{uplink.number}"


def render(needs: Needs) -> str:
    """The whole table, or "" where no packet needs one."""
    body = [
        *_marks(needs),
        *_arrival(needs),
        *connmark.render(needs.uplinks, needs.passing),
        *_wildcard(needs),
        *_restore(needs),
        *_source_check(needs),
    ]
    if not body:
        return ""
    return table(NFT_TABLE, body)


# --- arrival ------------------------------------------------------------------------------


def _marks(needs: Needs) -> Iterator[str]:
    """Small chains that mark a packet, for others to jump to."""
    for uplink in needs.uplinks if needs.marking() or needs.passing else ():
        bits = connmark.bits(uplink, uplink.arrival_mark)
        comment = f'comment "uplink.{uplink.name}"'
        yield from chain(f"mark_arrival_{uplink.number}", [f"meta mark set meta {bits} {comment}"])


def _arrival(needs: Needs) -> Iterator[str]:
    if not needs.marking():
        return
    for uplink in needs.uplinks:
        keep = f"{_tracked(uplink)}ct mark set ct {connmark.bits(uplink, uplink.arrival_mark)}"
        yield from chain(
            f"mark_and_save_{uplink.number}", [f"jump mark_arrival_{uplink.number}", keep]
        )
    marked = needs.marked_interfaces()
    lines = [_errors(needs)]
    if marked:
        if any(_shared(needs, interface) for interface in marked):
            yield from packet_set(UNKNOWN_MACS, "ether_addr")
        for interface in marked:
            yield from chain(f"interface_{marked.index(interface)}", _by_router(needs, interface))
        targets = (f'"{name}" : goto interface_{n}' for n, name in enumerate(marked))
        lines += [_DISCOVERY, f"iifname vmap {values(targets)}"]
    lines += _by_address(needs, [u for u in needs.uplinks if u.interface not in marked])
    yield from chain("mark_arrival", lines, "filter hook prerouting priority mangle")


def _errors(needs: Needs) -> str:
    """Errors about a flow bear its mark: the MTU of a path must be learned for its uplink, and
    by the address in the error alone a redirected flow would be another uplink's (see
    fwmark_reflect)."""
    return f"meta l4proto {{ icmp, ipv6-icmp }} ct state related {_by_flow(needs)}"


def _by_flow(needs: Needs) -> str:
    """Give a packet the mark that its flow has."""
    marks = (f"{u.arrival_mark:#010x} : jump mark_arrival_{u.number}" for u in needs.uplinks)
    return f"ct mark & {needs.host.mark_mask:#010x} vmap {values(marks)}"


def _tracked(uplink: Uplink) -> str:
    """Which packets of an uplink have their mark kept in conntrack, as an nft match."""
    # those that a LAN behind the host began have a mark of their own
    only = "ct direction original "
    if uplink.mechanism == "conntrack":
        return only
    # TCP and ICMP find back by tcp_fwmark_accept and fwmark_reflect
    return f"meta l4proto udp {only}"


def _shared(needs: Needs, interface: str) -> bool:
    return sum(u.interface == interface for u in needs.uplinks) > 1


def _by_router(needs: Needs, interface: str) -> Iterator[str]:
    """Of a marked interface: which uplink a packet came in on."""
    own = [u for u in needs.uplinks if u.interface == interface]
    if len(own) == 1:
        yield f"jump mark_and_save_{own[0].number}"
        return
    for uplink in own:
        if uplink.router_macs:
            yield f"ether saddr {values(uplink.router_macs)} goto mark_and_save_{uplink.number}"
    # neighbours on the LAN itself are no routers
    for family in FAMILIES:
        near = sorted(
            {f"{a.address}/{a.prefixlen}" for u in own for a in u.addresses if a.family == family}
        )
        if near:
            near += ["fe80::/10"] if family == 6 else []
            yield f"{IP[family]} saddr {values(prefixes.disjoint(family, near))} return"
    yield f"update @{UNKNOWN_MACS} {{ ether saddr counter }}"
    # an unknown router: the source rule is right wherever one uplink alone has the address
    yield from _by_address(needs, own)


def _by_address(needs: Needs, uplinks: list[Uplink]) -> Iterator[str]:
    """Where addresses tell uplinks apart, only flows to redirected ports need a mark."""
    interfaces = names(u.interface for u in uplinks)
    for family in needs.redirecting():
        owners = {a.address: u for u in reversed(uplinks) for a in u.addresses}
        targets = [
            f"{a} : goto mark_and_save_{owners[a].number}" for a in needs.own(family) if a in owners
        ]
        if targets:
            match = f"iifname {interfaces} udp dport {values(needs.ports[family])}"
            yield f"{match} {IP[family]} daddr vmap {values(targets)}"


# --- wildcard, restore --------------------------------------------------------------------


def _wildcard(needs: Needs) -> Iterator[str]:
    lines = []
    for family in needs.redirecting():
        ip = IP[family]
        answers = (
            f"{r.first}-{r.last} : {r.address}" for r in needs.redirects if r.family == family
        )
        lines.append(
            f"iifname {names(u.interface for u in needs.uplinks)}"
            f" udp dport {values(needs.ports[family])} {ip} daddr {values(needs.own(family))}"
            f" socket wildcard 1 dnat {ip} to {ip} saddr map {values(answers)}"
        )
    if lines:
        yield from chain("udp_wildcard", lines, "nat hook prerouting priority dstnat + 10")


def _restore(needs: Needs) -> Iterator[str]:
    if not needs.marking():
        return
    every = all(u.mechanism == "conntrack" for u in needs.uplinks)
    match = "ct direction reply" if every else "meta l4proto udp ct direction reply"
    line = f"{match} {_by_flow(needs)}"
    yield from chain("restore_output", [line], "route hook output priority mangle")


# --- source check --------------------------------------------------------------------------


def _source_check(needs: Needs) -> Iterator[str]:
    if not needs.uplinks or not needs.metering():
        return
    first_on: dict[str, Uplink] = {}
    for uplink in needs.uplinks:
        first_on.setdefault(uplink.interface, uplink)
    for family in FAMILIES:
        yield from packet_set(STRANGERS[family], f"ipv{family}_addr")
        if len(first_on) > 1 and (owned := needs.sources(family)):
            flags = ("flags interval",) if any("/" in source for source in owned) else ()
            elements = f"elements = {values(owned)}"
            yield from named_set(OWNED[family], f"type ipv{family}_addr", *flags, elements)
    for uplink in first_on.values():
        yield f"counter {meter(uplink)} {{ }}"
    for interface, uplink in first_on.items():
        yield from chain(f"source_check_{uplink.number}", _judge(needs, interface, meter(uplink)))
    targets = (f'"{name}" : goto source_check_{u.number}' for name, u in first_on.items())
    line = f"oifname vmap {values(targets)}"
    yield from chain("source_check", [line], "filter hook postrouting priority srcnat + 10")


def _judge(needs: Needs, interface: str, counter: str) -> Iterator[str]:
    """What leaves by one interface: its own sources first, since that is nearly every packet."""
    verdict = " return" if needs.host.source_check == "count" else " drop"
    own = {family: needs.sources(family, interface) for family in FAMILIES}
    for family in FAMILIES:
        if own[family]:
            yield f"{IP[family]} saddr {values(own[family])} return"
    yield from _EXEMPT
    for family in FAMILIES:
        if set(needs.sources(family)) - set(own[family]):
            yield f"{IP[family]} saddr @{OWNED[family]} counter name {counter}{verdict}"
        yield f"update @{STRANGERS[family]} {{ {IP[family]} saddr counter }}"
