"""What a filter of system calls decides, for each architecture, by running its program here."""

from __future__ import annotations

import errno
import os
import signal
import socket

import pytest

from ifdefault.ipc import sandbox, seccomp
from ifdefault.ipc.seccomp import ANY, Call, assemble, equal
from ifdefault.ipc.syscalls import ARCHITECTURES, NEWEST, Architecture
from ifdefault.libc import BpfStep

ALLOWED, KILLED = "allowed", "killed"
X86, ARM = ARCHITECTURES["x86_64"], ARCHITECTURES["aarch64"]
PROFILES = [sandbox.FRONTEND, sandbox.DNS_SERVER]
SOCK_RAW, NEW_USER, THREAD = socket.SOCK_RAW, 0x10000000, 0x3D0F00


def run(program: list[BpfStep], audit: int, number: int, *arguments: int) -> str:
    """The verdict of a program, by the rules of classic BPF."""
    words = {0: number, 4: audit} | {16 + 8 * i: value for i, value in enumerate(arguments)}
    at = value = 0
    while True:
        code, if_true, if_false, operand = program[at]
        at += 1
        match code:
            case 0x20:
                value = words.get(operand, 0)
            case 0x54:
                value &= operand
            case 0x15:
                at += if_true if value == operand else if_false
            case 0x25:
                at += if_true if value > operand else if_false
            case 0x06:
                if operand >> 16 == 0x5:
                    return errno.errorcode[operand & 0xFFFF]
                return {0x7FFF0000: ALLOWED, 0x80000000: KILLED}[operand]


def decide(profile: sandbox.Profile, arch: Architecture, name: str, *arguments: int) -> str:
    program = assemble(arch, profile.calls(), sandbox.KILLED)
    return run(program, arch.audit, arch.numbers[name], *arguments)


@pytest.mark.parametrize("arch", [X86, ARM], ids=["x86_64", "aarch64"])
@pytest.mark.parametrize("profile", PROFILES, ids=["frontend", "dns"])
def test_a_program_that_the_kernel_takes(arch: Architecture, profile: sandbox.Profile) -> None:
    program = assemble(arch, profile.calls(), sandbox.KILLED)
    assert len(program) < 4096  # BPF_MAXINSNS
    for at, (code, if_true, if_false, _) in enumerate(program):
        assert code in (0x20, 0x54, 0x15, 0x25, 0x06)
        assert 0 <= if_true < 256
        assert 0 <= if_false < 256
        assert at + max(if_true, if_false) < len(program)


def test_the_tables_know_every_call() -> None:
    """A name that is misspelt would be refused, or let live."""
    called = {call.name for profile in PROFILES for call in profile.calls()}
    assert {*called, *sandbox.KILLED} <= X86.numbers.keys()
    for arch in (X86, ARM):
        assert len({*arch.numbers.values()}) == len(arch.numbers)
        assert max(arch.numbers.values()) <= NEWEST


CASES: list[tuple[str, tuple[int, ...], str, str]] = [  # by the frontend, and by the DNS server
    ("read", (), ALLOWED, ALLOWED),
    ("execve", (), KILLED, KILLED),
    ("ptrace", (), KILLED, KILLED),
    ("unshare", (NEW_USER,), KILLED, KILLED),
    ("personality", (), "EPERM", "EPERM"),
    ("clone3", (), "ENOSYS", "ENOSYS"),
    ("openat2", (), "ENOSYS", "ENOSYS"),
    ("clone", (THREAD,), ALLOWED, ALLOWED),
    ("clone", (signal.SIGCHLD,), "EPERM", "EPERM"),
    ("clone", (THREAD | NEW_USER,), "EPERM", "EPERM"),
    ("openat", (0, 0, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY), ALLOWED, ALLOWED),
    ("openat", (0, 0, os.O_WRONLY), "EROFS", "EROFS"),
    ("openat", (0, 0, os.O_RDWR), "EROFS", "EROFS"),
    ("openat", (0, 0, os.O_CREAT), "EROFS", "EROFS"),
    ("mmap", (0, 4096, 3), ALLOWED, ALLOWED),
    ("mmap", (0, 4096, 5), ALLOWED, ALLOWED),
    ("mmap", (0, 4096, 7), "EPERM", "EPERM"),
    ("mprotect", (0, 4096, 5), "EPERM", "EPERM"),
    ("kill", (os.getpid(), 6), ALLOWED, ALLOWED),
    ("kill", (1, 0), "EPERM", "EPERM"),
    ("prlimit64", (1,), "EPERM", "EPERM"),
    ("prctl", (4, 1), "EPERM", "EPERM"),  # PR_SET_DUMPABLE
    ("ioctl", (0, 0x5413), "ENOTTY", "ENOTTY"),
    ("connect", (), ALLOWED, "EPERM"),
    ("accept4", (), "EPERM", ALLOWED),
    ("socketpair", (socket.AF_UNIX, socket.SOCK_STREAM, 0), ALLOWED, ALLOWED),
    ("socket", (socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, 0), ALLOWED, "EPERM"),
    ("socket", (socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_UDP), ALLOWED, "EPERM"),
    ("socket", (socket.AF_INET, SOCK_RAW, socket.IPPROTO_ICMP), "EAFNOSUPPORT", "EPERM"),
    ("socket", (socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP), "EAFNOSUPPORT", "EPERM"),
    ("socket", (socket.AF_INET, socket.SOCK_STREAM, 262), "EAFNOSUPPORT", "EPERM"),  # MPTCP
    ("socket", (socket.AF_UNIX, socket.SOCK_STREAM, 0), "EAFNOSUPPORT", "EPERM"),
    ("setsockopt", (0, socket.SOL_SOCKET, socket.SO_LINGER), ALLOWED, ALLOWED),
    ("setsockopt", (0, socket.SOL_SOCKET, socket.SO_BINDTODEVICE), "EPERM", "EPERM"),
    ("setsockopt", (0, socket.SOL_SOCKET, socket.SO_MARK), "EPERM", "EPERM"),
    ("setsockopt", (0, socket.SOL_SOCKET, 27), "EPERM", "EPERM"),  # SO_DETACH_FILTER
    ("setsockopt", (0, socket.IPPROTO_IP, socket.IP_HDRINCL), "EPERM", "EPERM"),
    ("setsockopt", (0, socket.IPPROTO_IP, socket.IP_TRANSPARENT), "EPERM", "EPERM"),
    ("setsockopt", (0, 255, 1), "EPERM", "EPERM"),  # ICMP_FILTER
    ("setsockopt", (0, socket.IPPROTO_ICMPV6, 1), "EPERM", "EPERM"),  # ICMPV6_FILTER
]


@pytest.mark.parametrize("arch", [X86, ARM], ids=["x86_64", "aarch64"])
def test_what_it_decides(arch: Architecture) -> None:
    for name, arguments, frontend, dns in CASES:
        assert decide(sandbox.FRONTEND, arch, name, *arguments) == frontend, (name, arguments)
        assert decide(sandbox.DNS_SERVER, arch, name, *arguments) == dns, (name, arguments)


def test_other_architectures_and_newer_calls() -> None:
    program = assemble(X86, [Call("read")], sandbox.KILLED)
    i386, x32 = 0x40000003, 0x40000000
    assert run(program, i386, X86.numbers["read"]) == KILLED
    assert run(program, X86.audit, x32 | X86.numbers["read"]) == "ENOSYS"
    assert run(program, X86.audit, NEWEST + 1) == "ENOSYS"
    assert run(program, X86.audit, X86.numbers["write"]) == "EPERM"


def test_a_process_of_32_bits_has_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Raspberry Pi OS of 32 bits has, on a kernel of 64: seccomp(2) would be another call."""
    monkeypatch.setattr("ifdefault.ipc.seccomp.ctypes.sizeof", lambda _: 4)
    monkeypatch.setattr(seccomp, "libc", None)  # nothing is called
    with pytest.raises(
        OSError, match=f"no list of system calls for 32 bits on {os.uname().machine}"
    ):
        seccomp.install([], ())


def test_a_call_is_allowed_if_all_tests_of_a_case_pass() -> None:
    call = Call("read", ((equal(0, 1), equal(1, 2)), ((2, 6, 4),)), errno.EACCES)
    program = assemble(X86, [call, Call("write", ANY)], ())
    number = X86.numbers["read"]
    for arguments, verdict in {
        (1, 2, 0): ALLOWED,
        (1, 3, 0): "EACCES",
        (0, 2, 0): "EACCES",
        (0, 0, 4): ALLOWED,
        (0, 0, 5): ALLOWED,
        (0, 0, 6): "EACCES",
    }.items():
        assert run(program, X86.audit, number, *arguments) == verdict
    assert run(program, X86.audit, X86.numbers["write"]) == ALLOWED
