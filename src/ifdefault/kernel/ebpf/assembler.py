"""An assembler for eBPF (linux/bpf.h; RFC 9669).

Rules: pure. All jumps are forward. Registers are numbers: r0 is the return value, r1 to r5 are
arguments, which calls clobber, r6 to r9 are preserved, r10 is the frame pointer.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from ifdefault.kernel.uapi import bpf
from ifdefault.model.errors import KernelError, Problem

_JUMP_MAX = (1 << 15) - 1


@dataclass(slots=True)
class Assembler:
    """A sequence of instructions; jumps go to labels, which may be defined later."""

    code: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    jumps: list[tuple[int, str]] = field(default_factory=list)
    fresh: int = 0

    def put(self, op: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> None:
        self.code.append((op, dst, src, off, imm))

    def jump(self, op: int, to: str, dst: int = 0, src: int = 0, imm: int = 0) -> None:
        self.jumps.append((len(self.code), to))
        self.put(op, dst, src, 0, imm)

    def label(self, name: str) -> None:
        self.labels[name] = len(self.code)

    def unique(self, name: str) -> str:
        self.fresh += 1
        return f"{name}{self.fresh}"

    def wide(self, dst: int, value: int, pseudo: int = 0) -> None:
        """Load a 64-bit constant."""
        self.put(bpf.BPF_LD | bpf.BPF_DW | bpf.BPF_IMM, dst, pseudo, 0, value & 0xFFFFFFFF)
        self.put(0, 0, 0, 0, value >> 32)

    def load_map(self, dst: int, fd: int) -> None:
        """Load the address of a map."""
        self.wide(dst, fd, bpf.BPF_PSEUDO_MAP_FD)

    def load_map_value(self, dst: int, fd: int) -> None:
        """Load the address of the first value of a map."""
        self.wide(dst, fd, bpf.BPF_PSEUDO_MAP_VALUE)

    def assemble(self) -> bytes:
        """Raises KernelError if a jump is longer than its 16 bits can say."""
        for at, name in self.jumps:
            op, dst, src, _, imm = self.code[at]
            distance = self.labels[name] - at - 1
            if distance > _JUMP_MAX:
                what = f"{distance} instructions can't be jumped over, at most {_JUMP_MAX}"
                remedy = "use fewer prefixes, ports and users in outgoing.rule"
                raise KernelError(Problem("the programs on connect()", what, remedy))
            self.code[at] = (op, dst, src, distance, imm)
        return b"".join(
            struct.pack("=BBhI", op, src << 4 | dst, off, imm & 0xFFFFFFFF)
            for op, dst, src, off, imm in self.code
        )

    # --- instructions: on 32 bits, except those for addresses and with 64 in their names --------

    def move(self, dst: int, src: int) -> None:
        self.alu64_reg(bpf.BPF_MOV, dst, src)

    def set(self, dst: int, imm: int) -> None:
        self.alu_imm(bpf.BPF_MOV, dst, imm)

    def alu_imm(self, op: int, dst: int, imm: int) -> None:
        self.put(bpf.BPF_ALU | op | bpf.BPF_K, dst, imm=imm)

    def alu_reg(self, op: int, dst: int, src: int) -> None:
        self.put(bpf.BPF_ALU | op | bpf.BPF_X, dst, src)

    def alu64_imm(self, op: int, dst: int, imm: int) -> None:
        self.put(bpf.BPF_ALU64 | op | bpf.BPF_K, dst, imm=imm)

    def alu64_reg(self, op: int, dst: int, src: int) -> None:
        self.put(bpf.BPF_ALU64 | op | bpf.BPF_X, dst, src)

    def to_be16(self, dst: int) -> None:
        """Convert to (and from) big endian."""
        self.put(bpf.BPF_ALU | bpf.BPF_END | bpf.BPF_TO_BE, dst, imm=16)

    def load(self, dst: int, src: int, off: int, size: int = bpf.BPF_W) -> None:
        self.put(bpf.BPF_LDX | bpf.BPF_MEM | size, dst, src, off)

    def store(self, dst: int, src: int, off: int, size: int = bpf.BPF_W) -> None:
        self.put(bpf.BPF_STX | bpf.BPF_MEM | size, dst, src, off)

    def call(self, helper: int) -> None:
        self.put(bpf.BPF_JMP | bpf.BPF_CALL, imm=helper)

    def exit(self) -> None:
        self.put(bpf.BPF_JMP | bpf.BPF_EXIT)

    def go(self, to: str) -> None:
        self.jump(bpf.BPF_JMP | bpf.BPF_JA, to)

    def if_equal(self, dst: int, imm: int, to: str) -> None:
        self.jump(bpf.BPF_JMP32 | bpf.BPF_JEQ | bpf.BPF_K, to, dst, imm=imm)

    def unless_equal(self, dst: int, imm: int, to: str) -> None:
        self.jump(bpf.BPF_JMP32 | bpf.BPF_JNE | bpf.BPF_K, to, dst, imm=imm)

    def if_below(self, dst: int, imm: int, to: str) -> None:
        self.jump(bpf.BPF_JMP32 | bpf.BPF_JLT | bpf.BPF_K, to, dst, imm=imm)

    def if_above(self, dst: int, imm: int, to: str) -> None:
        self.jump(bpf.BPF_JMP32 | bpf.BPF_JGT | bpf.BPF_K, to, dst, imm=imm)

    def if_null(self, dst: int, to: str) -> None:
        self.jump(bpf.BPF_JMP | bpf.BPF_JEQ | bpf.BPF_K, to, dst)

    def unless_null(self, dst: int, to: str) -> None:
        self.jump(bpf.BPF_JMP | bpf.BPF_JNE | bpf.BPF_K, to, dst)

    def unless_same(self, dst: int, src: int, to: str) -> None:
        """Compare two registers, all 64 bits."""
        self.jump(bpf.BPF_JMP | bpf.BPF_JNE | bpf.BPF_X, to, dst, src)
