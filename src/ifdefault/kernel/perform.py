"""Perform operations: the only module that changes the kernel.

Rules: one operation is one change; an error has the operation's name and the kernel's text. Objects
that already are as the operation requires are no error: another program may have changed them.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress

from ifdefault.kernel import conntrack, nft, rtnetlink, rule_messages, sysctl
from ifdefault.kernel.ebpf import attach
from ifdefault.kernel.mptcp import Mptcp
from ifdefault.kernel.netlink import Netlink
from ifdefault.kernel.uapi import rtnetlink as rt
from ifdefault.kernel.uapi.netlink import NLM_F_CREATE, NLM_F_REPLACE
from ifdefault.model.errors import KernelError, Problem
from ifdefault.model.kernel import (
    AddRule,
    DeleteRoute,
    DeleteRule,
    ForgetFlows,
    LoadNft,
    Operation,
    PutHook,
    PutRoute,
    SetGroup,
    SetSysctl,
)
from ifdefault.model.mptcp import DeleteEndpoint, PutEndpoint, SetMptcpLimit

_ABSENT = (errno.ESRCH, errno.ENOENT, errno.ENODEV)


class Performer:
    """Performs operations in the network namespace of the thread that creates it. `indexes` are
    those of its interfaces, by name, as they were planned with.

    `ports`: the netlink port ids that requested changes, for `Watch.own_ports`. Notifications of
    implied changes have port 0, as does that of SetGroup (Linux 6.18: do_setlink calls
    netdev_state_change, which doesn't know the port).
    """

    def __init__(self, indexes: Mapping[str, int]) -> None:
        self._indexes = indexes
        self._netlink = Netlink()
        self._announced = False
        self.ports = frozenset({self._netlink.port})

    def __enter__(self) -> Performer:
        return self

    def __exit__(self, *_: object) -> None:
        self._netlink.close()
        if self._announced:
            with suppress(OSError), Mptcp() as mptcp:
                mptcp.rewind()

    def perform(self, operation: Operation) -> None:
        """Perform one operation. Raises KernelError if the kernel refuses it."""
        try:
            self._perform(operation)
        except OSError as error:
            what = f"{error.strerror} ({errno.errorcode.get(error.errno or 0, error.errno)})"
            raise KernelError(Problem(_name(operation), what)) from error
        except (struct.error, OverflowError, ValueError) as error:
            what = f"doesn't fit the kernel's format: {error}"
            raise KernelError(Problem(_name(operation), what, "please report it")) from error
        except KeyError as error:
            problem = Problem(_name(operation), f"no interface {error}", "see `ip link`")
            raise KernelError(problem) from error

    def _perform(self, operation: Operation) -> None:
        match operation:
            case SetSysctl(name, value):
                sysctl.write(name, value)
            case SetGroup(dev, group):
                body = rtnetlink.encode_group(self._indexes[dev], group)
                self._netlink.change(rt.RTM_NEWLINK, body)
            case PutRoute(route, _):
                body = rtnetlink.encode_route(route, self._indexes)
                self._netlink.change(rt.RTM_NEWROUTE, body, NLM_F_CREATE | NLM_F_REPLACE)
            case DeleteRoute(route):
                if all(hop.dev in self._indexes for hop in route.hops):
                    body = rtnetlink.encode_route(route, self._indexes)
                    self._delete(rt.RTM_DELROUTE, body)
            case AddRule(rule):
                # without NLM_F_EXCL: the same rule may exist twice while a block is moved
                self._netlink.change(rt.RTM_NEWRULE, rule_messages.encode_rule(rule), NLM_F_CREATE)
            case DeleteRule(rule):
                self._delete(rt.RTM_DELRULE, rule_messages.encode_rule(rule))
            case LoadNft(table, text):
                self.ports |= nft.load(table, text)
            case PutHook(hook):
                attach.put(hook)
            case SetMptcpLimit() | PutEndpoint() | DeleteEndpoint():
                self._change_mptcp(operation)
            case ForgetFlows(redirects, ports, addresses, mask):
                conntrack.delete_redirected(redirects, ports, addresses, mask)

    def _change_mptcp(self, operation: SetMptcpLimit | PutEndpoint | DeleteEndpoint) -> None:
        with Mptcp() as mptcp:
            try:
                mptcp.perform(operation)
                self._announced |= isinstance(operation, PutEndpoint)
            except OSError as error:  # EINVAL: it is gone
                gone = isinstance(operation, DeleteEndpoint) and error.errno == errno.EINVAL
                if not gone:
                    raise

    def _delete(self, kind: int, body: bytes) -> None:
        try:
            self._netlink.change(kind, body)
        except OSError as error:
            if error.errno not in _ABSENT:
                raise


def _name(operation: Operation) -> str:
    return type(operation).__name__


def resolve_neighbour(address: str, dev: str) -> None:
    """Make the kernel resolve a gateway's MAC now, as a packet to it would. Raises OSError."""
    with Netlink() as netlink:
        index = socket.if_nametoindex(dev)
        body = rtnetlink.encode_neighbour(address, index, flags=rt.NTF_USE)
        netlink.change(rt.RTM_NEWNEIGH, body, NLM_F_CREATE)


def verify_neighbour(address: str, dev: str) -> None:
    """Make the kernel forget a gateway's MAC, and resolve it again. Raises OSError."""
    with Netlink() as netlink:
        index = socket.if_nametoindex(dev)
        for message in netlink.dump(rt.RTM_GETNEIGH, rtnetlink.neighbour_query()):
            known = rtnetlink.decode_neighbour(message, {index: dev})
            learned = not rtnetlink.neighbour_state(message) & (rt.NUD_PERMANENT | rt.NUD_NOARP)
            if known and known.address == address and learned:
                body = rtnetlink.encode_neighbour(address, index, rt.NUD_FAILED)
                netlink.change(rt.RTM_NEWNEIGH, body)
        use = rtnetlink.encode_neighbour(address, index, flags=rt.NTF_USE)
        netlink.change(rt.RTM_NEWNEIGH, use, NLM_F_CREATE)
