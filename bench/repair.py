"""`repair`: another program deletes our state, or an uplink is renumbered; how long until repaired.

Rules: the bench deletes as another program would, and then polls the kernel for what it deleted;
the daemon isn't queried. A renumbered uplink is repaired when a client beyond it is answered from
the new address.
"""

from __future__ import annotations

import os
import random
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.clock import log
from bench.daemon import Daemon, two_uplinks
from bench.results import Figure, Report
from bench.stats import median, quantile
from ifdefault.kernel import nft, rtnetlink, rule_messages
from ifdefault.kernel.netlink import Netlink
from ifdefault.kernel.read import read_links
from ifdefault.kernel.uapi import rtnetlink as rt
from ifdefault.lab.attempts import checksum
from ifdefault.lab.node import Node
from ifdefault.lab.topology import load
from ifdefault.lab.world import World
from ifdefault.model.config import FAMILIES
from ifdefault.model.kernel import NFT_TABLE, PROTOCOL, Route, Rule

_TRIALS = 24
_RENUMBERINGS = 12
_LIMIT_S = 15.0
_APART_S = 0.8  # between two deletions; of the same thing rarely enough to be no conflict
_LOOK_S = 0.001
_PING_S = 0.005
_OUTGOING = 32765  # the priority of the rules for outgoing traffic, whose order matters
_SYSCTL = Path("/proc/sys/net/ipv4/tcp_fwmark_accept")
_RENUMBERED = {
    "isp-a": ("wan0", "203.0.113.{}/24", "2001:db8:a::{}/48", "via 203.0.113.1 dev wan0 metric 0"),
    "isp-b": (
        "wan1",
        "198.51.100.{}/24",
        "2001:db8:b::{}/48",
        "via 198.51.100.1 dev wan1 metric 100",
    ),
}
_HOW = f"""\
*Deleted*: the lab's world `shared-address`, where the daemon needs marks and so has state of every
kind in the kernel. In turn, {_TRIALS} times each, {_APART_S:g} s apart: one of our rules or routes,
picked at random, is deleted over netlink, our nft table is deleted, `tcp_fwmark_accept` is set to
0. The time is from just before the deletion until the kernel, polled every millisecond, has all as
before: all rules in their order, all our routes, the same table, the value.

*Renumbered*: the lab's world `two`; one uplink in turn gets other addresses, as from a DHCP client:
old ones deleted, new ones added, main's default route replaced. The time is from just before that
until the client, which sends an echo request every {_PING_S * 1000:g} ms, is answered from the new
address, for IPv4 and IPv6, {_RENUMBERINGS} times."""


@dataclass(frozen=True, slots=True)
class Damage:
    """What another program does: `look` returns the state in the kernel, `do` damages it."""

    name: str
    look: Callable[[Netlink], object]
    do: Callable[[Netlink], None]


def run() -> Report:
    samples = _deletions()
    samples.update(_renumberings())
    figures = []
    for name, times_s in samples.items():
        limit_s = 1.0 if name.startswith("renumbered") else 0.5
        figures += [
            Figure(f"{name}: trials", len(times_s)),
            Figure(f"{name}: median", median(times_s) * 1000, "ms"),
            Figure(f"{name}: p95", quantile(times_s, 0.95) * 1000, "ms"),
            Figure(f"{name}: longest", max(times_s) * 1000, "ms", limit_s * 1000),
        ]
    return Report("Repair", _HOW, tuple(figures), samples=samples)


# --- what others delete ----------------------------------------------------------------------


def _deletions() -> dict[str, list[float]]:
    times_by_name: dict[str, list[float]] = {damage.name: [] for damage in _DAMAGES}
    with World.up(load("shared-address")) as world:
        daemon = Daemon(world, world.topology.config)
        daemon.start()

        def work() -> None:
            with Netlink() as netlink:
                for _ in range(_TRIALS):
                    for damage in _DAMAGES:
                        time.sleep(random.uniform(_APART_S, 1.5 * _APART_S))
                        times_by_name[damage.name].append(_until_repaired(netlink, damage))

        world["host"].python(work)
    for name, times_s in times_by_name.items():
        log(f"{name}: {max(times_s) * 1000:.0f} ms at most")
    return times_by_name


def _until_repaired(netlink: Netlink, damage: Damage) -> float:
    before = damage.look(netlink)
    start_s = time.monotonic()
    damage.do(netlink)
    while damage.look(netlink) != before and time.monotonic() < start_s + _LIMIT_S:
        time.sleep(_LOOK_S)
    return time.monotonic() - start_s


def _rules(netlink: Netlink) -> list[Rule]:
    """All rules in the kernel's order. In the block of the return path rules of one priority
    exclude each other, so their order doesn't matter."""
    queries = [rule_messages.rule_query(family) for family in FAMILIES]
    messages = [message for query in queries for message in netlink.dump(rt.RTM_GETRULE, query)]
    rules = [rule for rule in map(rule_messages.decode_rule, messages) if rule]
    return sorted(rules, key=lambda rule: (rule.family, rule.priority, _order(rule)))


def _order(rule: Rule) -> str:
    return str(rule) if rule.priority < _OUTGOING else ""


def _our_rules(netlink: Netlink) -> list[Rule]:
    return [rule for rule in _rules(netlink) if rule.protocol == PROTOCOL]


def _delete_rule(netlink: Netlink) -> None:
    rule = random.choice(_our_rules(netlink))
    netlink.change(rt.RTM_DELRULE, rule_messages.encode_rule(rule))


def _our_routes(netlink: Netlink) -> set[Route]:
    names = {link.index: link.name for link in read_links(netlink)}
    routes = set()
    for family in FAMILIES:
        for message in netlink.dump(rt.RTM_GETROUTE, rtnetlink.route_query(family)):
            route = rtnetlink.decode_route(message, names)
            if route and route.protocol == PROTOCOL:
                routes.add(route)
    return routes


def _delete_route(netlink: Netlink) -> None:
    indexes = {link.name: link.index for link in read_links(netlink)}
    route = random.choice(sorted(_our_routes(netlink)))
    netlink.change(rt.RTM_DELROUTE, rtnetlink.encode_route(route, indexes))


def _delete_table(_: Netlink) -> None:
    nft.run(f"delete table inet {NFT_TABLE}")


def _set_back(_: Netlink) -> None:
    _SYSCTL.write_text("0")


_DAMAGES = (
    Damage("a rule deleted", _rules, _delete_rule),
    Damage("a route deleted", _our_routes, _delete_route),
    Damage(
        "our nft table deleted",
        lambda _: nft.read_table(NFT_TABLE),
        _delete_table,
    ),
    Damage(
        "a sysctl set back",
        lambda _: _SYSCTL.read_text(),
        _set_back,
    ),
)


# --- other addresses -------------------------------------------------------------------------


def _renumberings() -> dict[str, list[float]]:
    times_by_name: dict[str, list[float]] = {f"renumbered, IPv{family}": [] for family in FAMILIES}
    with World.up(load("two")) as world:
        daemon = Daemon(world, two_uplinks())
        daemon.start()
        numbers = dict.fromkeys(_RENUMBERED, 10)
        for trial in range(_RENUMBERINGS):
            time.sleep(random.uniform(2, 3))
            provider = list(_RENUMBERED)[trial % len(_RENUMBERED)]
            start_s = time.monotonic()
            numbers[provider], addresses = _renumber(world["host"], provider, numbers[provider])
            answered = world["client"].python(partial(_first_answers, addresses, start_s))
            for family, at_s in zip(FAMILIES, answered, strict=True):
                times_by_name[f"renumbered, IPv{family}"].append(at_s - start_s)
    return times_by_name


def _renumber(host: Node, provider: str, old: int) -> tuple[int, list[str]]:
    """Give an uplink other addresses, as a DHCP client does; return them."""
    dev, four, six, default = _RENUMBERED[provider]
    new = 30 - old
    lines = [f"address del {text.format(old)} dev {dev}" for text in (four, six)]
    lines += [f"address add {four.format(new)} dev {dev}"]
    lines += [f"address add {six.format(new)} dev {dev} nodad"]
    lines += [f"route replace default {default}"]
    host.ip("\n".join(lines) + "\n")
    return new, [text.format(new).partition("/")[0] for text in (four, six)]


def _first_answers(addresses: Sequence[str], start_s: float) -> list[float]:
    """Ping until each has answered; when that was."""
    answered: dict[str, float] = {}
    with _pingers(addresses) as pingers:
        while len(answered) < len(addresses) and time.monotonic() < start_s + _LIMIT_S:
            for sock, address in pingers.items():
                if address not in answered:
                    with suppress(OSError):  # still unreachable
                        sock.sendto(_request(":" in address), (address, 0))
            for sock in select.select(list(pingers), [], [], _PING_S)[0]:
                data, (sender, *_) = sock.recvfrom(2048)
                address = pingers[sock]
                reply = data[0] == 129 if ":" in address else data[20] == 0
                if sender == address and reply:
                    answered.setdefault(address, time.monotonic())
    return [answered.get(address, start_s + _LIMIT_S) for address in addresses]


@contextmanager
def _pingers(addresses: Sequence[str]) -> Iterator[dict[socket.socket, str]]:
    times_by_name = {}
    for address in addresses:
        six = ":" in address
        family = socket.AF_INET6 if six else socket.AF_INET
        protocol = socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP
        times_by_name[socket.socket(family, socket.SOCK_RAW, protocol)] = address
    try:
        yield times_by_name
    finally:
        for sock in times_by_name:
            sock.close()


def _request(six: bool) -> bytes:
    """An echo request; the kernel fills in the checksum of IPv6."""
    message = struct.pack("!BBHHH", 128 if six else 8, 0, 0, os.getpid() & 0xFFFF, 1)
    return message if six else message[:2] + checksum(message).to_bytes(2) + message[4:]
