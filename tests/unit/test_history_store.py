"""The history's file, over real SQLite files and simulated time."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path as FilePath
from tempfile import TemporaryDirectory

import pytest

from ifdefault.ipc import privileges
from ifdefault.model.errors import HostError
from ifdefault.model.report import Event
from ifdefault.monitor.history.file import HistoryFile
from ifdefault.monitor.history.reader import NoHistory, history_dir, reading
from ifdefault.monitor.history.records import (
    DAY_S,
    HOUR_S,
    MINUTE_S,
    Batch,
    Path,
    Span,
    Tally,
    Target,
)
from ifdefault.monitor.history.schema import APPLICATION_ID, FILE, VERSION
from ifdefault.monitor.history.store import Store

A4 = Path("isp-a", 4)
T = 1_800_000_000 // DAY_S * DAY_S  # when the simulated time begins
ONE = Tally(120, 2, 1_500_000, (0, 0, 0, 0, 118, 2), up_ms=60_000)
KEEP_S = 400 * DAY_S


@pytest.fixture
def file(tmp_path: FilePath) -> HistoryFile:
    return HistoryFile(history_dir(tmp_path))


def _minute(at: int, tally: Tally = ONE, **more: object) -> Batch:
    batch = Batch(seen=float(at), **more)  # type: ignore[arg-type]
    batch.add(at, A4, tally)
    return batch


def _write(file: HistoryFile, batch: Batch, now: float, keep_s: int = KEEP_S) -> None:
    file.write(batch, now, (), keep_s)


def _down(at: float, until: float | None = None) -> list[Span]:
    spans = [Span(A4, "up", at - 100, None, "answers"), Span(A4, "down", at, None, "8 lost")]
    if until is not None:
        spans += [Span(A4, "recovering", until - 2.5, None, "1 answer")]
        spans += [Span(A4, "up", until, None, "answers for 2.5 s")]
    return spans


def test_there_is_no_history_yet(tmp_path: FilePath) -> None:
    with pytest.raises(NoHistory, match="nothing has been recorded yet"), reading(tmp_path):
        pass


def test_what_was_written_is_read(tmp_path: FilePath, file: HistoryFile) -> None:
    event = Event(T + 5.0, "path", "isp-a", "isp-a IPv4: up -> down (8 lost)", "error", 7)
    batch = _minute(T, events=[event], spans=[*_down(T + 5, T + 25)], serial=7)
    batch.add_traffic(T, "isp-a", 1000, 20)
    batch.targets.append((A4, (Target(Path("isp-b", 4), "icmp 192.0.2.1", 10, 0),)))
    _write(file, batch, T + 60)
    with reading(tmp_path) as reader:
        assert reader.events(T, T + 60) == [event]
        assert [i.tally for i in reader.minutes(T, T + 60)] == [ONE]
        [hour] = reader.hours(T, T + HOUR_S)
        assert (hour.at, hour.path, hour.tally) == (T, A4, ONE), "the hour that isn't over"
        assert [(t.bytes_in, t.bytes_out) for t in reader.traffic(T, T + HOUR_S)] == [(1000, 20)]
        [outage] = reader.outages(T, T + 60)
        assert (outage.since, outage.until, outage.cause) == (T + 5, T + 25, "8 lost")
        assert reader.outage(outage.span) == outage
        assert reader.outages(T + 24, T + 60) == [outage], "as a whole"
        assert [t.answered for t in reader.targets(outage)] == [10]
        assert reader.seen == T


def test_it_goes_on_where_it_ended(file: HistoryFile) -> None:
    _write(file, _minute(T, spans=_down(T), serial=41, counters={"isp-a": (5, 6)}), T + 60)
    file.close()
    store = file.open()
    assert (store.serial, store.seen, store.counters) == (41, T, {"isp-a": (5, 6)})
    [span] = store.spans
    assert (span.path, span.state, span.since, span.until) == (A4, "down", T, None)


def test_minutes_become_hours_and_go(tmp_path: FilePath, file: HistoryFile) -> None:
    for hour in range(T, T + 5 * DAY_S, HOUR_S):
        batch = Batch(seen=float(hour + HOUR_S))
        for minute in range(hour, hour + HOUR_S, 10 * MINUTE_S):
            batch.add(minute, A4, ONE)
        _write(file, batch, hour + HOUR_S)
    _write(file, _minute(T + 5 * DAY_S), T + 5 * DAY_S + 60)
    with reading(tmp_path) as reader:
        oldest = reader.minutes(0, 1e10)[0].at
        assert 2.9 * DAY_S < T + 5 * DAY_S - oldest < 3.1 * DAY_S
        hours = reader.hours(T, T + 5 * DAY_S)
        assert len(hours) == 5 * 24
        assert {hour.tally.answered for hour in hours} == {6 * ONE.answered}


def test_what_is_too_old_goes_and_a_wrong_clock_takes_a_day(
    tmp_path: FilePath, file: HistoryFile
) -> None:
    for hour in range(10 * 24):
        _write(file, _minute(T + hour * HOUR_S), T + hour * HOUR_S + 60, 20 * DAY_S)
    wrong = T + 1000 * DAY_S
    _write(file, _minute(wrong), wrong + 60, 20 * DAY_S)
    now = T + 10 * DAY_S
    _write(file, _minute(now), now + 60, 20 * DAY_S)
    with reading(tmp_path) as reader:
        assert len(reader.hours(0, now)) >= 9 * 24 - 1
    for hour in range(48):
        _write(file, _minute(now), now + hour * HOUR_S, 5 * DAY_S)
    with reading(tmp_path) as reader:
        assert reader.hours(0, now)[0].at >= now - 5 * DAY_S - HOUR_S


def test_a_clock_that_is_set_back_counts_twice(tmp_path: FilePath, file: HistoryFile) -> None:
    for at in (T, T + HOUR_S, T, T + 2 * HOUR_S):
        _write(file, _minute(at), at + 1)
    _write(file, _minute(T + 3 * HOUR_S), T + 3 * HOUR_S + 60)
    with reading(tmp_path) as reader:
        assert [h.tally.answered // ONE.answered for h in reader.hours(T, T + DAY_S)] == [
            2,
            1,
            1,
            1,
        ]


@pytest.mark.parametrize(
    ("content", "suffix"),
    [
        (b"not SQLite, but long enough to be a file of some kind" * 100, "damaged"),
        (b"SQLite format 3\0" + b"\xff" * 8192, "damaged"),
        ("CREATE TABLE other (x)", "other"),
        (f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION + 1};", "v2"),
    ],
)
def test_what_cant_be_used_is_set_aside(
    tmp_path: FilePath,
    file: HistoryFile,
    content: bytes | str,
    suffix: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = history_dir(tmp_path) / FILE
    path.parent.mkdir()
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with sqlite3.connect(path) as db:
            db.executescript(content + ("; CREATE TABLE x (y)" if suffix == "v2" else ""))
        db.close()
    before = path.read_bytes()
    _write(file, _minute(T), T + 60)
    [aside] = path.parent.glob(f"{FILE}.{suffix}*")
    assert aside.read_bytes() == before
    assert "a new one is begun" in caplog.text
    assert aside.name in file.aside()
    with reading(tmp_path) as reader:
        assert len(reader.minutes(0, 1e10)) == 1


def test_damage_under_way_begins_anew_with_the_spans_of_now(
    tmp_path: FilePath, file: HistoryFile
) -> None:
    path = history_dir(tmp_path) / FILE
    batch = Batch()
    for minute in range(200):
        batch.add(T + minute * MINUTE_S, A4, ONE)
    _write(file, batch, T + 200 * MINUTE_S)
    with open(path, "r+b") as out:
        out.seek(100)
        out.write(b"\xff" * (path.stat().st_size - 100))
    file.close()
    span = Span(A4, "down", T, None, "8 lost")
    file.write(_minute(T + 900_000), T + 900_060, (span,), KEEP_S)
    with reading(tmp_path) as reader:
        [read] = reader.spans(0, 1e10)
        assert (read.path, read.state, read.since) == (A4, "down", T)


def test_a_file_that_vanished_is_begun_anew(tmp_path: FilePath, file: HistoryFile) -> None:
    _write(file, _minute(T), T + 60)
    (history_dir(tmp_path) / FILE).unlink()
    _write(file, _minute(T + 60), T + 120)
    with reading(tmp_path) as reader:
        assert [minute.at for minute in reader.minutes(0, 1e10)] == [T + 60]


def test_a_full_disk_is_an_error_that_costs_nothing(tmp_path: FilePath, file: HistoryFile) -> None:
    _write(file, _minute(T), T + 60)
    store = file.open()
    store._db.execute("PRAGMA max_page_count = 1")  # as ENOSPC: SQLITE_FULL
    batch = _minute(T + 60)
    batch.events = [Event(T + n, "path", "isp-a", "x" * 4000) for n in range(100)]
    with pytest.raises(sqlite3.OperationalError, match="full"):
        _write(file, batch, T + 120)
    store._db.execute("PRAGMA max_page_count = 100000")
    _write(file, batch, T + 120)
    with reading(tmp_path) as reader:
        assert len(reader.events(0, 1e10)) == 100
        assert sum(i.tally.answered for i in reader.minutes(0, 1e10)) == 2 * ONE.answered


def test_a_writer_that_was_killed_is_undone_by_the_next(
    tmp_path: FilePath, file: HistoryFile
) -> None:
    _write(file, _minute(T), T + 60)
    file.close()
    if (pid := os.fork()) == 0:
        store = Store(history_dir(tmp_path))
        batch = _minute(T + 60)
        batch.events = [Event(T + n, "path", "isp-a", "x" * 4000) for n in range(1000)]
        store._db.execute("BEGIN IMMEDIATE")
        store._write(batch)  # more than its cache: some of it is in the file
        os._exit(0)
    os.waitpid(pid, 0)
    match = "was being written when ifdefault monitor was killed; start the monitor"
    with pytest.raises(HostError, match=match), reading(tmp_path) as reader:
        reader.events(0, 1e10)
    file.open()
    with reading(tmp_path) as reader:
        assert reader.events(0, 1e10) == []
        assert len(reader.minutes(0, 1e10)) == 1


def test_a_reader_that_holds_on_makes_the_writer_try_again(
    tmp_path: FilePath, file: HistoryFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ifdefault.monitor.history.store._BUSY_S", 0.01)
    _write(file, _minute(T), T + 60)
    with reading(tmp_path) as reader:
        reader.paths()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            _write(file, _minute(T + 60), T + 120)
    _write(file, _minute(T + 60), T + 120)


def test_what_isnt_ours_to_read_is_said(tmp_path: FilePath) -> None:
    path = history_dir(tmp_path) / FILE
    path.parent.mkdir()
    path.write_bytes(b"x" * 5000)
    match = "can't be read: file is not a database"
    with pytest.raises(HostError, match=match), reading(tmp_path):
        pass


def test_another_user_reads_without_write_access() -> None:
    """Without root, a user who may not write plays the other one."""
    with TemporaryDirectory() as name:
        state_dir = FilePath(name)
        state_dir.chmod(0o755)
        file = HistoryFile(history_dir(state_dir))
        _write(file, _minute(T), T + 60)
        if (pid := os.fork()) == 0:
            try:
                uid, gid = privileges.possible(privileges.NOBODY, privileges.NOBODY)
                if uid == privileges.KEEP:
                    history_dir(state_dir).chmod(0o555)
                else:
                    os.setgid(gid)
                    os.setuid(uid)
                with reading(state_dir) as reader:
                    os._exit(len(reader.minutes(0, 1e10)))
            finally:
                os._exit(99)
        _, status = os.waitpid(pid, 0)
        history_dir(state_dir).chmod(0o755)
        file.close()
    assert os.waitstatus_to_exitcode(status) == 1, "while the writer has it open"


def test_one_store_is_a_file_of_its_own_kind(tmp_path: FilePath) -> None:
    store = Store(tmp_path)
    store.close()
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o644
