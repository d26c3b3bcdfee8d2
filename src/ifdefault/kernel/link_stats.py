"""Packet and byte counters of links."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from ifdefault.kernel.decoding import decodes
from ifdefault.kernel.netlink import Netlink, attributes
from ifdefault.kernel.read import read_links
from ifdefault.kernel.uapi import rtnetlink as rt

_STATS = struct.Struct("=BxxxII")  # struct if_stats_msg
_COUNTERS = struct.Struct("=QQQQ")  # the first of struct rtnl_link_stats64
_FILTER = 1 << rt.IFLA_STATS_LINK_64 - 1  # IFLA_STATS_FILTER_BIT


@dataclass(frozen=True, slots=True)
class LinkStats:
    """Counters of a link since its creation."""

    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


def read_link_stats(names: Iterable[str]) -> dict[str, LinkStats]:
    """The counters of these links, by name; missing links are left out."""
    with LinkStatsReader(names) as reader:
        return reader.read()


class LinkStatsReader:
    """Reads the counters repeatedly at low cost: one exchange for all links (RTM_GETSTATS).

    It uses the network namespace of the thread that creates it. Links that are created again or
    renamed afterwards are missing; create a new reader for them. `indexes`: by name.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._netlink = Netlink()
        wanted = set(names)
        links = [link for link in read_links(self._netlink) if link.name in wanted]
        self.indexes = {link.name: link.index for link in links}
        self._queries = [_STATS.pack(0, link.index, _FILTER) for link in links]

    def __enter__(self) -> LinkStatsReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._netlink.close()

    def read(self) -> dict[str, LinkStats]:
        replies = self._netlink.ask_many(rt.RTM_GETSTATS, self._queries)
        found = zip(self.indexes, replies, strict=True)
        return {name: decode_link_stats(reply) for name, reply in found if reply}


@decodes
def decode_link_stats(reply: bytes) -> LinkStats:
    payload = attributes(reply, _STATS.size)[rt.IFLA_STATS_LINK_64]
    return LinkStats(*_COUNTERS.unpack_from(payload))
