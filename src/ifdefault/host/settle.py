"""`apply --settle`: apply again when the network changes soon after, without a daemon.

    interface up ─> DHCP ─> hook ─> apply --settle 120 ··· router advertisement ─> apply ··· end

IPv6 comes seconds after IPv4, and few programs run a hook for an address that the kernel configures
itself. Rules: a background process watches for a limited time and applies after each change. Only
one runs at a time: a later `apply --settle` extends its time. `down` and the daemon end it. Errors
go to the system log.
"""

from __future__ import annotations

import fcntl
import select
import subprocess
import sys
import syslog
import time
from dataclasses import dataclass
from pathlib import Path

from ifdefault.host import rollback_timer
from ifdefault.host.last_config import ConfigFile
from ifdefault.host.lock_file import private
from ifdefault.host.state_file import StateFile
from ifdefault.host.store import SETTLING, Store
from ifdefault.host.transaction import apply, prepare_file
from ifdefault.kernel.watch import Watch
from ifdefault.model.errors import IfdefaultError, internal
from ifdefault.model.kernel_events import KernelChange, ObjectChanged
from ifdefault.model.text import escaped


@dataclass(frozen=True, slots=True)
class Settling:
    until_s: float  # on the monotonic clock


SETTLE: StateFile[Settling] = StateFile("settle.json", Settling, "changes are no longer followed")
_QUIET_S, _LONGEST_S = 0.5, 5.0  # changes come in bursts: apply when none came for so long


def start(store: Store, config: Path, seconds: int) -> None:
    """Follow changes for `seconds` from now on. The caller holds the store's lock."""
    with store.tolerating():
        store.write(SETTLE, Settling(time.monotonic() + seconds))
    subprocess.Popen(
        [
            sys.executable,
            "-m",
            "ifdefault.host.settle",
            str(store.directory.absolute()),
            str(config.absolute()),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )


def cancel(store: Store) -> None:
    """End it: it changes nothing any more. The caller holds the store's lock, or is the daemon."""
    store.remove(SETTLE.name)


def run(store: Store, config: Path) -> None:
    """The background process."""
    with private(store.directory / SETTLING) as file:
        while _left_s(store) > 0:  # again if the time was extended just as it ended
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            with Watch(interfaces=frozenset()) as watch:
                _follow(watch, store, config)
            fcntl.flock(file, fcntl.LOCK_UN)


def _left_s(store: Store) -> float:
    try:
        settling = store.read(SETTLE)
        return settling.until_s - time.monotonic() if settling else 0.0
    except IfdefaultError:
        return 0.0


def _follow(watch: Watch, store: Store, config: Path) -> None:
    changed = True  # perhaps, since the apply that started us
    while (left_s := _left_s(store)) > 0:
        if changed:
            _apply(store, config)
            left_s = _left_s(store)  # `down` may have ended it meanwhile, and nothing follows
        changed = _wait(watch, left_s)


def _wait(watch: Watch, left_s: float) -> bool:
    """Wait for changes, and until they are over. Whether there were any by others."""
    changed, until_s = False, time.monotonic() + left_s + _LONGEST_S
    wait_s = left_s
    while select.select(watch.sockets, [], [], wait_s)[0] and time.monotonic() < until_s:
        if not changed:
            until_s = time.monotonic() + _LONGEST_S
        changed |= any(map(_is_relevant, watch.read()))
        wait_s = _QUIET_S
    return changed


def _is_relevant(event: KernelChange) -> bool:
    return not isinstance(event, ObjectChanged) or not (event.ours or event.kind == "nft")


def _apply(store: Store, path: Path) -> None:
    try:
        with store.lock(wait=True):
            if _left_s(store) <= 0:  # ended by `down` or the daemon
                return
            rollback_timer.refuse_unconfirmed(store)
            file = ConfigFile(path, store)
            apply(lambda: prepare_file(file, store, last_good=True), store)
            with store.tolerating():
                file.worked()
    except IfdefaultError as error:
        _log(f"apply after a change failed: {error}")


def _log(text: str) -> None:
    """To the system log: nothing reads what this process prints."""
    syslog.openlog("ifdefault", facility=syslog.LOG_DAEMON)
    syslog.syslog(syslog.LOG_ERR, escaped(text))


if __name__ == "__main__":
    directory, file = map(Path, sys.argv[1:])
    sys.argv[1:] = ["apply", "--settle"]  # as the holder of the lock is named
    try:
        run(Store(directory), file)
    except Exception as error:
        _log(f"changes are no longer followed: {internal(error)}")
        raise
