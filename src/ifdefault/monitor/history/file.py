"""The history's file through its accidents: vanished, damaged, of another program or version.

Rules: blocking. What can be tried again later is raised (sqlite3.Error, OSError), and then nothing
of the batch has been written; all else is mended here, and logged once.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ifdefault.monitor.history.records import Batch, Span
from ifdefault.monitor.history.schema import FILE
from ifdefault.monitor.history.store import Store, Unusable, is_damage, set_aside

_log = logging.getLogger("ifdefault")


class HistoryFile:
    """`store`: None as long as it can't be opened."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._path = directory, directory / FILE
        self.store: Store | None = None

    def open(self) -> Store:
        if self.store is None:
            self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            try:
                self.store = Store(self._directory)
            except Unusable as why:
                self._begin_anew(why)
                self.store = Store(self._directory)
        return self.store

    def write(self, batch: Batch, now: float, current: Sequence[Span], keep_s: int) -> None:
        """Write a batch. `current`: the spans after it, for a file that is new."""
        if self.store is not None and self.store.vanished:
            _log.warning("history: %s has vanished; a new one is begun", self._path)
            self.close()
        try:
            self._write(batch, now, current, keep_s)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self.close()
            self._begin_anew(Unusable(f"is damaged: {error}"))
            self._write(batch, now, current, keep_s)

    def _write(self, batch: Batch, now: float, current: Sequence[Span], keep_s: int) -> None:
        store = self.open()
        if store.is_new:  # the spans that began earlier are missing in it
            began = {span.path for span in batch.spans}
            earlier = [span for span in current if span.path not in began]
            batch = replace(batch, spans=[*earlier, *batch.spans])
        store.write(batch, now, keep_s)
        store.is_new = False

    def _begin_anew(self, why: Unusable) -> None:
        target = set_aside(self._directory, why)
        _log.error("history: %s %s; renamed to %s, a new one is begun", self._path, why, target)

    def aside(self) -> str:
        """What an administrator may look at and remove, "" if nothing was set aside."""
        names = sorted(path.name for path in self._directory.glob(f"{FILE}.*"))
        if not names:
            return ""
        files = ", ".join(names)
        return f"{self._directory}: a history that couldn't be used was renamed: {files}; remove it"

    def close(self) -> None:
        if self.store is not None:
            with suppress(sqlite3.Error):
                self.store.close()
            self.store = None
