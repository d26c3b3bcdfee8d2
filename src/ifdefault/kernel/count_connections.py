"""The connections that are left on an uplink: TCP sockets of this host, and tracked flows.

Rules: reads only. Counted are established TCP connections, and flows of UDP that go both ways
(QUIC, VPNs), without those to or from port 53, where each query is a flow of its own. The host's
own TCP connections are sockets, forwarded ones are flows: none is counted twice. The kernel doesn't
know when a socket was opened, but how long it was idle, and how long busy. Of very many only some
are read.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from ifdefault.kernel import conntrack, sockdiag, socket_filter
from ifdefault.kernel.decoding import decodes
from ifdefault.kernel.netlink import Netlink, attribute, attributes, u32
from ifdefault.kernel.rtnetlink import packed
from ifdefault.kernel.socket_filter import Prefixes
from ifdefault.kernel.uapi import inet_diag as diag
from ifdefault.kernel.uapi import netfilter as nf
from ifdefault.kernel.uapi.netlink import NETLINK_NETFILTER, NETLINK_SOCK_DIAG
from ifdefault.model.config import FAMILIES

MOST = 10_000  # sockets and flows of an uplink that are read, each
# in struct tcp_info: milliseconds since data was sent, since data and an ACK were received; and
# microseconds in which there was something to send
_LAST_SENT, _LAST_RECEIVED, _LAST_ACK, _BUSY = 44, 52, 56, slice(168, 176)
_DNS, _TCP, _UDP = 53, socket.IPPROTO_TCP, socket.IPPROTO_UDP
_QUESTION = attribute(nf.CTA_PROTO_DST_PORT, _DNS.to_bytes(2))
_TCP_INFO = nf.CTA_PROTOINFO_TCP

Connections = Mapping[bytes, float]  # what identifies each, and how old it is at least, in seconds


@dataclass(frozen=True, slots=True)
class Selector:
    """Which connections are an uplink's: those from its addresses, or with one of its marks under
    the mask; none with a peer that is `spared`, as it is reached without the uplink. `own`: all
    addresses of this host; `ignored`: the user whose sockets don't count."""

    addresses: tuple[str, ...]
    marks: tuple[int, ...]
    mask: int
    spared: tuple[str, ...]
    own: tuple[str, ...]
    ignored: int = -1


def connections(selector: Selector) -> Connections:
    return {**_sockets(selector), **_flows(selector)}


# --- sockets ------------------------------------------------------------------------------


def _sockets(selector: Selector) -> dict[bytes, float]:
    own, spared = Prefixes(selector.addresses), Prefixes(selector.spared)
    marks = [socket_filter.is_marked(mark, selector.mask) for mark in selector.marks]
    program = socket_filter.program([*own.sources(), *marks], spared.destinations())
    query = sockdiag.query_both((diag.TCP_ESTABLISHED,), program, diag.INET_DIAG_INFO)
    with Netlink(NETLINK_SOCK_DIAG) as netlink:
        return {
            message[sockdiag.COOKIE]: _least_age_s(message)
            for message in islice(netlink.stream(diag.TCPDIAG_GETSOCK, query), MOST)
            if sockdiag.uid(message) != selector.ignored
            and (
                sockdiag.local_address(message) in own
                or sockdiag.mark(message) & selector.mask in selector.marks
            )
            and sockdiag.remote_address(message) not in spared
        }


@decodes
def _least_age_s(message: bytes) -> float:
    """A socket that was idle for an hour, or busy sending for one, is that old at least."""
    info = attributes(message, sockdiag.MESSAGE_BYTES).get(diag.INET_DIAG_INFO, b"")
    if len(info) < _BUSY.stop:
        return 0.0
    idle_ms = max(u32(info[offset:]) for offset in (_LAST_SENT, _LAST_RECEIVED, _LAST_ACK))
    busy_us = int.from_bytes(info[_BUSY], "little")
    return max(idle_ms / 1000, busy_us / 1e6)


# --- flows --------------------------------------------------------------------------------


def _flows(selector: Selector) -> dict[bytes, float]:
    """Flows by an address are the host's own, flows by a mark are those that it forwards."""
    if not conntrack.count():  # avoid loading the module if nothing is tracked
        return {}
    addresses = frozenset(map(packed, selector.addresses))
    own = frozenset(map(packed, selector.own))
    spared = Prefixes(selector.spared)
    found: dict[bytes, float] = {}
    for family in FAMILIES:
        with Netlink(NETLINK_NETFILTER) as netlink:
            for flow in _decoded(conntrack.udp(netlink, family)):
                ends = flow.source, flow.destination
                near, far = ends if ends[0] in addresses else ends[::-1]
                if near in addresses and _mapped(far) not in spared and flow.is_of(_UDP):
                    found[flow.id] = 0.0
    for mark in selector.marks:
        with Netlink(NETLINK_NETFILTER) as netlink:
            for flow in _decoded(conntrack.marked(netlink, mark, selector.mask)):
                if own.isdisjoint((flow.source, flow.answers)) and flow.is_of(_UDP, _TCP):
                    found[flow.id] = 0.0
    return found


def _mapped(address: bytes) -> bytes:
    return sockdiag.MAPPED + address if len(address) == 4 else address


def _decoded(entries: Iterator[bytes]) -> Iterator[Flow]:
    """The first of those that aren't to port 53, of which a DNS server may have very many."""
    others = (entry for entry in entries if _QUESTION not in entry)
    return (decode_flow(entry) for entry in islice(others, MOST))


@dataclass(frozen=True, slots=True)
class Flow:
    """`answers`: the destination behind any translation of addresses."""

    id: bytes
    protocol: int
    source: bytes
    destination: bytes
    answers: bytes
    ports: tuple[int, int]
    lasts: bool  # both ends have sent, and go on

    def is_of(self, *protocols: int) -> bool:
        is_question = self.protocol == _UDP and _DNS in self.ports
        return self.lasts and self.protocol in protocols and not is_question


@decodes
def decode_flow(entry: bytes) -> Flow:
    found, original, reply = conntrack.decode_tuples(entry)
    lasts = bool(int.from_bytes(found.get(nf.CTA_STATUS, b"")) & nf.IPS_ASSURED)
    if original.protocol == _TCP:
        tcp = attributes(attributes(found.get(nf.CTA_PROTOINFO, b""), 0).get(_TCP_INFO, b""), 0)
        lasts = tcp.get(nf.CTA_PROTOINFO_TCP_STATE) == bytes([nf.TCP_CONNTRACK_ESTABLISHED])
    return Flow(
        found[nf.CTA_ID],
        original.protocol,
        original.source,
        original.destination,
        reply.source,
        original.ports,
        lasts,
    )
