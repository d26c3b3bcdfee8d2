"""What on this host collides with the forwarded services, or stands in their way.

Rules: as in `plan.conflicts`, which calls this. Each fault of the config names its key, so that
its line is found.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence

from ifdefault.model.address import family_of
from ifdefault.model.config import Config, ForwardConfig, Ports
from ifdefault.model.errors import Problem
from ifdefault.model.kernel import Facts, Uplink
from ifdefault.plan import numbers, prefixes, udp_wildcard
from ifdefault.plan.lookup import Fib, Flow

_ANY = {"0.0.0.0": 4, "::": 6}
_Held = dict[str, list[tuple[int, str]]]  # by transport (port, address), in order


def find(config: Config, facts: Facts, uplinks: Sequence[Uplink]) -> Iterator[Problem]:
    yield from _held_ports(config, facts, uplinks)
    yield from _strayed_servers(config, facts, uplinks)
    yield from _dropping_chains(config, facts)


def _held_ports(config: Config, facts: Facts, uplinks: Sequence[Uplink]) -> Iterator[Problem]:
    """Programs of this host that nobody would reach any more."""
    held = _held(facts)
    for number, forward in enumerate(config.forwards):
        offered = [u for u in uplinks if not forward.uplinks or u.name in forward.uplinks]
        own = {a.address for u in offered for a in u.addresses}
        for place, ports in enumerate(forward.listen):
            if found := next(_holders(held, forward, ports, own), None):
                port, address = found
                where = f"forward[{number}].listen[{place}]"
                what = f"a program of this host listens on {ports.transport} port {port} of "
                what += "every address" if address in _ANY else address
                option = "-ltnp" if ports.transport == "tcp" else "-lunp"
                remedy = f"see `ss {option} sport = {port}`, and end it, or bind it to other ones"
                yield Problem(where, what, remedy)


def _held(facts: Facts) -> _Held:
    clients = udp_wildcard.client_ports(facts)
    held: _Held = defaultdict(list)
    for transport, address, port in facts.listening:
        if transport == "tcp" or port not in clients:
            held[transport].append((port, address))
    return {transport: sorted(found) for transport, found in held.items()}


def _holders(
    held: _Held, forward: ForwardConfig, ports: Ports, own: set[str]
) -> Iterator[tuple[int, str]]:
    families = {family_of(server.address) for server in forward.to}
    sockets = held.get(ports.transport, [])
    for port, address in sockets[bisect_left(sockets, (ports.first, "")) :]:
        if port > ports.last:
            return
        if _ANY.get(address) in families or address in own:
            yield port, address


def _strayed_servers(config: Config, facts: Facts, uplinks: Sequence[Uplink]) -> Iterator[Problem]:
    """Content servers that aren't behind this host: forwarding would loop, or go to a provider."""
    faults: dict[str, tuple[str, str, bool]] = {}
    fib = Fib.of(facts)
    for number, forward in enumerate(config.forwards):
        for place, server in enumerate(forward.to):
            address = server.address
            if address not in faults:
                faults[address] = _fault(address, fib, uplinks)
            what, remedy, blocks = faults[address]
            if what:
                where = f"forward[{number}].to[{place}]"
                yield Problem(where, f"{address} {what}", remedy, blocks=blocks)


def _fault(address: str, fib: Fib, uplinks: Sequence[Uplink]) -> tuple[str, str, bool]:
    """What is wrong with a server's address, and what would be right; "" for nothing. A network
    that isn't there may come, and mustn't keep the uplinks waiting."""
    family = family_of(address)
    verdict = fib.lookup(Flow(family, address))
    behind = {u.interface: u.name for u in uplinks}
    if verdict.kind == "local":
        what = "is this host itself, a loop"
        return what, "let the program listen on the uplinks' addresses", True
    if verdict.kind != "unicast" or verdict.route is None or verdict.hop is None:
        what = "is on no network that this host knows"
        return what, "give it a route, or correct the address", False
    if prefixes.network(verdict.route.dst)[1] <= numbers.SHORTEST_LOCAL[family]:
        what = "is on no network that this host knows, only a default leads there"
        return what, "give it a route, or correct the address", False
    if uplink := behind.get(verdict.hop.dev):
        what = f"is outside, behind uplink.{uplink}"
        return what, "name servers on a network behind this host", True
    return "", "", False


def _dropping_chains(config: Config, facts: Facts) -> Iterator[Problem]:
    if not config.forwards and not config.outgoing.masquerade:
        return
    families = {family_of(s.address) for f in config.forwards for s in f.to} or {4, 6}
    for kind, table, chain in facts.dropping:
        if kind != "inet" and {"ip": 4, "ip6": 6}[kind] not in families:
            continue
        where = f"nft {kind} {table} {chain}"
        what = "drops what is forwarded, unless a rule there accepts it"
        yield Problem(where, what, _acceptance(config, kind, table, chain), True)


def _acceptance(config: Config, kind: str, table: str, chain: str) -> str:
    """Commands that let through what we forward; in the words of who made the chain."""
    ours = ["ct status dnat"] if config.forwards else []
    if lans := config.outgoing.masquerade:
        ours += [f"iifname {lan}" for lan in lans] + ["ct state established,related"]
    if kind != "inet" and chain == "FORWARD":  # iptables', which doesn't like rules of nft's
        program = "iptables" if kind == "ip" else "ip6tables"
        matches = [_AS_IPTABLES.get(m) or f"-i {m.split()[1]}" for m in ours]
        lines = [f"{program} -I FORWARD {match} -j ACCEPT" for match in matches]
    else:
        lines = [f"nft insert rule {kind} {table} {chain} {match} accept" for match in ours]
    return "see that it does, as by " + ", ".join(f"`{line}`" for line in lines)


_AS_IPTABLES = {
    "ct status dnat": "-m conntrack --ctstate DNAT",
    "ct state established,related": "-m conntrack --ctstate ESTABLISHED,RELATED",
}
