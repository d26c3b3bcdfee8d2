"""The sysctls that our rules, marks and forwarding need.

Rules: what is wanted must read the same before and after it was set, or it would be put back. In
the order in which they must be set; what the owner made stronger than that stays.
"""

from __future__ import annotations

from collections.abc import Iterator

from ifdefault.model.config import FAMILIES
from ifdefault.model.kernel import FORWARDING, PROTOCOL, Facts
from ifdefault.plan.connmark import Passing
from ifdefault.plan.ruleset import Needs

# The kernel sets it to the contrary of ip_forward when that changes (inet_forward_change)
REDIRECTS = "net/ipv4/conf/all/accept_redirects"
_MARKS = ("net/ipv4/tcp_fwmark_accept", "net/ipv4/fwmark_reflect", "net/ipv6/fwmark_reflect")
# What may wait for a gateway's MAC, in bytes. The kernel sends echo replies of all interfaces from
# one socket, which a silent gateway's queue would fill (132 kB; by default the queue takes 213 kB).
_UNRESOLVED = 32768


def sysctls(facts: Facts, needs: Needs) -> Iterator[tuple[str, str]]:
    """Each with its value."""
    now = dict(facts.sysctls)
    interfaces = sorted({u.interface for u in needs.uplinks})
    for interface in interfaces:
        for family in FAMILIES:
            name = f"net/ipv{family}/neigh/{interface}/unres_qlen_bytes"
            if int(now.get(name, "0")) >= _UNRESOLVED:  # less is the owner's business
                yield name, str(_UNRESOLVED)
    if any(u.mechanism == "mark" for u in needs.uplinks):
        for name in _MARKS:
            yield name, "1"
    elif not any(rule.mask and rule.protocol != PROTOCOL for rule in facts.rules):
        # errors about redirected flows are looked up by their mark; where others route by marks of
        # their own, theirs would be reflected, too, and a path's MTU stays unknown rather
        for family in needs.redirecting():
            yield f"net/ipv{family}/fwmark_reflect", "1"
    for interface in interfaces:
        yield from _filter(now, interface, needs)
    if needs.passing:
        yield from _forwarding(now, interfaces, needs.passing)


def _filter(now: dict[str, str], interface: str, needs: Needs) -> Iterator[tuple[str, str]]:
    """Of a strict reverse-path filter, which drops what is to be forwarded from any but the normal
    default's uplink, and what we mark. The maximum of `all` and the interface counts (kernel:
    ip-sysctl, rp_filter)."""
    name = f"net/ipv4/conf/{interface}/rp_filter"
    own, everywhere = now.get(name, "0"), now.get("net/ipv4/conf/all/rp_filter", "0")
    strict = max(own, everywhere) == "1"
    if needs.passing:
        if strict or own == "2":
            yield name, "2"
    elif needs.marking() and strict:
        yield f"net/ipv4/conf/{interface}/src_valid_mark", "1"


def _forwarding(
    now: dict[str, str], interfaces: list[str], passing: Passing
) -> Iterator[tuple[str, str]]:
    if 6 in passing.needed:
        for interface in interfaces:
            name = f"net/ipv6/conf/{interface}/accept_ra"
            accepts = now.get(name, "0")
            # routers' advertisements are for hosts, unless it is 2 (ip-sysctl, accept_ra)
            if accepts == "2" or (accepts == "1" and now.get(FORWARDING[6]) == "0"):
                yield name, "2"
    if 4 in passing.needed and "0" in (now.get(REDIRECTS), now.get(FORWARDING[4])):
        yield REDIRECTS, "0"  # said, so that its original is known
    for family in passing.needed:
        yield FORWARDING[family], "1"
