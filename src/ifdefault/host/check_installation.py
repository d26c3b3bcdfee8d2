"""Whether there is another ifdefault on this host: as a command, or as the daemon that runs.

Rules: nothing is run; a command is known by the interpreter in its first line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import ifdefault
from ifdefault.kernel import wireguard
from ifdefault.model.errors import Problem
from ifdefault.model.kernel import Link
from ifdefault.model.report import DaemonStatus

PROGRAM = str(Path(ifdefault.__file__).parent)  # where the one that runs here is
_COMMAND = "ifdefault"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"  # root's, and that of units
_FIRST_LINE_BYTES = 256  # the kernel reads no more of it: BINPRM_BUF_SIZE


def find_others(daemon: DaemonStatus | None, path: str | None = None) -> Iterator[Problem]:
    """`path`: where commands are looked for, besides root's usual places."""
    own, is_first = _folder(sys.executable), True
    path = os.environ.get("PATH", "") if path is None else path
    for folder in dict.fromkeys(map(_real, filter(None, f"{path}:{_PATH}".split(":")))):
        command = folder / _COMMAND
        with suppress(OSError):  # it isn't there, or not ours to read
            if _is_of(command, own):
                is_first = False
            else:
                first = ", which comes first in PATH" if is_first else ""
                yield Problem(str(command), f"is another ifdefault{first}", _REMOVE, warning=True)
    if daemon is not None:
        yield from _other_daemon(daemon)


def find_missing(links: Sequence[Link]) -> Iterator[Problem]:
    """Programs that the daemon needs for what this host has."""
    names = wireguard.tunnels(links)
    if names and wireguard.program() is None:
        what = "wg is missing; WireGuard stays on a dead uplink for 15 s, and doesn't return"
        remedy = "install wireguard-tools (on Debian and Ubuntu: apt install wireguard-tools)"
        yield Problem(" ".join(names), what, remedy, warning=True)


_REMOVE = "remove one of the two"


def _is_of(command: Path, folder: Path) -> bool:
    """Whether a command is run by the interpreter in this folder. OSError if there is none."""
    with command.open("rb") as file:
        words = os.fsdecode(file.read(_FIRST_LINE_BYTES)).partition("\n")[0].split()
    return bool(words) and words[0].startswith("#!") and _folder(words[0][2:]) == folder


def _folder(interpreter: str) -> Path:
    """Where it is: a virtual environment has a link there, so that itself isn't followed."""
    return _real(os.path.dirname(interpreter))


def _real(folder: str) -> Path:
    return Path(os.path.realpath(folder))


def _other_daemon(daemon: DaemonStatus) -> Iterator[Problem]:
    if daemon.program not in ("", PROGRAM):
        what = f"is that of another ifdefault, in {daemon.program}"
        yield Problem("daemon", what, f"{_REMOVE}, then start the other one's", warning=True)
    elif daemon.program_version != ifdefault.__version__:
        version = f"version {daemon.program_version}" if daemon.program else "an earlier version"
        what = f"is {version}, and this command is {ifdefault.__version__}"
        yield Problem("daemon", what, "restart it: systemctl restart ifdefault", warning=True)
