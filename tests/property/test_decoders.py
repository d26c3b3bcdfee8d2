"""What the kernel and other programs send is decoded, or refused with an error of ours: whatever
its bytes are."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifdefault.kernel import (
    conntrack,
    count_connections,
    end_returning,
    link_stats,
    netlink,
    nexthops,
    nftlink,
    route_get,
    rule_messages,
    sockdiag,
)
from ifdefault.kernel import rtnetlink as r
from ifdefault.kernel.ebpf import attach
from ifdefault.kernel.filters import filter_chains
from ifdefault.kernel.foreign import foreign_marks, reverse_path_filters
from ifdefault.kernel.netlink import attribute, attribute_u32, nested
from ifdefault.kernel.tcp_stats import TcpMonitor
from ifdefault.kernel.uapi import inet_diag as diag
from ifdefault.kernel.uapi import netfilter as nf
from ifdefault.kernel.uapi import rtnetlink as rt
from ifdefault.kernel.watch import Watch
from ifdefault.model.errors import IfdefaultError
from ifdefault.model.kernel import SLOTS, Hook, Hop, Route, Rule
from ifdefault.model.kernel_events import Overrun
from ifdefault.model.text import escaped, from_bytes, to_bytes

RULESETS = Path(__file__).parents[1] / "unit" / "rulesets"
NAMES, INDEXES = {1: "lo", 2: "wan0"}, {"lo": 1, "wan0": 2}
ADDRESS = bytes([203, 0, 113, 10])
LINK = r.LINK.pack(0, 0, 1, 2, 1, 0) + b"".join(
    (
        attribute(rt.IFLA_IFNAME, b"w\xffn0\0"),
        attribute(rt.IFLA_ADDRESS, bytes(6)),
        attribute_u32(rt.IFLA_GROUP, 7),
        nested(rt.IFLA_LINKINFO, attribute(rt.IFLA_INFO_KIND, b"veth\0")),
        nested(rt.IFLA_PROP_LIST, attribute(rt.IFLA_ALT_IFNAME, b"\x1b[31m\0")),
    )
)
ADDRESSED = struct.pack("=BBBBI", socket.AF_INET, 24, 0, 0, 2) + b"".join(
    (attribute(rt.IFA_LOCAL, ADDRESS), attribute(rt.IFA_ADDRESS, ADDRESS))
)
HOPS = (Hop("wan0", "203.0.113.1"), Hop("wan0", "203.0.113.2", weight=2))
ROUTE = r.encode_route(Route(4, 1000, "default", 5, "unicast", HOPS, metrics=((2, 1400),)), INDEXES)
RULE = rule_messages.encode_rule(
    Rule(4, 5000, "lookup", 1000, src="203.0.113.0/24", iif="wan0", uids=(0, 9))
)
NEIGHBOUR = r.encode_neighbour("203.0.113.1", 2, rt.NUD_REACHABLE) + attribute(2, bytes(6))
NEXTHOP = struct.pack("=BBBxI", 2, 0, 0, 0) + b"".join(
    (attribute_u32(rt.NHA_ID, 7), attribute(rt.NHA_GROUP, struct.pack("=IBBxx", 7, 0, 0)))
)
TUPLE = (
    nested(
        nf.CTA_TUPLE_IP,
        attribute(nf.CTA_IP_V4_SRC, ADDRESS),
        attribute(nf.CTA_IP_V4_DST, ADDRESS),
    ),
    nested(
        nf.CTA_TUPLE_PROTO,
        attribute(nf.CTA_PROTO_NUM, bytes([socket.IPPROTO_UDP])),
        attribute(nf.CTA_PROTO_DST_PORT, b"\0\x35"),
    ),
)
FLOW = bytes(4) + nested(nf.CTA_TUPLE_ORIG, *TUPLE) + nested(nf.CTA_TUPLE_REPLY, *TUPLE)
COUNTED = bytes([socket.AF_INET]) + FLOW[1:] + attribute(nf.CTA_ID, bytes(4))
COUNTED += attribute(nf.CTA_STATUS, bytes(4))
SOCKET = bytes([socket.AF_INET6, diag.TCP_ESTABLISHED]) + bytes(70)
SOCKET += attribute(diag.INET_DIAG_INFO, bytes(200)) + attribute(diag.INET_DIAG_SKV6ONLY, b"\1")
SUBFLOW = SOCKET + nested(
    diag.INET_DIAG_ULP_INFO,
    attribute(1, b"mptcp\0"),
    nested(diag.INET_ULP_INFO_MPTCP, attribute_u32(diag.MPTCP_SUBFLOW_ATTR_TOKEN_LOC, 0xF320FA6C)),
)
STATS = bytes(12) + attribute(rt.IFLA_STATS_LINK_64, bytes(64))
COMMENT = bytes(4) + attribute(nf.NFTA_TABLE_USERDATA, b"\0\5a\xff\0")
STATE = attach._encode(Hook(0x3F000000, ((4, (1,) * SLOTS),)))[attach._TEXT_AT :]

TCP, WATCH = TcpMonitor(), Watch()
# each decoder, with a message that it understands
DECODERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "link": (r.decode_link, LINK),
    "address": (lambda m: r.decode_address(m, NAMES), ADDRESSED),
    "route": (lambda m: r.decode_route(m, NAMES), ROUTE),
    "route's parts": (
        lambda m: (r.is_default(m), r.route_protocol(m), r.route_nexthop(m)),
        ROUTE,
    ),
    "rule": (lambda m: (rule_messages.decode_rule(m), rule_messages.rule_protocol(m)), RULE),
    "neighbour": (lambda m: (r.decode_neighbour(m, NAMES), r.neighbour_state(m)), NEIGHBOUR),
    "nexthops": (lambda m: (nexthops.decode_nexthops([m], NAMES), r.nexthop_protocol(m)), NEXTHOP),
    "route lookup": (lambda m: route_get.decode_reply(0, m, NAMES), ROUTE),
    "flow": (lambda m: conntrack.decode_flow(4, netlink.attributes(m, 4)), FLOW),
    "flow that is counted": (count_connections.decode_flow, COUNTED),
    "flow that returns": (lambda m: (end_returning.decode_flow(m), conntrack._key(m)), COUNTED),
    "age of a socket": (count_connections._least_age_s, SOCKET),
    "token of MPTCP": (sockdiag.mptcp_token, SUBFLOW),
    "wildcard": (sockdiag.wildcard_ports, SOCKET),
    "listener": (sockdiag.decode_listener, SOCKET),
    "TCP statistics": (lambda m: TCP._count([m], {}, 0.0), SOCKET),
    "link statistics": (link_stats.decode_link_stats, STATS),
    "table's comment": (nftlink.decode_comment, COMMENT),
    "eBPF state": (attach.decode_state, STATE),
    "framing": (
        lambda m: list(netlink.messages(m)),
        netlink.HEADER.pack(36, 3, 0, 1, 0) + bytes(20),
    ),
    "error": (lambda m: netlink._raise_error(m, 0xFFFF), bytes(20) + attribute(1, b"no\xff")),
    **{
        f"notification {kind}": (partial(WATCH._decode_route, kind), message)
        for kind, message in (
            (rt.RTM_NEWLINK, LINK),
            (rt.RTM_NEWADDR, ADDRESSED),
            (rt.RTM_NEWROUTE, ROUTE),
            (rt.RTM_NEWRULE, RULE),
            (rt.RTM_NEWNEIGH, NEIGHBOUR),
            (rt.RTM_NEWNEXTHOP, NEXTHOP),
        )
    },
}


@st.composite
def damaged(draw: st.DrawFn, message: bytes) -> bytes:
    """A message that was truncated, and some of whose bytes were changed."""
    data = bytearray(message)
    for _ in range(draw(st.integers(0, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(
            st.sampled_from([0, 1, 3, 4, 5, 8, 127, 255])
        )
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@pytest.mark.parametrize("name", DECODERS)
def test_a_message_is_understood(name: str) -> None:
    decode, message = DECODERS[name]
    decode(message)


@settings(max_examples=60)
@pytest.mark.parametrize("name", DECODERS)
@given(data=st.data())
def test_any_bytes_give_a_value_or_an_os_error(name: str, data: st.DataObject) -> None:
    decode, message = DECODERS[name]
    given_bytes = data.draw(damaged(message) | st.binary(max_size=64))
    with suppress(OSError):
        decode(given_bytes)


def test_a_notification_that_is_not_understood_has_everything_read_again() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    header = netlink.HEADER.pack(16 + 6, rt.RTM_NEWADDR, 0, 0, 0)
    with ours, theirs, Watch() as watch:
        watch._route.close()
        watch._route = ours
        for packet in (header + bytes(6), b"\1", netlink.HEADER.pack(0, 0, 0, 0, 0)):
            theirs.send(packet)
            assert watch.read() == [Overrun()]
        theirs.send(netlink.HEADER.pack(16 + len(RULE), rt.RTM_NEWRULE, 0, 0, 0) + RULE)
        assert len(watch.read()) == 1


# --- nft and iptables -----------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 70000)
    | st.sampled_from(["set", "mark", "@a", "x"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["match", "set", "meta", "key", "val", "elem", "range", "&", "op", "left"]
            ),
            inner,
            max_size=2,
        )
    ),
    max_leaves=6,
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each (container, key) in a JSON value."""
    for key in range(len(value)) if isinstance(value, list) else value:
        yield value, key
        if isinstance(value[key], list | dict):
            yield from places(value[key])


RULESET = (RULESETS / "firewalld_public.json").read_text()
PLACES = sum(1 for _ in places(json.loads(RULESET)))
SAVED = (RULESETS / "ufw_22.iptables").read_text().splitlines(keepends=True)


def read_all(ruleset: str, saved: str) -> None:
    listed = (("iptables", saved),)
    foreign_marks(ruleset, listed), reverse_path_filters(ruleset)
    filter_chains(ruleset, listed), filter_chains(ruleset, listed, "forward")


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, PLACES - 1), JSON), max_size=3))
def test_rules_of_a_later_nft_cost_those_rules_alone(changes: list[tuple[int, Any]]) -> None:
    ruleset = json.loads(RULESET)
    for number, value in changes:
        found = list(places(ruleset))
        container, key = found[number % len(found)]
        container[key] = value
    try:
        read_all(json.dumps(ruleset), "")
    except IfdefaultError:
        assert not isinstance(ruleset.get("nftables"), list)


@settings(max_examples=60)
@given(st.data())
def test_any_line_of_iptables_is_read(data: st.DataObject) -> None:
    lines = list(SAVED)
    at = data.draw(st.integers(0, len(lines) - 1))
    cut = data.draw(st.integers(0, len(lines[at])))
    lines[at] = lines[at][:cut] + data.draw(st.text(" '\"-:*!/jmA0x\\", max_size=6)) + "\n"
    read_all('{"nftables": []}', "".join(lines))


@given(st.text(max_size=8))
def test_what_is_no_listing_is_an_error_of_ours(text: str) -> None:
    with pytest.raises(IfdefaultError):
        foreign_marks(text, ())


# --- text -----------------------------------------------------------------------------------


@given(st.binary(max_size=20))
def test_names_are_bytes_and_a_terminal_sees_none_that_it_obeys(name: bytes) -> None:
    text = from_bytes(name)
    assert to_bytes(text) == name.partition(b"\0")[0]
    assert escaped(text).isprintable()


@given(st.text(max_size=20))
def test_escaped_text_is_printable_and_stays_so(text: str) -> None:
    assert escaped(text).isprintable()
    assert escaped(escaped(text)) == escaped(text)
