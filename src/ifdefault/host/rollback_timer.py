"""`apply --confirm`: a guard process that undoes by itself unless confirmed.

Rules: the guard stands before the first change is made. It is a process of its own, in its own
session, without terminal, deaf to SIGHUP and SIGINT: the terminal's end, the end of the login and
kill -9 of the command don't reach it. Where systemd runs, it is a unit of its own, since logind
may kill what a login leaves behind. The file `undo.json` decides: who removes it under the lock
has won, and it says which guard it belongs to. Where no guard lives it is void: the host was
restarted, and so has nothing to undo, or the command was killed before its first change.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from ifdefault.host.store import PENDING, Store
from ifdefault.host.transaction import Before, commit, return_to
from ifdefault.model.errors import HostError, Problem
from ifdefault.model.kernel import Desired
from ifdefault.plan.prepare import Prepared, snapshot

_READY = b"ready\n"
_SYSTEMD = Path("/run/systemd/system")
_LOOK_S = 1.0  # how soon a guard that was called off notices


def commit_on_probation(
    prepared: Prepared, store: Store, seconds: int, before: Before | None = None
) -> None:
    """Commit what was prepared, with a guard that undoes it after `seconds` unless confirmed.

    The caller holds the store's lock. If the commit itself fails, the guard is called off.
    """
    token = secrets.token_hex(8)
    came_from = asdict(snapshot(prepared.observation))
    store.write(PENDING, {"token": token, "before": came_from})
    try:
        _start(store, token, seconds)
        commit(prepared, store, *filter(None, [before]))
    except BaseException:
        store.remove(PENDING)
        raise


def refuse_unconfirmed(store: Store) -> None:
    if _waiting(store):
        what = "an apply waits for its confirmation"
        remedy = "run ifdefault confirm to keep it, or ifdefault down, or wait until it is undone"
        raise HostError(Problem(str(store.directory / PENDING), what, remedy))


def confirm(store: Store) -> None:
    """Keep what was applied; HostError if there is nothing to keep."""
    with store.lock(wait=True):
        if not _waiting(store):
            what = "nothing waits for a confirmation"
            raise HostError(Problem("confirm", what, "it may have been undone: see ifdefault plan"))
        store.remove(PENDING)


def _waiting(store: Store) -> bool:
    return store.read(PENDING) is not None and store.is_guarded()


def call_off(store: Store) -> None:
    store.remove(PENDING)


def stand_guard(store: Store, token: str, seconds: int, ready_fd: int = -1) -> None:
    """The guard's own life: say that it stands, wait, and undo unless it was called off."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    deadline = time.monotonic() + seconds
    with store.stand():
        if ready_fd >= 0:
            with suppress(BrokenPipeError):  # who started us was killed: undo all the same
                os.write(ready_fd, _READY)
            os.close(ready_fd)
        while _is_mine(store, token) and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_S))  # it waits for nothing but the time
        with store.lock(wait=True):
            if _is_mine(store, token):
                return_to(_desired(store.read(PENDING)["before"]), store)
                store.remove(PENDING)


def _is_mine(store: Store, token: str) -> bool:
    pending = store.read(PENDING)
    return pending is not None and pending["token"] == token


def _desired(told: dict[str, object]) -> Desired:
    from pydantic import TypeAdapter

    return TypeAdapter(Desired).validate_python(told)


def _start(store: Store, token: str, seconds: int) -> None:
    """Start the guard and wait until it stands."""
    own = [
        sys.executable,
        "-m",
        "ifdefault.host.rollback_timer",
        str(store.directory.absolute()),
        token,
        str(seconds),
    ]
    if _SYSTEMD.is_dir() and shutil.which("systemd-run") and _in_first_namespace():
        unit = f"ifdefault-undo-{token}"
        # exec: done when the program runs, not when it is about to
        options = ["--quiet", "--collect", "--property=Type=exec", f"--unit={unit}"]
        subprocess.run(["systemd-run", *options, "--", *own], check=True)
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
