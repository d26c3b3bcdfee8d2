"""Reads the history's file, for those who may not write it.

Rules: read-only, a connection for each reading; whatever is wrong with the file is a HostError. A
history that doesn't exist yet is empty. Root reads it too, and trusts the monitor's user with
nothing: a pipe isn't waited for, and what isn't a table, such as a view that never ends, isn't run.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path as FilePath
from urllib.parse import quote

from ifdefault.ipc.regular_file import require_regular
from ifdefault.model.errors import HostError, Problem, reason
from ifdefault.model.report import Event
from ifdefault.monitor.history.outages import follows, outages
from ifdefault.monitor.history.records import (
    HOUR_S,
    MINUTE_S,
    OUT,
    Interval,
    Outage,
    Path,
    Span,
    Tally,
    Target,
    Traffic,
)
from ifdefault.monitor.history.schema import (
    APPLICATION_ID,
    COLUMNS,
    FILE,
    SUMS,
    VERSION,
    add_functions,
    unpack,
)

FOLDER = "history"  # in the state directory
_TIMEOUT_S = 5.0  # while it is being written
_BESIDE = ("-journal", "-wal", "-shm")  # of SQLite, which opens what there is
_LONGEST = 1 << 20  # of a value
_NAMED = "JOIN uplink ON uplink.id = uplink"


def history_dir(state_dir: FilePath) -> FilePath:
    return state_dir / FOLDER


class NoHistory(HostError):
    """There is none yet."""


@contextmanager
def reading(state_dir: FilePath) -> Iterator[Reader]:
    """Read within one state of the file. NoHistory if there is none, HostError if it can't be."""
    path = history_dir(state_dir) / FILE
    try:
        if not path.exists():
            remedy = "start the monitor: systemctl start ifdefault-monitor, or ifdefault monitor"
            raise NoHistory(Problem(str(path), "nothing has been recorded yet", remedy))
        for each in (path, *(path.with_name(f"{FILE}{suffix}") for suffix in _BESIDE)):
            with suppress(FileNotFoundError):
                require_regular(each)
        db = sqlite3.connect(
            f"file:{quote(str(path))}?mode=ro", uri=True, timeout=_TIMEOUT_S, isolation_level=None
        )
        try:
            yield Reader(db, str(path))
        finally:
            db.close()
    except (sqlite3.Error, OSError) as error:
        raise HostError(_problem(str(path), error)) from error


def _problem(path: str, error: Exception) -> Problem:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_READONLY:
        remedy = "start the monitor: systemctl start ifdefault-monitor"
        return Problem(path, "was being written when ifdefault monitor was killed", remedy)
    if code == sqlite3.SQLITE_BUSY:
        return Problem(path, f"is locked for more than {_TIMEOUT_S:g} s", "try again")
    remedy = "restart the monitor, which begins a new one: systemctl restart ifdefault-monitor"
    why = reason(error) if isinstance(error, OSError) else str(error)
    return Problem(path, f"can't be read: {why}", remedy)


class Reader:
    """`since` and `until` are seconds since the epoch; "" as uplink: all."""

    def __init__(self, db: sqlite3.Connection, path: str) -> None:
        self._db = db
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
        add_functions(db)
        db.execute("PRAGMA trusted_schema = OFF")  # root reads what the monitor's user wrote
        db.execute("BEGIN")
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if (application, version) == (0, 0) and not db.execute("PRAGMA page_count").fetchone()[0]:
            what, remedy = "nothing has been recorded yet", "see the log of ifdefault-monitor"
            raise NoHistory(Problem(path, what, remedy))  # as when the disk is full
        if (application, version) != (APPLICATION_ID, VERSION):
            what = "isn't a history of ifdefault"
            if application == APPLICATION_ID:
                what = f"is of another ifdefault (format {version}, not {VERSION})"
            remedy = "restart the monitor: systemctl restart ifdefault-monitor"
            raise HostError(Problem(path, what, remedy))
        others = "SELECT count(*) FROM sqlite_schema WHERE type NOT IN ('table', 'index')"
        if db.execute(others).fetchone() != (0,):
            what, remedy = "has views or triggers, which aren't ours", "move it away"
            raise HostError(Problem(path, what, remedy))
        self.seen: float = db.execute("SELECT seen FROM known").fetchone()[0]

    def paths(self) -> list[Path]:
        """All paths that anything is known of, sorted."""
        rows = self._db.execute(f"SELECT DISTINCT name, family FROM span {_NAMED}")
        return sorted(Path(name, family) for name, family in rows)

    def first(self) -> float | None:
        """Since when there is a history."""
        rows = self._db.execute(
            "SELECT min(at) FROM (SELECT min(at) AS at FROM hour UNION SELECT min(at) FROM minute"
            " UNION SELECT min(since) FROM span)"
        )
        at: float | None = rows.fetchone()[0]
        return at

    def minutes(self, since: float, until: float, uplink: str = "") -> list[Interval]:
        """Minutes, as far as they are kept, the oldest first."""
        return self._intervals("minute", since - since % MINUTE_S, until, uplink)

    def hours(self, since: float, until: float, uplink: str = "") -> list[Interval]:
        """Hours, the oldest first; the last one as far as it has come."""
        since -= since % HOUR_S
        (rolled,) = self._db.execute("SELECT rolled FROM known").fetchone()
        over = self._intervals("hour", since, min(until, rolled), uplink)
        return over + self._intervals("minute", max(since, rolled), until, uplink, HOUR_S)

    def _intervals(
        self, table: str, since: float, until: float, uplink: str, step_s: int = 0
    ) -> list[Interval]:
        at, columns, grouped = "at", COLUMNS, ""
        if step_s:
            at, columns = f"at - at % {step_s}", SUMS
            grouped = f"GROUP BY at - at % {step_s}, uplink, family"
        rows = self._db.execute(
            f"SELECT {at}, name, family, {columns} FROM {table} {_NAMED}"
            f" WHERE at >= ? AND at < ? AND ? IN (name, '') {grouped} ORDER BY 1, name, family",
            (since, until, uplink),
        )
        return [
            Interval(begin, Path(name, family), Tally(answered, lost, rtt_us, unpack(rtt), *ms))
            for begin, name, family, answered, lost, rtt_us, rtt, *ms in rows
        ]

    def traffic(self, since: float, until: float, uplink: str = "") -> list[Traffic]:
        """Traffic by the hour, the oldest first."""
        rows = self._db.execute(
            f"SELECT at, name, bytes_in, bytes_out FROM traffic {_NAMED}"
            " WHERE at >= ? AND at < ? AND ? IN (name, '') ORDER BY at, name",
            (since - since % HOUR_S, until, uplink),
        )
        return [Traffic(*row) for row in rows]

    def spans(self, since: float, until: float, uplink: str = "") -> list[Span]:
        """All spans that reach into a time, the oldest first."""
        rows = self._db.execute(
            f"SELECT name, family, state, since, until, cause, span.id FROM span {_NAMED}"
            " WHERE since < ? AND coalesce(until, 1e18) > ? AND ? IN (name, '')"
            " ORDER BY since, span.id",
            (until, since, uplink),
        )
        return [Span(Path(name, family), *rest) for name, family, *rest in rows]

    def outages(self, since: float, until: float, uplink: str = "") -> list[Outage]:
        """All outages that reach into a time, as a whole, the oldest first."""
        spans = self.spans(since, until, uplink)
        first = {span.path: span for span in reversed(spans)}.values()
        return outages([*spans, *(b for span in first for b in self._out_before(span))])

    def outage(self, id_: int) -> Outage | None:
        """The outage that begins with a span."""
        row = self._db.execute(
            f"SELECT name, since FROM span {_NAMED} WHERE span.id = ?", (id_,)
        ).fetchone()
        found = self.outages(row[1], 1e18, row[0]) if row else ()
        return next((outage for outage in found if outage.span == id_), None)

    def _out_before(self, span: Span) -> Iterator[Span]:
        """The spans before one that belong to the same outage."""
        while span.state in OUT:
            row = self._db.execute(
                f"SELECT state, since, until, cause, span.id FROM span {_NAMED}"
                " WHERE name = ? AND family = ? AND span.id < ? ORDER BY span.id DESC LIMIT 1",
                (*span.path, span.id),
            ).fetchone()
            if row is None or row[0] not in OUT or not follows(row[2], span):
                return
            span = Span(span.path, *row)
            yield span

    def targets(self, outage: Outage) -> list[Target]:
        """What the targets answered during an outage, by all paths of its family."""
        rows = self._db.execute(
            f"SELECT name, family, probe, answered, lost FROM target {_NAMED} WHERE span = ?"
            " ORDER BY name, probe",
            (outage.span,),
        )
        return [Target(Path(name, family), *rest) for name, family, *rest in rows]

    def events(
        self, since: float, until: float, uplink: str = "", limit: int = 10_000
    ) -> list[Event]:
        """The latest events of a time, the oldest first."""
        rows = self._db.execute(
            "SELECT at, kind, uplink, text, severity, serial FROM event"
            " WHERE at >= ? AND at < ? AND ? IN (uplink, '') ORDER BY id DESC LIMIT ?",
            (since, until, uplink, limit),
        )
        return [Event(*row) for row in rows][::-1]
