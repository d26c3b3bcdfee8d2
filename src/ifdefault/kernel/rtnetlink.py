"""Encode and decode rtnetlink(7) messages: links, addresses, routes and neighbours.

Rules: no I/O. Messages identify interfaces by index, the model by name; the caller supplies the
mapping.
"""

from __future__ import annotations

import functools
import socket
import struct
from collections.abc import Iterator, Mapping

from ifdefault.kernel.decoding import decodes
from ifdefault.kernel.netlink import attribute, attribute_list, attribute_u32, attributes, u32
from ifdefault.kernel.uapi import rtnetlink as rt
from ifdefault.model.address import BITS
from ifdefault.model.config import Family
from ifdefault.model.kernel import Address, Hop, Link, Neighbour, Route
from ifdefault.model.text import from_bytes

AF = {4: socket.AF_INET, 6: socket.AF_INET6}
FAMILY: dict[int, Family] = {socket.AF_INET: 4, socket.AF_INET6: 6}
_ROUTE_KINDS = (  # RTN_UNSPEC and so on, as rtnetlink.h lists them
    "unspec unicast local broadcast anycast multicast blackhole unreachable prohibit throw nat"
)
KINDS = dict(enumerate((*_ROUTE_KINDS.split(), "xresolve")))
_KIND_NUMBERS = {name: number for number, name in KINDS.items()}
_PREFERENCES = {rt.ICMPV6_ROUTER_PREF_HIGH: "high", rt.ICMPV6_ROUTER_PREF_LOW: "low"}
_PREFERENCE_NUMBERS = {name: number for number, name in _PREFERENCES.items()}

LINK = struct.Struct("=BBHiII")
_ADDRESS = struct.Struct("=BBBBI")
ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")
_NEXTHOP = struct.Struct("=HBBi")
_CACHEINFO = struct.Struct("=IIi")  # head of struct rta_cacheinfo; the last field is rta_expires

NUD_USABLE = rt.NUD_REACHABLE | rt.NUD_STALE | rt.NUD_DELAY | rt.NUD_PROBE | rt.NUD_PERMANENT

Names = Mapping[int, str]
Indexes = Mapping[str, int]


def _text(family: Family, packed: bytes) -> str:
    return socket.inet_ntop(AF[family], packed)


def address_text(packed: bytes) -> str:
    """An address of either family, "" if it is empty."""
    return _text(6 if len(packed) == 16 else 4, packed) if packed else ""


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def prefix_text(family: Family, payload: bytes | None, length: int) -> str:
    if payload is None:
        return "default" if length == 0 else f"{_text(family, bytes(BITS[family] // 8))}/{length}"
    return f"{_text(family, payload)}/{length}"


def split(prefix: str) -> tuple[bytes, int]:
    """A prefix as (packed address, length); "" and "default" are (b"", 0)."""
    if prefix in ("", "default"):
        return b"", 0
    address, _, length = prefix.partition("/")
    raw = packed(address)
    return raw, int(length) if length else len(raw) * 8


def link_query() -> bytes:
    """All links, without their counters."""
    skip = attribute_u32(rt.IFLA_EXT_MASK, rt.RTEXT_FILTER_SKIP_STATS)
    return LINK.pack(0, 0, 0, 0, 0, 0) + skip


@decodes
def decode_link(message: bytes) -> Link:
    _, _, _, index, flags, _ = LINK.unpack_from(message)
    attrs = attributes(message, LINK.size)
    info = attributes(attrs.get(rt.IFLA_LINKINFO, b""), 0)
    return Link(
        index=index,
        name=from_bytes(attrs[rt.IFLA_IFNAME]),
        up=bool(flags & rt.IFF_UP),
        carrier=bool(flags & rt.IFF_LOWER_UP),
        group=u32(attrs.get(rt.IFLA_GROUP)),
        mac=attrs.get(rt.IFLA_ADDRESS, b"").hex(":"),
        loopback=bool(flags & rt.IFF_LOOPBACK),
        point_to_point=bool(flags & (rt.IFF_POINTOPOINT | rt.IFF_NOARP))
        and not flags & rt.IFF_LOOPBACK,
        kind=from_bytes(info.get(rt.IFLA_INFO_KIND, b"")),
        master=u32(attrs.get(rt.IFLA_MASTER)),
        forwards=_forwards(attrs.get(rt.IFLA_AF_SPEC, b"")),
        altnames=tuple(
            from_bytes(value)
            for kind, value in attribute_list(attrs.get(rt.IFLA_PROP_LIST, b""))
            if kind == rt.IFLA_ALT_IFNAME
        ),
    )


def _forwards(af_spec: bytes) -> bool:
    """From the interface's IPv4 settings (net/ipv4/devinet.c, inet_fill_link_af), which begin with
    forwarding (linux/ip.h, IPV4_DEVCONF_FORWARDING)."""
    inet = attributes(attributes(af_spec, 0).get(socket.AF_INET, b""), 0)
    return u32(inet.get(rt.IFLA_INET_CONF), 1) == 1


def encode_group(index: int, group: int) -> bytes:
    return LINK.pack(0, 0, 0, index, 0, 0) + attribute_u32(rt.IFLA_GROUP, group)


def address_query(family: Family) -> bytes:
    return _ADDRESS.pack(AF[family], 0, 0, 0, 0)


@decodes
def decode_address(message: bytes, names: Names) -> Address | None:
    number, prefixlen, low_flags, scope, index = _ADDRESS.unpack_from(message)
    family = FAMILY.get(number)
    if family is None or index not in names:
        return None
    attrs = attributes(message, _ADDRESS.size)
    flags = u32(attrs.get(rt.IFA_FLAGS), low_flags)
    peer = attrs.get(rt.IFA_ADDRESS, b"")
    local = attrs.get(rt.IFA_LOCAL, peer)
    return Address(
        family=family,
        dev=names[index],
        address=_text(family, local),
        prefixlen=prefixlen,
        scope=scope,
        peer=_text(family, peer) if peer and peer != local else "",
        secondary=bool(flags & rt.IFA_F_SECONDARY),
        deprecated=bool(flags & rt.IFA_F_DEPRECATED),
        tentative=bool(flags & (rt.IFA_F_TENTATIVE | rt.IFA_F_DADFAILED))
        and not flags & rt.IFA_F_OPTIMISTIC,
    )


def route_query(family: Family, table: int = 0, protocol: int = 0, kind: str = "unspec") -> bytes:
    """The routes of one table, protocol and kind; of all if that isn't given."""
    head = ROUTE.pack(AF[family], 0, 0, 0, 0, protocol, 0, _KIND_NUMBERS[kind], 0)
    return head + attribute_u32(rt.RTA_TABLE, table) if table else head


def is_default(message: bytes) -> bool:
    """Whether a route is a default route (rtm_dst_len)."""
    return not int.from_bytes(message[1:2])


def route_protocol(message: bytes) -> int:
    return int.from_bytes(message[5:6])


@decodes
def route_nexthop(message: bytes) -> int:
    """The number of the nexthop object of a route, 0 if it has none."""
    return u32(attributes(message, ROUTE.size).get(rt.RTA_NH_ID))


@decodes
def decode_route(message: bytes, names: Names, *, cached: bool = False) -> Route | None:
    """A route; None if it isn't supported (encapsulation, tos), a cache entry unless `cached`, or
    expired (the kernel lists expired routes for a while)."""
    number, dst_len, src_len, tos, table, protocol, scope, kind, flags = ROUTE.unpack_from(message)
    family = FAMILY.get(number)
    attrs = attributes(message, ROUTE.size)
    if family is None or tos or rt.RTA_ENCAP in attrs or (flags & rt.RTM_F_CLONED and not cached):
        return None
    if rt.RTA_CACHEINFO in attrs and _CACHEINFO.unpack_from(attrs[rt.RTA_CACHEINFO])[2] < 0:
        return None
    source = attrs.get(rt.RTA_PREFSRC)
    return Route(
        family=family,
        table=u32(attrs.get(rt.RTA_TABLE), table),
        dst=prefix_text(family, attrs.get(rt.RTA_DST), dst_len),
        metric=u32(attrs.get(rt.RTA_PRIORITY)),
        kind=KINDS.get(kind, str(kind)),
        hops=_one(tuple(_hops(family, attrs, flags, names))),
        src=_text(family, source) if source else "",
        scope=scope,
        protocol=protocol,
        preference=_PREFERENCES.get(u8(attrs, rt.RTA_PREF), ""),
        metrics=tuple(_metrics(attrs.get(rt.RTA_METRICS, b""))),
        from_prefix=prefix_text(family, attrs.get(rt.RTA_SRC), src_len) if src_len else "",
    )


@functools.lru_cache(maxsize=4096)
def _one(hops: tuple[Hop, ...]) -> tuple[Hop, ...]:
    """Equal hops as one object: thousands of routes have the same."""
    return hops


def u8(attrs: dict[int, bytes], kind: int) -> int:
    return int.from_bytes(attrs.get(kind, b"")[:1])


def _hops(family: Family, attrs: dict[int, bytes], flags: int, names: Names) -> Iterator[Hop]:
    if rt.RTA_MULTIPATH in attrs:
        payload, offset = attrs[rt.RTA_MULTIPATH], 0
        while offset + _NEXTHOP.size <= len(payload):
            length, hop_flags, hops, index = _NEXTHOP.unpack_from(payload, offset)
            if length < _NEXTHOP.size:  # it would never end
                break
            inner = attributes(payload[: offset + length], offset + _NEXTHOP.size)
            yield _hop(family, inner, index, hop_flags, hops + 1, names)
            offset += (length + 3) & ~3
    elif rt.RTA_OIF in attrs:
        yield _hop(family, attrs, u32(attrs[rt.RTA_OIF]), flags, 1, names)


def _hop(
    family: Family, attrs: dict[int, bytes], index: int, flags: int, weight: int, names: Names
) -> Hop:
    gateway = ""
    if rt.RTA_GATEWAY in attrs:
        gateway = _text(family, attrs[rt.RTA_GATEWAY])
    elif via := attrs.get(rt.RTA_VIA):  # a gateway of the other family (RFC 5549)
        (number,) = struct.unpack_from("=H", via)
        gateway = _text(FAMILY[number], via[2:])
    return Hop(names.get(index, f"if{index}"), gateway, bool(flags & rt.RTNH_F_ONLINK), weight)


def _metrics(payload: bytes) -> Iterator[tuple[int, int]]:
    for kind, value in sorted(attributes(payload, 0).items()):
        if len(value) == 4 and kind != rt.RTAX_CC_ALGO:  # a string
            yield kind, u32(value)


def encode_route(route: Route, indexes: Indexes) -> bytes:
    raw, length = split(route.dst)
    onlink = rt.RTNH_F_ONLINK if len(route.hops) == 1 and route.hops[0].onlink else 0
    body = [
        ROUTE.pack(
            AF[route.family],
            length,
            0,
            0,
            route.table if route.table < 256 else rt.RT_TABLE_COMPAT,
            route.protocol,
            route.scope,
            _KIND_NUMBERS[route.kind],
            onlink,
        ),
        attribute_u32(rt.RTA_TABLE, route.table),
    ]
    if raw:
        body.append(attribute(rt.RTA_DST, raw))
    if route.metric:
        body.append(attribute_u32(rt.RTA_PRIORITY, route.metric))
    if route.src:
        body.append(attribute(rt.RTA_PREFSRC, packed(route.src)))
    if route.metrics:
        metrics = b"".join(attribute_u32(kind, value) for kind, value in route.metrics)
        body.append(attribute(rt.RTA_METRICS, metrics))
    if route.preference:
        body.append(attribute(rt.RTA_PREF, bytes([_PREFERENCE_NUMBERS[route.preference]])))
    if len(route.hops) == 1:
        body.append(attribute_u32(rt.RTA_OIF, indexes[route.hops[0].dev]))
        body.append(_encode_gateway(route.family, route.hops[0].gateway))
    elif route.hops:
        hops = b"".join(_encode_hop(route, hop, indexes) for hop in route.hops)
        body.append(attribute(rt.RTA_MULTIPATH, hops))
    return b"".join(body)


def _encode_gateway(family: Family, gateway: str) -> bytes:
    if not gateway:
        return b""
    raw = packed(gateway)
    if len(raw) * 8 == BITS[family]:
        return attribute(rt.RTA_GATEWAY, raw)
    return attribute(rt.RTA_VIA, struct.pack("=H", socket.AF_INET6) + raw)


def _encode_hop(route: Route, hop: Hop, indexes: Indexes) -> bytes:
    via = _encode_gateway(route.family, hop.gateway)
    flags = rt.RTNH_F_ONLINK if hop.onlink else 0
    return _NEXTHOP.pack(_NEXTHOP.size + len(via), flags, hop.weight - 1, indexes[hop.dev]) + via


def nexthop_protocol(message: bytes) -> int:
    return int.from_bytes(message[2:3])  # struct nhmsg


@decodes
def neighbour_state(message: bytes) -> int:
    """The NUD_… flags of a neighbour message."""
    return int(_NEIGHBOUR.unpack_from(message)[2])


def neighbour_query(index: int = 0) -> bytes:
    """The neighbours on one interface, or on all."""
    head = _NEIGHBOUR.pack(0, 0, 0, 0, 0)
    return head + attribute_u32(rt.NDA_IFINDEX, index) if index else head


@decodes
def decode_neighbour(message: bytes, names: Names) -> Neighbour | None:
    number, index, state, flags, _ = _NEIGHBOUR.unpack_from(message)
    family = FAMILY.get(number)
    attrs = attributes(message, _NEIGHBOUR.size)
    if family is None or index not in names or rt.NDA_DST not in attrs:
        return None
    return Neighbour(
        family=family,
        dev=names[index],
        address=_text(family, attrs[rt.NDA_DST]),
        mac=attrs.get(rt.NDA_LLADDR, b"").hex(":") if state & NUD_USABLE else "",
        router=bool(flags & rt.NTF_ROUTER),
        confirmed=bool(state & (rt.NUD_REACHABLE | rt.NUD_PERMANENT)),
    )


def encode_neighbour(address: str, index: int, state: int = 0, flags: int = 0) -> bytes:
    """A neighbour without MAC. With NTF_USE the kernel resolves it now, as for a packet to it."""
    raw = packed(address)
    family = socket.AF_INET6 if len(raw) == 16 else socket.AF_INET
    return _NEIGHBOUR.pack(family, index, state, flags, 0) + attribute(rt.NDA_DST, raw)
