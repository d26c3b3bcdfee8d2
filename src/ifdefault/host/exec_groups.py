"""Commands that keep to one uplink (`ifdefault exec`): for each a control group with a rule.

Rules: the group is made below that which the process is in, so that it keeps all its limits, and is
on disk (State.runs) until it is empty. What fails leaves the process where it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from ifdefault.host.store import State, Store
from ifdefault.kernel.ebpf import attach, cgroups
from ifdefault.model.config import Config, OutgoingRule
from ifdefault.model.errors import HostError, IfdefaultError, Problem, reason
from ifdefault.model.kernel import Uplink

_PREFIX = "ifdefault-"
_MOST = 256


def with_runs(config: Config, state: State) -> Config:
    """The config with a rule for each command that runs, before its own. Those that ended leave
    the state."""
    if not state.runs:
        return config
    try:
        state.runs = {path: u for path, u in state.runs.items() if cgroups.number(path)}
    except HostError:
        return config  # no cgroup v2 any more, and so no commands in one
    rules = tuple(OutgoingRule(via=(u,), cgroups=(path,)) for path, u in state.runs.items())
    return replace(config, outgoing=replace(config.outgoing, rules=rules + config.outgoing.rules))


def sweep(state: State) -> bool:
    """Remove the groups that nobody is in any more; whether there were some."""
    with suppress(HostError):
        gone = [path for path in state.runs if cgroups.remove_empty(path)]
        for path in gone:
            del state.runs[path]
        return bool(gone)
    return False


def find_uplink(uplinks: Sequence[Uplink], name: str) -> Uplink:
    """That of a name, if it can be used; HostError says what would be right."""
    found = {uplink.name: uplink for uplink in uplinks}
    if name not in found:
        raise HostError(Problem("", f'no uplink "{name}"', f"there are {', '.join(found)}"))
    if found[name].pending:
        raise HostError(Problem(f"uplink.{name}", f"is pending: {found[name].pending}"))
    return found[name]


def enter(store: Store, pid: int, uid: int, uplink: str, lay: Callable[[], None]) -> str:
    """Let what a process opens from now on, and all that it starts, leave by an uplink; the path of
    its group. `lay` brings the kernel to what the state says, with the lock free."""
    if why := attach.unavailable():
        raise HostError(Problem("exec", why))
    try:
        was = _group_of(pid, uid)
        with store.lock(wait=True):
            state = store.load()
            sweep(state)
            path = _place(was, uplink, state)
            cgroups.enter(pid, path)
            state.runs[path] = uplink
            store.save(state)
    except OSError as error:
        what = f"process {pid} can't be moved: {reason(error)}"
        raise HostError(Problem("exec", what)) from error
    try:
        if not _is_laid(path):
            lay()
            if not _is_laid(path):
                raise HostError(Problem("exec", "the kernel wasn't told", "try again"))
    except BaseException:
        _leave(store, pid, was)
        raise
    return path


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


def _is_laid(path: str) -> bool:
    laid = attach.read()
    return laid is not None and path in (each for each, *_ in laid.cgroups)


def _leave(store: Store, pid: int, was: str) -> None:
    with suppress(OSError, IfdefaultError):
        cgroups.enter(pid, was)
        with store.lock(wait=True):
            state = store.load()
            sweep(state)
            store.save(state)
