"""Conflicts: uplinks on one Ethernet segment, where the host answers ARP on either link.

Rules: as in `conflicts`. By default Linux answers ARP for any of its addresses on any interface
(ip-sysctl.rst, arp_ignore), so a router may send packets for one uplink's address to the other's
link, where a failure of the one looks like one of the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from ifdefault.model.errors import Problem
from ifdefault.model.kernel import Address, Facts, Uplink
from ifdefault.plan import prefixes


def arp_sysctls(dev: str) -> tuple[str, str]:
    return f"net/ipv4/conf/{dev}/arp_ignore", f"net/ipv4/conf/{dev}/arp_filter"


def find(facts: Facts, uplinks: Sequence[Uplink]) -> Iterator[Problem]:
    # VLANs have their parent's MAC, and segments of their own
    macs = {link.name: link.mac for link in facts.links if link.kind != "vlan"}
    interfaces = {u.interface for u in uplinks if not u.pending}
    for one, other in itertools.combinations(sorted(interfaces), 2):
        shared = _shared_network(facts, one, other)
        if macs.get(one) and macs[one] == macs.get(other):
            shared = shared or f"MAC {macs[one]}"
        either = [dev for dev in (one, other) if answers_for_all(facts, dev)]
        if shared and either:
            where = f"sysctl net.ipv4.conf.{either[0]}.arp_ignore"
            what = f"{one} and {other} share {shared}, and answer ARP for each other's addresses"
            settings = " ".join(f"net.ipv4.conf.{dev}.arp_ignore=1" for dev in either)
            yield Problem(where, what, f"run `sysctl -w {settings}`", warning=True)


def _shared_network(facts: Facts, one: str, other: str) -> str:
    """The IPv4 network that both interfaces have an address in, "" if there is none."""
    by_dev: dict[str, list[Address]] = {one: [], other: []}
    for address in facts.addresses:
        if address.family == 4 and address.prefixlen < 32 and address.dev in by_dev:
            by_dev[address.dev].append(address)
    for a, b in itertools.product(by_dev[one], by_dev[other]):
        length = min(a.prefixlen, b.prefixlen)
        first, _ = prefixes.network(f"{a.address}/{length}")
        network = f"{prefixes.text(4, first)}/{length}"
        if prefixes.contains(4, network, b.address):
            return network
    return ""


def answers_for_all(facts: Facts, dev: str) -> bool:
    """The greater value of `all` and the interface applies."""
    sysctls = dict(facts.sysctls)
    names = (*arp_sysctls("all"), *arp_sysctls(dev))
    known = [sysctls[name] for name in names if name in sysctls]
    return bool(known) and all(value == "0" for value in known)
