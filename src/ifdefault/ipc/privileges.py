"""Giving up rights, for good.

Rules: a process gives up its own, right at its start and before it reads a word from outside, and
while it has but one thread. (In the child between fork and exec only async-signal-safe code may
run, which Python's `preexec_fn` isn't; and the bounding set can be emptied only with rights.)
Whoever started it looks afterwards in /proc whether anything was left (`left_over`).

`python -m ifdefault.ipc.privileges UID GID COMMAND…` runs a command without rights, and with no
environment but PATH and IFDEFAULT_….
"""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
import signal
import sys
from pathlib import Path
from typing import NoReturn

from ifdefault.libc import checked, libc
from ifdefault.model.errors import reason

KEEP = -1  # the uid and gid that we have
NOBODY = 65534
_PDEATHSIG, _DUMPABLE, _CAPBSET_READ, _CAPBSET_DROP = 1, 4, 23, 24  # linux/prctl.h
_NO_NEW_PRIVS, _CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h
_FILES, _PROCESSES = 8192, 64
_EMPTY = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def choose_user(name: str) -> tuple[int, int, str]:
    """Uid and gid of a user, by name or number, or of nobody, with a warning, where that one can't
    be."""
    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, ValueError, OverflowError):
        why = f"there is no user {name}"
    else:
        if entry.pw_uid and entry.pw_gid:
            return entry.pw_uid, entry.pw_gid, ""
        why = f"{name} is root"
    try:
        nobody = pwd.getpwnam("nobody")
        uid, gid = nobody.pw_uid or NOBODY, nobody.pw_gid or NOBODY
    except KeyError:
        uid = gid = NOBODY
    return uid, gid, f"{why}, so that nobody stands in: create a system user of its own"


def possible(uid: int, gid: int) -> tuple[int, int]:
    """The same, or KEEP where this process can't become that user: it isn't root, or is root of a
    user namespace that has no such user."""
    ids = ((uid, "/proc/self/uid_map"), (gid, "/proc/self/gid_map"))
    if os.geteuid() == 0 and all(is_mapped(i, Path(file).read_text()) for i, file in ids):
        return uid, gid
    return KEEP, KEEP


def is_mapped(number: int, mapping: str) -> bool:
    """Whether a user namespace knows an id; user_namespaces(7), /proc/PID/uid_map."""
    rows = (map(int, line.split()) for line in mapping.splitlines())
    return any(first <= number < first + count for first, _, count in rows)


def drop(uid: int, gid: int, *, limit: bool = False) -> None:
    """Give up every right for good, and end when the parent does; OSError if any is left.

    `limit` bounds files and threads too, as befits what talks to strangers.
    """
    _limit(resource.RLIMIT_CORE, 0)  # a core would hold what the process knew
    if os.getpriority(os.PRIO_PROCESS, 0) < 0:
        os.setpriority(os.PRIO_PROCESS, 0, 0)  # the engine's alone
    if limit:
        _limit(resource.RLIMIT_NOFILE, _FILES)
    if os.geteuid() == 0:  # whoever else has no right to begin with
        _empty_bounding_set()
    _prctl(_CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL)
    if uid != KEEP:
        if limit:
            _limit(resource.RLIMIT_NPROC, _PROCESSES)
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    _clear_capabilities()
    _prctl(_NO_NEW_PRIVS, 1)
    _prctl(_DUMPABLE, 0)
    _prctl(_PDEATHSIG, signal.SIGTERM)  # last: a change of user clears it


def left_over(status: str, uid: int) -> tuple[str, ...]:
    """What rights a process still has, by its /proc/PID/status; none if it gave up all."""
    told = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    found = [f"{name} {told[name].strip()}" for name in _EMPTY if int(told[name], 16)]
    if told["NoNewPrivs"].strip() != "1":
        found.append("NoNewPrivs isn't set")
    if uid != KEEP:
        if {*told["Uid"].split()} != {str(uid)}:
            found.append(f"Uid {' '.join(told['Uid'].split())}")
        if "0" in told["Gid"].split() or told["Groups"].strip():
            found.append("groups")
    return tuple(found)


def _empty_bounding_set() -> None:
    for capability in range(64):
        held = libc.prctl(_CAPBSET_READ, capability, 0, 0, 0)
        if held < 0:  # beyond the kernel's last one
            break
        if held:
            _prctl(_CAPBSET_DROP, capability)


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))


def _prctl(option: int, argument: int) -> None:
    checked(libc.prctl(option, argument, 0, 0, 0), f"prctl {option}")


def _clear_capabilities() -> None:
    """Empty the permitted, effective and inheritable sets (capset(2), in two halves)."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    checked(libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def main() -> NoReturn:
    uid, gid, *command = sys.argv[1:]
    drop(int(uid), int(gid))
    env = {k: v for k, v in os.environ.items() if k == "PATH" or k.startswith("IFDEFAULT_")}
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, which is inherited
    try:
        os.execve(command[0], command, env)
    except OSError as error:
        print(f"{command[0]}: {reason(error)}", file=sys.stderr)
        os._exit(126)


if __name__ == "__main__":
    main()
