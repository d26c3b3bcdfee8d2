"""State on disk: uplink numbers, the original settings of the host, and what others keep there.

Rules: originals are written before the first change; they are the oldest value known, never one of
ours. Only one process at a time changes a host. What can't be read is set aside, by the process
that may change the host, and doesn't stop it. What can't be saved is an error before a change; the
daemon and `down` go on, keep it in memory, and report it once.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import IO, Any, TypeVar

from ifdefault.host import state_file
from ifdefault.host.lock_file import acquired, holder, private, sign
from ifdefault.host.saved_state import LIMITS, STATE, TABLES, SavedState
from ifdefault.host.state_file import StateFile, Unusable
from ifdefault.ipc import log
from ifdefault.kernel.netns import network_id
from ifdefault.model.errors import HostError, LockError, Problem, internal, reason
from ifdefault.model.host import State
from ifdefault.model.kernel import Loaded

LOCK, GUARD, SETTLING, HEALTH = "lock", "guard", "settling", "health.json"
WAIT_S = 60.0  # for another ifdefault to finish
_POLL_S = 0.05
T = TypeVar("T")


def _settings(state: State) -> tuple[object, ...]:
    """What can't be restored without the state."""
    return state.sysctls, state.groups, state.limits


class Store:
    """The state directory: /var/lib/ifdefault, except in tests and the lab. `daemon`: it isn't
    stopped by what can't be saved, and files that aren't urgent are written in the background."""

    def __init__(self, directory: Path, *, daemon: bool = False) -> None:
        self.directory = directory
        self._daemon = self._tolerant = daemon
        self._locked = False
        self._last: State | None = None  # as saved, or to be saved
        self._known: set[str] = set()  # names of files that were read or written
        self._stuck: dict[str, Unusable] = {}  # what is damaged and couldn't be set aside
        self._waiting: dict[str, tuple[StateFile[Any], Any]] = {}  # still to be written
        self._unsaved: dict[str, str] = {}  # why
        self._news: list[Problem] = []
        self._writer: ThreadPoolExecutor | None = None
        self._mutex = Lock()

    # --- state and tables -----------------------------------------------------------------

    def load(self) -> State:
        saved, limits = self.read(STATE), self.read(LIMITS) or {}
        if saved is None:
            self._last = None
            return State(limits=limits)
        values = asdict(saved) | {"limits": limits}
        del values["network"]
        if saved.network != network_id():
            values["links"] = {}  # indexes of a host that was restarted mean nothing
        self._last = State(**deepcopy(values))
        return State(**deepcopy(values))

    def save(self, state: State) -> None:
        """If it can't be saved: HostError if it has originals that aren't on disk."""
        known = self._last or State()
        if state == self._last:
            return
        settings_known = _settings(state) == _settings(known)
        with self.tolerating() if settings_known else nullcontext():
            if state.limits != known.limits:
                self.write(LIMITS, state.limits)
            values = asdict(state)
            del values["limits"]
            self.write(STATE, SavedState(network_id(), **values))
        self._last = deepcopy(state)

    def load_tables(self) -> Loaded:
        """Our nft tables as last loaded. A table that isn't in the file is loaded again."""
        return self.read(TABLES) or ()

    def save_tables(self, loaded: Loaded) -> None:
        if dict(loaded) != dict(self.load_tables()):  # the table of [[forward]] may be large
            self.write(TABLES, loaded)

    # --- files ----------------------------------------------------------------------------

    def read(self, file: StateFile[T]) -> T | None:
        """The content of a file; None if there is none, or none that can be used."""
        with self._mutex:
            if waiting := self._waiting.get(file.name):
                return waiting[1]  # type: ignore[no-any-return]
        return self._read(file, owner=self._daemon or self._locked)

    def _read(self, file: StateFile[T], *, owner: bool) -> T | None:
        """`owner`: set aside what can't be used."""
        faults: list[tuple[str, Unusable]] = []
        for name in (file.name, file.copy):
            try:
                value = state_file.read(self.directory / name, file)
            except FileNotFoundError:
                continue
            except PermissionError as error:
                if not self._tolerant:
                    what = f"can't be read: {reason(error)}"
                    where = str(self.directory / name)
                    raise HostError(Problem(where, what, "run as root")) from error
                faults.append((name, Unusable(f"can't be read: {reason(error)}")))
            except Unusable as why:
                faults.append((name, why))
            else:
                self._on_faults(file, faults, f"its copy {name} is used", owner=owner)
                if owner and name == file.copy:
                    self._take_back(file, value)
                return value
        self._on_faults(file, faults, file.lost, owner=owner)
        return None

    def _on_faults(
        self, file: StateFile[Any], faults: list[tuple[str, Unusable]], effect: str, *, owner: bool
    ) -> None:
        if owner or not faults:
            self._known.add(file.name)
        for name, why in faults if owner else ():
            path = self.directory / name
            try:
                where = f"set aside as {state_file.set_aside(path, file.name, why).name}"
            except OSError as error:
                if name in self._stuck:
                    continue  # reported before
                self._stuck[name] = why
                where = f"can't be set aside: {reason(error)}"
            self._news.append(Problem(str(path), f"{why}, {where}", effect))

    def _take_back(self, file: StateFile[T], value: T) -> None:
        """Put the copy in the file's place."""
        if file.copied:
            with self.tolerating():
                self.write(file, value)
        else:  # set aside by another version, and soon outdated
            with suppress(OSError):
                (self.directory / file.copy).replace(self.directory / file.name)

    def write(self, file: StateFile[T], value: T) -> None:
        """Replace a file. HostError if that fails, but not in the daemon."""
        if file.name not in self._known:
            self._read(file, owner=True)  # what is there and can't be used isn't overwritten
        with self._mutex:
            self._waiting[file.name] = file, value
        if self._daemon and not file.urgent:
            self._submit(file.name)
        else:
            self._write_waiting(file.name)

    def _submit(self, name: str) -> None:
        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, "state")
        self._writer.submit(self._write_waiting, name)

    def _write_waiting(self, name: str) -> None:
        with self._mutex:
            if (waiting := self._waiting.get(name)) is None:
                return  # written together with a later one
        file, value = waiting
        try:
            if (why := self._stuck.get(name)) is not None:
                state_file.set_aside(self.directory / name, name, why)
                del self._stuck[name]
            for copy in (name, file.copy) if file.copied else (name,):
                state_file.replace(self.directory / copy, file, value)
        except OSError as error:
            self._failed(file, reason(error), error.errno)
            return
        except Exception as error:
            log.exception(error, file.name)  # in a thread, nobody would hear of it
            self._failed(file, internal(error))
            return
        with self._mutex:
            if self._waiting.get(name) is waiting:
                del self._waiting[name]
            if self._unsaved.pop(name, None):
                path = str(self.directory / name)
                self._news.append(Problem(path, "saved again", "nothing is lost", warning=True))

    def _failed(self, file: StateFile[Any], why: str, number: int | None = None) -> None:
        what = f"can't be saved: {why}"
        path = str(self.directory / file.name)
        if not self._tolerant:
            del self._waiting[file.name]
            rights = number in (errno.EACCES, errno.EPERM, errno.ENOENT)
            remedy = _ROOT if rights else "free space, or repair it"
            raise HostError(Problem(path, what, remedy))
        with self._mutex:
            if file.name not in self._unsaved:
                effect = (
                    "kept in memory" if self._daemon else "what it records was done all the same"
                )
                self._news.append(Problem(path, what, effect))
            self._unsaved[file.name] = f"{path}: {what}"

    def write_again(self) -> None:
        """Try to write what couldn't be written."""
        with self._mutex:
            files = [self._waiting[name][0] for name in self._unsaved if name in self._waiting]
        for file in files:
            if file.urgent:
                self._write_waiting(file.name)
            else:
                self._submit(file.name)

    def flush(self) -> None:
        """Wait until all is written that can be."""
        if self._writer is not None:
            self._writer.shutdown()
            self._writer = None

    def remove(self, name: str) -> None:
        """Raises HostError. A file that isn't there is none on a read-only file system either."""
        path = self.directory / name
        try:
            if path.exists():
                path.unlink()
        except OSError as error:
            problem = Problem(str(path), f"can't be removed: {reason(error)}", "remove it")
            if not self._tolerant:
                raise HostError(problem) from error
            self._news.append(problem)

    # --- what there is to report ----------------------------------------------------------

    def tell(self, problems: Iterable[Problem]) -> None:
        """Add to the news what the user should know."""
        with self._mutex:
            self._news += problems

    def take_news(self) -> tuple[Problem, ...]:
        """What happened to files since this was asked last."""
        with self._mutex:
            news, self._news = tuple(self._news), []
        return news

    @property
    def unsaved(self) -> tuple[str, ...]:
        """What can't be saved, and why."""
        return tuple(text for _, text in sorted(self._unsaved.items()))

    def examine(self) -> Iterator[Problem]:
        """Files that are damaged, or were and have been set aside, and a directory that nothing can
        be saved in; nothing is changed."""
        with suppress(FileNotFoundError, PermissionError):
            yield from self._examine()

    def _examine(self) -> Iterator[Problem]:
        system = os.statvfs(self.directory)
        if system.f_flag & os.ST_RDONLY:
            what = "can't be written: read-only file system"
            yield Problem(str(self.directory), what, "repair it", warning=True)
        elif system.f_blocks and not system.f_bfree:
            what = "can't be written: no space left on device"
            yield Problem(str(self.directory), what, "free space", warning=True)
        for path in sorted(self.directory.glob("*.json")):
            if what := state_file.verify(path, path.name):
                remedy = "it is set aside when it is next used"
                yield Problem(str(path), what, remedy, warning=True)
        for path, name in state_file.damaged(self.directory):
            remedy = "remove this file once it is no longer needed"
            yield Problem(str(path), f"{name} was damaged", remedy, warning=True)

    # --- locks ----------------------------------------------------------------------------

    @contextmanager
    def tolerating(self) -> Iterator[None]:
        """Go on if something can't be saved: what it is about has been done already."""
        before, self._tolerant = self._tolerant, True
        try:
            yield
        finally:
            self._tolerant = before

    @contextmanager
    def timer_lock(self) -> Iterator[None]:
        """Show others that a rollback timer runs; there may briefly be several."""
        with private(self.directory / GUARD) as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            yield

    def has_timer(self) -> bool:
        """Whether a rollback timer runs."""
        try:
            fd = os.open(self.directory / GUARD, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    @contextmanager
    def lock(self, *, wait: bool = False, wait_s: float = WAIT_S) -> Iterator[None]:
        """Be the only process that changes this host; LockError names the other one."""
        with self._open_lock() as file:
            until_s = time.monotonic() + (wait_s if wait else 0.0)
            while not acquired(file):
                if time.monotonic() >= until_s:
                    what, remedy = f"held by {holder(file)}", "try again later, or use --wait"
                    if wait:
                        what, remedy = f"{what} for more than {wait_s:g} s", "end it if it hangs"
                    raise LockError(Problem(str(self.directory / LOCK), what, remedy))
                time.sleep(_POLL_S)
            with suppress(OSError):  # the file system is full, or read-only
                sign(file, f"pid {os.getpid()} ({' '.join(sys.argv[1:]) or 'ifdefault'})\n")
            self._locked = True
            try:
                yield
            finally:
                self._locked = False

    def _open_lock(self) -> IO[str]:
        path = self.directory / LOCK
        try:
            self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            return private(path)
        except OSError as error:
            if error.errno in _NO_ROOM:
                with suppress(OSError):
                    return open(path, errors="replace")  # enough to lock it
                if self._tolerant:
                    return os.fdopen(os.memfd_create(LOCK), "a+")  # so nobody can have locked it
            what = f"can't be used: {reason(error)}"
            no_room = error.errno in _NO_ROOM
            remedy = "free space there, or make it writable" if no_room else _ROOT
            raise HostError(Problem(str(self.directory), what, remedy)) from error


_ROOT = "run as root, or give --state-dir"
_NO_ROOM = (errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO)
