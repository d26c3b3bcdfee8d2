"""The sysctls that our rules, marks and forwarding need.

Rules: the desired value of a sysctl must not change once it is set, or it would be reset. They are
in the order in which they must be set. Values of the administrator that are stricter are kept.
"""

from __future__ import annotations

from collections.abc import Iterator

from ifdefault.model.config import FAMILIES
from ifdefault.model.kernel import FORWARDING, PROTOCOL, Facts
from ifdefault.plan.connmark import ForwardedFlows
from ifdefault.plan.ruleset import Needs

# The kernel sets it to the inverse of ip_forward when that changes (inet_forward_change)
REDIRECTS = "net/ipv4/conf/all/accept_redirects"
_MARKS = ("net/ipv4/tcp_fwmark_accept", "net/ipv4/fwmark_reflect", "net/ipv6/fwmark_reflect")
# Limit in bytes of the packets queued while a gateway's MAC is resolved. The kernel sends all echo
# replies from one socket, whose buffer (132 kB) a silent gateway's queue (213 kB by default) fills.
_UNRESOLVED = 32768


def sysctls(facts: Facts, needs: Needs) -> Iterator[tuple[str, str]]:
    """The sysctls to set, as (name, value)."""
    now = dict(facts.sysctls)
    interfaces = sorted({u.interface for u in needs.uplinks})
    for interface in interfaces:
        for family in FAMILIES:
            name = f"net/ipv{family}/neigh/{interface}/unres_qlen_bytes"
            if (
                int(now.get(name, "0")) >= _UNRESOLVED
            ):  # a lower value is the administrator's choice
                yield name, str(_UNRESOLVED)
    if any(u.mechanism == "mark" for u in needs.uplinks):
        for name in _MARKS:
            yield name, "1"
    elif not any(rule.mask and rule.protocol != PROTOCOL for rule in facts.rules):
        # routes ICMP errors about redirected flows by their mark. Not where others route by marks,
        # since theirs would be reflected, too; there the path MTU remains unknown
        for family in needs.redirected_families():
            yield f"net/ipv{family}/fwmark_reflect", "1"
    for interface in interfaces:
        yield from _reverse_path_filter(now, interface, needs)
    if needs.forwarded:
        yield from _forwarding(now, interfaces, needs.forwarded)


def _reverse_path_filter(
    now: dict[str, str], interface: str, needs: Needs
) -> Iterator[tuple[str, str]]:
    """A strict filter drops marked packets, and packets to be forwarded from uplinks other than the
    primary. The maximum of `all` and the interface applies (ip-sysctl.rst, rp_filter)."""
    name = f"net/ipv4/conf/{interface}/rp_filter"
    own, everywhere = now.get(name, "0"), now.get("net/ipv4/conf/all/rp_filter", "0")
    strict = max(own, everywhere) == "1"
    if needs.forwarded:
        if strict or own == "2":
            yield name, "2"
    elif needs.marks_arrival() and strict:
        yield f"net/ipv4/conf/{interface}/src_valid_mark", "1"


def _forwarding(
    now: dict[str, str], interfaces: list[str], forwarded: ForwardedFlows
) -> Iterator[tuple[str, str]]:
    if 6 in forwarded.needed:
        for interface in interfaces:
            name = f"net/ipv6/conf/{interface}/accept_ra"
            accepts = now.get(name, "0")
            # a router ignores router advertisements unless this is 2 (ip-sysctl.rst, accept_ra)
            if accepts == "2" or (accepts == "1" and now.get(FORWARDING[6]) == "0"):
                yield name, "2"
    if 4 in forwarded.needed and "0" in (now.get(REDIRECTS), now.get(FORWARDING[4])):
        yield REDIRECTS, "0"  # the kernel does this itself; listed so that the original is saved
    for family in forwarded.needed:
        yield FORWARDING[family], "1"
