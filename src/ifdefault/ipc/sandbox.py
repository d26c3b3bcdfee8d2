"""What each process that talks to the Internet is confined to (decision 42).

Rules: a process enters its sandbox before it reads any input, after all imports, and with one
thread. Dropping its privileges must succeed; of the kernel's seccomp and Landlock, what isn't there
is reported, and the rest stands. What no correct program does kills the process, so that its end is
heard of; anything else that is refused is an error to it.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ifdefault.ipc import landlock, privileges, seccomp
from ifdefault.ipc.seccomp import Call, Test, equal
from ifdefault.libc import SO_ATTACH_FILTER
from ifdefault.model.errors import reason

MIB = 1 << 20
_UNREADABLE = {"proc", "sys", "dev", "boot"}  # at the top: of other processes, and of the kernel
# file systems that other hosts, or processes (fuse), have to answer for
_REMOTE = re.compile(
    r"fuse.*|afs|ceph|cifs|davfs|gfs2?|glusterfs|gpfs|lustre|ncpfs?|nfs4?|ocfs2|pvfs2|smb3|smbfs"
)

# --- system calls -------------------------------------------------------------------------

_COMMON = """
recvfrom sendto recvmsg sendmsg recvmmsg sendmmsg epoll_wait epoll_pwait epoll_pwait2 epoll_ctl
read write close futex clock_gettime getsockopt getsockname getpeername shutdown
readv writev pread64 lseek dup fstat newfstatat stat lstat statx getdents64 getcwd access faccessat
faccessat2 readlink readlinkat fcntl pipe2 eventfd2 munmap mremap brk madvise epoll_create1
poll ppoll select pselect6 restart_syscall clock_getres clock_nanosleep nanosleep
gettimeofday time getrandom uname sysinfo getpid gettid getppid getuid geteuid getgid getegid
getrlimit getrusage rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack exit exit_group
set_robust_list rseq membarrier arch_prctl sched_yield sched_getaffinity
""".split()
KILLED = """
execve execveat ptrace process_vm_readv process_vm_writev pidfd_getfd bpf perf_event_open
userfaultfd io_uring_setup io_uring_enter io_uring_register mount umount2 pivot_root chroot
mount_setattr fsopen fsmount move_mount open_tree unshare setns add_key request_key keyctl
kexec_load kexec_file_load reboot swapon init_module finit_module delete_module
""".split()
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | (os.O_TMPFILE & ~os.O_DIRECTORY)
_PROT_WRITE, _PROT_EXEC = 2, 4  # asm-generic/mman-common.h
_CLONE_THREAD, _CLONE_NEW = 0x10000, 0x7E020000  # linux/sched.h
_PR_SET_NAME, _PR_SET_VMA = 15, 0x53564D41  # linux/prctl.h: of threads, and of memory
# asm-generic/ioctls.h: TCGETS, TIOCOUTQ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX; linux/sockios.h:
# SIOCGIFINDEX, for the interface of a name server (resolv.conf(5): fe80::1%eth0)
_IOCTLS = (0x5401, 0x5411, 0x541B, 0x5421, 0x5450, 0x5451, 0x8933)
_IP_RECVERR, _IPV6_RECVERR = 11, 25
_SHARED_OPTIONS = ((socket.SOL_SOCKET, socket.SO_LINGER),)
_FRONTEND_OPTIONS = (
    *_SHARED_OPTIONS,
    (socket.SOL_SOCKET, SO_ATTACH_FILTER),
    (socket.IPPROTO_IP, _IP_RECVERR),
    (socket.IPPROTO_IPV6, _IPV6_RECVERR),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY),
)
_DNS_OPTIONS = (
    *_SHARED_OPTIONS,
    (socket.SOL_SOCKET, socket.SO_RCVBUF),
    (socket.SOL_SOCKET, socket.SO_SNDBUF),
)
_SOCKETS = tuple(
    (family, kind, protocol)
    for family in (socket.AF_INET, socket.AF_INET6)
    for kind, own in ((socket.SOCK_DGRAM, socket.IPPROTO_UDP), (socket.SOCK_STREAM, 6))
    for protocol in (0, own)
)


def _no_flag(argument: int, flags: int) -> Test:
    return argument, flags, 0


def _one_of(argument: int, values: tuple[int, ...]) -> tuple[tuple[Test, ...], ...]:
    return tuple((equal(argument, value),) for value in values)


def _common() -> Iterator[Call]:
    """What every process of ours needs that has nothing to do but to read and send."""
    me = os.getpid()
    yield from map(Call, _COMMON)
    yield Call("openat", ((_no_flag(2, _WRITES),),), errno.EROFS)
    yield Call("open", ((_no_flag(1, _WRITES),),), errno.EROFS)
    # libraries may be loaded; what this process wrote may not be executed
    yield Call("mmap", ((_no_flag(2, _PROT_WRITE),), (_no_flag(2, _PROT_EXEC),)))
    yield Call("mprotect", ((_no_flag(2, _PROT_EXEC),),))
    yield Call("clone", (((0, _CLONE_THREAD | _CLONE_NEW, _CLONE_THREAD),),))
    for name in ("clone3", "openat2"):  # their arguments can't be seen: libc falls back
        yield Call(name, (), errno.ENOSYS)
    yield Call("socketpair", ((equal(0, socket.AF_UNIX),),))
    yield Call("ioctl", _one_of(1, _IOCTLS), errno.ENOTTY)
    yield Call("prctl", _one_of(0, (_PR_SET_NAME, _PR_SET_VMA)))
    yield Call("prlimit64", _one_of(0, (0, me)))
    for name in ("kill", "tgkill"):
        yield Call(name, _one_of(0, (me,)))


def _options(options: tuple[tuple[int, int], ...]) -> Call:
    cases = tuple((equal(1, level), equal(2, option)) for level, option in options)
    return Call("setsockopt", cases)


def _socket_calls(sockets: tuple[tuple[int, int, int], ...]) -> Iterator[Call]:
    """Others fail as for families that the kernel doesn't have, which getaddrinfo(3) expects."""
    kinds = 0xF  # without SOCK_NONBLOCK and SOCK_CLOEXEC
    cases = tuple((equal(0, f), (1, kinds, k), equal(2, p)) for f, k, p in sockets)
    yield Call("socket", cases, errno.EAFNOSUPPORT)
    yield Call("connect")


# --- profiles -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Profile:
    """`limits`: by resource. `parent_death`: the signal when the parent ends, 0 to outlive it.
    `sockets`: family, type and protocol of those that it may open. `options`: by level and name,
    those that it may set. `accepts`: whether it may accept connections. `listens`: whether it may
    begin to, at a socket that it has (asyncio does at one that listens already)."""

    limits: dict[int, int]
    oom_score_adj: int
    parent_death: int = 0
    sockets: tuple[tuple[int, int, int], ...] = ()
    options: tuple[tuple[int, int], ...] = ()
    accepts: bool = False
    listens: bool = False

    def calls(self) -> list[Call]:
        calls = [*_common(), _options(self.options)]
        calls += _socket_calls(self.sockets) if self.sockets else ()
        calls += map(Call, ("accept4", "accept")) if self.accepts else ()
        calls += [Call("listen")] if self.listens else []
        return calls


FRONTEND = Profile(
    limits={
        resource.RLIMIT_NOFILE: 8192,
        resource.RLIMIT_NPROC: 64,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_DATA: 384 * MIB,
    },
    oom_score_adj=500,
    parent_death=signal.SIGKILL,
    sockets=_SOCKETS,
    options=_FRONTEND_OPTIONS,
)
DNS_SERVER = Profile(
    limits={
        resource.RLIMIT_NOFILE: 8192,
        resource.RLIMIT_NPROC: 64,
        resource.RLIMIT_DATA: 768 * MIB,
    },
    oom_score_adj=200,
    options=_DNS_OPTIONS,
    accepts=True,
)
WEB = Profile(
    limits={
        resource.RLIMIT_NOFILE: 4096,
        resource.RLIMIT_NPROC: 64,
        resource.RLIMIT_DATA: 384 * MIB,
    },
    oom_score_adj=500,
    sockets=((socket.AF_UNIX, socket.SOCK_STREAM, 0),),  # to the engine
    options=(*_SHARED_OPTIONS, (socket.IPPROTO_TCP, socket.TCP_NODELAY)),
    accepts=True,
    listens=True,
)


def enter(
    profile: Profile, uid: int, gid: int, readable: Iterable[str] | None = None
) -> tuple[str, ...]:
    """Drop all privileges, and confine this process to its profile, for good. Return what this host
    can't do of that, and why; OSError if the privileges can't be dropped. `readable`: files and
    directories that may be read; by default almost all."""
    privileges.drop(
        uid,
        gid,
        limits=profile.limits,
        parent_death=profile.parent_death,
        oom_score_adj=profile.oom_score_adj,
    )
    missing = []
    try:
        landlock.restrict(_readable() if readable is None else readable)
    except OSError as error:
        missing.append(f"Landlock ({reason(error)})")
    try:
        seccomp.install(profile.calls(), KILLED)
    except OSError as error:
        missing.append(f"seccomp ({reason(error)})")
    return tuple(missing)


def _readable() -> list[str]:
    """Key files and certificates may be anywhere; the user has to be able to read them, too. But
    one look at a remote file system that doesn't answer would block this process for ever. Links
    need no rule of their own: what they lead to has one, or must have none."""
    mounts = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    remote = remote_mounts(mounts)
    with os.scandir("/") as entries:
        return [
            entry.path
            for entry in entries
            if entry.name not in _UNREADABLE and entry.path not in remote and not entry.is_symlink()
        ]


def remote_mounts(mountinfo: str) -> set[str]:
    """The mount points of remote file systems; proc_pid_mountinfo(5)."""
    mounts = (line.partition(" - ") for line in mountinfo.split("\n") if line)
    return {
        where.split(" ")[4] for where, _, what in mounts if _REMOTE.fullmatch(what.split(" ")[0])
    }
