"""A socket filter that drops notifications of routes which decide nothing here.

Rules: the kernel runs it for each notification before it queues it (net/core/filter.c), so a storm
of routes in others' tables costs the daemon nothing and fills no queue. What the filter isn't sure
of, it keeps.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection, Iterator
from contextlib import suppress

from ifdefault.kernel.uapi import rtnetlink as rt
from ifdefault.kernel.uapi.socket import SO_DETACH_FILTER
from ifdefault.libc import (
    BPF_A_TO_X,
    BPF_DROP,
    BPF_IF_EQUAL,
    BPF_KEEP,
    BPF_LOAD_A,
    BPF_LOAD_BYTE,
    BPF_LOAD_HALF,
    BPF_LOAD_WORD,
    BPF_LOAD_WORD_AT_X,
    BPF_LOAD_X,
    BPF_STEPS_MAX,
    BpfStep,
    attach_filter,
)
from ifdefault.model.kernel import PROTOCOL, TABLE_LOCAL

_FIND_ATTRIBUTE = 0xFFFFF000 + 12  # SKF_AD_NLATTR: A = offset of the attribute of kind X from A on

# struct nlmsghdr, then struct rtmsg, then the attributes
_KIND, _TABLE, _PROTOCOL, _ATTRIBUTES = 4, 16 + 4, 16 + 5, 16 + 12


def keep_tables(sock: socket.socket, tables: Collection[int] | None) -> None:
    """Drop routes of all tables but these, unless they are ours; None: of none. The kernel's own
    routes in table local are dropped, too. All are kept if the kernel refuses the filter, as Linux
    before 6.8 does for hundreds of tables (net.core.optmem_max)."""
    program = list(_program(tables))
    if len(program) > BPF_STEPS_MAX:  # looked up by thousands of rules
        program = [BPF_KEEP]
    try:
        attach_filter(sock, program)
    except OSError:
        with suppress(FileNotFoundError):  # there was none before
            sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def _program(tables: Collection[int] | None) -> Iterator[BpfStep]:
    yield BPF_LOAD_HALF, 0, 0, _KIND
    yield BPF_IF_EQUAL, 2, 0, _swapped(rt.RTM_NEWROUTE, "H")
    yield BPF_IF_EQUAL, 1, 0, _swapped(rt.RTM_DELROUTE, "H")
    yield BPF_KEEP
    yield BPF_LOAD_BYTE, 0, 0, _PROTOCOL
    yield from _if_equal(PROTOCOL, BPF_KEEP)
    yield BPF_IF_EQUAL, 0, 3, rt.RTPROT_KERNEL
    yield BPF_LOAD_BYTE, 0, 0, _TABLE
    yield from _if_equal(TABLE_LOCAL, BPF_DROP)
    yield BPF_LOAD_BYTE, 0, 0, _TABLE
    if tables is None:
        yield BPF_KEEP
        return
    for table in sorted({*tables, TABLE_LOCAL}):
        if table < 256 and table != rt.RT_TABLE_COMPAT:
            yield from _if_equal(table, BPF_KEEP)
    yield BPF_IF_EQUAL, 1, 0, rt.RT_TABLE_COMPAT
    yield BPF_DROP
    yield BPF_LOAD_X, 0, 0, rt.RTA_TABLE
    yield BPF_LOAD_A, 0, 0, _ATTRIBUTES
    yield BPF_LOAD_WORD, 0, 0, _FIND_ATTRIBUTE
    yield from _if_equal(0, BPF_KEEP)
    yield BPF_A_TO_X, 0, 0, 0
    yield BPF_LOAD_WORD_AT_X, 0, 0, 4
    for table in sorted(tables):
        yield from _if_equal(_swapped(table, "I"), BPF_KEEP)
    yield BPF_DROP


def _if_equal(value: int, then: BpfStep) -> Iterator[BpfStep]:
    yield BPF_IF_EQUAL, 0, 1, value
    yield then


def _swapped(value: int, code: str) -> int:
    """A value in the kernel's byte order as a load of the program sees it."""
    return int(struct.unpack(f"!{code}", struct.pack(f"={code}", value))[0])
