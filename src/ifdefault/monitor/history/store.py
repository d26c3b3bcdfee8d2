"""Writes the history's file.

Rules: one transaction for each batch, whole or not at all. The journal is one that readers without
the right to write can do with, so not WAL. Minutes become hours once those are over, and are kept
for some days; of what is older than wanted, a day's worth is removed at a time, so that a clock
that is wrong for an hour costs no more than that. A file that isn't ours, is damaged or of another
version is set aside, never overwritten, and a new one begun. sqlite3.Error and OSError leave here.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path as FilePath
from typing import Any

from ifdefault.monitor.history.records import DAY_S, HOUR_S, MINUTE_S, Batch, Path, Span, Tally
from ifdefault.monitor.history.schema import (
    ADDED,
    APPLICATION_ID,
    COLUMNS,
    FILE,
    SUMS,
    TABLES,
    VERSION,
    add_functions,
    pack,
)

MINUTES_KEPT_S = 3 * DAY_S
EVENTS_KEPT, SPANS_KEPT = 20_000, 50_000
_BUSY_S = 2.0  # how long to wait for readers
_UNUSABLE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_BOOT = FilePath("/proc/sys/kernel/random/boot_id")


class Unusable(Exception):
    """Why a file can't be continued, and what is added to its name when it is set aside."""

    def __init__(self, what: str, suffix: str = "") -> None:
        when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self.suffix = suffix or f"damaged-{when}"
        super().__init__(what)


def is_damage(error: Exception) -> bool:
    """Whether an error means that the file is damaged, rather than that it can't be written now."""
    code = getattr(error, "sqlite_errorcode", 0)
    missing = isinstance(error, sqlite3.OperationalError) and str(error).startswith("no such")
    return code & 0xFF in _UNUSABLE or missing


class Store:
    """`serial`, `seen`, `spans` and `counters`: what the file ended with when it was opened;
    `is_new`: it has nothing."""

    def __init__(self, directory: FilePath) -> None:
        """Open the file; Unusable if it has to be set aside first."""
        self._path = directory / FILE
        self._boot = ""  # unknown: counters of interfaces are taken to begin anew
        with suppress(OSError):
            self._boot = _BOOT.read_text("ascii", "replace").strip()
        self._uplinks: dict[str, int] = {}
        self._hour = 0  # of the last batch
        # used by one thread at a time; transactions are begun and ended here
        self._db = sqlite3.connect(
            self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            self._path.chmod(0o644)
            self._inode = os.stat(self._path).st_ino
            self._open()
        except sqlite3.DatabaseError as error:
            self._db.close()
            if is_damage(error):
                raise Unusable(f"is damaged: {error}") from None
            raise
        except BaseException:
            self._db.close()
            raise

    def _open(self) -> None:
        add_functions(self._db)
        (version,) = self._row("PRAGMA user_version")
        (application,) = self._row("PRAGMA application_id")
        self.is_new = self._row("SELECT count(*) FROM sqlite_schema") == (0,)
        if self.is_new:
            self._db.executescript(f"BEGIN;{TABLES}COMMIT")
        elif application != APPLICATION_ID:
            raise Unusable("isn't a history of ifdefault", f"other-{int(time.time())}")
        elif version != VERSION:
            what = f"is of another ifdefault (format {version}, not {VERSION})"
            raise Unusable(what, f"v{version}")
        self._db.execute("PRAGMA journal_mode = TRUNCATE")
        self._db.execute("PRAGMA temp_store = MEMORY")
        self._db.execute("PRAGMA cache_size = -512")  # KiB
        (found,) = self._row("PRAGMA quick_check(1)")
        if found != "ok":
            raise Unusable(f"is damaged: {found}")
        self._uplinks = dict(self._db.execute("SELECT name, id FROM uplink"))
        self.seen, self.serial, boot, self._rolled = self._row(
            "SELECT seen, serial, boot, rolled FROM known"
        )
        self.spans = self._open_spans()
        self.counters: dict[str, tuple[int, int]] = {}
        if boot == self._boot != "":
            rows = self._db.execute(
                "SELECT name, bytes_in, bytes_out FROM counter JOIN uplink ON uplink.id = uplink"
            )
            self.counters = {name: (bytes_in, bytes_out) for name, bytes_in, bytes_out in rows}

    def _row(self, sql: str) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self._db.execute(sql).fetchone()
        return row

    def _open_spans(self) -> list[Span]:
        rows = self._db.execute(
            "SELECT name, family, state, since, cause, span.id FROM span"
            " JOIN uplink ON uplink.id = uplink WHERE until IS NULL ORDER BY since"
        )
        return [
            Span(Path(name, family), state, since, None, cause, id_)
            for name, family, state, since, cause, id_ in rows
        ]

    @property
    def vanished(self) -> bool:
        """Whether the file isn't where it was any more."""
        try:
            return os.stat(self._path).st_ino != self._inode
        except FileNotFoundError:
            return True

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self._db.close()

    # --- writing ----------------------------------------------------------------------------

    def write(self, batch: Batch, now: float, keep_s: int) -> None:
        """Write a batch; once an hour roll up, and remove what is older than `keep_s`."""
        with self._transaction():
            self._write(batch)
            if (hour := int(now) // HOUR_S) != self._hour:
                self._roll_up(hour * HOUR_S)
                self._prune(now, keep_s)
        self._hour = hour

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        known = dict(self._uplinks), self._rolled
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._uplinks, self._rolled = known
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    def _write(self, batch: Batch) -> None:
        execute, number = self._db.executemany, self._number
        execute(
            "INSERT INTO event (at, kind, uplink, text, severity, serial) VALUES (?,?,?,?,?,?)",
            [(e.at, e.kind, e.uplink, e.text, e.severity, e.serial) for e in batch.events],
        )
        for (at, path), tally in batch.minutes.items():
            self._rolled = min(self._rolled, at - at % HOUR_S)  # the clock was set back
            self._add_tally(at, path, tally)
        execute(
            "INSERT INTO traffic VALUES (?,?,?,?) ON CONFLICT DO UPDATE SET"
            " bytes_in = bytes_in + excluded.bytes_in, bytes_out = bytes_out + excluded.bytes_out",
            [(at, number(uplink), *both) for (at, uplink), both in batch.traffic.items()],
        )
        self._write_spans(batch)
        if batch.counters is not None:
            self._db.execute("DELETE FROM counter")
            rows = [(number(uplink), *both) for uplink, both in batch.counters.items()]
            execute("INSERT INTO counter VALUES (?,?,?)", rows)
        self._db.execute(
            "UPDATE known SET seen = coalesce(?, seen), serial = coalesce(?, serial), boot = ?,"
            " rolled = ?",
            (batch.seen, batch.serial, self._boot, self._rolled),
        )

    def _add_tally(self, at: int, path: Path, tally: Tally) -> None:
        self._db.execute(
            f"INSERT INTO minute (at, uplink, family, {COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)"
            f" ON CONFLICT DO UPDATE SET {ADDED}",
            (
                *(at, self._number(path.uplink), path.family),
                *(tally.answered, tally.lost, tally.rtt_us, pack(tally.rtt)),
                *(tally.up_ms, tally.degraded_ms, tally.recovering_ms, tally.down_ms),
            ),
        )

    def _write_spans(self, batch: Batch) -> None:
        execute = self._db.execute
        for span in batch.spans:
            key = self._number(span.path.uplink), span.path.family
            execute(
                "UPDATE span SET until = max(since, ?)"
                " WHERE until IS NULL AND uplink = ? AND family = ?",
                (span.since, *key),
            )
            if isinstance(span, Span):
                execute(
                    "INSERT INTO span (uplink, family, state, since, cause) VALUES (?,?,?,?,?)",
                    (*key, span.state, span.since, span.cause),
                )
        for path, targets in batch.targets:
            if (outage := self._last_outage(path)) is None:
                continue
            for t in targets:
                by = self._number(t.path.uplink), t.path.family
                execute(
                    "INSERT OR REPLACE INTO target VALUES (?,?,?,?,?,?)",
                    (outage, *by, t.probe, t.answered, t.lost),
                )

    def _last_outage(self, path: Path) -> int | None:
        """The span that the last outage of a path began with."""
        rows = self._db.execute(
            "SELECT id, state FROM span WHERE uplink = ? AND family = ? ORDER BY id DESC LIMIT 100",
            (self._number(path.uplink), path.family),
        )
        first: int | None = None
        for id_, state in rows:
            if state == "down":
                first = id_
            elif state != "recovering" and first is not None:
                break
        return first

    def _number(self, uplink: str) -> int:
        if uplink not in self._uplinks:
            cursor = self._db.execute("INSERT INTO uplink (name) VALUES (?)", (uplink,))
            assert cursor.lastrowid is not None
            self._uplinks[uplink] = cursor.lastrowid
        return self._uplinks[uplink]

    # --- once an hour -----------------------------------------------------------------------

    def _roll_up(self, until: int) -> None:
        """Make hours of the minutes of all hours that are over. An hour is the sum of its minutes,
        however often this is done."""
        self._db.execute(
            f"INSERT OR REPLACE INTO hour (at, uplink, family, {COLUMNS})"
            f" SELECT at - at % {HOUR_S}, uplink, family, {SUMS} FROM minute"
            f" WHERE at >= ? AND at < ? GROUP BY at - at % {HOUR_S}, uplink, family",
            (self._rolled, until),
        )
        self._rolled = max(self._rolled, until)
        self._db.execute("UPDATE known SET rolled = ?", (self._rolled,))

    def _prune(self, now: float, keep_s: int) -> None:
        """Remove what is too old: at most a day's worth of each table, the oldest first."""
        for table, before, step_s in (
            ("minute", now - MINUTES_KEPT_S, HOUR_S + MINUTE_S),
            ("hour", now - keep_s, DAY_S),
            ("traffic", now - keep_s, DAY_S),
        ):
            (oldest,) = self._row(f"SELECT min(at) FROM {table}")
            if oldest is not None and oldest < before:
                until = min(before, oldest + step_s)
                self._db.execute(f"DELETE FROM {table} WHERE at < ?", (until,))
        self._prune_rows("event", "at", now - keep_s, EVENTS_KEPT)
        self._prune_rows("span", "until", now - keep_s, SPANS_KEPT)
        self._db.execute("DELETE FROM target WHERE span < (SELECT min(id) FROM span)")

    def _prune_rows(self, table: str, column: str, before: float, most: int) -> None:
        (last,) = self._row(f"SELECT max(id) FROM {table}")
        if last is not None:
            self._db.execute(f"DELETE FROM {table} WHERE id <= ?", (last - most,))
        self._db.execute(
            f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table}"
            f" WHERE {column} < ? ORDER BY id LIMIT 100)",
            (before,),
        )


def set_aside(directory: FilePath, why: Unusable) -> FilePath:
    """Rename a file that can't be used; return its new name. Of damaged ones the last is kept."""
    path = directory / FILE
    target = path.with_name(f"{FILE}.{why.suffix}")
    for earlier in directory.glob(f"{FILE}.damaged-*"):
        earlier.unlink()
    path.replace(target)
    with suppress(FileNotFoundError):
        (directory / f"{FILE}-journal").unlink()
    return target


def files(directory: FilePath) -> Iterable[FilePath]:
    """The file and what is beside it, for their sizes."""
    return directory.glob(f"{FILE}*")
