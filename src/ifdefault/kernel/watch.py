"""What changes in this network namespace, as the kernel tells it (rtnetlink(7), nf_tables).

Rules: never waits. What changes nothing that we use is passed over: statistics and wireless news
of a link, a neighbour's way through its states, lifetimes, the local table. Equal events are told
once a read, in the order of their last occurrence, so that the last word on a thing is the last.
What the kernel couldn't deliver shows as Overrun: all must be read again.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ifdefault.kernel import rtnetlink
from ifdefault.kernel.netlink import (
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    Netlink,
    attributes,
    u32,
)
from ifdefault.kernel.read import read_links
from ifdefault.model.kernel import OWN_TABLES, PROTOCOL, TABLE_LOCAL, Link

Kind = Literal["address", "route", "rule", "nexthop", "nft"]


@dataclass(frozen=True, order=True, slots=True)
class LinkChanged:
    """A link came, went, or changed in a way that matters (also its name, group or MAC)."""

    name: str
    index: int
    up: bool = False  # administratively
    carrier: bool = False
    gone: bool = False


@dataclass(frozen=True, order=True, slots=True)
class NeighbourChanged:
    """`reachable` False: it doesn't answer (NUD_FAILED); None: the kernel has forgotten it."""

    dev: str
    address: str
    reachable: bool | None
    mac: str = ""


@dataclass(frozen=True, order=True, slots=True)
class Changed:
    """Something of a kind was added, changed or deleted; `ours`: it bears our number or name,
    whoever did it."""

    kind: Kind
    ours: bool = False


@dataclass(frozen=True, order=True, slots=True)
class Overrun:
    """Events were lost."""


Event = LinkChanged | NeighbourChanged | Changed | Overrun

_MESSAGES = 1024  # a read; the rest is there for the next
_BUFFER_BYTES = 1 << 17  # a link with many virtual functions tells tens of KiB
_QUEUE_BYTES = 8 << 20
_SO_RCVBUFFORCE, _SOL_NETLINK, _ADD_MEMBERSHIP = 33, 270, 1
# RTNLGRP_: link, neigh, v4 and v6 addresses, routes, rules, nexthops (linux/rtnetlink.h)
_ROUTE_GROUPS = (1, 3, 5, 9, 7, 11, 8, 19, 32)
_NFT_GROUPS = (7,)  # NFNLGRP_NFTABLES
_HEADER = struct.Struct("=IHHII")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")
_DELLINK, _NEWADDR, _DELADDR, _DELNEIGH, _NEWNEXTHOP = 17, 20, 21, 29, 104
_GROUP = 27
_ADDRESS_FLAGS = 0x01 | 0x04 | 0x08 | 0x20 | 0x40  # those that rtnetlink's decoder reads
_USABLE, _FAILED = 0x02 | 0x04 | 0x08 | 0x10 | 0x80, 0x20  # as rtnetlink's decoder has it
_NEWGEN = 15  # tells that a transaction has ended, and nothing of what was in it
_OWN_TABLES = tuple(
    struct.pack("=HH", 4 + len(name) + 1, 1) + name.encode() + b"\0" for name in OWN_TABLES
)


class Watch:
    """In the network namespace of the thread that makes it. Wait for either of `sockets` to be
    readable, then `read`. `interfaces` limits whose neighbours are told; None: all."""

    def __init__(self, interfaces: frozenset[str] | None = None) -> None:
        self.interfaces = interfaces
        self._buffer = bytearray(_BUFFER_BYTES)
        self._neighbours: dict[tuple[int, bytes], tuple[bool, str]] = {}
        self._addresses: dict[bytes, int] = {}
        self._links: dict[int, Link] = {}
        self._asking = Netlink()
        self._route = _joined(NETLINK_ROUTE, _ROUTE_GROUPS)
        self._nft = _joined(NETLINK_NETFILTER, _NFT_GROUPS)
        self.sockets = (self._route, self._nft)
        self._read_links()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for sock in (*self.sockets, self._asking):
            sock.close()

    def read(self) -> list[Event]:
        """What has happened since the last read, or a part of it; then a socket is still
        readable."""
        found: dict[Event, None] = {}
        for sock, told in ((self._route, self._routing), (self._nft, _filtering)):
            self._drain(sock, told, found)
        return list(found)

    def _drain(
        self,
        sock: socket.socket,
        told: Callable[[int, bytes], Event | None],
        found: dict[Event, None],
    ) -> None:
        view = memoryview(self._buffer)
        for _ in range(_MESSAGES):
            try:
                size = sock.recv_into(view, 0, socket.MSG_TRUNC)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._lost(found)
                continue
            if size > len(view):
                self._lost(found)
                continue
            offset = 0
            while offset < size:
                length, kind, *_rest = _HEADER.unpack_from(view, offset)
                event = told(kind, bytes(view[offset + _HEADER.size : offset + length]))
                if event is not None:
                    found.pop(event, None)
                    found[event] = None
                offset += (length + 3) & ~3

    def _lost(self, found: dict[Event, None]) -> None:
        """Forget what we knew, but tell which links have changed."""
        if Overrun() not in found:
            found[Overrun()] = None
            self._neighbours.clear()
            self._addresses.clear()
            before = self._links
            self._read_links()
            for index in before.keys() | self._links.keys():
                now = self._links.get(index)
                if now != before.get(index):
                    found[_link_event(now or before[index], gone=not now)] = None

    def _read_links(self) -> None:
        self._links = {link.index: link for link in read_links(self._asking)}

    def _routing(self, kind: int, message: bytes) -> Event | None:
        of = kind & ~3  # an object's NEW, DEL, GET and SET follow one another
        if of == rtnetlink.NEWROUTE:
            own, table = message[5] == PROTOCOL, message[4]
            return None if table == TABLE_LOCAL else Changed("route", own)
        if of == rtnetlink.NEWNEIGH:
            return self._neighbour(kind == _DELNEIGH, message)
        if of == rtnetlink.NEWLINK:
            return self._link(kind == _DELLINK, message)
        if of == rtnetlink.NEWRULE:
            own = attributes(message, 12).get(21) == bytes([PROTOCOL])
            return Changed("rule", own)
        if of == _NEWADDR:
            return self._address(kind == _DELADDR, message)
        if of == _NEWNEXTHOP:
            return Changed("nexthop", message[2] == PROTOCOL)
        return None

    def _link(self, gone: bool, message: bytes) -> Event | None:
        if _GROUP not in attributes(message, 16):  # a wireless event, or a bridge's on its port
            return None
        link = rtnetlink.decode_link(message)
        if gone:
            self._links.pop(link.index, None)
        elif self._links.get(link.index) == link:
            return None
        else:
            self._links[link.index] = link
        return _link_event(link, gone=gone)

    def _address(self, gone: bool, message: bytes) -> Event | None:
        """Router advertisements lengthen the same address's life again and again."""
        found = attributes(message, 8)
        flags = u32(found.get(8), message[2]) & _ADDRESS_FLAGS
        key = message[:2] + message[4:8] + found.get(1, b"") + b"/" + found.get(2, b"")
        if gone:
            self._addresses.pop(key, None)
        elif self._addresses.get(key) == flags:
            return None
        else:
            self._addresses[key] = flags
        return Changed("address")

    def _neighbour(self, gone: bool, message: bytes) -> Event | None:
        family, index, state, _, _ = _NEIGHBOUR.unpack_from(message)
        link = self._links.get(index)
        if link is None or family not in (socket.AF_INET, socket.AF_INET6):  # AF_BRIDGE
            return None
        if self.interfaces is not None and link.name not in self.interfaces:
            return None
        found = attributes(message, _NEIGHBOUR.size)
        raw = found.get(1, b"")
        known = self._neighbours.get((index, raw))
        address = socket.inet_ntop(family, raw)
        if gone:
            self._neighbours.pop((index, raw), None)
            return NeighbourChanged(link.name, address, None) if known else None
        if not state & (_USABLE | _FAILED):  # being asked for: what was known holds until answered
            return None
        reachable = bool(state & _USABLE)
        fresh = reachable, found.get(2, b"").hex(":") if reachable else ""
        self._neighbours[index, raw] = fresh
        return None if fresh == known else NeighbourChanged(link.name, address, *fresh)


def _joined(protocol: int, groups: tuple[int, ...]) -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    sock = socket.socket(socket.AF_NETLINK, kind, protocol)
    try:
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _QUEUE_BYTES)
        except PermissionError:  # in a user namespace: as much as net.core.rmem_max grants
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE_BYTES)
        sock.bind((0, 0))
        for group in groups:
            sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    except OSError:
        sock.close()
        raise
    return sock


def _link_event(link: Link, *, gone: bool = False) -> LinkChanged:
    if gone:
        return LinkChanged(link.name, link.index, gone=True)
    return LinkChanged(link.name, link.index, link.up, link.carrier)


def _filtering(kind: int, message: bytes) -> Event | None:
    """Every object's first attribute is its table's name (linux/netfilter/nf_tables.h)."""
    if kind & 0xFF == _NEWGEN:
        return None
    return Changed("nft", message.startswith(_OWN_TABLES, 4))
