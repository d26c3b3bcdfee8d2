"""The right to create network namespaces: root's, or a user namespace's.

Rules: without root a command is executed again inside a user namespace, with its own /run/netns.
For worlds that outlive the command (`lab up`) one sleeping process per user holds the user
namespace, which later commands enter; it ends with the last world. `python -m
ifdefault.lab.rootless COMMAND…` runs any command with these rights.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from ifdefault.lab import registry
from ifdefault.model.errors import HostError, Problem

_CAPABILITIES = 1 << 12 | 1 << 21  # CAP_NET_ADMIN, CAP_SYS_ADMIN
_UNSHARE = ["unshare", "--user", "--map-root-user", "--mount", "--net", "--"]
# `ip netns` keeps its names in /run/netns; mount on /run itself if that doesn't exist yet
_PREPARE = """\
if [ -d /run/netns ]; then mount -t tmpfs lab /run/netns
else mount -t tmpfs lab /run && mkdir /run/netns; fi || exit
"""
# entering a mount namespace loses the working directory
_RETURN = 'cd "$1" && shift && exec "$@"'


def capable() -> bool:
    """Whether this process may create network namespaces."""
    status = Path("/proc/self/status").read_text()
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    return effective & _CAPABILITIES == _CAPABILITIES


def enter_alone(command: Sequence[str] = ()) -> None:
    """Continue in a user namespace that ends with this process; nothing to do as root."""
    if not capable():
        _check_allowed()
        script = f'{_PREPARE}exec "$@"'
        _execute([*_UNSHARE, "sh", "-c", script, "sh", *(command or _this())])


def enter_held(*, start: bool = False) -> None:
    """Continue in the user namespace of this user's worlds; nothing to do as root.

    Without `start` it must exist; if it doesn't there are no worlds.
    """
    if capable():
        return
    pid = _holder()
    if not pid:
        if not start:
            raise HostError("no world is up; build one with `ifdefault lab up`")
        pid = _start_holder()
    enter = ["nsenter", f"--target={pid}", "--user", "--mount", "--net", "--preserve-credentials"]
    _execute([*enter, "--", "sh", "-c", _RETURN, "sh", os.getcwd(), *_this()])


def end_holder() -> None:
    """End the user namespace after its last world."""
    if registry.OUTER_UID in os.environ and not registry.names() and (pid := _holder()):
        _holder_file().unlink()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def _check_allowed() -> None:
    done = subprocess.run([*_UNSHARE, "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostError(
            Problem(
                "",
                f"the lab needs root or user namespaces, which aren't allowed ({_last(done)})",
                "run it as root, or allow them: sysctl kernel.unprivileged_userns_clone=1"
                " (Debian), kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu)",
            )
        )


def _holder_file() -> Path:
    return registry.root() / "holder"


def _holder() -> int:
    """The process that holds this user's worlds, 0 if there is none."""
    try:
        pid, start = map(int, _holder_file().read_text().split())
    except FileNotFoundError:
        return 0
    return pid if registry.start_time(pid) == start else 0


def _start_holder() -> int:
    _check_allowed()
    registry.own(registry.root())
    for name in registry.names():  # of a holder that has ended, with its namespaces
        registry.forget(name)
    # it outlives us and must not keep our stderr open
    script = f"{_PREPARE}echo ready; exec sleep infinity >/dev/null 2>&1"
    child = subprocess.Popen(
        [*_UNSHARE, "sh", "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        start_new_session=True,
    )
    assert child.stdout is not None
    if child.stdout.readline() != "ready\n":
        raise HostError("the lab's user namespace can't be prepared; see the error above")
    _holder_file().write_text(f"{child.pid} {registry.start_time(child.pid)}\n")
    return child.pid


def _this() -> list[str]:
    return [sys.executable, "-m", "ifdefault", *sys.argv[1:]]


def _execute(command: list[str]) -> NoReturn:
    os.environ[registry.OUTER_UID] = str(os.getuid())
    os.execvp(command[0], command)


def _last(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stderr.strip().splitlines() or ["no reason given"])[-1]


if __name__ == "__main__":
    enter_alone(sys.argv[1:])
    os.execvp(sys.argv[1], sys.argv[1:])
