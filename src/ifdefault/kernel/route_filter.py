"""A socket filter that drops notifications of routes which decide nothing here.

Rules: the kernel runs it for each notification before it queues it (net/core/filter.c), so a storm
of routes in others' tables costs the daemon nothing and fills no queue. What the filter isn't sure
of, it keeps.
"""

from __future__ import annotations

import array
import socket
import struct
from collections.abc import Collection, Iterator
from contextlib import suppress

from ifdefault.kernel.uapi import rtnetlink as rt
from ifdefault.kernel.uapi.socket import SO_ATTACH_FILTER, SO_DETACH_FILTER
from ifdefault.model.kernel import PROTOCOL, TABLE_LOCAL

# linux/bpf_common.h, filter.h. Loads convert from network to host byte order.
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE = 0x20, 0x28, 0x30
_LOAD_WORD_AT_X, _LOAD_A, _LOAD_X, _A_TO_X = 0x40, 0x00, 0x01, 0x07
_IF_EQUAL, _RETURN = 0x15, 0x06
_FIND_ATTRIBUTE = 0xFFFFF000 + 12  # SKF_AD_NLATTR: A = offset of the attribute of kind X from A on
_KEEP, _DROP = (_RETURN, 0, 0, 0xFFFFFFFF), (_RETURN, 0, 0, 0)
_STEPS_MAX = 4096  # BPF_MAXINSNS

# struct nlmsghdr, then struct rtmsg, then the attributes
_KIND, _TABLE, _PROTOCOL, _ATTRIBUTES = 4, 16 + 4, 16 + 5, 16 + 12

_Step = tuple[int, int, int, int]


def keep_tables(sock: socket.socket, tables: Collection[int] | None) -> None:
    """Drop routes of all tables but these, unless they are ours; None: of none. The kernel's own
    routes in table local are dropped, too. All are kept if the kernel refuses the filter, as Linux
    before 6.8 does for hundreds of tables (net.core.optmem_max)."""
    program = list(_program(tables))
    if len(program) > _STEPS_MAX:  # looked up by thousands of rules
        program = [_KEEP]
    steps = array.array("B", b"".join(struct.pack("=HBBI", *step) for step in program))
    address, _ = steps.buffer_info()
    sock_fprog = struct.pack("@HP", len(program), address)
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, sock_fprog)
    except OSError:
        with suppress(FileNotFoundError):  # there was none before
            sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def _program(tables: Collection[int] | None) -> Iterator[_Step]:
    yield _LOAD_HALF, 0, 0, _KIND
    yield _IF_EQUAL, 2, 0, _swapped(rt.RTM_NEWROUTE, "H")
    yield _IF_EQUAL, 1, 0, _swapped(rt.RTM_DELROUTE, "H")
    yield _KEEP
    yield _LOAD_BYTE, 0, 0, _PROTOCOL
    yield from _if_equal(PROTOCOL, _KEEP)
    yield _IF_EQUAL, 0, 3, rt.RTPROT_KERNEL
    yield _LOAD_BYTE, 0, 0, _TABLE
    yield from _if_equal(TABLE_LOCAL, _DROP)
    yield _LOAD_BYTE, 0, 0, _TABLE
    if tables is None:
        yield _KEEP
        return
    for table in sorted({*tables, TABLE_LOCAL}):
        if table < 256 and table != rt.RT_TABLE_COMPAT:
            yield from _if_equal(table, _KEEP)
    yield _IF_EQUAL, 1, 0, rt.RT_TABLE_COMPAT
    yield _DROP
    yield _LOAD_X, 0, 0, rt.RTA_TABLE
    yield _LOAD_A, 0, 0, _ATTRIBUTES
    yield _LOAD_WORD, 0, 0, _FIND_ATTRIBUTE
    yield from _if_equal(0, _KEEP)
    yield _A_TO_X, 0, 0, 0
    yield _LOAD_WORD_AT_X, 0, 0, 4
    for table in sorted(tables):
        yield from _if_equal(_swapped(table, "I"), _KEEP)
    yield _DROP


def _if_equal(value: int, then: _Step) -> Iterator[_Step]:
    yield _IF_EQUAL, 0, 1, value
    yield then


def _swapped(value: int, code: str) -> int:
    """A value in the kernel's byte order as a load of the program sees it."""
    return int(struct.unpack(f"!{code}", struct.pack(f"={code}", value))[0])
