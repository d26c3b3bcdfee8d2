"""Socket filters, evaluated like the kernel does.

`holds` is the kernel's inet_diag_bc_run, `sound` its inet_diag_bc_audit (net/ipv4/inet_diag.c).
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifdefault.kernel import socket_filter
from ifdefault.kernel.socket_filter import CONDITIONS_MAX, Condition, Prefixes

ADDRESSES = ("203.0.113.10", "203.0.113.11", "2001:db8:a::10", "2001:db8:b::10", "::1")
PREFIXES = ("203.0.113.0/24", "203.0.113.11/32", "2001:db8::/32", "::1/128", "127.0.0.0/8")
MARKS = (0x21000000, 0x22000000, 0x01000000)
MASK = 0x3F000000
PORTS = (22, 80, 443)


@dataclass(frozen=True, slots=True)
class Socket:
    source: str
    target: str
    port: int
    mark: int
    mapped: bool  # an IPv6 socket that talks IPv4

    def packed(self, address: str) -> tuple[int, bytes]:
        raw = ip_address(address).packed
        if len(raw) == 4 and self.mapped:
            return socket.AF_INET6, bytes(10) + b"\xff\xff" + raw
        return (socket.AF_INET if len(raw) == 4 else socket.AF_INET6), raw


sockets = st.builds(
    Socket,
    st.sampled_from(ADDRESSES),
    st.sampled_from(ADDRESSES),
    st.sampled_from((*PORTS, 40000)),
    st.sampled_from((0, 0x21000080, *MARKS)),
    st.booleans(),
)
wanted = st.lists(
    st.one_of(
        st.sampled_from(ADDRESSES).map(lambda a: ("from", a)),
        st.sampled_from(MARKS).map(lambda m: ("mark", m)),
    ),
    max_size=4,
)
unwanted = st.lists(
    st.one_of(
        st.sampled_from(PORTS).map(lambda p: ("port", p)),
        st.sampled_from(PREFIXES).map(lambda p: ("to", p)),
    ),
    max_size=4,
)


def condition(named: tuple[str, str | int]) -> Condition:
    match named:
        case ("from", str(address)):
            return Prefixes([address]).sources()[0]
        case ("to", str(prefix)):
            return Prefixes([prefix]).destinations()[0]
        case ("port", int(port)):
            return socket_filter.is_from_port(port)
        case ("mark", int(mark)):
            return socket_filter.is_marked(mark, MASK)
    raise ValueError(named)


def meets(one: Socket, named: tuple[str, str | int]) -> bool:
    match named:
        case ("from", address):
            return one.source == address
        case ("to", prefix):
            return ip_address(one.target) in ip_network(str(prefix))
        case ("port", port):
            return one.port == port
        case ("mark", mark):
            return one.mark & MASK == mark
    raise ValueError(named)


@given(sockets, wanted, unwanted)
def test_a_program_takes_what_it_should(
    one: Socket, any_of: list[tuple[str, str | int]], none_of: list[tuple[str, str | int]]
) -> None:
    program = socket_filter.program([*map(condition, any_of)], [*map(condition, none_of)])
    expected = (not any_of or any(meets(one, c) for c in any_of)) and not any(
        meets(one, c) for c in none_of
    )
    assert sound(program)
    assert holds(program, one) == expected


def holds(program: bytes, one: Socket) -> bool:
    at = 0
    while at < len(program):
        code, yes, no = struct.unpack_from("=BBH", program, at)
        at += yes if _true(code, program[at + 4 :], one) else no
    return at == len(program)


def _true(code: int, operand: bytes, one: Socket) -> bool:
    if code == 1:  # INET_DIAG_BC_JMP
        return False
    if code == 10:  # INET_DIAG_BC_MARK_COND
        mark, mask = struct.unpack_from("=II", operand)
        return bool(one.mark & mask == mark)
    family, length, port = struct.unpack_from("=BBxxi", operand)
    if port not in (-1, one.port if code == 7 else -2):
        return False
    af, address = one.packed(one.source if code == 7 else one.target)
    if family == socket.AF_INET and af == socket.AF_INET6 and address[:12] == _MAPPED:
        af, address = family, address[12:]
    if family not in (socket.AF_UNSPEC, af):
        return False
    compared = int.from_bytes(address), int.from_bytes(operand[8 : 8 + len(address)])
    return not length or not (compared[0] ^ compared[1]) >> (len(address) * 8 - length)


_MAPPED = bytes(10) + b"\xff\xff"


def sound(program: bytes) -> bool:
    """No jump goes backwards, more than four bytes past the end, or between instructions."""
    starts, at = set(), 0
    jumps = []
    while at < len(program):
        _, yes, no = struct.unpack_from("=BBH", program, at)
        starts.add(at)
        jumps.append(at + no)
        if yes < 4 or no < 4 or yes & 3 or no & 3:
            return False
        at += yes
    ends = {len(program), len(program) + 4}
    return at == len(program) and all(jump in starts | ends for jump in jumps)


NUMBERS = st.one_of(
    st.integers(0, 1 << 20).map(lambda n: (4, 0x0A000000 + n)),
    st.integers(0, 1 << 20).map(lambda n: (6, (0x20010DB8 << 96) + (n << 64))),
    st.integers(0, 255).map(lambda n: (4, 0xCB007100 + n)),
)


def text(number: tuple[int, int]) -> str:
    family, value = number
    return str(IPv4Address(value) if family == 4 else IPv6Address(value))


@given(st.integers(), st.sampled_from((0, 3, 300, 2000)), NUMBERS, NUMBERS)
@settings(max_examples=12, deadline=None)
def test_however_many_addresses_there_are_the_kernel_leaves_out_none_that_count(
    seed: int, many: int, source: tuple[int, int], target: tuple[int, int]
) -> None:
    random = Random(seed)
    own = {text((4, 0x0A000000 + random.getrandbits(20))) for _ in range(many)}
    own |= {text((6, (0x20010DB8 << 96) + (random.getrandbits(20) << 64))) for _ in range(many)}
    if random.random() < 0.5:
        own.add(text(source))
    prefixes = Prefixes(own)
    mapped = source[0] != target[0] or random.random() < 0.5
    one = Socket(text(source), text(target), 40000, 0, mapped)
    program = socket_filter.program(prefixes.sources(), prefixes.destinations())
    assert len(prefixes.sources()) <= 2 * CONDITIONS_MAX
    assert sound(program)
    from_own, to_own = packed_16(one.source) in prefixes, packed_16(one.target) in prefixes
    assert (from_own, to_own) == (one.source in own, one.target in own)
    if (from_own or not own) and not to_own:
        assert holds(program, one)
    elif prefixes.few:
        assert not holds(program, one)


def packed_16(address: str) -> bytes:
    raw = ip_address(address).packed
    return _MAPPED + raw if len(raw) == 4 else raw


def test_a_filter_that_does_not_fit_is_refused_with_an_error_of_ours() -> None:
    with pytest.raises(OSError, match="a socket filter of 9000 conditions is too long"):
        socket_filter.program([], [socket_filter.is_from_port(n) for n in range(9000)])
