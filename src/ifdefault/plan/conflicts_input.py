"""Conflicts between the ports that this host serves and the packet filters of other programs.

Rules: as in `plan.conflicts`, which calls this. A port is closed if `plan.packet_filter` finds that
nobody reaches it; whatever can't be evaluated is left alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from ifdefault.model.config import FAMILIES, Config, Transport
from ifdefault.model.errors import Problem
from ifdefault.model.kernel import Uplink
from ifdefault.model.packet_filter import FilterChain
from ifdefault.plan.packet_filter import Drop, Packet, dropped

_TRANSPORTS: tuple[Transport, ...] = ("udp", "tcp")  # resolvers need both (RFC 7766)
FIREWALLD = "firewalld"  # its table
_ZONE = "filter_IN_"


def find(
    config: Config, filters: Sequence[FilterChain], uplinks: Sequence[Uplink]
) -> Iterator[Problem]:
    server = config.dns.server
    if server.zones:
        yield from closed_port(filters, uplinks, server.port, _TRANSPORTS)


def closed_port(
    filters: Sequence[FilterChain],
    uplinks: Sequence[Uplink],
    port: int,
    transports: Sequence[Transport],
) -> Iterator[Problem]:
    """What closes a port of the uplinks' addresses."""
    if not filters:
        return
    drops: dict[tuple[str, str], dict[str, list[Transport]]] = defaultdict(dict)
    examples: dict[tuple[str, str], Drop] = {}
    for uplink in uplinks:
        for family in FAMILIES:
            if not (address := uplink.source(family)):
                continue
            for transport in transports:
                packet = Packet(uplink.interface, family, transport, address, port)
                if drop := dropped(filters, packet):
                    key = where(drop), drop.rule
                    examples.setdefault(key, drop)
                    drops[key].setdefault(address, []).append(transport)
    for key, by_address in drops.items():
        closed: dict[tuple[Transport, ...], list[str]] = defaultdict(list)
        for address, transports in by_address.items():
            closed[tuple(transports)].append(address)
        drop = examples[key]
        for closed_transports, addresses in closed.items():
            names = " and ".join(transport.upper() for transport in closed_transports)
            what = f"drops packets to {names} port {port} of {', '.join(addresses)}"
            if not drop.rule:
                what += ", since no rule there accepts them"
            remedy = f"open it to clients: {_remedy(drop, closed_transports, port)}"
            yield Problem(key[0], what, remedy, warning=True)


def where(drop: Drop) -> str:
    """The chain, and the rule, by the names that its program gives them."""
    base = drop.base
    table = base.table if base.program != "nft" else f"{base.family} {base.table}"
    chain = f"{base.program} {table} {drop.chain}"
    return f"{chain}, {drop.rule}" if drop.rule else chain


def _remedy(drop: Drop, transports: Sequence[Transport], port: int) -> str:
    """Commands that open the port, for the program that made the chain."""
    base = drop.base
    if base.table == FIREWALLD:
        zone = f" --zone={drop.chain.removeprefix(_ZONE)}" if _ZONE in drop.chain else ""
        add = " ".join(f"--add-port={port}/{transport}" for transport in transports)
        add = "--add-service=dns" if port == 53 else add
        return f"`firewall-cmd --permanent{zone} {add}`, then `firewall-cmd --reload`"
    if any(rule.target.startswith("ufw") for rule in base.rules):
        which = f"{port}/{transports[0]}" if len(transports) == 1 else str(port)
        return f"`ufw allow {which}`"
    if base.program != "nft" or base.name == "INPUT":  # of iptables, which can't read native rules
        program = base.program
        if program == "nft":
            program = "ip6tables" if base.family == "ip6" else "iptables"
        table = f" -t {base.table}" if base.table != "filter" else ""
        accept = (f"-I {base.name} -p {t} --dport {port} -j ACCEPT" for t in transports)
        return ", ".join(f"`{program}{table} {command}`" for command in accept)
    protocols = " ".join(
        ("meta l4proto { tcp, udp } th" if len(transports) > 1 else transports[0],)
    )
    rule = f"{protocols} dport {port} accept"
    return f"`nft insert rule {base.family} {base.table} {base.name} {rule}`"
