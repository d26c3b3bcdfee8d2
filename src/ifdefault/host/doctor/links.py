"""What is wrong on the links of the uplinks: interfaces that are down, lost default routes,
addresses that another host uses too, and ARP answers by the wrong interface.

Rules: as in `ways`. A router for a lost default route is named only if it has just forwarded a
packet of ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_interface

from ifdefault.host.doctor import neighbours
from ifdefault.host.doctor.echo import Echo, Neighbour, exchange
from ifdefault.host.doctor.ways import Line, Tried
from ifdefault.model.address import family_of
from ifdefault.model.config import Config
from ifdefault.model.findings import APPLY, Finding
from ifdefault.model.kernel import TABLE_MAIN, Facts
from ifdefault.plan import tables
from ifdefault.plan.conflicts_arp import answers_for_all
from ifdefault.plan.describe import route_text

_CANDIDATES = 4
_WITHIN_S = 0.9


def down(config: Config, facts: Facts) -> Iterator[Finding]:
    """Interfaces of uplinks that the administrator has switched off, or that have no carrier."""
    links = {link.name: link for link in facts.links}
    for uplink in config.uplinks:
        if not (link := links.get(uplink.interface)):
            continue
        dev, about = uplink.interface, f"uplink.{uplink.name}"
        if not link.up:
            means = "The kernel has removed its routes."
            remedy = f"run `ip link set dev {dev} up`"
            yield Finding("error", about, f"interface {dev} is down", remedy, means)
        elif not link.carrier:
            remedy = "look at the cable and the modem"
            yield Finding("error", about, f"{dev} has no carrier", remedy)


def conflicting_addresses(line: Line, facts: Facts) -> Iterator[Finding]:
    """Who else answers for an uplink's IPv4 address on its own link."""
    way = line.way
    if way.family != 4 or not line.mac:
        return
    own = {link.mac: link.name for link in facts.links if link.mac}
    for mac in neighbours.ask_arp(way.dev, line.mac, way.address, tries=2):
        if mac not in own:
            yield Finding(
                "error",
                line.subject,
                f"another host ({mac}) has the address {way.address}, too",
                "find it by its MAC, and give one of the two another address",
                "Some packets for this host go to the other one.",
            )
        elif own[mac] != way.dev and answers_for_all(facts, dev := own[mac]):
            setting = f"net.ipv4.conf.{dev}.arp_ignore"
            yield Finding(
                "warning",
                line.subject,
                f"{dev} answers ARP for {way.address}, which is an address of {way.dev} (ARP flux)",
                f"run `sysctl -w {setting}=1`, and set it in /etc/sysctl.d",
                f"Packets for {way.uplink} may come in on {dev}, and are lost if that fails.",
            )


def lost_default(line: Line, facts: Facts) -> Iterator[Finding]:
    """The router that an uplink without a default route can use, found by trying."""
    way = line.way
    if not (gateway := _forwarder(line, _candidates(line, facts))):
        return
    six = " -6" if way.family == 6 else ""
    command = f"ip{six} route add default via {gateway} dev {way.dev} metric"
    yield Finding(
        "error",
        line.subject,
        f"{way.dev} has no default route, and {gateway} forwards what is sent to it",
        f"run `{command} {_free_metric(facts, line)}`, or renew the lease",
        "Nothing can be answered from its addresses.",
    )


def wrong_gateway(tried: Tried, config: Config, facts: Facts) -> Iterator[Finding]:
    """The router that forwards, where the gateway is silent and nothing beyond it answers."""
    line, way = tried.line, tried.line.way
    if tried.answering or tried.router or not line.mac or not line.gateway:
        return
    candidates = [each for each in _candidates(line, facts) if each != line.gateway]
    if not (gateway := _forwarder(line, candidates)):
        return
    six = " -6" if way.family == 6 else ""
    uplink = next(uplink for uplink in config.uplinks if uplink.name == way.uplink)
    if line.gateway in uplink.gateways:
        remedy = f'replace {line.gateway} by "{gateway}" in uplink.{way.uplink}.gateways'
    else:
        dead = [
            f"`ip{six} route del {route_text(route)}`"
            for route in tables.defaults(facts)
            if (route.family, route.table, len(route.hops)) == (way.family, TABLE_MAIN, 1)
            and (route.hops[0].dev, route.hops[0].gateway) == (way.dev, line.gateway)
        ]
        known = {hop.gateway for route in tables.defaults(facts) for hop in route.hops}
        if gateway not in known:
            metric = _free_metric(facts, line)
            dead.append(f"`ip{six} route add default via {gateway} dev {way.dev} metric {metric}`")
        remedy = f"run {', '.join([*dead, APPLY.removeprefix('run ')])}"
    yield Finding(
        "error",
        line.subject,
        f"the gateway is wrong: {line.gateway} is silent, and {gateway} forwards",
        remedy,
        "A stale lease, a router that was replaced, or a false router advertisement.",
    )


def _forwarder(line: Line, candidates: Sequence[str]) -> str:
    """The first of some neighbours that forwards a packet of ours; "" if none does."""
    way = line.way
    for address in candidates if line.targets else ():
        if way.family == 4:
            found = neighbours.ask_arp(way.dev, line.mac, address)
        elif line.link_local:
            found = neighbours.ask_nd(way.dev, line.mac, line.link_local, address)
        else:
            return ""
        if found:
            router = Neighbour(way.dev, neighbours.mac_bytes(found[0]))
            echoes = map(Echo, line.targets)
            if exchange(way, echoes, within_s=_WITHIN_S, through=router).rtt_s:
                return address
    return ""


def _candidates(line: Line, facts: Facts) -> list[str]:
    """Addresses on the link that may be the router's: those of other default routes, neighbours,
    then the ends of the prefix."""
    way = line.way
    own = {address.address for address in facts.addresses}
    hops = (hop for route in tables.defaults(facts) for hop in route.hops if hop.dev == way.dev)
    found = [hop.gateway for hop in hops if hop.gateway]
    known = [n for n in facts.neighbours if (n.dev, n.family) == (way.dev, way.family)]
    known.sort(key=lambda n: (not n.router, not n.mac))
    found += [n.address for n in known]
    for address in facts.addresses:
        if (address.dev, address.family) == (way.dev, way.family) and address.scope == 0:
            network = ip_interface(f"{address.address}/{address.prefixlen}").network
            if network.num_addresses > 2:
                found += [str(network[1]), str(network[-2])]
    fit = (each for each in dict.fromkeys(found) if family_of(each) == way.family)
    return [each for each in fit if each not in own][:_CANDIDATES]


def _free_metric(facts: Facts, line: Line) -> int:
    family = line.way.family
    metrics = [
        route.metric
        for route in tables.defaults(facts)
        if (route.family, route.table) == (family, TABLE_MAIN)
    ]
    return max(metrics, default=0) + 100


def macs(facts: Facts) -> Mapping[str, str]:
    """The MACs of interfaces that have neighbours."""
    return {
        link.name: link.mac
        for link in facts.links
        if len(link.mac) == 17 and not link.loopback and not link.point_to_point
    }
