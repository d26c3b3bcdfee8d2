"""Dropping privileges for good.

Rules: a process drops its own privileges, at its start, before it reads any input, and while it has
only one thread. (Between fork and exec only async-signal-safe code may run, which Python's
`preexec_fn` isn't; and emptying the bounding set needs a privilege.) The parent then checks in
/proc that nothing is left (`left_over`).

`python -m ifdefault.ipc.privileges UID GID COMMAND…` runs a command without privileges, with only
PATH and IFDEFAULT_… in its environment.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

from ifdefault.libc import checked, libc
from ifdefault.model.errors import reason
from ifdefault.model.text import escaped

KEEP = -1  # keep the current uid and gid
NOBODY = 65534
_PDEATHSIG, _DUMPABLE, _CAPBSET_READ, _CAPBSET_DROP = 1, 4, 23, 24  # linux/prctl.h
_NO_NEW_PRIVS, _CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h
_ENGINE_FILES, _USUAL_FILES = 1 << 16, 1024  # the latter: all that select(2) takes
_EMPTY = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def choose_user(name: str) -> tuple[int, int, str]:
    """The uid and gid of a user, given by name or number. If it doesn't exist or is root: those of
    nobody, and a warning."""
    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, ValueError, OverflowError):
        why = f"user {name} does not exist"
    else:
        if entry.pw_uid and entry.pw_gid:
            return entry.pw_uid, entry.pw_gid, ""
        why = f"user {name} is root"
    try:
        nobody = pwd.getpwnam("nobody")
        uid, gid = nobody.pw_uid or NOBODY, nobody.pw_gid or NOBODY
    except KeyError:
        uid = gid = NOBODY
    return uid, gid, f"{why}; using nobody: create a system user for it"


def possible(uid: int, gid: int) -> tuple[int, int]:
    """The same, or KEEP if this process can't become that user, as it isn't root, or is root in a
    user namespace that doesn't map the ids."""
    maps = [Path(f"/proc/self/{kind}_map").read_text("ascii", "replace") for kind in ("uid", "gid")]
    if os.geteuid() == 0 and all(map(is_mapped, (uid, gid), maps)):
        return uid, gid
    return KEEP, KEEP


def is_mapped(number: int, mapping: str) -> bool:
    """Whether a user namespace maps an id; user_namespaces(7), /proc/PID/uid_map."""
    rows = (map(int, line.split()) for line in mapping.splitlines())
    return any(first <= number < first + count for first, _, count in rows)


def drop(
    uid: int,
    gid: int,
    *,
    limits: Mapping[int, int] = MappingProxyType({}),
    parent_death: int = signal.SIGTERM,
    oom_score_adj: int = 0,
) -> None:
    """Drop all privileges for good. OSError if that fails.

    `limits`: more resource limits. `parent_death`: the signal when the parent ends, 0 for none.
    `oom_score_adj`: at least; if the host is out of memory, the engine is to be killed last.
    """
    _raise_oom_score(oom_score_adj)
    _limit(resource.RLIMIT_CORE, 0)  # a core dump would contain secrets
    if os.getpriority(os.PRIO_PROCESS, 0) < 0:
        os.setpriority(os.PRIO_PROCESS, 0, 0)  # the negative nice value is for the engine only
    for number, limit in limits.items():
        if number != resource.RLIMIT_NPROC or uid != KEEP:  # who keeps its user shares it
            _limit(number, limit)
    if os.geteuid() == 0:  # other users have no privileges anyway
        _empty_bounding_set()
    _prctl(_CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL)
    if uid != KEEP:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    _clear_capabilities()
    _prctl(_NO_NEW_PRIVS, 1)
    _prctl(_DUMPABLE, 0)
    _prctl(_PDEATHSIG, parent_death)  # last: a change of user clears it


def allow_files() -> None:
    """Allow this process as many open files as it may have: a socket for each address of a host
    needs more than a login's limit. Programs get the usual limit again (`main`)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _ENGINE_FILES if hard == resource.RLIM_INFINITY else min(hard, _ENGINE_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def left_over(status: str, uid: int) -> tuple[str, ...]:
    """The privileges that a process still has, according to its /proc/PID/status."""
    values = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    left = [f"{name} {values[name].strip()}" for name in _EMPTY if int(values[name], 16)]
    if values["NoNewPrivs"].strip() != "1":
        left.append("NoNewPrivs isn't set")
    if uid != KEEP:
        if {*values["Uid"].split()} != {str(uid)}:
            left.append(f"Uid {' '.join(values['Uid'].split())}")
        gids = values["Gid"].split()
        if "0" in gids or {*values["Groups"].split()} - {*gids}:  # systemd lists its own there
            left.append("groups")
    return tuple(left)


def _empty_bounding_set() -> None:
    for capability in range(64):
        is_set = libc.prctl(_CAPBSET_READ, capability, 0, 0, 0)
        if is_set < 0:  # beyond the kernel's last one
            break
        if is_set:
            _prctl(_CAPBSET_DROP, capability)


def _raise_oom_score(least: int) -> None:
    file = Path("/proc/self/oom_score_adj")
    with suppress(OSError, ValueError):  # it is only a precaution
        file.write_text(str(max(least, int(file.read_bytes()))))


def _limit(number: int, limit: int) -> None:
    _, hard = resource.getrlimit(number)
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(number, (limit, limit))


def _prctl(option: int, argument: int) -> None:
    checked(libc.prctl(option, argument, 0, 0, 0), f"prctl {option}")


def _clear_capabilities() -> None:
    """Empty the permitted, effective and inheritable sets (capset(2), in two halves)."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    checked(libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def main() -> NoReturn:
    uid, gid, *command = sys.argv[1:]
    drop(int(uid), int(gid))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, _USUAL_FILES), hard))
    env = {k: v for k, v in os.environ.items() if k == "PATH" or k.startswith("IFDEFAULT_")}
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and the command would too
    try:
        os.execve(command[0], command, env)
    except OSError as error:
        print(escaped(f"{command[0]}: {reason(error)}"), file=sys.stderr)
        os._exit(126)


if __name__ == "__main__":
    main()
