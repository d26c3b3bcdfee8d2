"""The registry of worlds, so that another process finds them.

Rules: one directory for each world, accessible to its owner only, with `world.json` in it. Root's
are in /run; without root they are in the temporary directory, which a user namespace still sees
after mounting its own /run. Several processes may use one world: each entry is a separate file, so
that none overwrites another's.
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

OUTER_UID = "IFDEFAULT_LAB_UID"  # set inside a user namespace: its owner


def root() -> Path:
    """The directory of all worlds of this user."""
    uid = os.environ.get(OUTER_UID) or str(os.geteuid())
    if uid == "0":
        return Path("/run/ifdefault-lab")
    return Path(tempfile.gettempdir()) / f"ifdefault-lab-{uid}"


def claim(directory: Path) -> None:
    """Make a world's directory; the name must be unused."""
    own(directory.parent)
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        name = directory.name
        remedy = f"use another name, or `ifdefault lab down {name}`"
        raise HostError(Problem("", f'world "{name}" exists already', remedy)) from None


def own(directory: Path) -> None:
    """Make a directory, which must be ours if it is there already."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    # the temporary directory is world-writable, so another user may have made it
    if directory.is_symlink() or directory.stat().st_uid != os.geteuid():
        raise HostError(Problem(str(directory), "belongs to another user", "remove it"))


def forget(name: str) -> None:
    shutil.rmtree(root() / name, ignore_errors=True)


def names() -> tuple[str, ...]:
    """All worlds of this user, the newest last."""
    ages: dict[str, int] = {}
    for path in root().glob("*/world.json"):
        with suppress(FileNotFoundError):  # removed meanwhile
            ages[path.parent.name] = path.parent.stat().st_ctime_ns
    return tuple(sorted(ages, key=ages.__getitem__))


def read(name: str) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((root() / name / "world.json").read_text())
    except FileNotFoundError:
        known = ", ".join(names())
        remedy = f"use one of {known}" if known else "build one with `ifdefault lab up`"
        raise HostError(Problem("", f'unknown world "{name}"', remedy)) from None
    return state


def write(name: str, state: dict[str, Any]) -> None:
    path = root() / name / "world.json"
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(state))
    fresh.rename(path)


def add(name: str, kind: str, entry: str, text: str) -> None:
    """Record an entry of a world: a process that it ends, or an active fault."""
    directory = root() / name / kind
    directory.mkdir(exist_ok=True)
    fresh = root() / name / f"{entry}.new"
    fresh.write_text(text)
    fresh.rename(directory / entry)


def entries(name: str, kind: str) -> dict[str, str]:
    """All entries of one kind."""
    entries = {}
    for path in sorted((root() / name / kind).glob("*")):
        with suppress(FileNotFoundError):  # removed meanwhile
            entries[path.name] = path.read_text()
    return entries


def remove(name: str, kind: str, entry: str) -> None:
    (root() / name / kind / entry).unlink(missing_ok=True)


def start_time(pid: int) -> int:
    """Clock ticks after boot at which a process started, 0 if there is none.

    Together with its id this identifies a process; ids alone are reused.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    state, *rest = stat.rpartition(")")[2].split()
    return 0 if state == "Z" else int(rest[18])
