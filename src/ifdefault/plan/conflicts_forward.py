"""Conflicts between `[[forward]]` services and other programs on this host.

Rules: as in `plan.conflicts`, which calls this. Each problem of the config names its key, so that
the line can be found.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence

from ifdefault.model.address import family_of
from ifdefault.model.config import Config, ForwardConfig, Ports
from ifdefault.model.errors import Problem
from ifdefault.model.flow import Flow
from ifdefault.model.kernel import Facts, Uplink
from ifdefault.plan import numbers, prefixes, udp_wildcard
from ifdefault.plan.lookup import Fib

_ANY = {"0.0.0.0": 4, "::": 6}
_Listeners = dict[str, list[tuple[int, str]]]  # by transport, sorted (port, address)


def find(config: Config, facts: Facts, uplinks: Sequence[Uplink]) -> Iterator[Problem]:
    yield from _ports_in_use(config, facts, uplinks)
    yield from _misplaced_servers(config, facts, uplinks)
    yield from _dropping_chains(config, facts)


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


def _dropping_chains(config: Config, facts: Facts) -> Iterator[Problem]:
    if not config.forwards and not config.outgoing.masquerade:
        return
    families = {family_of(s.address) for f in config.forwards for s in f.to} or {4, 6}
    for kind, table, chain in facts.dropping:
        if kind != "inet" and {"ip": 4, "ip6": 6}[kind] not in families:
            continue
        where = f"nft {kind} {table} {chain}"
        what = "drops forwarded packets that no rule there accepts"
        yield Problem(where, what, _acceptance(config, kind, table, chain), True)


def _acceptance(config: Config, kind: str, table: str, chain: str) -> str:
    """Commands that accept our forwarded packets, for the program that created the chain."""
    ours = ["ct status dnat"] if config.forwards else []
    if lans := config.outgoing.masquerade:
        ours += [f"iifname {lan}" for lan in lans] + ["ct state established,related"]
    if kind != "inet" and chain == "FORWARD":  # of iptables, which can't read native nft rules
        program = "iptables" if kind == "ip" else "ip6tables"
        matches = [_AS_IPTABLES.get(m) or f"-i {m.split()[1]}" for m in ours]
        lines = [f"{program} -I FORWARD {match} -j ACCEPT" for match in matches]
    else:
        lines = [f"nft insert rule {kind} {table} {chain} {match} accept" for match in ours]
    return "add one, such as " + ", ".join(f"`{line}`" for line in lines)


_AS_IPTABLES = {
    "ct status dnat": "-m conntrack --ctstate DNAT",
    "ct state established,related": "-m conntrack --ctstate ESTABLISHED,RELATED",
}
