"""Commands that keep to one uplink (`ifdefault exec`): for each a control group with a rule.

Rules: the group is made below that which the process is in, so that it keeps all its limits, and is
on disk (State.runs) until it is empty. What fails leaves the process where it was.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace

from ifdefault.host.store import Store
from ifdefault.kernel.ebpf import attach, cgroups
from ifdefault.model.errors import HostError, IfdefaultError, Problem, reason
from ifdefault.model.host import State

_PREFIX = "ifdefault-"
_MOST = 256


def swept(state: State) -> State:
    """Remove the groups that nobody is in any more, from the host and from what is remembered."""
    with suppress(HostError):
        gone = [path for path in state.runs if cgroups.remove_empty(path)]
        if gone:
            runs = {path: uplink for path, uplink in state.runs.items() if path not in gone}
            return replace(state, runs=runs)
    return state


def enter(store: Store, pid: int, uid: int, uplink: str) -> tuple[str, str]:
    """Let what a process opens from now on, and all that it starts, leave by an uplink, as soon as
    the kernel is brought to what the state says then. The paths of its group, and of that in which
    it was. The caller holds the store's lock."""
    if why := attach.unavailable():
        raise HostError(Problem("exec", why))
    try:
        was = _group_of(pid, uid)
        state = swept(store.load())
        path = _place(was, uplink, state)
        cgroups.enter(pid, path)
        store.save(replace(state, runs={**state.runs, path: uplink}))
    except OSError as error:
        what = f"process {pid} can't be moved: {reason(error)}"
        raise HostError(Problem("exec", what)) from error
    return path, was


def leave(store: Store, pid: int, was: str) -> None:
    """Move it back, as far as that can be: the kernel wasn't told. Under the lock, too."""
    with suppress(OSError, IfdefaultError):
        cgroups.enter(pid, was)
        store.save(swept(store.load()))


def is_laid(path: str) -> bool:
    """Whether the kernel knows where a group's processes are to leave by."""
    laid = attach.read()
    return laid is not None and path in (each for each, *_ in laid.cgroups)


def _group_of(pid: int, uid: int) -> str:
    """Where a process is. It waits for us; whoever else has got its number isn't to be moved."""
    path = cgroups.of_process(pid)
    if os.stat(f"/proc/{pid}").st_uid != uid:
        raise ProcessLookupError(f"it isn't uid {uid}'s any more")
    if path.startswith("/.."):
        raise HostError(Problem("exec", f"process {pid} is in another cgroup namespace"))
    return path


def _place(was: str, uplink: str, state: State) -> str:
    """Beside the group that an earlier `exec` made, where we are in one."""
    parent = was.rpartition("/")[0] if was in state.runs else was.rstrip("/")
    path = f"{parent}/{_PREFIX}{uplink}"
    if path not in state.runs and len(state.runs) >= _MOST:
        raise HostError(Problem("exec", f"{_MOST} control groups have commands already"))
    return path
