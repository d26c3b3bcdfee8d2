"""System calls by name, for the architectures that a filter can be made for.

Sources: asm/unistd_64.h of x86 (the first number), asm-generic/unistd.h (the second, aarch64). From
424 on, the numbers are the same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

NEWEST = 450  # set_mempolicy_home_node, Linux 6.1; later calls are unknown here
_NONE = "-"  # the architecture doesn't have it
_TABLE = """
read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, close 3 57, lseek 8 62, dup 32 23
fstat 5 80, newfstatat 262 79, stat 4 -, lstat 6 -, statx 332 291, getdents64 217 61, getcwd 79 17
access 21 -, faccessat 269 48, faccessat2 439 439, readlink 89 -, readlinkat 267 78
open 2 -, openat 257 56, openat2 437 437, fcntl 72 25, ioctl 16 29, pipe2 293 59, eventfd2 290 19
mmap 9 222, mprotect 10 226, munmap 11 215, mremap 25 216, brk 12 214, madvise 28 233
socket 41 198, socketpair 53 199, connect 42 203, shutdown 48 210
listen 50 201, accept 43 202, accept4 288 242
sendto 44 206, recvfrom 45 207, sendmsg 46 211, recvmsg 47 212, sendmmsg 307 269, recvmmsg 299 243
getsockname 51 204, getpeername 52 205, getsockopt 55 209, setsockopt 54 208
epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22, epoll_pwait2 441 441
poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72, futex 202 98, restart_syscall 219 128
clock_gettime 228 113, clock_getres 229 114, clock_nanosleep 230 115, nanosleep 35 101
gettimeofday 96 169, time 201 -, getrandom 318 278, uname 63 160, sysinfo 99 179
getpid 39 172, gettid 186 178, getppid 110 173, getuid 102 174, geteuid 107 175, getgid 104 176
getegid 108 177, getrlimit 97 163, prlimit64 302 261, getrusage 98 165, prctl 157 167
rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, sigaltstack 131 132
kill 62 129, tgkill 234 131, clone 56 220, clone3 435 435, exit 60 93, exit_group 231 94
set_robust_list 273 99, rseq 334 293, membarrier 324 283, arch_prctl 158 -
sched_yield 24 124, sched_getaffinity 204 123
execve 59 221, execveat 322 281, ptrace 101 117, pidfd_getfd 438 438
process_vm_readv 310 270, process_vm_writev 311 271, bpf 321 280, perf_event_open 298 241
userfaultfd 323 282, io_uring_setup 425 425, io_uring_enter 426 426, io_uring_register 427 427
mount 165 40, umount2 166 39, pivot_root 155 41, chroot 161 51, mount_setattr 442 442
fsopen 430 430, fsmount 432 432, move_mount 429 429, open_tree 428 428
unshare 272 97, setns 308 268, add_key 248 217, request_key 249 218, keyctl 250 219
kexec_load 246 104, kexec_file_load 320 294, reboot 169 142, swapon 167 224
init_module 175 105, finit_module 313 273, delete_module 176 106, personality 135 92
"""


@dataclass(frozen=True, slots=True)
class Architecture:
    """`audit`: AUDIT_ARCH_… of linux/audit.h. A call that it doesn't have is missing."""

    audit: int
    numbers: dict[str, int]


def _numbers(column: int) -> dict[str, int]:
    rows = [entry.split() for line in _TABLE.split("\n") for entry in line.split(",") if entry]
    return {row[0]: int(row[column]) for row in rows if row[column] != _NONE}


# by os.uname().machine
ARCHITECTURES = {
    "x86_64": Architecture(0xC000003E, _numbers(1)),
    "aarch64": Architecture(0xC00000B7, _numbers(2)),
}
