"""A filter of system calls for this process and its threads, for good (seccomp(2)).

    an architecture other than ours ─> killed      a call newer than the table ─> ENOSYS
    a call of `killed` ──────────────> killed      a call of `allowed` ─────────> as its checks say
                                                   any other ───────────────────> EPERM

Rules: pure up to `install`. An allow-list, since a kernel brings new calls, which a deny-list would
let through. libc falls back from a new call to an old one by ENOSYS only, not by EPERM. Only the
low half of an argument is checked: all checked ones are ints, of which the kernel reads no more.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ifdefault.ipc.syscalls import ARCHITECTURES, NEWEST, Architecture
from ifdefault.libc import (
    BPF_AND,
    BPF_IF_EQUAL,
    BPF_IF_GREATER,
    BPF_LOAD_WORD,
    BPF_RETURN,
    BpfProgram,
    BpfStep,
    checked,
    libc,
)

Test = tuple[int, int, int]  # of an argument, by its number: what it is with this mask
ANY: tuple[tuple[Test, ...], ...] = ((),)
_KILL, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000  # SECCOMP_RET_…, linux/seccomp.h
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # struct seccomp_data
_WHOLE = 0xFFFFFFFF
_SET_MODE_FILTER = 1
_SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}


@dataclass(frozen=True, slots=True)
class Call:
    """A call that is allowed if all tests of one of the `cases` pass, and else fails by `error`."""

    name: str
    cases: tuple[tuple[Test, ...], ...] = ANY
    error: int = errno.EPERM


def assemble(
    architecture: Architecture, allowed: Iterable[Call], killed: Iterable[str]
) -> list[BpfStep]:
    """The program, in classic BPF. The calls that are used most should come first."""
    numbers = architecture.numbers
    program = [
        (BPF_LOAD_WORD, 0, 0, _ARCH),
        (BPF_IF_EQUAL, 1, 0, architecture.audit),
        (BPF_RETURN, 0, 0, _KILL),
        (BPF_LOAD_WORD, 0, 0, _NUMBER),
        (BPF_IF_GREATER, 0, 1, NEWEST),  # those of x32 are, too
        (BPF_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    for call in allowed:
        if call.name in numbers:
            block = list(_block(call))
            program += [(BPF_IF_EQUAL, 0, len(block), numbers[call.name]), *block]
    for name in killed:
        if name in numbers:
            program += [(BPF_IF_EQUAL, 0, 1, numbers[name]), (BPF_RETURN, 0, 0, _KILL)]
    return [*program, (BPF_RETURN, 0, 0, _ERRNO | errno.EPERM)]


def _block(call: Call) -> Iterator[BpfStep]:
    for case in call.cases:
        steps: list[BpfStep] = [(BPF_RETURN, 0, 0, _ALLOW)]
        for argument, mask, value in reversed(case):
            test: list[BpfStep] = [(BPF_LOAD_WORD, 0, 0, _ARGUMENTS + 8 * argument)]
            if mask != _WHOLE:
                test.append((BPF_AND, 0, 0, mask))
            steps = [*test, (BPF_IF_EQUAL, 0, len(steps), value), *steps]
        yield from steps
    if all(call.cases):
        yield BPF_RETURN, 0, 0, _ERRNO | call.error


def equal(argument: int, value: int) -> Test:
    return argument, _WHOLE, value


def install(allowed: Sequence[Call], killed: Sequence[str]) -> None:
    """Filter from now on. It needs no_new_privs, or CAP_SYS_ADMIN. OSError if that fails, or if
    there is no table for this machine, or for a process of 32 bits on it."""
    machine = os.uname().machine
    if ctypes.sizeof(ctypes.c_void_p) < 8:  # the kernel's calls for it have other numbers
        machine = f"32 bits on {machine}"
    if (architecture := ARCHITECTURES.get(machine)) is None:
        raise OSError(errno.EOPNOTSUPP, f"no list of system calls for {machine}")
    program = BpfProgram(assemble(architecture, allowed, killed))
    checked(libc.syscall(_SYS_SECCOMP[machine], _SET_MODE_FILTER, 0, program.header))
