"""Conflicts between `[[forward]]` services and other programs on this host.

Rules: as in `plan.conflicts`, which calls this. Each problem of the config names its key, so that
the line can be found.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from ifdefault.model.address import family_of
from ifdefault.model.config import Config, Family, ForwardConfig, Ports
from ifdefault.model.errors import Problem
from ifdefault.model.flow import Flow
from ifdefault.model.kernel import Facts, Uplink
from ifdefault.plan import numbers, prefixes, udp_wildcard
from ifdefault.plan.conflicts_input import FIREWALLD, where
from ifdefault.plan.lookup import Fib
from ifdefault.plan.packet_filter import Drop, Packet, dropped

_ANY = {"0.0.0.0": 4, "::": 6}
_Listeners = dict[str, list[tuple[int, str]]]  # by transport, sorted (port, address)
_FAR: dict[Family, str] = {4: "1.1.1.1", 6: "2606:4700:4700::1111"}  # on the Internet
_ZONE = "filter_FWD_"  # firewalld's chain of what comes from a zone
_POLICY = (
    "firewall-cmd --permanent --new-policy uplinks",
    "firewall-cmd --permanent --policy uplinks --add-ingress-zone {}",
    "firewall-cmd --permanent --policy uplinks --add-egress-zone ANY",
    "firewall-cmd --permanent --policy uplinks --set-target ACCEPT",
    "firewall-cmd --reload",
)
_MOST = 100  # services whose packets are looked for in others' filters


@dataclass(frozen=True, slots=True)
class _Accept:
    """What accepts a packet, as each program writes it."""

    ufw: str
    nft: tuple[str, ...]
    iptables: tuple[str, ...]


def find(config: Config, facts: Facts, uplinks: Sequence[Uplink]) -> Iterator[Problem]:
    yield from _ports_in_use(config, facts, uplinks)
    yield from _misplaced_servers(config, facts, uplinks)
    yield from _closed(config, facts, uplinks)


def _ports_in_use(config: Config, facts: Facts, uplinks: Sequence[Uplink]) -> Iterator[Problem]:
    """Programs of this host whose port a service would take over."""
    listeners = _listeners(facts)
    for number, forward in enumerate(config.forwards):
        offered = [u for u in uplinks if not forward.uplinks or u.name in forward.uplinks]
        own = {a.address for u in offered for a in u.addresses}
        for index, ports in enumerate(forward.listen):
            if listener := next(_conflicting(listeners, forward, ports, own), None):
                port, address = listener
                where = f"forward[{number}].listen[{index}]"
                what = f"a program on this host listens on {ports.transport} port {port} of "
                what += "every address" if address in _ANY else address
                option = "-ltnp" if ports.transport == "tcp" else "-lunp"
                remedy = f"see `ss {option} sport = {port}`; stop it, or bind it to other addresses"
                yield Problem(where, what, remedy)


def _listeners(facts: Facts) -> _Listeners:
    clients = udp_wildcard.client_ports(facts)
    listeners: _Listeners = defaultdict(list)
    for transport, address, port in facts.listening:
        if transport == "tcp" or port not in clients:
            listeners[transport].append((port, address))
    return {transport: sorted(sockets) for transport, sockets in listeners.items()}


def _conflicting(
    listeners: _Listeners, forward: ForwardConfig, ports: Ports, own: set[str]
) -> Iterator[tuple[int, str]]:
    families = {family_of(server.address) for server in forward.to}
    sockets = listeners.get(ports.transport, [])
    for port, address in sockets[bisect_left(sockets, (ports.first, "")) :]:
        if port > ports.last:
            return
        if _ANY.get(address) in families or address in own:
            yield port, address


def _misplaced_servers(
    config: Config, facts: Facts, uplinks: Sequence[Uplink]
) -> Iterator[Problem]:
    """Servers that aren't on an internal network: forwarding would loop, or go to a provider."""
    faults: dict[str, tuple[str, str, bool]] = {}
    fib = Fib.of(facts)
    for number, forward in enumerate(config.forwards):
        for index, server in enumerate(forward.to):
            address = server.address
            if address not in faults:
                faults[address] = _fault(address, fib, uplinks)
            what, remedy, blocks = faults[address]
            if what:
                where = f"forward[{number}].to[{index}]"
                yield Problem(where, f"{address} {what}", remedy, blocks=blocks)


def _fault(address: str, fib: Fib, uplinks: Sequence[Uplink]) -> tuple[str, str, bool]:
    """What is wrong with a server's address ("": nothing), the remedy, and whether it blocks apply.
    A missing route doesn't: the network may come up later, and uplinks mustn't wait for it."""
    family = family_of(address)
    result = fib.lookup(Flow(family, address))
    uplink_names = {u.interface: u.name for u in uplinks}
    if result.kind == "local":
        what = "is an address of this host, which would make a loop"
        return what, "let the program listen on the uplinks' addresses", True
    if result.kind != "unicast" or result.route is None or result.hop is None:
        what = "has no route"
        return what, "add a route, or correct the address", False
    if prefixes.network(result.route.dst)[1] <= numbers.SHORTEST_LOCAL[family]:
        what = "has no route but a default route"
        return what, "add a route, or correct the address", False
    if uplink := uplink_names.get(result.hop.dev):
        what = f"is reached through uplink.{uplink}"
        return what, "use servers on an internal network of this host", True
    return "", "", False


def _closed(config: Config, facts: Facts, uplinks: Sequence[Uplink]) -> Iterator[Problem]:
    """What other programs' packet filters drop, once for each remedy."""
    seen: set[tuple[str, str]] = set()
    for what, packet, accept in _packets(config, facts, uplinks):
        if drop := dropped(facts.forward_filters, packet):
            remedy = _acceptance(drop, accept)
            if (where(drop), remedy) not in seen:
                seen.add((where(drop), remedy))
                why = "" if drop.rule else ", since no rule there accepts them"
                yield Problem(where(drop), f"drops {what}{why}", remedy, warning=True)


def _packets(
    config: Config, facts: Facts, uplinks: Sequence[Uplink]
) -> Iterator[tuple[str, Packet, _Accept]]:
    """The first packets of connections that are to be forwarded: what they are, the packet, and
    what would accept it. Of many services the first are looked at."""
    if not facts.forward_filters:
        return
    fib = Fib.of(facts)
    for forward in config.forwards[:_MOST]:
        offered = [u for u in uplinks if not forward.uplinks or u.name in forward.uplinks]
        for server, ports in product(forward.to, forward.listen):
            family, port = family_of(server.address), server.port or ports.first
            result = fib.lookup(Flow(family, server.address))
            uplink = next((u for u in offered if u.source(family)), None)
            if uplink is None or result.hop is None:
                continue
            yield (
                f"forwarded packets to {ports.transport.upper()} port {port} of {server.address}",
                Packet(
                    uplink.interface,
                    family,
                    ports.transport,
                    server.address,
                    port,
                    out_interface=result.hop.dev,
                    statuses=("dnat",),
                ),
                _Accept(
                    f"proto {ports.transport} to {server.address} port {port}",
                    ("ct status dnat",),
                    ("-m conntrack --ctstate DNAT",),
                ),
            )
    for lan in config.outgoing.masquerade:
        for family in sorted({a.family for a in facts.addresses if a.dev == lan and not a.scope}):
            if uplink := next((u for u in uplinks if u.source(family)), None):
                yield (
                    f"IPv{family} connections of {lan}",
                    Packet(lan, family, "tcp", _FAR[family], 443, out_interface=uplink.interface),
                    _Accept(
                        f"in on {lan}",
                        (f"iifname {lan}", "ct state established,related"),
                        (f"-i {lan}", "-m conntrack --ctstate ESTABLISHED,RELATED"),
                    ),
                )


def _acceptance(drop: Drop, accept: _Accept) -> str:
    """Commands that accept it, for the program that made the chain."""
    base = drop.base
    targets = {rule.target for rule in base.rules}
    if base.table == FIREWALLD and drop.chain.startswith(_ZONE):
        zone = drop.chain.removeprefix(_ZONE)
        commands = [line.format(zone) for line in _POLICY]
    elif any(target.startswith("ufw") for target in targets):
        commands = [f"ufw route allow {accept.ufw}"]
    elif base.program != "nft" or base.name == "FORWARD":  # of iptables, which can't read nft rules
        program = base.program
        if program == "nft":
            program = "ip6tables" if base.family == "ip6" else "iptables"
        chain = "DOCKER-USER" if "DOCKER-USER" in targets else base.name
        commands = [f"{program} -I {chain} {match} -j ACCEPT" for match in accept.iptables]
    else:
        place = f"{base.family} {base.table} {base.name}"
        commands = [f"nft insert rule {place} {match} accept" for match in accept.nft]
    return "let them pass, such as by " + ", ".join(f"`{command}`" for command in commands)
