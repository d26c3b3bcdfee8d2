"""The C library, for system calls that Python doesn't wrap, and classic BPF programs for them."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Sequence

SELECT_MAX = 1024  # FD_SETSIZE: select(2) takes only lower descriptors
libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int, what: str = "") -> int:
    """The return value of a call; OSError by errno, prefixed with `what`, if the call failed."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}" if what else os.strerror(code))
    return result


# --- classic BPF (linux/bpf_common.h, linux/filter.h) ---------------------------------------

BpfStep = tuple[int, int, int, int]  # struct sock_filter: code, jumps if true and if false, value
# Loads convert from network to host byte order, but for those of struct seccomp_data.
BPF_LOAD_WORD, BPF_LOAD_HALF, BPF_LOAD_BYTE, BPF_LOAD_WORD_AT_X = 0x20, 0x28, 0x30, 0x40
BPF_LOAD_A, BPF_LOAD_X, BPF_LOAD_X_IP_HEADER, BPF_A_TO_X = 0x00, 0x01, 0xB1, 0x07
BPF_AND, BPF_IF_EQUAL, BPF_IF_GREATER, BPF_RETURN = 0x54, 0x15, 0x25, 0x06
BPF_KEEP: BpfStep = (BPF_RETURN, 0, 0, 0xFFFFFFFF)  # the whole packet
BPF_DROP: BpfStep = (BPF_RETURN, 0, 0, 0)
BPF_STEPS_MAX = 4096  # BPF_MAXINSNS
SO_ATTACH_FILTER = 26  # asm-generic/socket.h


class BpfProgram:
    """`header`: struct sock_fprog, valid as long as this object."""

    def __init__(self, steps: Sequence[BpfStep]) -> None:
        code = b"".join(struct.pack("=HBBI", *step) for step in steps)
        self._code = ctypes.create_string_buffer(code, len(code))
        self.header = struct.pack("@HP", len(steps), ctypes.addressof(self._code))


def attach_filter(sock: socket.socket, steps: Sequence[BpfStep]) -> None:
    """Have the kernel drop what the program drops, before it queues it. OSError if it refuses."""
    program = BpfProgram(steps)
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program.header)
