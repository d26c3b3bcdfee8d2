"""Control groups of commands that use one uplink only (`ifdefault exec`).

Rules: a group is created below the group that the process is in, so that all its limits still
apply. It is recorded on disk (State.runs) until it is empty. After a failure the process is in the
group where it was before. How many groups there may be is limited for each user who can create
parents of them; there is always room for root's.
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
_MOST, _MOST_OF_A_USER, _MOST_OF_ALL = 256, 64, 512  # the last is for root
_LONGEST_PATH = 1024  # paths are part of the state, and of the programs' maps


def remove_empty(state: State) -> State:
    """Remove the groups without processes from the host and from the state."""
    with suppress(HostError):
        removed = [path for path in state.runs if cgroups.remove_empty(path)]
        if removed:
            runs = {path: uplink for path, uplink in state.runs.items() if path not in removed}
            return replace(state, runs=runs)
    return state


def enter(store: Store, pid: int, uid: int, uplink: str) -> tuple[str, str]:
    """Move a process to a control group for an uplink, and record the group in the state. Its new
    connections, and those of its children, use the uplink once the state has been applied. Return
    the paths of this group and of the group that it was in. The caller holds the store's lock."""
    if why := attach.unavailable():
        raise HostError(Problem("exec", why, "use an [[outgoing.rule]] with users instead"))
    try:
        was = _group_of(pid, uid)
        state = remove_empty(store.load())
        path = _group_path(was, uplink, state)
        if path not in state.runs:
            _require_room(path, uid, state)
        cgroups.enter(pid, path)
        store.save(replace(state, runs={**state.runs, path: uplink}))
    except OSError as error:
        what = f"process {pid} can't be moved: {reason(error)}"
        raise HostError(Problem("exec", what, "run it where cgroup v2 is writable")) from error
    return path, was


def leave(store: Store, pid: int, was: str) -> None:
    """Move a process back, since the kernel couldn't be changed. The caller holds the lock."""
    with suppress(OSError, IfdefaultError):
        cgroups.enter(pid, was)
        store.save(remove_empty(store.load()))


def is_installed(path: str) -> bool:
    """Whether the eBPF programs know the uplink of a group's processes."""
    hook = attach.read()
    return hook is not None and path in (cgroup for cgroup, *_ in hook.cgroups)


def _group_of(pid: int, uid: int) -> str:
    """The group of a process, which waits for us. Another process with its pid isn't moved."""
    path = cgroups.of_process(pid)
    if os.stat(f"/proc/{pid}").st_uid != uid:
        raise ProcessLookupError(f"it no longer belongs to uid {uid}")
    if path.startswith("/.."):
        what = f"process {pid} is in another cgroup namespace"
        raise HostError(Problem("exec", what, "run ifdefault in that namespace"))
    return path


def _group_path(was: str, uplink: str, state: State) -> str:
    """Next to the group of an earlier `exec`, if the process is in one."""
    return f"{_parent(was) if was in state.runs else was.rstrip('/')}/{_PREFIX}{uplink}"


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _require_room(path: str, uid: int, state: State) -> None:
    """For another group, of a process of a user."""
    if len(path) > _LONGEST_PATH:
        what = f"the path of the control group is longer than {_LONGEST_PATH} characters"
        raise HostError(Problem("exec", what, "run it in a group that is nested less deeply"))
    count, most, whose = len(state.runs), _MOST if uid else _MOST_OF_ALL, ""
    if uid and count < most:
        count = sum(cgroups.owner(_parent(group)) == uid for group in state.runs)
        most, whose = _MOST_OF_A_USER, f" of uid {uid}"
    if count >= most:
        what = f"{most} control groups of commands{whose} exist already"
        raise HostError(Problem("exec", what, "end some of the commands"))
