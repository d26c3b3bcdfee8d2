"""What we must remember of this host, on disk: uplink numbers, and how things were before us.

Rules: the file is replaced whole or not at all. Originals are written before the first change,
and are the oldest value there was, never one of ours. One process changes a host at a time.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from ifdefault.model.errors import HostError, LockError, Problem
from ifdefault.model.host import State
from ifdefault.model.kernel import Loaded, NftTable, Ruleset

STATE, TABLES, LOCK = "state.json", "tables.json", "lock"
PENDING, GUARD = "undo.json", "guard"
HEALTH = "health.json"


class Store:
    """The state directory (/var/lib/ifdefault, but for tests and the lab)."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._on_disk: State | None = None

    def load(self) -> State:
        told = self.read(STATE)
        if told is None:
            return State()
        try:
            told["sysctls"] = {k: tuple(v) for k, v in told["sysctls"].items()}
            told["groups"] = {k: tuple(v) for k, v in told["groups"].items()}
            self._on_disk = State(**deepcopy(told))
            return State(**told)
        except (AttributeError, KeyError, TypeError) as error:
            raise self._unreadable(STATE, f"has an unknown form: {error!r}") from error

    def save(self, state: State) -> None:
        if state != self._on_disk:
            self.write(STATE, asdict(state))
            self._on_disk = deepcopy(state)

    def load_tables(self) -> Loaded:
        """Our nft tables as loaded last. One that is lost here is loaded again."""
        try:
            told = self.read(TABLES) or {}
            return tuple(
                (name, Ruleset(known["text"], NftTable(**known["table"])))
                for name, known in told.items()
            )
        except (AttributeError, HostError, KeyError, TypeError):
            return ()

    def save_tables(self, loaded: Loaded) -> None:
        if dict(loaded) != dict(self.load_tables()):  # that of the services may be large
            told = {name: asdict(ruleset) for name, ruleset in loaded}
            self.write(TABLES, told, durable=False)

    def write(self, name: str, content: Any, *, durable: bool = True) -> None:
        """Replace a file of ours whole."""
        target, fresh = self.directory / name, self.directory / f".{name}.new"
        try:
            with fresh.open("w") as file:
                json.dump(content, file, indent=1, sort_keys=True)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            fresh.replace(target)
        except OSError as error:
            raise HostError(Problem(str(target), f"can't be written: {error.strerror}")) from error

    def read(self, name: str) -> Any:
        """The content of a file of ours; None if there is none."""
        try:
            return json.loads((self.directory / name).read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise self._unreadable(name, f"can't be read: {error}") from error

    def _unreadable(self, name: str, what: str) -> HostError:
        remedy = "mend or remove it"
        if name == STATE:
            remedy += " (originals of sysctls and link groups would be forgotten)"
        return HostError(Problem(str(self.directory / name), what, remedy))

    def remove(self, name: str) -> None:
        (self.directory / name).unlink(missing_ok=True)

    @contextmanager
    def stand(self) -> Iterator[None]:
        """Let others see that a guard lives; several may for a moment."""
        with private(self.directory / GUARD) as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            yield

    def is_guarded(self) -> bool:
        with private(self.directory / GUARD) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    @contextmanager
    def lock(self, *, wait: bool = False) -> Iterator[None]:
        """Be the only one that changes this host; LockError says who else does."""
        try:
            self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            file = private(self.directory / LOCK)
        except OSError as error:
            what = f"can't be used: {error.strerror}"
            remedy = "run as root, or give --state-dir"
            raise HostError(Problem(str(self.directory), what, remedy)) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "another ifdefault"
                remedy = "try again when it is done, or use --wait"
                problem = Problem(str(self.directory / LOCK), f"held by {holder}", remedy)
                raise LockError(problem) from None
            _sign(file, f"pid {os.getpid()} ({' '.join(sys.argv[1:]) or 'ifdefault'})\n")
            yield


def private(path: Path) -> IO[str]:
    """Open a lock's file, which nobody else may open: to lock it takes no right to write."""
    file = open(path, "a+", opener=lambda name, flags: os.open(name, flags, 0o600))  # noqa: SIM115
    if stat.S_IMODE(os.fstat(file.fileno()).st_mode) != 0o600:
        os.fchmod(file.fileno(), 0o600)
    return file


def _sign(file: IO[str], text: str) -> None:
    """Say who holds a lock. A daemon takes it for each look at the kernel: what stands there
    already isn't written again, since a disk may keep a writer waiting for a tenth of a second."""
    file.seek(0)
    if file.read() != text:
        file.truncate(0)
        file.write(text)
        file.flush()
