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

# Names of sets
UNKNOWN_MACS = "unknown_macs"  # routers on a shared LAN that belong to no uplink
UNKNOWN_SOURCES: dict[Family, str] = {4: "unknown_sources_4", 6: "unknown_sources_6"}
UPLINK_SOURCES: dict[Family, str] = {4: "uplink_sources_4", 6: "uplink_sources_6"}
_DISCOVERY = "icmpv6 type { 133, 134, 135, 136, 137 } return"
# Not subject to the source check: unspecified and link-local sources, packets that stay on the link
_EXEMPT = (
    "ip saddr { 0.0.0.0/8, 169.254.0.0/16 } return",
    "ip daddr { 224.0.0.0/4, 255.255.255.255 } return",
    "ip6 saddr { ::, fe80::/10 } return",
    "ip6 daddr { fe80::/10, ff00::/8 } return",
    "udp sport { 67, 68, 546, 547 } return",
    "jump bridged",
)
# Frames between the ports of a bridge pass here with br_netfilter: they have an Ethernet header, as
# only received packets do, but no input interface (br_nf_post_routing), and so no group of one, not
# even another than this. (`iif 0` would say so, but to load or print that, libnftables lists all
# interfaces; `iiftype` is the output's then.)
_BRIDGED = ("iifgroup != 4294967295 return", "@ll,96,16 != 0 accept")


@dataclass(frozen=True, slots=True)
class Needs:
    """What the table is rendered from: the usable uplinks, and the UDP ports to redirect."""

    host: HostConfig
    uplinks: tuple[Uplink, ...]
    ports: dict[Family, tuple[int, ...]]
    redirects: tuple[Redirect, ...]
    host_forwards: bool = False  # whether the host forwards packets
    forwarded: connmark.ForwardedFlows | None = None  # None: forwarded flows aren't tracked

    def redirected_families(self) -> list[Family]:
        covered = {r.family for r in self.redirects}
        return [f for f in FAMILIES if self.ports.get(f) and f in covered]

    def marks_arrival(self) -> bool:
        """Whether any packet gets an arrival mark."""
        return bool(self.redirected_families() or self.marked_interfaces())

    def checks_sources(self) -> bool:
        """Whether the source check is installed. "auto" installs it only if something may reroute
        packets after the lookup by source (forwarding, marks): a chain costs every packet, and
        policy rules suffice for the host's own packets otherwise."""
        mode = self.host.source_check
        return mode in ("drop", "count") or (
            mode == "auto" and (self.host_forwards or self.marks_arrival())
        )

    def marked_interfaces(self) -> list[str]:
        """Interfaces all of whose packets are marked: their uplinks can't be told by address."""
        return sorted({u.interface for u in self.uplinks if u.mechanism != "source"})

    def addresses(self, family: Family, interface: str = "") -> list[str]:
        """The addresses of all uplinks, or of those on one interface, in numerical order."""
        uplinks = [u for u in self.uplinks if interface in ("", u.interface)]
        addresses = {a.address for u in uplinks for a in u.addresses if a.family == family}
        return sorted(addresses, key=prefixes.number)

    def sources(self, family: Family, interface: str = "") -> list[str]:
        """Valid sources of packets that leave by these uplinks: addresses and routed prefixes."""
        uplinks = [u for u in self.uplinks if interface in ("", u.interface)]
        routed = {p for u in uplinks for p in u.routed if family_of(p) == family}
        addresses = self.addresses(family, interface)
        return prefixes.disjoint(family, (*routed, *addresses)) if routed else addresses


def misrouted_counter(uplink: Uplink) -> str:
    """The name of the counter of packets with another uplink's source that left by this one."""
    return f"misrouted_{uplink.number}"


def render(needs: Needs) -> str:
    """The text of the table; "" if it isn't needed."""
    body = [
        *_mark_chains(needs),
        *_mark_arrival(needs),
        *connmark.render(needs.uplinks, needs.forwarded),
        *_udp_wildcard(needs),
        *_restore_output(needs),
        *_source_check(needs),
    ]
    if not body:
        return ""
    return table(NFT_TABLE, body)


# --- mark_arrival -------------------------------------------------------------------------


def _mark_chains(needs: Needs) -> Iterator[str]:
    """Chains `mark_arrival_N` that set the arrival mark of uplink N on a packet."""
    for uplink in needs.uplinks if needs.marks_arrival() or needs.forwarded else ():
        bits = connmark.bits(uplink, uplink.arrival_mark)
        comment = f'comment "uplink.{uplink.name}"'
        yield from chain(f"mark_arrival_{uplink.number}", [f"meta mark set meta {bits} {comment}"])


def _mark_arrival(needs: Needs) -> Iterator[str]:
    if not needs.marks_arrival():
        return
    for uplink in needs.uplinks:
        save = f"{_tracked(uplink)}ct mark set ct {connmark.bits(uplink, uplink.arrival_mark)}"
        yield from chain(
            f"mark_and_save_{uplink.number}", [f"jump mark_arrival_{uplink.number}", save]
        )
    marked = needs.marked_interfaces()
    lines = [_icmp_errors(needs)]
    if marked:
        if any(_shared(needs, interface) for interface in marked):
            yield from packet_set(UNKNOWN_MACS, "ether_addr")
        for interface in marked:
            yield from chain(f"interface_{marked.index(interface)}", _by_router(needs, interface))
        targets = (f'"{name}" : goto interface_{n}' for n, name in enumerate(marked))
        lines += [_DISCOVERY, f"iifname vmap {values(targets)}"]
    lines += _by_address(needs, [u for u in needs.uplinks if u.interface not in marked])
    yield from chain("mark_arrival", lines, "filter hook prerouting priority mangle")


def _icmp_errors(needs: Needs) -> str:
    """ICMP errors get the mark of their flow, so that the path MTU is learned for its uplink. By
    address, an error about a redirected flow would belong to another uplink (see fwmark_reflect).
    """
    return f"meta l4proto {{ icmp, ipv6-icmp }} ct state related {_restore_mark(needs)}"


def _restore_mark(needs: Needs) -> str:
    """Set the mark of a packet to that of its flow."""
    marks = (f"{u.arrival_mark:#010x} : jump mark_arrival_{u.number}" for u in needs.uplinks)
    return f"ct mark & {needs.host.mark_mask:#010x} vmap {values(marks)}"


def _tracked(uplink: Uplink) -> str:
    """An nft match: the packets of an uplink whose mark is saved in conntrack."""
    # flows from a LAN have an outgoing mark, which replies mustn't overwrite
    original = "ct direction original "
    if uplink.mechanism == "conntrack":
        return original
    # replies of TCP and ICMP get the mark by tcp_fwmark_accept and fwmark_reflect
    return f"meta l4proto udp {original}"


def _shared(needs: Needs, interface: str) -> bool:
    return sum(u.interface == interface for u in needs.uplinks) > 1


def _by_router(needs: Needs, interface: str) -> Iterator[str]:
    """For a marked interface: find the uplink of a packet by the MAC of the router."""
    own = [u for u in needs.uplinks if u.interface == interface]
    if len(own) == 1:
        yield f"jump mark_and_save_{own[0].number}"
        return
    for uplink in own:
        if uplink.router_macs:
            yield f"ether saddr {values(uplink.router_macs)} goto mark_and_save_{uplink.number}"
    # packets of neighbours on the LAN don't come through a router
    for family in FAMILIES:
        on_link = sorted(
            {f"{a.address}/{a.prefixlen}" for u in own for a in u.addresses if a.family == family}
        )
        if on_link:
            on_link += ["fe80::/10"] if family == 6 else []
            yield f"{IP[family]} saddr {values(prefixes.disjoint(family, on_link))} return"
    yield f"update @{UNKNOWN_MACS} {{ ether saddr counter }}"
    # an unknown router: the source rule is right unless several uplinks have the address
    yield from _by_address(needs, own)


def _by_address(needs: Needs, uplinks: list[Uplink]) -> Iterator[str]:
    """Where the address tells the uplink, only flows to redirected ports need a mark."""
    interfaces = names(u.interface for u in uplinks)
    for family in needs.redirected_families():
        owners = {a.address: u for u in reversed(uplinks) for a in u.addresses}
        targets = [
            f"{a} : goto mark_and_save_{owners[a].number}"
            for a in needs.addresses(family)
            if a in owners
        ]
        if targets:
            match = f"iifname {interfaces} udp dport {values(needs.ports[family])}"
            yield f"{match} {IP[family]} daddr vmap {values(targets)}"


# --- udp_wildcard, restore_output ---------------------------------------------------------


def _udp_wildcard(needs: Needs) -> Iterator[str]:
    lines = []
    for family in needs.redirected_families():
        ip = IP[family]
        sources = (
            f"{r.first}-{r.last} : {r.address}" for r in needs.redirects if r.family == family
        )
        lines.append(
            f"iifname {names(u.interface for u in needs.uplinks)}"
            f" udp dport {values(needs.ports[family])} {ip} daddr {values(needs.addresses(family))}"
            f" socket wildcard 1 dnat {ip} to {ip} saddr map {values(sources)}"
        )
    if lines:
        yield from chain("udp_wildcard", lines, "nat hook prerouting priority dstnat + 10")


def _restore_output(needs: Needs) -> Iterator[str]:
    if not needs.marks_arrival():
        return
    all_tracked = all(u.mechanism == "conntrack" for u in needs.uplinks)
    match = "ct direction reply" if all_tracked else "meta l4proto udp ct direction reply"
    line = f"{match} {_restore_mark(needs)}"
    yield from chain("restore_output", [line], "route hook output priority mangle")


# --- source check --------------------------------------------------------------------------


def _source_check(needs: Needs) -> Iterator[str]:
    if not needs.uplinks or not needs.checks_sources():
        return
    first_on: dict[str, Uplink] = {}
    for uplink in needs.uplinks:
        first_on.setdefault(uplink.interface, uplink)
    for family in FAMILIES:
        yield from packet_set(UNKNOWN_SOURCES[family], f"ipv{family}_addr")
        if len(first_on) > 1 and (sources := needs.sources(family)):
            flags = ("flags interval",) if any("/" in source for source in sources) else ()
            elements = f"elements = {values(sources)}"
            yield from named_set(UPLINK_SOURCES[family], f"type ipv{family}_addr", *flags, elements)
    for uplink in first_on.values():
        yield f"counter {misrouted_counter(uplink)} {{ }}"
    yield from chain("bridged", _BRIDGED)
    for interface, uplink in first_on.items():
        yield from chain(
            f"source_check_{uplink.number}",
            _check_interface(needs, interface, misrouted_counter(uplink)),
        )
    targets = (f'"{name}" : goto source_check_{u.number}' for name, u in first_on.items())
    line = f"oifname vmap {values(targets)}"
    yield from chain("source_check", [line], "filter hook postrouting priority srcnat + 10")


def _check_interface(needs: Needs, interface: str, counter: str) -> Iterator[str]:
    """The check for one interface: its own sources first, since nearly all packets have one."""
    verdict = " return" if needs.host.source_check == "count" else " drop"
    own = {family: needs.sources(family, interface) for family in FAMILIES}
    for family in FAMILIES:
        if own[family]:
            yield f"{IP[family]} saddr {values(own[family])} return"
    yield f'iifname "{interface}" return'  # forwarded back to the network that it came from
    yield from _EXEMPT
    for family in FAMILIES:
        if set(needs.sources(family)) - set(own[family]):
            yield f"{IP[family]} saddr @{UPLINK_SOURCES[family]} counter name {counter}{verdict}"
        yield f"update @{UNKNOWN_SOURCES[family]} {{ {IP[family]} saddr counter }}"
