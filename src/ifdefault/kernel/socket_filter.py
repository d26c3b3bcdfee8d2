"""Filters of sockets for the kernel to evaluate (INET_DIAG_REQ_BYTECODE, linux/inet_diag.h).

Rules: pure. Each instruction has jump distances for true (yes) and false (no). Execution that
reaches exactly the end accepts the socket; a jump to four bytes after the end rejects it. Distances
have 16 bits, and each condition costs every socket of the host, so only some of many addresses
become conditions (`Prefixes`): whoever lists sockets compares with all of them afterwards.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence

from ifdefault.kernel.netlink import PAYLOAD_MAX
from ifdefault.kernel.rtnetlink import AF, split
from ifdefault.kernel.sockdiag import MAPPED
from ifdefault.kernel.uapi import inet_diag as diag
from ifdefault.model.address import BITS
from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.prefix_set import Block, PrefixSet, cover, first_of, merge

CONDITIONS_MAX = 200  # of each family, for the prefixes of one Prefixes
_OPERATION = struct.Struct("=BBH")
_HOST = struct.Struct("=BBxxi")  # struct inet_diag_hostcond
_ANY_PORT = -1

Condition = tuple[int, bytes]  # opcode and operand


class Prefixes:
    """Addresses to select sockets by, given as any number of prefixes. `in` takes an address as
    sockdiag returns it; `few`: whether the filter decides alone."""

    def __init__(self, prefixes: Iterable[str]) -> None:
        blocks: dict[Family, list[Block]] = {family: [] for family in FAMILIES}
        for raw, length in map(split, prefixes):
            family: Family = 4 if len(raw) == 4 else 6
            blocks[family].append((first_of(int.from_bytes(raw), length, BITS[family]), length))
        self._blocks = {family: merge(found, BITS[family]) for family, found in blocks.items()}
        self._sets = {f: PrefixSet(found, BITS[f]) for f, found in self._blocks.items()}
        self.few = all(len(found) <= CONDITIONS_MAX for found in self._blocks.values())

    def __contains__(self, address: bytes) -> bool:
        if address.startswith(MAPPED):
            return int.from_bytes(address[len(MAPPED) :]) in self._sets[4]
        return int.from_bytes(address) in self._sets[6]

    def sources(self) -> list[Condition]:
        """Sockets bound to any of these addresses, and of very many to others near them."""
        return [
            (diag.INET_DIAG_BC_S_COND, _host(family, block))
            for family, blocks in self._blocks.items()
            for block in cover(blocks, BITS[family], CONDITIONS_MAX)
        ]

    def destinations(self) -> list[Condition]:
        """Sockets connected to these addresses, of very many to the widest prefixes."""
        return [
            (diag.INET_DIAG_BC_D_COND, _host(family, block))
            for family, blocks in self._blocks.items()
            for block in sorted(blocks, key=lambda block: block[1])[:CONDITIONS_MAX]
        ]


def _host(family: Family, block: Block) -> bytes:
    """An IPv4 condition also matches IPv6 sockets with mapped addresses."""
    first, length = block
    return _HOST.pack(AF[family], length, _ANY_PORT) + first.to_bytes(BITS[family] // 8)


def is_from_port(port: int) -> Condition:
    return diag.INET_DIAG_BC_S_COND, _HOST.pack(socket.AF_UNSPEC, 0, port)


def is_marked(mark: int, mask: int) -> Condition:
    return diag.INET_DIAG_BC_MARK_COND, struct.pack("=II", mark, mask)


def program(any_of: Sequence[Condition], none_of: Sequence[Condition]) -> bytes:
    """A filter that accepts sockets matching one of `any_of` (or all, if it is empty) and none of
    `none_of`. OSError if that doesn't fit into a request."""
    tail = sum(8 + len(operand) for _, operand in none_of)
    size = tail + sum(8 + len(operand) for _, operand in any_of)
    if size > PAYLOAD_MAX:
        what = f"a socket filter of {len(any_of) + len(none_of)} conditions is too long"
        raise OSError(errno.EMSGSIZE, what)
    return b"".join((*_one_of(any_of, tail), *_none_of(none_of, tail)))


def _one_of(conditions: Sequence[Condition], tail: int) -> Iterator[bytes]:
    """Continue at the tail as soon as one matches, otherwise reject."""
    left = sum(8 + len(operand) for _, operand in conditions)
    for code, operand in conditions:
        size = 4 + len(operand)
        left -= size + 4
        last = not left
        yield _OPERATION.pack(code, size, size + 4 + (4 + tail if last else 0)) + operand
        yield _OPERATION.pack(diag.INET_DIAG_BC_JMP, 4, 4 + left)


def _none_of(conditions: Sequence[Condition], left: int) -> Iterator[bytes]:
    """Reject as soon as one matches."""
    for code, operand in conditions:
        size = 4 + len(operand)
        left -= size + 4
        yield _OPERATION.pack(code, size, size + 4) + operand
        yield _OPERATION.pack(diag.INET_DIAG_BC_JMP, 4, 4 + left + 4)
