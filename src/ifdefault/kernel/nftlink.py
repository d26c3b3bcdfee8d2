"""Read an nftables table by netlink (linux/netfilter/nf_tables.h): does it exist, has it changed?

Rules: libnftables reads every element of every table's sets even to list the name of a table, which
takes long with thousands of elements; this module doesn't read elements. Digests are only for
comparison.
"""

from __future__ import annotations

import errno
import hashlib
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from ifdefault.kernel.netlink import Netlink, attribute, attributes
from ifdefault.kernel.uapi import netfilter as nf
from ifdefault.kernel.uapi.netlink import NETLINK_NETFILTER
from ifdefault.model.errors import HostError, Problem

_NFTABLES = nf.NFNL_SUBSYS_NFTABLES << 8
_HEAD = struct.pack("=BBH", nf.NFPROTO_INET, nf.NFNETLINK_V0, 0)  # struct nfgenmsg
# without nfnetlink, and with it, but without nf_tables (nfnetlink_rcv_msg)
_ABSENT = (errno.EPROTONOSUPPORT, errno.EINVAL)
_OF_TABLES = (nf.NFT_MSG_GETCHAIN, nf.NFT_MSG_GETRULE, nf.NFT_MSG_GETSET)


@contextmanager
def required() -> Iterator[None]:
    """What asks the kernel's nftables: HostError if it has none."""
    try:
        yield
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
        remedy = "load the module nf_tables, or boot a kernel that has it"
        raise HostError(Problem("nftables", "the kernel has no nf_tables", remedy)) from None


def comment(table: str) -> str | None:
    """The comment of a table of family inet, "" if it has none; None if there is no such table."""
    with required(), Netlink(NETLINK_NETFILTER) as netlink:
        try:
            reply = netlink.ask(_NFTABLES | nf.NFT_MSG_GETTABLE, _HEAD + _named(table))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
    return decode_comment(reply)


def decode_comment(reply: bytes) -> str:
    data = attributes(reply, len(_HEAD)).get(nf.NFTA_TABLE_USERDATA, b"")
    while len(data) > 2:  # type, length, value
        kind, length = data[:2]
        if kind == nf.NFTNL_UDATA_TABLE_COMMENT:
            return data[2 : 2 + length].rstrip(b"\0").decode(errors="replace")
        data = data[2 + length :]
    return ""


def table_digest(table: str) -> str:
    """A digest of a table's chains, rules and sets, without the elements of named sets."""
    digest = hashlib.sha256()
    with Netlink(NETLINK_NETFILTER) as netlink:
        for kind in _OF_TABLES:
            for message in netlink.dump(_NFTABLES | kind, _HEAD + _named(table)):
                body = message[len(_HEAD) :]  # the header has the generation of all tables
                if attributes(body, 0).get(nf.NFTA_TABLE_NAME) == table.encode() + b"\0":
                    digest.update(body)
    return digest.hexdigest()


def _named(table: str) -> bytes:
    """The attribute with a table's name, the same for its objects (NFTA_CHAIN_TABLE and so on)."""
    return attribute(nf.NFTA_TABLE_NAME, table.encode() + b"\0")
