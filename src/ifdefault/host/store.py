"""State on disk: uplink numbers, and the original settings of the host.

Rules: files are replaced atomically. Originals are written before the first change; they are the
oldest value known, never one of ours. Only one process at a time changes a host.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from ifdefault.kernel.read import network_id
from ifdefault.model.errors import HostError, LockError, Problem, reason
from ifdefault.model.host import State
from ifdefault.model.kernel import Loaded, NftTable, Ruleset

STATE, TABLES, LOCK = "state.json", "tables.json", "lock"
PENDING, GUARD = "undo.json", "guard"
SETTLE, SETTLING = "settle.json", "settling"
HEALTH = "health.json"
WAIT_S = 60.0  # for another ifdefault to finish
_POLL_S = 0.05


class Store:
    """The state directory: /var/lib/ifdefault, except in tests and the lab."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._on_disk: State | None = None

    def load(self) -> State:
        fields = self.read(STATE)
        if fields is None:
            return State()
        try:
            fields["sysctls"] = {k: tuple(v) for k, v in fields["sysctls"].items()}
            fields["groups"] = {k: tuple(v) for k, v in fields["groups"].items()}
            if fields.pop("network", "") != network_id():
                fields["links"] = {}  # indexes of a host that was restarted mean nothing
            self._on_disk = State(**deepcopy(fields))
            return State(**fields)
        except (AttributeError, KeyError, TypeError) as error:
            raise self._unreadable(STATE, f"has an unknown format: {error!r}") from error

    def save(self, state: State) -> None:
        if state != self._on_disk:
            self.write(STATE, asdict(state) | {"network": network_id()})
            self._on_disk = deepcopy(state)

    def load_tables(self) -> Loaded:
        """Our nft tables as last loaded. A table that isn't in the file is loaded again."""
        try:
            tables = self.read(TABLES) or {}
            return tuple(
                (name, Ruleset(fields["text"], NftTable(**fields["table"])))
                for name, fields in tables.items()
            )
        except (AttributeError, HostError, KeyError, TypeError):
            return ()

    def save_tables(self, loaded: Loaded) -> None:
        if dict(loaded) != dict(self.load_tables()):  # the table of [[forward]] may be large
            tables = {name: asdict(ruleset) for name, ruleset in loaded}
            self.write(TABLES, tables, durable=False)

    def write(self, name: str, content: Any, *, durable: bool = True) -> None:
        """Replace a file of the state directory atomically."""
        target, fresh = self.directory / name, self.directory / f".{name}.new"
        try:
            with fresh.open("w") as file:
                json.dump(content, file, indent=1, sort_keys=True)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            fresh.replace(target)
        except OSError as error:
            what = f"can't be written: {reason(error)}"
            raise HostError(
                Problem(str(target), what, "run as root, or give --state-dir")
            ) from error

    def read(self, name: str) -> Any:
        """The content of a file of the state directory; None if it doesn't exist."""
        try:
            return json.loads((self.directory / name).read_text())
        except FileNotFoundError:
            return None
        except PermissionError as error:
            what = f"can't be read: {reason(error)}"
            raise HostError(Problem(str(self.directory / name), what, "run as root")) from error
        except (OSError, ValueError) as error:
            raise self._unreadable(name, f"can't be read: {error}") from error

    def _unreadable(self, name: str, what: str) -> HostError:
        remedy = "repair or remove it"
        if name == STATE:
            remedy += " (the original sysctls and link groups are then lost)"
        return HostError(Problem(str(self.directory / name), what, remedy))

    def remove(self, name: str) -> None:
        (self.directory / name).unlink(missing_ok=True)

    @contextmanager
    def timer_lock(self) -> Iterator[None]:
        """Show others that a rollback timer runs; there may briefly be several."""
        with private(self.directory / GUARD) as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            yield

    def has_timer(self) -> bool:
        """Whether a rollback timer runs."""
        with private(self.directory / GUARD) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    @contextmanager
    def lock(self, *, wait: bool = False, wait_s: float = WAIT_S) -> Iterator[None]:
        """Be the only process that changes this host; LockError names the other one."""
        try:
            self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            file = private(self.directory / LOCK)
        except OSError as error:
            what = f"can't be used: {reason(error)}"
            remedy = "run as root, or give --state-dir"
            raise HostError(Problem(str(self.directory), what, remedy)) from error
        with file:
            until_s = time.monotonic() + (wait_s if wait else 0.0)
            while not _acquired(file):
                if time.monotonic() >= until_s:
                    what, remedy = f"held by {_holder(file)}", "try again later, or use --wait"
                    if wait:
                        what, remedy = f"{what} for more than {wait_s:g} s", "end it if it hangs"
                    raise LockError(Problem(str(self.directory / LOCK), what, remedy))
                time.sleep(_POLL_S)
            _sign(file, f"pid {os.getpid()} ({' '.join(sys.argv[1:]) or 'ifdefault'})\n")
            yield


def private(path: Path) -> IO[str]:
    """Open a lock file that other users can't open: locking needs no write permission."""
    file = open(path, "a+", opener=lambda name, flags: os.open(name, flags, 0o600))  # noqa: SIM115
    if stat.S_IMODE(os.fstat(file.fileno()).st_mode) != 0o600:
        os.fchmod(file.fileno(), 0o600)
    return file


def _acquired(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(file: IO[str]) -> str:
    """Who holds a lock: the process that the kernel names, with the command that it has signed
    with. The kernel names none that is in another pid namespace."""
    file.seek(0)
    signed = file.read().strip()
    inode = os.fstat(file.fileno()).st_ino
    pids = []
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            _, kind, _, _, pid, place, *_ = line.split()
            if kind == "FLOCK" and place.rpartition(":")[2] == str(inode):
                pids.append(pid)
    if pids and not signed.startswith(f"pid {pids[0]} "):
        return f"pid {pids[0]}"
    return signed or "another ifdefault"


def _sign(file: IO[str], text: str) -> None:
    """Write who holds a lock. The daemon takes the lock each time it reads the kernel: an unchanged
    text isn't written again, since a write may block for a tenth of a second."""
    file.seek(0)
    if file.read() != text:
        file.truncate(0)
        file.write(text)
        file.flush()
