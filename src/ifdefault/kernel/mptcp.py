"""Read and change MPTCP's endpoints and limits (linux/mptcp_pm.h).

Rules: as `kernel.netlink`. A kernel without MPTCP is no error of reading, for which nobody needs to
be root; what a kernel may refuse all the same counts as absent.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from contextlib import suppress

from ifdefault.kernel import sysctl
from ifdefault.kernel.decoding import decodes
from ifdefault.kernel.generic_netlink import GenericNetlink
from ifdefault.kernel.netlink import attribute, attribute_u32, attributes, nested, u32
from ifdefault.kernel.rtnetlink import address_text, packed
from ifdefault.kernel.uapi import mptcp as uapi
from ifdefault.model.mptcp import (
    ACCEPTED,
    REWIND_ID,
    SUBFLOWS,
    DeleteEndpoint,
    Endpoint,
    MptcpState,
    PutEndpoint,
    SetMptcpLimit,
)

_ENABLED = "net/mptcp/enabled"  # in every kernel that has MPTCP
_FLAGS = {
    "signal": uapi.MPTCP_PM_ADDR_FLAG_SIGNAL,
    "subflow": uapi.MPTCP_PM_ADDR_FLAG_SUBFLOW,
    "backup": uapi.MPTCP_PM_ADDR_FLAG_BACKUP,
    "fullmesh": uapi.MPTCP_PM_ADDR_FLAG_FULLMESH,
    "implicit": uapi.MPTCP_PM_ADDR_FLAG_IMPLICIT,
}
_LIMITS = {
    ACCEPTED: uapi.MPTCP_PM_ATTR_RCV_ADD_ADDRS,
    SUBFLOWS: uapi.MPTCP_PM_ATTR_SUBFLOWS,
}

_DUMMY = "192.0.0.8"  # nobody's (RFC 7600, 4.8)


class Mptcp:
    """FileNotFoundError if the kernel has no MPTCP."""

    def __init__(self) -> None:
        self._netlink = GenericNetlink(uapi.MPTCP_PM_NAME, uapi.MPTCP_PM_VER)

    def __enter__(self) -> Mptcp:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._netlink.close()

    def read(self) -> MptcpState:
        enabled = sysctl.read(_ENABLED) != "0"
        try:
            objects = self._netlink.dump(uapi.MPTCP_PM_CMD_GET_ADDR)
            reply = self._netlink.ask(uapi.MPTCP_PM_CMD_GET_LIMITS)
        except PermissionError:
            return MptcpState(enabled)
        limits = tuple((name, u32(reply.get(kind))) for name, kind in _LIMITS.items())
        return MptcpState(enabled, tuple(sorted(map(decode_endpoint, objects))), limits)

    def perform(self, operation: SetMptcpLimit | PutEndpoint | DeleteEndpoint) -> None:
        match operation:
            case SetMptcpLimit(name, value):
                body = attribute_u32(_LIMITS[name], value)
                self._netlink.change(uapi.MPTCP_PM_CMD_SET_LIMITS, body)
            case PutEndpoint(endpoint, None):
                body = encode_endpoint(endpoint)
                self._netlink.change(uapi.MPTCP_PM_CMD_ADD_ADDR, body)
            case PutEndpoint(endpoint):
                body = nested(uapi.MPTCP_PM_ATTR_ADDR, _id(endpoint), _flags(endpoint))
                self._netlink.change(uapi.MPTCP_PM_CMD_SET_FLAGS, body)
            case DeleteEndpoint(endpoint):
                body = nested(uapi.MPTCP_PM_ATTR_ADDR, _id(endpoint))
                self._netlink.change(uapi.MPTCP_PM_CMD_DEL_ADDR, body)

    def rewind(self) -> None:
        """Have the kernel give the lowest ids to endpoints of others, not those next to ours."""
        last = Endpoint(REWIND_ID, _DUMMY)
        with suppress(OSError):  # the table is full
            self._netlink.change(uapi.MPTCP_PM_CMD_ADD_ADDR, encode_endpoint(last))
            self.perform(DeleteEndpoint(last))


def read() -> MptcpState | None:
    """What the kernel has, endpoints by id; None: no MPTCP. To ask a kernel without it by netlink
    would run modprobe each time (net/netlink/genetlink.c, ctrl_getfamily)."""
    if sysctl.read(_ENABLED) is None:
        return None
    try:
        with Mptcp() as mptcp:
            return mptcp.read()
    except FileNotFoundError:
        return None


@decodes
def decode_endpoint(found: Mapping[int, bytes]) -> Endpoint:
    attrs = attributes(found[uapi.MPTCP_PM_ATTR_ADDR], 0)
    address = attrs.get(uapi.MPTCP_PM_ADDR_ATTR_ADDR4) or attrs[uapi.MPTCP_PM_ADDR_ATTR_ADDR6]
    flags = u32(attrs.get(uapi.MPTCP_PM_ADDR_ATTR_FLAGS))
    return Endpoint(
        attrs[uapi.MPTCP_PM_ADDR_ATTR_ID][0],
        address_text(address),
        _interface(u32(attrs.get(uapi.MPTCP_PM_ADDR_ATTR_IF_IDX))),
        int(struct.unpack("=H", attrs.get(uapi.MPTCP_PM_ADDR_ATTR_PORT, bytes(2)))[0]),
        **{name: bool(flags & bit) for name, bit in _FLAGS.items()},
    )


def _interface(index: int) -> str:
    try:
        return socket.if_indextoname(index) if index else ""
    except OSError:  # it was removed
        return f"if{index}"


def encode_endpoint(endpoint: Endpoint) -> bytes:
    """An endpoint of ours, which has neither port nor interface."""
    address = packed(endpoint.address)
    six = len(address) == 16
    kind = uapi.MPTCP_PM_ADDR_ATTR_ADDR6 if six else uapi.MPTCP_PM_ADDR_ATTR_ADDR4
    family = struct.pack("=H", socket.AF_INET6 if six else socket.AF_INET)
    return nested(
        uapi.MPTCP_PM_ATTR_ADDR,
        attribute(uapi.MPTCP_PM_ADDR_ATTR_FAMILY, family),
        _id(endpoint),
        attribute(kind, address),
        _flags(endpoint),
    )


def _id(endpoint: Endpoint) -> bytes:
    return attribute(uapi.MPTCP_PM_ADDR_ATTR_ID, bytes([endpoint.id]))


def _flags(endpoint: Endpoint) -> bytes:
    bits = sum(bit for name, bit in _FLAGS.items() if getattr(endpoint, name))
    return attribute_u32(uapi.MPTCP_PM_ADDR_ATTR_FLAGS, bits)
