"""Nexthop objects (`ip nexthop`), where routes only refer to them.

Rules: by default the kernel adds the hops to routes that use an object; with the sysctl
nexthop_compat_mode = 0 a route has just the object's number, and the objects are read, too.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace

from ifdefault.kernel import sysctl
from ifdefault.kernel.decoding import decodes
from ifdefault.kernel.netlink import Netlink, attributes, u32
from ifdefault.kernel.rtnetlink import Names, address_text
from ifdefault.kernel.uapi import rtnetlink as rt
from ifdefault.model.kernel import Hop

Nexthops = Mapping[int, tuple[Hop, ...]]  # by the object's number

_HEADER = struct.Struct("=BBBxI")  # struct nhmsg
_MEMBER = struct.Struct("=IBBxx")  # struct nexthop_grp


def read_nexthops(netlink: Netlink, names: Names) -> Nexthops:
    """The hops of all objects; none if routes have their hops themselves."""
    if sysctl.read("net/ipv4/nexthop_compat_mode") != "0":
        return {}
    messages = netlink.dump(rt.RTM_GETNEXTHOP, _HEADER.pack(0, 0, 0, 0))
    return decode_nexthops(messages, names)


@decodes
def decode_nexthops(messages: list[bytes], names: Names) -> Nexthops:
    hops: dict[int, tuple[Hop, ...]] = {}
    groups: dict[int, bytes] = {}
    for message in messages:
        *_, flags = _HEADER.unpack_from(message)
        attrs = attributes(message, _HEADER.size)
        number = u32(attrs[rt.NHA_ID])
        if rt.NHA_GROUP in attrs:
            groups[number] = attrs[rt.NHA_GROUP]
        elif rt.NHA_OIF in attrs:
            index = u32(attrs[rt.NHA_OIF])
            gateway = address_text(attrs.get(rt.NHA_GATEWAY, b""))
            onlink = bool(flags & rt.RTNH_F_ONLINK)
            hops[number] = (Hop(names.get(index, f"if{index}"), gateway, onlink),)
    for number, members in groups.items():
        hops[number] = tuple(
            replace(hop, weight=1 + (high << 8 | low))
            for member, low, high in _MEMBER.iter_unpack(members)
            for hop in hops.get(member, ())
        )
    return hops
