"""Encode and decode rtnetlink(7) messages of policy rules (linux/fib_rules.h).

Rules: no I/O.
"""

from __future__ import annotations

import struct

from ifdefault.kernel.decoding import decodes
from ifdefault.kernel.netlink import attribute, attributes, u32
from ifdefault.kernel.rtnetlink import AF, FAMILY, prefix_text, split, u8
from ifdefault.kernel.uapi import rtnetlink as rt
from ifdefault.model.config import Family
from ifdefault.model.kernel import Rule
from ifdefault.model.text import from_bytes, to_bytes

_ACTIONS = {
    rt.FR_ACT_TO_TBL: "lookup",
    rt.FR_ACT_GOTO: "goto",
    rt.FR_ACT_NOP: "nop",
    rt.FR_ACT_BLACKHOLE: "blackhole",
    rt.FR_ACT_UNREACHABLE: "unreachable",
    rt.FR_ACT_PROHIBIT: "prohibit",
}
_ACTION_NUMBERS = {name: number for number, name in _ACTIONS.items()}
_UNSUPPORTED = (rt.FRA_TUN_ID, rt.FRA_DSCP, rt.FRA_FLOWLABEL)  # selectors that the model lacks
_RULE = struct.Struct("=BBBBBBBBI")
_U32 = struct.Struct("=I")
_NO_U32 = 0xFFFFFFFF


def rule_query(family: Family) -> bytes:
    return _RULE.pack(AF[family], 0, 0, 0, 0, 0, 0, 0, 0)


@decodes
def decode_rule(message: bytes) -> Rule | None:
    number, dst_len, src_len, tos, table, _, _, action, flags = _RULE.unpack_from(message)
    family = FAMILY.get(number)
    if family is None:
        return None
    attrs = attributes(message, _RULE.size)

    def pair(kind: int, code: str, default: tuple[int, int]) -> tuple[int, int]:
        low, high = struct.unpack(code, attrs[kind]) if kind in attrs else default
        return int(low), int(high)

    mark = u32(attrs.get(rt.FRA_FWMARK))
    return Rule(
        family=family,
        priority=u32(attrs.get(rt.FRA_PRIORITY)),
        action=_ACTIONS.get(action, str(action)),
        table=u32(attrs.get(rt.FRA_TABLE), table) if action == rt.FR_ACT_TO_TBL else 0,
        goto=u32(attrs.get(rt.FRA_GOTO)),
        src=prefix_text(family, attrs.get(rt.FRA_SRC), src_len) if src_len else "",
        dst=prefix_text(family, attrs.get(rt.FRA_DST), dst_len) if dst_len else "",
        iif=from_bytes(attrs.get(rt.FRA_IIFNAME, b"")),
        oif=from_bytes(attrs.get(rt.FRA_OIFNAME, b"")),
        mark=mark,
        mask=u32(attrs.get(rt.FRA_FWMASK), _NO_U32 if mark else 0),
        invert=bool(flags & rt.FIB_RULE_INVERT),
        suppress_prefixlength=_signed(u32(attrs.get(rt.FRA_SUPPRESS_PREFIXLEN), _NO_U32)),
        suppress_ifgroup=_signed(u32(attrs.get(rt.FRA_SUPPRESS_IFGROUP), _NO_U32)),
        ip_proto=u8(attrs, rt.FRA_IP_PROTO),
        sport=pair(rt.FRA_SPORT_RANGE, "=HH", (0, 0)),
        dport=pair(rt.FRA_DPORT_RANGE, "=HH", (0, 0)),
        uids=pair(rt.FRA_UID_RANGE, "=II", (-1, -1)),
        tos=tos,
        unfollowed=bool(u8(attrs, rt.FRA_L3MDEV)) or not attrs.keys().isdisjoint(_UNSUPPORTED),
        protocol=u8(attrs, rt.FRA_PROTOCOL),
    )


def rule_protocol(message: bytes) -> int:
    return u8(attributes(message, _RULE.size), rt.FRA_PROTOCOL)


def _signed(value: int) -> int:
    return value - (1 << 32) if value >> 31 else value


def encode_rule(rule: Rule) -> bytes:
    """Encode a rule with the selectors that our rules use."""
    (dst, dst_len), (src, src_len) = split(rule.dst), split(rule.src)
    family, action = AF[rule.family], _ACTION_NUMBERS[rule.action]
    table, invert = rule.table if rule.table < 256 else 0, rt.FIB_RULE_INVERT if rule.invert else 0
    head = _RULE.pack(family, dst_len, src_len, rule.tos, table, 0, 0, action, invert)
    uids = b"".join(_U32.pack(uid & _NO_U32) for uid in rule.uids)
    length, group = rule.suppress_prefixlength, rule.suppress_ifgroup
    parts = (
        (True, rt.FRA_PRIORITY, _U32.pack(rule.priority)),
        (True, rt.FRA_PROTOCOL, bytes([rule.protocol])),
        (rule.action == "lookup", rt.FRA_TABLE, _U32.pack(rule.table)),
        (rule.action == "goto", rt.FRA_GOTO, _U32.pack(rule.goto)),
        (dst, rt.FRA_DST, dst),
        (src, rt.FRA_SRC, src),
        (rule.iif, rt.FRA_IIFNAME, to_bytes(rule.iif) + b"\0"),
        (rule.oif, rt.FRA_OIFNAME, to_bytes(rule.oif) + b"\0"),
        (rule.mask, rt.FRA_FWMARK, _U32.pack(rule.mark)),
        (rule.mask, rt.FRA_FWMASK, _U32.pack(rule.mask)),
        (rule.ip_proto, rt.FRA_IP_PROTO, bytes([rule.ip_proto])),
        (any(rule.sport), rt.FRA_SPORT_RANGE, struct.pack("=HH", *rule.sport)),
        (any(rule.dport), rt.FRA_DPORT_RANGE, struct.pack("=HH", *rule.dport)),
        (rule.uids != (-1, -1), rt.FRA_UID_RANGE, uids),
        (length >= 0, rt.FRA_SUPPRESS_PREFIXLEN, struct.pack("=i", length)),
        (group >= 0, rt.FRA_SUPPRESS_IFGROUP, struct.pack("=i", group)),
    )
    return head + b"".join(attribute(kind, payload) for present, kind, payload in parts if present)
