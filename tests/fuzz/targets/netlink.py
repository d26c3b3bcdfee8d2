"""What the kernel sends by netlink: links, addresses, routes, rules, neighbours, nexthops, sockets,
tracked connections, notifications.

Rules: what is malformed is an OSError, and nothing is endless. An input's first byte tells the
decoder.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from ifdefault.kernel import (
    conntrack,
    count_connections,
    end_returning,
    netlink,
    nexthops,
    rtnetlink,
    rule_messages,
    sockdiag,
    tcp_stats,
    watch,
)
from ifdefault.kernel.netlink import HEADER, attributes
from ifdefault.kernel.route_get import decode_reply
from ifdefault.model.health import TcpStats
from ifdefault.model.kernel import Hop, Link, Route, Rule

KIND = "bytes"
NAMES = {1: "lo", 2: "wan0", 3: "wan1", 4: "lan0"}
INDEXES = {name: index for index, name in NAMES.items()}


def seeds() -> list[bytes]:
    """A few that we encode ourselves; those of a kernel are in the corpus."""
    hops = (Hop("wan0", "203.0.113.1", True, 2), Hop("wan1", "2001:db8::1"))
    routes = (
        Route(4, 1000, "192.0.2.0/24", hops=hops, src="203.0.113.10", metrics=((2, 1400),)),
        Route(6, 254, "default", hops=hops[1:], preference="low", metric=1024),
    )
    rules = (
        Rule(4, 5010, "lookup", 254, src="192.0.2.0/25", suppress_prefixlength=7),
        Rule(6, 32765, "goto", goto=32766, iif="wan0", dport=(1, 9), uids=(0, 99), mark=1, mask=3),
    )
    messages = [(2, rtnetlink.encode_route(route, INDEXES)) for route in routes]
    messages += [(3, rule_messages.encode_rule(rule)) for rule in rules]
    messages += [(4, rtnetlink.encode_neighbour("192.0.2.1", 2))]
    return [bytes((kind,)) + message for kind, message in messages]


def one(data: bytes) -> None:
    if not data:
        return
    decoder = DECODERS[data[0] % len(DECODERS)]
    with suppress(OSError):
        decoder(data[1:])


def _link(message: bytes) -> None:
    link = rtnetlink.decode_link(message)
    assert isinstance(link, Link)
    assert "\0" not in link.name[-1:]
    hash(link)


def _address(message: bytes) -> None:
    address = rtnetlink.decode_address(message, NAMES)
    if address is not None:
        assert rtnetlink.packed(address.address)
        assert address.dev in INDEXES


def _route(message: bytes) -> None:
    route = rtnetlink.decode_route(message, NAMES)
    rtnetlink.route_nexthop(message)
    rtnetlink.route_protocol(message)
    if route is None:
        return
    assert len(route.hops) <= len(message)
    known = all(hop.dev in INDEXES and hop.weight <= 256 for hop in route.hops)
    single = len(route.hops) == 1
    if known and route.kind in rtnetlink.KINDS.values() and not route.from_prefix:
        if single:
            route = replace(route, hops=(replace(route.hops[0], weight=1),))
        again = rtnetlink.decode_route(rtnetlink.encode_route(route, INDEXES), NAMES)
        assert again == route, "a route that we would lay otherwise than it was"


def _rule(message: bytes) -> None:
    rule = rule_messages.decode_rule(message)
    rule_messages.rule_protocol(message)
    if rule is None or rule.action.isdecimal() or rule.unfollowed:
        return
    has_valid_suppressors = min(rule.suppress_prefixlength, rule.suppress_ifgroup) >= -1
    has_valid_goto = rule.action == "goto" or not rule.goto
    if has_valid_suppressors and has_valid_goto and (rule.mask or not rule.mark):
        again = rule_messages.decode_rule(rule_messages.encode_rule(rule))
        assert again == rule, "a rule that we would delete otherwise than it is"


def _neighbour(message: bytes) -> None:
    neighbour = rtnetlink.decode_neighbour(message, NAMES)
    rtnetlink.neighbour_state(message)
    if neighbour is not None:
        assert rtnetlink.packed(neighbour.address)


def _nexthops(packet: bytes) -> None:
    messages = [body for *_, body in netlink.messages(packet)]
    for number, hops in nexthops.decode_nexthops(messages, NAMES).items():
        assert number >= 0
        assert len(hops) <= len(packet)


def _sockets(packet: bytes) -> None:
    for *_, message in netlink.messages(packet):
        if len(message) < sockdiag.MESSAGE_BYTES:
            continue
        assert sockdiag.mptcp_token(message) in (None, b"") or b"mptcp" in message
        for family, port in sockdiag.wildcard_ports(message):
            assert family in (4, 6)
            assert 0 < port < 65536
        assert sockdiag.text(sockdiag.local_address(message))
        assert len(sockdiag.query_one(message)) == 56


def _statistics(packet: bytes) -> None:
    monitor = object.__new__(tcp_stats.TcpMonitor)
    monitor._moved = {}
    messages = [body for *_, body in netlink.messages(packet)]
    for _ in range(2):
        stats = monitor._count(messages, dict(monitor._moved), 0.0)
        for address, each in stats.items():
            assert rtnetlink.packed(address)
            assert isinstance(each, TcpStats)


def _flows(packet: bytes) -> None:
    for family in (4, 6):
        own = [rtnetlink.packed(text) for text in {4: ["203.0.113.10"], 6: ["2001:db8::1"]}[family]]
        for tuple_ in conntrack._reply_tuple_finder(family, own)(packet):
            assert packet.count(tuple_)
        for *_, message in netlink.messages(packet):
            conntrack.decode_flow(family, attributes(message, 4))
            count_connections.decode_flow(message)
            end_returning.decode_flow(message)


def _route_reply(message: bytes) -> None:
    reply = decode_reply(0, message, NAMES)
    assert reply.kind


class _Socket:
    """Sends one packet of notifications."""

    def __init__(self, packet: bytes) -> None:
        self._packet = packet

    def recv_into(self, view: memoryview, *_: Any) -> int:
        if not self._packet:
            raise BlockingIOError
        packet, self._packet = self._packet[: len(view)], b""
        view[: len(packet)] = packet
        return len(packet)

    def setsockopt(self, *_: Any) -> None: ...

    def close(self) -> None: ...


_LINKS = tuple(Link(index, name) for index, name in NAMES.items())


def _watch(packet: bytes) -> None:
    with (
        patch.object(watch, "Netlink", lambda: _Socket(b"")),
        patch.object(watch, "_joined", lambda protocol, groups: _Socket(packet)),
        patch.object(watch, "read_links", lambda netlink: _LINKS),
    ):
        events = watch.Watch().read()
    assert len(events) <= len(packet) // HEADER.size + 1 + len(NAMES)  # after an overrun, all links
    assert len(set(events)) == len(events)


DECODERS: tuple[Callable[[bytes], None], ...] = (
    *(_link, _address, _route, _rule, _neighbour, _nexthops, _sockets, _statistics, _flows),
    *(_route_reply, _watch),
)
