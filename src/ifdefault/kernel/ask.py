"""Single questions to the kernel: where a packet would go, what a link has carried."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from ifdefault.kernel import rtnetlink
from ifdefault.kernel.netlink import Netlink, attributes
from ifdefault.kernel.read import read_links
from ifdefault.model.kernel import Route


@dataclass(frozen=True, order=True, slots=True)
class Answer:
    """The kernel's answer to a route question: a route, or its refusal in its own words."""

    route: Route | None = None
    refusal: str = ""


@dataclass(frozen=True, order=True, slots=True)
class Traffic:
    """What an interface has carried since it exists."""

    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


def route(
    dst: str,
    src: str = "",
    iif: str = "",
    oif: str = "",
    mark: int = 0,
    ip_proto: int = 0,
    ports: tuple[int, int] = (0, 0),
    uid: int = 0,
) -> Answer:
    """Where would this packet go? `iif` asks for a packet that came in, not one of ours."""
    with Netlink() as netlink:
        names = {link.index: link.name for link in read_links(netlink)}
        indexes = {name: index for index, name in names.items()}
        question = rtnetlink.encode_question(
            dst, src, indexes.get(iif, 0), indexes.get(oif, 0), mark, ip_proto, ports, uid
        )
        try:
            told = netlink.ask(rtnetlink.GETROUTE, question)
        except OSError as error:
            return Answer(refusal=(error.strerror or str(error)).lower())
        return Answer(rtnetlink.decode_route(told, names, cached=True))


def traffic(interfaces: frozenset[str]) -> dict[str, Traffic]:
    """What each of these interfaces has carried."""
    with Netlink() as netlink:
        return {
            link.name: Traffic(
                *rtnetlink.decode_counters(
                    netlink.ask(rtnetlink.GETLINK, rtnetlink.counters_query(link.index))
                )
            )
            for link in read_links(netlink)
            if link.name in interfaces
        }


class Counters:
    """The same again and again, as cheaply as can be: one exchange for all (RTM_GETSTATS).

    In the network namespace of the thread that makes it. Interfaces that are made anew or renamed
    are missing, until another is made for them.
    """

    def __init__(self, interfaces: Iterable[str]) -> None:
        self._netlink = Netlink()
        wanted = set(interfaces)
        found = [link for link in read_links(self._netlink) if link.name in wanted]
        self._names = [link.name for link in found]
        self._queries = [_STATS.pack(0, link.index, _LINK_64) for link in found]

    def __enter__(self) -> Counters:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._netlink.close()

    def read(self) -> dict[str, Traffic]:
        answers = self._netlink.ask_many(_GETSTATS, self._queries)
        return {
            name: Traffic(*_COUNTERS.unpack_from(attributes(answer, _STATS.size)[_LINK_64]))
            for name, answer in zip(self._names, answers, strict=True)
            if answer
        }


_GETSTATS, _LINK_64 = 94, 1  # IFLA_STATS_LINK_64, and its bit in the filter
_STATS = struct.Struct("=BxxxII")  # struct if_stats_msg
_COUNTERS = struct.Struct("=QQQQ")  # the first of struct rtnl_link_stats64
