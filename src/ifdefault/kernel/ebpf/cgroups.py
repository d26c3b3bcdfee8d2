"""Cgroups of the cgroup v2 hierarchy: their ids, and the processes in them.

Rules: a path starts at the hierarchy's root as this process sees it: "/system.slice/a.service".
The hierarchy may be mounted anywhere, or nowhere (`ip netns exec` hides it), so it is accessed
through a file descriptor of its root.
"""

from __future__ import annotations

import functools
import os
import re
from contextlib import suppress
from pathlib import Path

from ifdefault.libc import checked, libc
from ifdefault.model.errors import HostError, Problem, reason

_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432  # the same on every architecture
_FSOPEN_CLOEXEC, _FSMOUNT_CLOEXEC, _CMD_CREATE = 1, 1, 6  # linux/mount.h
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PROCESSES = "cgroup.procs"
_ESCAPE = re.compile(rb"\\([0-7]{3})")  # blanks and backslashes in paths


@functools.cache
def root() -> int:
    """A descriptor of the root. Raises HostError if there is no hierarchy."""
    try:
        mounted = _mounted()
        if mounted:
            return os.open(mounted, _DIRECTORY)
        return _detached()
    except OSError as error:
        what = f"no cgroup v2 hierarchy found ({reason(error)})"
        remedy = "mount it: mount -t cgroup2 none /sys/fs/cgroup/unified"
        raise HostError(Problem("cgroup v2", what, remedy)) from error


def _mounted() -> str:
    """The mount point, "" if there is none; proc_pid_mountinfo(5)."""
    for line in Path("/proc/self/mountinfo").read_bytes().split(b"\n"):
        head, _, tail = line.partition(b" - ")
        if tail.startswith(b"cgroup2 "):
            path = os.fsdecode(_ESCAPE.sub(_unescaped, head.split(b" ")[4]))
            if Path(path, _PROCESSES).exists():  # otherwise something is mounted over it
                return path
    return ""


def _unescaped(escape: re.Match[bytes]) -> bytes:
    return bytes([int(escape[1], 8) & 255])


def _detached() -> int:
    """Create a mount that isn't attached anywhere, which needs CAP_SYS_ADMIN; return its root."""
    context = _syscall(_FSOPEN, b"cgroup2", _FSOPEN_CLOEXEC)
    try:
        _syscall(_FSCONFIG, context, _CMD_CREATE, None, None, 0)
        mount = _syscall(_FSMOUNT, context, _FSMOUNT_CLOEXEC, 0)
    finally:
        os.close(context)
    try:
        return os.open(".", _DIRECTORY, dir_fd=mount)
    finally:
        os.close(mount)


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    return checked(libc.syscall(number, *arguments))


def _below(path: str, name: str = "") -> str:
    return os.path.join(path.strip("/") or ".", name)


def number(path: str) -> int:
    """The kernel's id of a cgroup, which is its inode number; 0 if it doesn't exist."""
    try:
        return os.stat(_below(path), dir_fd=root()).st_ino
    except OSError:
        return 0


def numbers_below(path: str) -> tuple[int, ...]:
    """The ids of a cgroup and of all below it; none if it doesn't exist."""
    folders = os.fwalk(_below(path), dir_fd=root())
    try:
        return tuple(os.fstat(fd).st_ino for _, _, _, fd in folders)
    except FileNotFoundError:
        return ()


def owner(path: str) -> int:
    """The user who owns a cgroup, and may create others in it; -1 if it doesn't exist."""
    try:
        return os.stat(_below(path), dir_fd=root()).st_uid
    except OSError:
        return -1


def of_process(pid: int) -> str:
    """The path of a process's cgroup. Raises FileNotFoundError if it has none."""
    for line in os.fsdecode(Path(f"/proc/{pid}/cgroup").read_bytes()).split("\n"):
        if line.startswith("0::"):
            return line.removeprefix("0::").removesuffix(" (deleted)")
    raise FileNotFoundError(f"process {pid} is in no cgroup v2")


def enter(pid: int, path: str) -> None:
    """Move a process into a cgroup, which is created if it doesn't exist."""
    with suppress(FileExistsError):
        os.mkdir(_below(path), dir_fd=root())
    _write(_below(path, _PROCESSES), str(pid))


def _write(name: str, text: str) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=root())
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def remove_empty(path: str) -> bool:
    """Remove a cgroup unless it has processes; return whether it no longer exists."""
    try:
        os.rmdir(_below(path), dir_fd=root())
    except FileNotFoundError:
        return True
    except OSError:
        return False  # EBUSY: it has processes
    return True
