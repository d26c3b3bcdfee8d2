"""An nftables table by netlink (linux/netfilter/nf_tables.h): whether it is there, and unchanged.

Rules: libnftables reads every element of every table's sets before it lists as much as a table's
name, which takes long where there are thousands; here nobody reads them. What is told is for
comparing alone.
"""

from __future__ import annotations

import errno
import hashlib
import struct

from ifdefault.kernel.netlink import NETLINK_NETFILTER, Netlink, attribute, attributes

_GETTABLE, _GETCHAIN, _GETRULE, _GETSET = (10 << 8 | kind for kind in (1, 4, 7, 10))
_HEAD = struct.pack("=BBH", 1, 0, 0)  # struct nfgenmsg: NFPROTO_INET
_NAME, _USERDATA = 1, 6  # NFTA_TABLE_*; what belongs to a table has its name at 1, too
_COMMENT = 0  # NFTNL_UDATA_TABLE_COMMENT


def comment(table: str) -> str | None:
    """The comment of a table of family inet, "" if it has none; None if there is no such table."""
    with Netlink(NETLINK_NETFILTER) as netlink:
        try:
            told = netlink.ask(_GETTABLE, _HEAD + _named(table))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
    data = attributes(told, len(_HEAD)).get(_USERDATA, b"")
    while len(data) > 2:  # type, length, value
        kind, length = data[:2]
        if kind == _COMMENT:
            return data[2 : 2 + length].rstrip(b"\0").decode(errors="replace")
        data = data[2 + length :]
    return ""


def outline(table: str) -> str:
    """A digest of a table's chains, rules and sets, without the elements of named sets."""
    found = hashlib.sha256()
    with Netlink(NETLINK_NETFILTER) as netlink:
        for kind in (_GETCHAIN, _GETRULE, _GETSET):
            for message in netlink.dump(kind, _HEAD + _named(table)):
                body = message[len(_HEAD) :]  # the head tells the generation of all tables
                if attributes(body, 0)[_NAME] == _named(table)[4:][: len(table) + 1]:
                    found.update(body)
    return found.hexdigest()


def _named(table: str) -> bytes:
    return attribute(_NAME, table.encode() + b"\0")
