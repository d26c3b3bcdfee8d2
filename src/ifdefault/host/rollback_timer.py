"""`apply --confirm`: a timer process that rolls the changes back unless they are confirmed.

Rules: the timer runs before the first change is made. It is a separate process in its own session,
without a terminal, and ignores SIGHUP, SIGINT and SIGTERM, so that it survives the end of the
terminal, of the login session, and kill -9 of the command. Under systemd it is a unit of its own,
since logind may kill processes that a session leaves. The file `undo.json` is the pending rollback
and names its timer, which keeps its content in memory: damage to the file stops no rollback. The
process that removes it under the lock decides. Without a running timer it
is void: the host was restarted, so there is nothing to undo, or the command was killed before it
changed anything. A process that hangs while it holds the lock doesn't keep the timer from undoing.
The timer reports what it did to the system log, and to the event log if a daemon
has ever kept one; no daemon runs meanwhile.
"""

from __future__ import annotations

import os
import signal
import sys
import syslog
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifdefault.host import last_config
from ifdefault.host.state_file import StateFile
from ifdefault.host.store import HEALTH, Store
from ifdefault.host.transaction import Before, commit, return_to
from ifdefault.ipc.sd_notify import Notifier
from ifdefault.model.errors import HostError, IfdefaultError, LockError, Problem, internal
from ifdefault.model.kernel import Desired
from ifdefault.model.text import escaped
from ifdefault.plan.originals import indexes
from ifdefault.plan.prepare import Prepared, snapshot


@dataclass(frozen=True, slots=True)
class Pending:
    """What to restore at `until_s`, on the monotonic clock, unless confirmed: our objects, with the
    indexes that interfaces had. `config`: the digest of the config that waits."""

    token: str
    until_s: float
    before: Desired
    links: dict[str, int]
    config: str = ""


PENDING: StateFile[Pending] = StateFile(
    "undo.json", Pending, "the rollback timer of an unconfirmed apply, if it runs, undoes it"
)
_EVENTS: StateFile[Any] = StateFile(HEALTH, None)  # the daemon's
_READY = b"ready\n"
_SYSTEMD = Path("/run/systemd/system")
_POLL_S = 1.0  # how soon a cancelled timer ends
_LOCK_S = 10.0  # how long to wait for another ifdefault
_NOTHING_WAITS = Problem(
    "confirm",
    "nothing is waiting for confirmation",
    "run ifdefault plan to see whether it was undone",
)


def commit_with_rollback(
    prepared: Prepared,
    store: Store,
    seconds: int,
    before: Before | None = None,
    *,
    config: str = "",
) -> None:
    """Commit the prepared changes, with a timer that undoes them after `seconds` unless confirmed.

    The caller holds the store's lock. If the commit itself fails, the timer is cancelled.
    """
    token, until_s = os.urandom(8).hex(), time.monotonic() + seconds
    before_it, links = snapshot(prepared.observation), indexes(prepared.facts)
    store.write(PENDING, Pending(token, until_s, before_it, links, config))
    try:
        _start(store, token)
        commit(prepared, store, *filter(None, [before]))
    except BaseException:
        store.remove(PENDING.name)
        raise


def refuse_unconfirmed(store: Store) -> None:
    if _is_pending(store):
        what = "an apply is waiting for confirmation"
        remedy = "run ifdefault confirm to keep it, or ifdefault down, or wait until it is undone"
        raise HostError(Problem(str(_path(store)), what, remedy))
    store.read(PENDING)  # it is void; if it is damaged, it is set aside


def confirm(store: Store, config: Path) -> None:
    """Keep what was applied; HostError if nothing is waiting for confirmation."""
    with store.lock(wait=True, wait_s=_LOCK_S):
        if not _is_pending(store):
            raise HostError(_NOTHING_WAITS)
        if (pending := store.read(PENDING)) is not None:
            with store.tolerating():
                last_config.confirmed(config, store, pending.config)
        store.remove(PENDING.name)


def undo(store: Store) -> None:
    """Undo at once what waits for confirmation; HostError if nothing does, or only its timer knows
    what to restore. The timer goes on if this fails, and ends after it."""
    with store.lock(wait=True, wait_s=_LOCK_S):
        pending = store.read(PENDING) if _is_pending(store) else None
        if pending is None:
            raise HostError(_NOTHING_WAITS)
        _undo(store, pending)
        store.remove(PENDING.name)


def _path(store: Store) -> Path:
    return store.directory / PENDING.name


def _is_pending(store: Store) -> bool:
    """Whether a timer will undo something, even if the file is damaged: it knows what."""
    return _path(store).exists() and store.has_timer()


def left_s(store: Store) -> float | None:
    """How long a pending rollback waits; None if there is none, or only root could tell."""
    try:
        if not _is_pending(store):
            return None
        pending = store.read(PENDING)
    except (HostError, PermissionError):
        return None
    return max(0.0, pending.until_s - time.monotonic()) if pending else 0.0


def cancel(store: Store) -> None:
    store.remove(PENDING.name)


def run(store: Store, token: str, ready_fd: int = -1) -> None:
    """The timer process: report that it is ready, wait, and undo unless cancelled."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with store.timer_lock():
        pending = store.read(PENDING)
        if pending is None or pending.token != token:
            return
        if ready_fd >= 0:
            with suppress(BrokenPipeError):  # our parent was killed: undo nevertheless
                os.write(ready_fd, _READY)
            os.close(ready_fd)
        Notifier().ready()
        while _waits(store, token) and (left := pending.until_s - time.monotonic()) > 0:
            time.sleep(min(left, _POLL_S))  # only time is waited for
        with _lock(store):
            if _waits(store, token):
                _undo(store, pending)
                store.remove(PENDING.name)


@contextmanager
def _lock(store: Store) -> Iterator[None]:
    """The store's lock; without it if another process holds it for too long."""
    with ExitStack() as stack:
        try:
            stack.enter_context(store.lock(wait=True, wait_s=_LOCK_S))
        except (HostError, LockError) as error:
            _log(store, f"undoing without the lock: {error}")
        yield


def _waits(store: Store, token: str) -> bool:
    """Whether the rollback hasn't been cancelled: its file is removed for that, or replaced by that
    of a later apply, but not damaged."""
    if not _path(store).exists():
        return False
    pending = store.read(PENDING)
    return pending is None or pending.token == token


def _undo(store: Store, pending: Pending) -> None:
    try:
        return_to(pending.before, pending.links, store)
    except Exception as error:  # its own end is the least of it: nobody else will say it
        why = str(error) if isinstance(error, IfdefaultError) else internal(error)
        _log(store, f"not confirmed, but undoing it failed: {why}; run ifdefault down")
        raise
    _log(store, "not confirmed: what ifdefault apply changed was undone")


def _log(store: Store, text: str) -> None:
    """To the system log, which the journal collects too, and to the saved events."""
    text = escaped(text)
    syslog.openlog("ifdefault", syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(syslog.LOG_WARNING, text)
    match store.read(_EVENTS):
        case {"events": [*events], **others}:
            event = {"at": time.time(), "kind": "apply", "uplink": "", "text": text}
            event["severity"] = "warning"
            with store.tolerating():
                store.write(_EVENTS, {**others, "events": [*events, event]})


def _start(store: Store, token: str) -> None:
    """Start the timer process and wait until it is ready."""
    import shutil  # not needed to tell what is pending
    import subprocess

    command = [
        sys.executable,
        "-m",
        "ifdefault.host.rollback_timer",
        str(store.directory.absolute()),
        token,
    ]
    if _SYSTEMD.is_dir() and shutil.which("systemd-run") and _in_first_namespace():
        unit = f"ifdefault-undo-{token}"
        # notify: wait until it is ready; before, others would take its file for void
        options = ["--quiet", "--collect", "--property=Type=notify", f"--unit={unit}"]
        status = subprocess.run(["systemd-run", *options, "--", *command], check=False).returncode
        if status:
            what = f"the rollback timer didn't start: systemd-run ended with status {status}"
            raise HostError(Problem("apply --confirm", what, "nothing was changed, try again"))
        return
    read_fd, write_fd = os.pipe()
    with (store.directory / "undo.log").open("wb") as log:
        subprocess.Popen(
            [*command, str(write_fd)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[write_fd],
            start_new_session=True,
            cwd="/",
        )
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as pipe:
        if pipe.readline() != _READY:
            log_text = (store.directory / "undo.log").read_text("utf-8", "replace").strip()
            what = f"the rollback timer didn't start: {log_text or 'it ended at once'}"
            raise HostError(Problem("apply --confirm", what, "nothing was changed, try again"))


def _in_first_namespace() -> bool:
    """Whether this is the network namespace of process 1, which systemd's units run in."""
    try:
        return os.readlink("/proc/self/ns/net") == os.readlink("/proc/1/ns/net")
    except OSError:
        return False


if __name__ == "__main__":
    run(Store(Path(sys.argv[1])), sys.argv[2], *map(int, sys.argv[3:]))
