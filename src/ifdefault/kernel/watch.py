"""Watch changes in this network namespace by netlink notifications (rtnetlink(7), nf_tables).

Rules: never blocks. Irrelevant changes are ignored: a link's statistics and wireless events, a
neighbour's intermediate states, lifetimes, the kernel's own routes in table local. Equal events are
reported once per read, in the order of their last occurrence, so that the last event about an
object is the latest.
Overrun means that the kernel dropped notifications: everything must be read again.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from contextlib import suppress

from ifdefault.kernel import nftlink, route_filter, rtnetlink, rule_messages
from ifdefault.kernel.decoding import decodes
from ifdefault.kernel.netlink import Netlink, attribute, attributes, messages
from ifdefault.kernel.read import read_links
from ifdefault.kernel.uapi import netfilter as nf
from ifdefault.kernel.uapi import netlink as nl
from ifdefault.kernel.uapi import rtnetlink as rt
from ifdefault.kernel.uapi.socket import SO_RCVBUFFORCE
from ifdefault.model.kernel import OWN_TABLES, PROTOCOL, Address, Link
from ifdefault.model.kernel_events import (
    KernelChange,
    LinkChanged,
    NeighbourChanged,
    ObjectChanged,
    Overrun,
)

_MESSAGES = 1024  # per socket and read; the rest remains for the next read
_BUFFER_BYTES = 1 << 17  # a link with many virtual functions has tens of KiB
_QUEUE_BYTES = 8 << 20
_ROUTE_GROUPS = (
    *(rt.RTNLGRP_LINK, rt.RTNLGRP_NEIGH, rt.RTNLGRP_NEXTHOP),
    *(rt.RTNLGRP_IPV4_IFADDR, rt.RTNLGRP_IPV4_ROUTE, rt.RTNLGRP_IPV4_RULE),
    *(rt.RTNLGRP_IPV6_IFADDR, rt.RTNLGRP_IPV6_ROUTE, rt.RTNLGRP_IPV6_RULE),
)
_NFT_GROUPS = (nf.NFNLGRP_NFTABLES,)
# marks the end of a transaction, without its contents
_NEWGEN = nf.NFNL_SUBSYS_NFTABLES << 8 | nf.NFT_MSG_NEWGEN
_OWN_TABLES = tuple(attribute(nf.NFTA_TABLE_NAME, name.encode() + b"\0") for name in OWN_TABLES)


class Watch:
    """Watches the network namespace of the thread that creates it. Wait until one of `sockets` is
    readable, then call `read`. Neighbours are reported for `interfaces`, or for all if it is None;
    routes for all tables, or for those of `keep_tables`.
    `own_ports` are port ids (`Netlink.port`) of sockets whose changes aren't reported."""

    def __init__(self, interfaces: frozenset[str] | None = None) -> None:
        self.interfaces = interfaces
        self._buffer = bytearray(_BUFFER_BYTES)
        self.own_ports: frozenset[int] = frozenset()
        self._neighbours: dict[tuple[str, str], NeighbourChanged] = {}
        self._addresses: dict[tuple[str, str, int, str], Address] = {}
        self._links: dict[int, Link] = {}
        self._names: dict[int, str] = {}
        self._netlink = Netlink()
        self._route = _joined(nl.NETLINK_ROUTE, _ROUTE_GROUPS)
        with nftlink.required():
            self._nft = _joined(nl.NETLINK_NETFILTER, _NFT_GROUPS)
        self.sockets = (self._route, self._nft)
        self._tables: frozenset[int] | None = None  # None: all
        route_filter.keep_tables(self._route, None)
        self._read_links()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for sock in (*self.sockets, self._netlink):
            sock.close()

    def keep_tables(self, tables: frozenset[int]) -> bool:
        """From now on, report the routes of these tables only, and ours. True if changes of one of
        them weren't reported until now."""
        before, self._tables = self._tables, tables
        if tables != before:
            route_filter.keep_tables(self._route, tables)
        return before is not None and not tables <= before

    def read(self) -> list[KernelChange]:
        """The changes since the last read. If some remain, a socket stays readable."""
        events: dict[KernelChange, None] = {}
        for sock, decode in ((self._route, self._decode_route), (self._nft, _decode_nft)):
            self._drain(sock, decode, events)
        return list(events)

    def _drain(
        self,
        sock: socket.socket,
        decode: Callable[[int, bytes], KernelChange | None],
        events: dict[KernelChange, None],
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
                self._overrun(events)
                continue
            if size > len(view):
                self._overrun(events)
                continue
            try:
                for kind, _, _, port, message in messages(bytes(view[:size])):
                    event = decode(kind, message)
                    if event is not None and port not in self.own_ports:
                        events.pop(event, None)
                        events[event] = None
            except OSError:  # not understood: what it says can be read
                self._overrun(events)

    def _overrun(self, events: dict[KernelChange, None]) -> None:
        """Discard all state, but report the links that have changed."""
        if Overrun() not in events:
            events[Overrun()] = None
            self._neighbours.clear()
            self._addresses.clear()
            before = self._links
            with suppress(OSError):  # the look that follows will say why
                self._read_links()
            for index in before.keys() | self._links.keys():
                now = self._links.get(index)
                if now != before.get(index):
                    events[_link_event(now or before[index], deleted=not now)] = None

    def _read_links(self) -> None:
        self._links = {link.index: link for link in read_links(self._netlink)}
        self._names = {link.index: link.name for link in self._links.values()}

    @decodes
    def _decode_route(self, kind: int, message: bytes) -> KernelChange | None:
        base = kind & ~3  # NEW, DEL, GET and SET of a kind are consecutive
        if base == rt.RTM_NEWROUTE:
            return ObjectChanged("route", rtnetlink.route_protocol(message) == PROTOCOL)
        if base == rt.RTM_NEWNEIGH:
            return self._neighbour(kind == rt.RTM_DELNEIGH, message)
        if base == rt.RTM_NEWLINK:
            return self._link(kind == rt.RTM_DELLINK, message)
        if base == rt.RTM_NEWRULE:
            return ObjectChanged("rule", rule_messages.rule_protocol(message) == PROTOCOL)
        if base == rt.RTM_NEWADDR:
            return self._address(kind == rt.RTM_DELADDR, message)
        if base == rt.RTM_NEWNEXTHOP:
            return ObjectChanged("nexthop", rtnetlink.nexthop_protocol(message) == PROTOCOL)
        return None

    def _link(self, deleted: bool, message: bytes) -> KernelChange | None:
        # missing from wireless events, and from a bridge's events about its ports
        if rt.IFLA_GROUP not in attributes(message, rtnetlink.LINK.size):
            return None
        link = rtnetlink.decode_link(message)
        if deleted:
            self._links.pop(link.index, None)
            self._names.pop(link.index, None)
        elif self._links.get(link.index) == link:
            return None
        else:
            self._links[link.index], self._names[link.index] = link, link.name
        return _link_event(link, deleted=deleted)

    def _address(self, deleted: bool, message: bytes) -> KernelChange | None:
        """Changed lifetimes, as by every router advertisement, are ignored."""
        address = rtnetlink.decode_address(message, self._names)
        if address is not None:
            key = address.dev, address.address, address.prefixlen, address.peer
            if deleted:
                self._addresses.pop(key, None)
            elif self._addresses.get(key) == address:
                return None
            else:
                self._addresses[key] = address
        return ObjectChanged("address")

    def _neighbour(self, deleted: bool, message: bytes) -> KernelChange | None:
        neighbour = rtnetlink.decode_neighbour(message, self._names)
        if neighbour is None:  # of a bridge or a multipoint tunnel
            return None
        dev, address = key = neighbour.dev, neighbour.address
        if self.interfaces is not None and dev not in self.interfaces:
            return None
        if deleted:
            known = self._neighbours.pop(key, None)
            return NeighbourChanged(dev, address, None) if known else None
        state = rtnetlink.neighbour_state(message)
        if not state & (rtnetlink.NUD_USABLE | rt.NUD_FAILED):
            return None  # being resolved: the previous state applies meanwhile
        event = NeighbourChanged(dev, address, bool(state & rtnetlink.NUD_USABLE), neighbour.mac)
        known, self._neighbours[key] = self._neighbours.get(key), event
        return None if event == known else event


def _joined(protocol: int, groups: tuple[int, ...]) -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    sock = socket.socket(socket.AF_NETLINK, kind, protocol)
    try:
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _QUEUE_BYTES)
        except PermissionError:  # in a user namespace: limited by net.core.rmem_max
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE_BYTES)
        sock.bind((0, 0))
        for group in groups:
            sock.setsockopt(nl.SOL_NETLINK, nl.NETLINK_ADD_MEMBERSHIP, group)
    except OSError:
        sock.close()
        raise
    return sock


def _link_event(link: Link, *, deleted: bool = False) -> LinkChanged:
    if deleted:
        return LinkChanged(link.name, link.index, gone=True)
    return LinkChanged(link.name, link.index, link.up, link.carrier)


def _decode_nft(kind: int, message: bytes) -> KernelChange | None:
    """The first attribute of every object is its table's name (linux/netfilter/nf_tables.h)."""
    if kind == _NEWGEN:
        return None
    return ObjectChanged("nft", message.startswith(_OWN_TABLES, 4))
