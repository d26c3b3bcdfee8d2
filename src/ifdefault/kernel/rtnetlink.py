"""Links, addresses, routes, rules and neighbours, to and from rtnetlink(7) messages.

Rules: one decoder and at most one encoder a noun, no I/O. Interfaces go by index on the wire and
by name in the model; the caller gives the mapping. Numbers are from linux/rtnetlink.h,
linux/fib_rules.h, linux/if_link.h, linux/if_addr.h and linux/neighbour.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping

from ifdefault.kernel.netlink import attribute, attribute_u32, attributes, u32
from ifdefault.model.config import Family
from ifdefault.model.kernel import Address, Hop, Link, Neighbour, Route, Rule

NEWLINK, GETLINK = 16, 18
GETADDR = 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, GETNEIGH = 28, 30
NEWRULE, DELRULE, GETRULE = 32, 33, 34

AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_FAMILY: dict[int, Family] = {socket.AF_INET: 4, socket.AF_INET6: 6}
BITS = {4: 32, 6: 128}

KINDS = dict(
    enumerate(
        "unspec unicast local broadcast anycast multicast blackhole unreachable prohibit throw"
        " nat xresolve".split()
    )
)
_KIND_NUMBERS = {name: number for number, name in KINDS.items()}
_ACTIONS = {1: "lookup", 2: "goto", 3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
_ACTION_NUMBERS = {name: number for number, name in _ACTIONS.items()}
_PREFERENCES = {1: "high", 3: "low"}  # 0, medium, is the default

_LINK = struct.Struct("=BBHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_RULE = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")
_NEXTHOP = struct.Struct("=HBBi")
_U32 = struct.Struct("=I")

_IFF_UP, _IFF_LOOPBACK, _IFF_POINTOPOINT, _IFF_NOARP, _IFF_LOWER_UP = 1, 8, 0x10, 0x80, 0x10000
_RTNH_ONLINK = 4
_RTM_F_CLONED, _RTM_F_LOOKUP_TABLE = 0x200, 0x1000
_NTF_USE, _NTF_ROUTER = 1, 0x80
_NUD_USABLE = 0x02 | 0x04 | 0x08 | 0x10 | 0x80  # reachable stale delay probe permanent

Names = Mapping[int, str]
Indexes = Mapping[str, int]


def _text(family: Family, packed: bytes) -> str:
    return socket.inet_ntop(AF[family], packed)


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def _prefix(family: Family, payload: bytes | None, length: int) -> str:
    if payload is None:
        return "default" if length == 0 else f"{_text(family, bytes(BITS[family] // 8))}/{length}"
    return f"{_text(family, payload)}/{length}"


def _split(prefix: str) -> tuple[bytes, int]:
    """A prefix as (packed address, length); "" and "default" are (b"", 0)."""
    if prefix in ("", "default"):
        return b"", 0
    address, _, length = prefix.partition("/")
    raw = packed(address)
    return raw, int(length) if length else len(raw) * 8


def link_query() -> bytes:
    # IFLA_EXT_MASK with RTEXT_FILTER_SKIP_STATS: counters are read where they are wanted
    return _LINK.pack(0, 0, 0, 0, 0, 0) + attribute_u32(29, 8)


def decode_link(message: bytes) -> Link:
    _, _, _, index, flags, _ = _LINK.unpack_from(message)
    found = attributes(message, _LINK.size)
    return Link(
        index=index,
        name=found[3].rstrip(b"\0").decode(),
        up=bool(flags & _IFF_UP),
        carrier=bool(flags & _IFF_LOWER_UP),
        group=u32(found.get(27)),
        mac=found.get(1, b"").hex(":"),
        loopback=bool(flags & _IFF_LOOPBACK),
        point_to_point=bool(flags & (_IFF_POINTOPOINT | _IFF_NOARP)) and not flags & _IFF_LOOPBACK,
    )


def counters_query(index: int) -> bytes:
    return _LINK.pack(0, 0, 0, index, 0, 0)


def decode_counters(message: bytes) -> tuple[int, int, int, int]:
    """Packets in, packets out, bytes in, bytes out (struct rtnl_link_stats64)."""
    told = attributes(message, _LINK.size).get(23, bytes(32))
    packets_in, packets_out, bytes_in, bytes_out = struct.unpack_from("=QQQQ", told)
    return packets_in, packets_out, bytes_in, bytes_out


def encode_group(index: int, group: int) -> bytes:
    return _LINK.pack(0, 0, 0, index, 0, 0) + attribute_u32(27, group)


def address_query(family: Family) -> bytes:
    return _ADDRESS.pack(AF[family], 0, 0, 0, 0)


def decode_address(message: bytes, names: Names) -> Address | None:
    number, prefixlen, low_flags, scope, index = _ADDRESS.unpack_from(message)
    family = _FAMILY.get(number)
    if family is None or index not in names:
        return None
    found = attributes(message, _ADDRESS.size)
    flags = u32(found.get(8), low_flags)
    local = found.get(2, found.get(1, b""))
    far = found.get(1, local)
    return Address(
        family=family,
        dev=names[index],
        address=_text(family, local),
        prefixlen=prefixlen,
        scope=scope,
        peer=_text(family, far) if far != local else "",
        secondary=bool(flags & 0x01),
        deprecated=bool(flags & 0x20),
        tentative=bool(flags & (0x40 | 0x08)) and not flags & 0x04,
    )


def route_query(family: Family) -> bytes:
    return _ROUTE.pack(AF[family], 0, 0, 0, 0, 0, 0, 0, 0)


def route_table(message: bytes) -> int:
    """The table number of a route message when it is below 256, else the compatible 252."""
    return message[4]


def decode_route(message: bytes, names: Names, *, cached: bool = False) -> Route | None:
    """A route, or None for what we neither use nor follow (encapsulation, tos, caches but for
    answers to a question, and routes that have expired: the kernel lists them for a while)."""
    number, dst_len, src_len, tos, table, protocol, scope, kind, flags = _ROUTE.unpack_from(message)
    family = _FAMILY.get(number)
    found = attributes(message, _ROUTE.size)
    if family is None or tos or 22 in found or (flags & _RTM_F_CLONED and not cached):
        return None
    if 12 in found and struct.unpack_from("=IIi", found[12])[2] < 0:  # struct rta_cacheinfo
        return None
    source = found.get(7)
    return Route(
        family=family,
        table=u32(found.get(15), table),
        dst=_prefix(family, found.get(1), dst_len),
        metric=u32(found.get(6)),
        kind=KINDS.get(kind, str(kind)),
        hops=tuple(_hops(family, found, flags, names)),
        src=_text(family, source) if source else "",
        scope=scope,
        protocol=protocol,
        preference=_PREFERENCES.get(found[20][0], "") if 20 in found else "",
        metrics=tuple(_metrics(found.get(8, b""))),
        from_prefix=_prefix(family, found.get(2), src_len) if src_len else "",
    )


def _hops(family: Family, found: dict[int, bytes], flags: int, names: Names) -> Iterator[Hop]:
    if 9 in found:
        payload, offset = found[9], 0
        while offset + _NEXTHOP.size <= len(payload):
            length, hop_flags, hops, index = _NEXTHOP.unpack_from(payload, offset)
            inner = attributes(payload[: offset + length], offset + _NEXTHOP.size)
            yield _hop(family, inner, index, hop_flags, hops + 1, names)
            offset += (length + 3) & ~3
    elif 4 in found:
        yield _hop(family, found, u32(found[4]), flags, 1, names)


def _hop(
    family: Family, found: dict[int, bytes], index: int, flags: int, weight: int, names: Names
) -> Hop:
    gateway = ""
    if 5 in found:
        gateway = _text(family, found[5])
    elif 18 in found:  # RTA_VIA: a gateway of the other family (RFC 5549)
        (number,) = struct.unpack_from("=H", found[18])
        gateway = _text(_FAMILY[number], found[18][2:])
    return Hop(names.get(index, f"if{index}"), gateway, bool(flags & _RTNH_ONLINK), weight)


def _metrics(payload: bytes) -> Iterator[tuple[int, int]]:
    for kind, value in sorted(attributes(payload, 0).items()):
        if len(value) == 4 and kind != 16:  # RTAX_CC_ALGO is a string
            yield kind, u32(value)


def encode_route(route: Route, indexes: Indexes) -> bytes:
    raw, length = _split(route.dst)
    onlink = _RTNH_ONLINK if len(route.hops) == 1 and route.hops[0].onlink else 0
    body = [
        _ROUTE.pack(
            AF[route.family],
            length,
            0,
            0,
            route.table if route.table < 256 else 252,
            route.protocol,
            route.scope,
            _KIND_NUMBERS[route.kind],
            onlink,
        ),
        attribute_u32(15, route.table),
    ]
    if raw:
        body.append(attribute(1, raw))
    if route.metric:
        body.append(attribute_u32(6, route.metric))
    if route.src:
        body.append(attribute(7, packed(route.src)))
    if route.metrics:
        body.append(attribute(8, b"".join(attribute_u32(k, v) for k, v in route.metrics)))
    if route.preference:
        code = next(k for k, v in _PREFERENCES.items() if v == route.preference)
        body.append(attribute(20, bytes([code])))
    if len(route.hops) == 1:
        body.append(attribute_u32(4, indexes[route.hops[0].dev]))
        body.append(_encode_gateway(route.family, route.hops[0].gateway))
    elif route.hops:
        body.append(attribute(9, b"".join(_encode_hop(route, h, indexes) for h in route.hops)))
    return b"".join(body)


def _encode_gateway(family: Family, gateway: str) -> bytes:
    if not gateway:
        return b""
    raw = packed(gateway)
    if len(raw) * 8 == BITS[family]:
        return attribute(5, raw)
    return attribute(18, struct.pack("=H", socket.AF_INET6) + raw)


def _encode_hop(route: Route, hop: Hop, indexes: Indexes) -> bytes:
    via = _encode_gateway(route.family, hop.gateway)
    flags = _RTNH_ONLINK if hop.onlink else 0
    return _NEXTHOP.pack(_NEXTHOP.size + len(via), flags, hop.weight - 1, indexes[hop.dev]) + via


def rule_query(family: Family) -> bytes:
    return _RULE.pack(AF[family], 0, 0, 0, 0, 0, 0, 0, 0)


def decode_rule(message: bytes) -> Rule | None:
    number, dst_len, src_len, tos, table, _, _, action, flags = _RULE.unpack_from(message)
    family = _FAMILY.get(number)
    if family is None:
        return None
    found = attributes(message, _RULE.size)

    def pair(kind: int, code: str, default: tuple[int, int]) -> tuple[int, int]:
        low, high = struct.unpack(code, found[kind]) if kind in found else default
        return int(low), int(high)

    def name(kind: int) -> str:
        return found.get(kind, b"").rstrip(b"\0").decode()

    mark = u32(found.get(10))
    return Rule(
        family=family,
        priority=u32(found.get(6)),
        action=_ACTIONS.get(action, str(action)),
        table=u32(found.get(15), table) if action == 1 else 0,
        goto=u32(found.get(4)),
        src=_prefix(family, found.get(2), src_len) if src_len else "",
        dst=_prefix(family, found.get(1), dst_len) if dst_len else "",
        iif=name(3),
        oif=name(17),
        mark=mark,
        mask=u32(found.get(16), 0xFFFFFFFF if mark else 0),
        invert=bool(flags & 2),
        suppress_prefixlength=_signed(u32(found.get(14), 0xFFFFFFFF)),
        suppress_ifgroup=_signed(u32(found.get(13), 0xFFFFFFFF)),
        ip_proto=found[22][0] if 22 in found else 0,
        sport=pair(23, "=HH", (0, 0)),
        dport=pair(24, "=HH", (0, 0)),
        uids=pair(20, "=II", (-1, -1)),
        tos=tos,
        unfollowed=bool(found.get(19, b"\0")[0]) or not found.keys().isdisjoint((12, 25, 26)),
        protocol=found[21][0] if 21 in found else 0,
    )


def _signed(value: int) -> int:
    return value - (1 << 32) if value >> 31 else value


def encode_rule(rule: Rule) -> bytes:
    """Encodes the selectors that we use ourselves; a rule with any other is never ours to write."""
    (dst, dst_len), (src, src_len) = _split(rule.dst), _split(rule.src)
    family, action = AF[rule.family], _ACTION_NUMBERS[rule.action]
    table, invert = rule.table if rule.table < 256 else 0, 2 if rule.invert else 0
    head = _RULE.pack(family, dst_len, src_len, rule.tos, table, 0, 0, action, invert)
    parts = (
        (True, 6, _U32.pack(rule.priority)),
        (True, 21, bytes([rule.protocol])),
        (rule.action == "lookup", 15, _U32.pack(rule.table)),
        (rule.action == "goto", 4, _U32.pack(rule.goto)),
        (dst, 1, dst),
        (src, 2, src),
        (rule.iif, 3, rule.iif.encode() + b"\0"),
        (rule.oif, 17, rule.oif.encode() + b"\0"),
        (rule.mask, 10, _U32.pack(rule.mark)),
        (rule.mask, 16, _U32.pack(rule.mask)),
        (rule.ip_proto, 22, bytes([rule.ip_proto])),
        (any(rule.sport), 23, struct.pack("=HH", *rule.sport)),
        (any(rule.dport), 24, struct.pack("=HH", *rule.dport)),
        (rule.uids != (-1, -1), 20, b"".join(_U32.pack(uid & 0xFFFFFFFF) for uid in rule.uids)),
        (rule.suppress_prefixlength >= 0, 14, _U32.pack(rule.suppress_prefixlength & 0xFFFFFFFF)),
        (rule.suppress_ifgroup >= 0, 13, _U32.pack(rule.suppress_ifgroup & 0xFFFFFFFF)),
    )
    return head + b"".join(attribute(kind, payload) for wanted, kind, payload in parts if wanted)


def encode_question(
    dst: str,
    src: str = "",
    iif: int = 0,
    oif: int = 0,
    mark: int = 0,
    ip_proto: int = 0,
    ports: tuple[int, int] = (0, 0),
    uid: int = 0,
) -> bytes:
    """Ask where a packet would go (RTM_GETROUTE); the answer names the table as well."""
    raw_dst, raw_src = packed(dst), packed(src) if src else b""
    six = ":" in dst
    family = socket.AF_INET6 if six else socket.AF_INET
    flags = 0 if six else _RTM_F_LOOKUP_TABLE  # IPv6 names the table anyway, and refuses the flag
    body = [
        _ROUTE.pack(family, len(raw_dst) * 8, len(raw_src) * 8, 0, 0, 0, 0, 0, flags),
        attribute(1, raw_dst),
        attribute_u32(25, uid),
    ]
    if raw_src:
        body.append(attribute(2, raw_src))
    for kind, number in ((3, iif), (4, oif), (16, mark)):
        if number:
            body.append(attribute_u32(kind, number))
    if ip_proto:  # else IPv4 takes it for UDP
        body.append(attribute(27, bytes([ip_proto])))
    if ip_proto in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        for kind, port in zip((28, 29), ports, strict=True):
            if port:
                body.append(attribute(kind, struct.pack("!H", port)))
    return b"".join(body)


def neighbour_query() -> bytes:
    return _NEIGHBOUR.pack(0, 0, 0, 0, 0)


def decode_neighbour(message: bytes, names: Names) -> Neighbour | None:
    number, index, state, flags, _ = _NEIGHBOUR.unpack_from(message)
    family = _FAMILY.get(number)
    found = attributes(message, _NEIGHBOUR.size)
    if family is None or index not in names or 1 not in found:
        return None
    usable = state & _NUD_USABLE
    return Neighbour(
        family=family,
        dev=names[index],
        address=_text(family, found[1]),
        mac=found.get(2, b"").hex(":") if usable else "",
        router=bool(flags & _NTF_ROUTER),
    )


def encode_neighbour_use(address: str, index: int) -> bytes:
    """Ask the kernel to resolve an address now, as a packet to it would (NTF_USE)."""
    raw = packed(address)
    return _NEIGHBOUR.pack(
        socket.AF_INET6 if len(raw) == 16 else socket.AF_INET, index, 0, _NTF_USE, 0
    ) + attribute(1, raw)
