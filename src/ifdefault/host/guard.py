"""`apply --confirm`: a guard process that undoes by itself unless confirmed.

Rules: the guard stands before the first change is made. It is a process of its own, in its own
session, without terminal, deaf to SIGHUP and SIGINT: the terminal's end, the end of the login and
kill -9 of the command don't reach it. Where systemd runs, it is a unit of its own, since logind
may kill what a login leaves behind. The file `undo.json` decides: who removes it under the lock
has won, and it says which guard it belongs to.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from ifdefault.errors import HostError, Problem
from ifdefault.host.apply import Prepared, commit, return_to, snapshot
from ifdefault.host.store import PENDING, Store
from ifdefault.model import Desired

_READY = b"ready\n"
_SYSTEMD = Path("/run/systemd/system")


def commit_on_probation(prepared: Prepared, store: Store, seconds: int) -> None:
    """Commit what was prepared, with a guard that undoes it after `seconds` unless confirmed.

    The caller holds the store's lock. If the commit itself fails, the guard is called off.
    """
    token = secrets.token_hex(8)
    before = snapshot(prepared.facts, prepared.state)
    store.write(PENDING, {"token": token, "before": asdict(before)})
    try:
        _start(store, token, seconds)
        commit(prepared, store)
    except BaseException:
        store.remove(PENDING)
        raise


def refuse_unconfirmed(store: Store) -> None:
    if store.read(PENDING) is not None:
        what = "an apply waits for its confirmation"
        remedy = "run ifdefault confirm to keep it, or ifdefault down, or wait until it is undone"
        raise HostError(Problem(str(store.directory / PENDING), what, remedy))


def confirm(store: Store) -> None:
    """Keep what was applied; HostError if there is nothing to keep."""
    with store.lock(wait=True):
        if store.read(PENDING) is None:
            what = "nothing waits for a confirmation"
            raise HostError(Problem("confirm", what, "it may have been undone: see ifdefault plan"))
        store.remove(PENDING)


def call_off(store: Store) -> None:
    store.remove(PENDING)


def stand_guard(store: Store, token: str, seconds: int, ready_fd: int = -1) -> None:
    """The guard's own life: say that it stands, wait, and undo unless it was called off."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    deadline = time.monotonic() + seconds
    if ready_fd >= 0:
        os.write(ready_fd, _READY)
        os.close(ready_fd)
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(left)  # it waits for nothing but the time
    with store.lock(wait=True):
        pending = store.read(PENDING)
        if pending is not None and pending["token"] == token:
            return_to(_desired(pending["before"]), store)
            store.remove(PENDING)


def _desired(told: dict[str, object]) -> Desired:
    from pydantic import TypeAdapter

    return TypeAdapter(Desired).validate_python(told)


def _start(store: Store, token: str, seconds: int) -> None:
    """Start the guard and wait until it stands."""
    own = [
        sys.executable,
        "-m",
        "ifdefault.host.guard",
        str(store.directory.absolute()),
        token,
        str(seconds),
    ]
    if _SYSTEMD.is_dir() and shutil.which("systemd-run") and _in_first_namespace():
        unit = f"ifdefault-undo-{token}"
        subprocess.run(
            ["systemd-run", "--quiet", "--collect", f"--unit={unit}", "--", *own], check=True
        )
        return
    read_fd, write_fd = os.pipe()
    with (store.directory / "undo.log").open("wb") as log:
        subprocess.Popen(
            [*own, str(write_fd)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[write_fd],
            start_new_session=True,
            cwd="/",
        )
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as told:
        if told.readline() != _READY:
            what = (store.directory / "undo.log").read_text().strip() or "it ended at once"
            raise HostError(Problem("the guard of --confirm", what, "nothing was changed"))


def _in_first_namespace() -> bool:
    """Whether this is the network namespace of process 1, which systemd's units run in."""
    try:
        return os.readlink("/proc/self/ns/net") == os.readlink("/proc/1/ns/net")
    except OSError:
        return False


if __name__ == "__main__":
    stand_guard(Store(Path(sys.argv[1])), sys.argv[2], *map(int, sys.argv[3:]))
