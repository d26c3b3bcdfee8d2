"""Cgroups of the hierarchy of version 2: where they are, and which processes are in them.

Rules: a path begins at the hierarchy's root as this process sees it: "/system.slice/a.service".
Nothing is found by a name: the hierarchy is mounted anywhere, or nowhere (`ip netns exec` hides
it), so that all goes by a descriptor of its root.
"""

from __future__ import annotations

import functools
import os
from contextlib import suppress
from pathlib import Path

from ifdefault.libc import checked, libc
from ifdefault.model.errors import HostError, Problem, reason

_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432  # the same on every architecture
_FSOPEN_CLOEXEC, _FSMOUNT_CLOEXEC, _CMD_CREATE = 1, 1, 6  # linux/mount.h
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PROCESSES = "cgroup.procs"


@functools.cache
def root() -> int:
    """A descriptor of the root; HostError where there is none."""
    try:
        mounted = _mounted()
        if mounted:
            return os.open(mounted, _DIRECTORY)
        return _detached()
    except OSError as error:
        what = f"no cgroup v2 hierarchy is to be seen ({reason(error)})"
        remedy = "mount one: mount -t cgroup2 none /sys/fs/cgroup/unified"
        raise HostError(Problem("cgroup v2", what, remedy)) from error


def _mounted() -> str:
    """Where it is mounted, "" if nowhere; proc_pid_mountinfo(5)."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        head, _, tail = line.partition(" - ")
        if tail.startswith("cgroup2 "):
            place = head.split()[4].encode().decode("unicode_escape")
            if Path(place, _PROCESSES).exists():  # else something is mounted over it
                return place
    return ""


def _detached() -> int:
    """Mount it where nobody sees it; that takes CAP_SYS_ADMIN."""
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
    """The id by which the kernel knows a cgroup, 0 if there is none: its inode's number."""
    try:
        return os.stat(_below(path), dir_fd=root()).st_ino
    except OSError:
        return 0


def of_process(pid: int) -> str:
    """The path of the cgroup that a process is in."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return line.removeprefix("0::").removesuffix(" (deleted)")
    raise FileNotFoundError(f"process {pid} is in no cgroup of version 2")


def enter(pid: int, path: str) -> None:
    """Move a process into a cgroup, which is made if it isn't there."""
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
    """Whether a cgroup is gone, which is removed if no process is in it."""
    try:
        os.rmdir(_below(path), dir_fd=root())
    except FileNotFoundError:
        return True
    except OSError:
        return False  # EBUSY: somebody is in it
    return True
