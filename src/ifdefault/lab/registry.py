"""Where worlds are written down, so that another process finds them.

Rules: one directory a world, for its owner alone, with `world.json` in it. Root's are under /run;
without root they are under the temporary directory, which a user namespace still sees when it has
laid a /run of its own over the machine's. Several processes may serve one world: what each adds
is a file of its own, so that none overwrites another's.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from ifdefault.model.errors import HostError, Problem

OUTER_UID = "IFDEFAULT_LAB_UID"  # set inside a user namespace: whose it is


def root() -> Path:
    """The directory of all worlds of this user."""
    uid = os.environ.get(OUTER_UID) or str(os.geteuid())
    if uid == "0":
        return Path("/run/ifdefault-lab")
    return Path(tempfile.gettempdir()) / f"ifdefault-lab-{uid}"


def claim(directory: Path) -> None:
    """Make a world's directory; the name must be free."""
    own(directory.parent)
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        name = directory.name
        remedy = f"use another name, or `ifdefault lab down {name}`"
        raise HostError(Problem("", f'there is a world "{name}" already', remedy)) from None


def own(directory: Path) -> None:
    """Make a directory, which must be ours if it is there already."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    # the temporary directory is everybody's: somebody else's directory is no place for ours
    if directory.is_symlink() or directory.stat().st_uid != os.geteuid():
        raise HostError(Problem(str(directory), "belongs to somebody else", "remove it"))


def forget(name: str) -> None:
    shutil.rmtree(root() / name, ignore_errors=True)


def names() -> tuple[str, ...]:
    """All worlds of this user, the newest last."""
    found = sorted(root().glob("*/world.json"), key=lambda path: path.parent.stat().st_ctime_ns)
    return tuple(path.parent.name for path in found)


def read(name: str) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((root() / name / "world.json").read_text())
    except FileNotFoundError:
        there = ", ".join(names()) or "none; make one with `ifdefault lab up`"
        raise HostError(Problem("", f'no world "{name}"', f"there is {there}")) from None
    return state


def write(name: str, state: dict[str, Any]) -> None:
    path = root() / name / "world.json"
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(state))
    fresh.rename(path)


def add(name: str, kind: str, entry: str, text: str) -> None:
    """Note something of a world: a process that it ends, a fault that somebody suffers."""
    directory = root() / name / kind
    directory.mkdir(exist_ok=True)
    fresh = root() / name / f"{entry}.new"
    fresh.write_text(text)
    fresh.rename(directory / entry)


def entries(name: str, kind: str) -> dict[str, str]:
    """All that was noted of one kind, and isn't removed yet."""
    found = {}
    for path in sorted((root() / name / kind).glob("*")):
        with suppress(FileNotFoundError):  # removed meanwhile
            found[path.name] = path.read_text()
    return found


def remove(name: str, kind: str, entry: str) -> None:
    (root() / name / kind / entry).unlink(missing_ok=True)


def start_time(pid: int) -> int:
    """Clock ticks after boot at which a process started, 0 if there is none.

    Together with its id this names a process for good; ids are used again.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    state, *rest = stat.rpartition(")")[2].split()
    return 0 if state == "Z" else int(rest[18])
