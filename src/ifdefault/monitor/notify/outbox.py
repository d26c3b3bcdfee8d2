"""What has yet to be sent to whom: the outbox, a SQLite file.

    events ──accept──> waiting ──begin──> in a message ──delivered──> gone
                          ^                     │
                          └──────release────────┘  it has certainly not arrived

Rules: what was accepted is on disk, together with the serial of the last event, so that no event is
lost or accepted twice. A message that may have arrived keeps its id and its events until it is
delivered: also one that was being sent when the monitor was killed. If the file can't be written,
the outbox goes on in memory and tries again; one that is damaged is set aside, and begins anew.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path as FilePath

from ifdefault.ipc import codec
from ifdefault.model.errors import Problem
from ifdefault.model.report import Event
from ifdefault.monitor.history.records import Path
from ifdefault.monitor.notify.schedule import Item

OUTBOX = "outbox.sqlite"
MOST_ITEMS = 1000  # of a notifier; the oldest go first
_FORMAT = 1
_SCHEMA = """
CREATE TABLE cursor (serial INTEGER NOT NULL);
CREATE TABLE item (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    notifier TEXT NOT NULL,
    event TEXT NOT NULL,
    received REAL NOT NULL,
    since REAL NOT NULL,
    message TEXT NOT NULL DEFAULT ''  -- the id of the one that it is in, if that may have arrived
);
CREATE INDEX of_notifier ON item (notifier, message);
CREATE TABLE fault (
    notifier TEXT NOT NULL, uplink TEXT NOT NULL, family INTEGER NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (notifier, uplink, family)
);
CREATE TABLE notifier (
    name TEXT PRIMARY KEY,
    sent_at REAL NOT NULL DEFAULT 0,
    failing_since REAL NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',
    omitted INTEGER NOT NULL DEFAULT 0
);
"""
_decode_event: Callable[[object], Event] = codec.decoder(Event)


@dataclass(frozen=True, slots=True)
class Record:
    """How a notifier fares: `sent_at` of its last message, 0 if there was none; `failing_since`, 0
    if it doesn't fail; `failures`: failed attempts since, and the last `error`; `omitted`: events
    that couldn't be kept."""

    sent_at: float = 0.0
    failing_since: float = 0.0
    failures: int = 0
    error: str = ""
    omitted: int = 0


class Outbox:
    def __init__(self, path: FilePath) -> None:
        self._path = path
        self.news: list[Problem] = []  # what happened to the file
        self.begun_anew = False  # it was damaged
        self._why_unsaved = ""
        self._db = self._open()
        self.cursor = self._read_cursor()  # the serial of the last event; None: there was none

    @property
    def unsaved(self) -> str:
        """Why the outbox is in memory only, "" if it isn't."""
        return self._why_unsaved

    def close(self) -> None:
        self._db.close()

    # --- what waits -----------------------------------------------------------------------

    def accept(
        self,
        serial: int | None,
        items: Mapping[str, Sequence[Item]],
        faults: Mapping[str, Mapping[Path, float]],
    ) -> None:
        """Take in what each notifier has to send, with all events up to a serial."""

        def write(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM cursor")
            if serial is not None:
                db.execute("INSERT INTO cursor VALUES (?)", (serial,))
            for name, new in items.items():
                rows = [(name, _encode(item.event), item.received, item.since) for item in new]
                into = "INSERT INTO item (notifier, event, received, since) VALUES (?, ?, ?, ?)"
                db.executemany(into, rows)
                _drop_oldest(db, name)
            for name, known in faults.items():
                db.execute("DELETE FROM fault WHERE notifier = ?", (name,))
                rows_of = [(name, *path, at) for path, at in known.items()]
                db.executemany("INSERT INTO fault VALUES (?, ?, ?, ?)", rows_of)

        self._write(write)
        self.cursor = serial

    def waiting(self, name: str) -> list[Item]:
        """Those that are in no message."""
        return self._items(name, "")

    def message(self, name: str) -> tuple[str, list[Item]] | None:
        """The message that may have arrived, with its events."""
        query = "SELECT message FROM item WHERE notifier = ? AND message <> '' ORDER BY id LIMIT 1"
        row = self._db.execute(query, (name,)).fetchone()
        return (row[0], self._items(name, row[0])) if row else None

    def count(self, name: str) -> int:
        query = "SELECT COUNT(*) FROM item WHERE notifier = ?"
        number: int = self._db.execute(query, (name,)).fetchone()[0]
        return number

    def faults(self, name: str) -> dict[Path, float]:
        query = "SELECT uplink, family, at FROM fault WHERE notifier = ?"
        return {Path(uplink, family): at for uplink, family, at in self._db.execute(query, (name,))}

    def record(self, name: str) -> Record:
        query = "SELECT sent_at, failing_since, failures, error, omitted FROM notifier"
        row = self._db.execute(f"{query} WHERE name = ?", (name,)).fetchone()
        return Record(*row) if row else Record()

    # --- what becomes of it ---------------------------------------------------------------

    def begin(self, name: str, message: str, number: int) -> None:
        """Put the first `number` events that wait into a message, which is sent now."""
        first = "SELECT id FROM item WHERE notifier = ? AND message = '' ORDER BY id LIMIT ?"
        update = f"UPDATE item SET message = ? WHERE id IN ({first})"
        self._write(lambda db: db.execute(update, (message, name, number)))

    def release(self, name: str, message: str) -> None:
        """The message has certainly not arrived: its events wait again."""
        update = "UPDATE item SET message = '' WHERE notifier = ? AND message = ?"
        self._write(lambda db: db.execute(update, (name, message)))

    def delivered(self, name: str, message: str, now: float) -> None:
        def write(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM item WHERE notifier = ? AND message = ?", (name, message))
            db.execute("INSERT OR REPLACE INTO notifier (name, sent_at) VALUES (?, ?)", (name, now))

        self._write(write)

    def failed(self, name: str, error: str, now: float) -> None:
        upsert = """
            INSERT INTO notifier (name, failing_since, failures, error)
            VALUES (:name, :now, 1, :error)
            ON CONFLICT (name) DO UPDATE SET
                failing_since = CASE WHEN failures = 0 THEN :now ELSE failing_since END,
                failures = failures + 1, error = :error
        """
        values = {"name": name, "now": now, "error": error}
        self._write(lambda db: db.execute(upsert, values))

    def keep_only(self, names: Iterable[str]) -> None:
        """Forget notifiers that are no longer configured."""
        known = set(names)
        for table, column in (("item", "notifier"), ("fault", "notifier"), ("notifier", "name")):
            there = {row[0] for row in self._db.execute(f"SELECT DISTINCT {column} FROM {table}")}
            gone = [(name,) for name in there - known]
            if gone:
                delete = f"DELETE FROM {table} WHERE {column} = ?"
                self._write(methodcaller("executemany", delete, gone))

    # --- the file -------------------------------------------------------------------------

    def save_again(self) -> None:
        """Try to write what could be kept in memory only."""
        if not self._why_unsaved:
            return
        fresh = self._path.with_name(f".{self._path.name}.new")
        try:
            with suppress(FileNotFoundError):
                fresh.unlink()
            disk = _connect(fresh)
            try:
                self._db.backup(disk)
            finally:
                disk.close()
            fresh.replace(self._path)
            connection = _connect(self._path)
        except (sqlite3.Error, OSError):
            with suppress(OSError):
                fresh.unlink()
            return
        self._db.close()
        self._db, self._why_unsaved = connection, ""
        problem = Problem(str(self._path), "saved again", "nothing is lost", warning=True)
        self.news.append(problem)

    def _open(self) -> sqlite3.Connection:
        try:
            return _opened(self._path)
        except sqlite3.OperationalError as error:
            return self._in_memory(error)
        except (sqlite3.DatabaseError, ValueError) as error:
            aside = self._path.with_name(f"{self._path.name}.damaged")
            remedy = f"kept as {aside.name}; some events may be sent twice"
            self.news.append(Problem(str(self._path), f"is damaged: {error}", remedy))
            self.begun_anew = True
            try:
                self._path.replace(aside)
                return _opened(self._path)
            except (sqlite3.Error, OSError) as other:
                return self._in_memory(other)

    def _write(self, work: Callable[[sqlite3.Connection], object]) -> None:
        try:
            with self._db:
                work(self._db)
        except sqlite3.OperationalError as error:  # others: the file is damaged, and is opened anew
            if self._why_unsaved:
                raise
            memory = self._in_memory(error, self._db)
            self._db.close()
            self._db = memory
            with self._db:
                work(self._db)

    def _in_memory(
        self, error: Exception, disk: sqlite3.Connection | None = None
    ) -> sqlite3.Connection:
        self._why_unsaved = f"{self._path}: can't be saved: {error}"
        problem = Problem(str(self._path), f"can't be saved: {error}", "kept in memory")
        self.news.append(problem)
        memory = sqlite3.connect(":memory:")
        if disk is not None:
            with suppress(sqlite3.Error):
                disk.backup(memory)
                return memory
            memory = sqlite3.connect(":memory:")
        _create(memory)
        return memory

    def _read_cursor(self) -> int | None:
        row = self._db.execute("SELECT serial FROM cursor").fetchone()
        return row[0] if row else None

    def _items(self, name: str, message: str) -> list[Item]:
        query = "SELECT event, received, since FROM item WHERE notifier = ? AND message = ?"
        rows = self._db.execute(f"{query} ORDER BY id", (name, message))
        return [Item(_decode(event), received, since) for event, received, since in rows]


def _encode(event: Event) -> str:
    return codec.write(codec.to_json(event)).decode("utf-8", "strict")


def _decode(text: str) -> Event:
    return _decode_event(codec.read(text.encode()))


def _drop_oldest(db: sqlite3.Connection, name: str) -> None:
    query = "SELECT COUNT(*) FROM item WHERE notifier = ? AND message = ''"
    surplus = db.execute(query, (name,)).fetchone()[0] - MOST_ITEMS
    if surplus > 0:
        first = "SELECT id FROM item WHERE notifier = ? AND message = '' ORDER BY id LIMIT ?"
        db.execute(f"DELETE FROM item WHERE id IN ({first})", (name, surplus))
        db.execute("INSERT OR IGNORE INTO notifier (name) VALUES (?)", (name,))
        update = "UPDATE notifier SET omitted = omitted + ? WHERE name = ?"
        db.execute(update, (surplus, name))


def _opened(path: FilePath) -> sqlite3.Connection:
    """A connection to a file that can be used; it is made if there is none. sqlite3.DatabaseError
    or ValueError if it is damaged, OperationalError if it can't be opened."""
    db = _connect(path)
    try:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and not db.execute("SELECT 1 FROM sqlite_master").fetchone():
            _create(db)
        elif version != _FORMAT:
            raise ValueError(f"of another ifdefault (format {version}, this has {_FORMAT})")
        (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise ValueError(found)
        for (text,) in db.execute("SELECT event FROM item"):
            _decode(text)
    except BaseException:
        db.close()
        raise
    return db


def _connect(path: FilePath) -> sqlite3.Connection:
    with suppress(OSError):  # sqlite3 says why
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    db = sqlite3.connect(path)
    db.execute("PRAGMA synchronous = FULL")
    return db


def _create(db: sqlite3.Connection) -> None:
    with db:
        db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_FORMAT}; COMMIT")
