"""The outbox: what was accepted is sent, whatever happens to the process, the disk and the file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path as FilePath

import pytest

from ifdefault.monitor.history.records import Path
from ifdefault.monitor.notify.outbox import MOST_ITEMS, OUTBOX, Outbox, Record
from ifdefault.monitor.notify.schedule import Item
from tests.unit.notified import AT, event, outage

Opened = Callable[[FilePath], Outbox]
ITEMS = [Item(each, AT) for each in outage(1)]


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Opens outboxes, and closes them at last."""
    outboxes = []

    def open_(path: FilePath) -> Outbox:
        outboxes.append(Outbox(path))
        return outboxes[-1]

    yield open_
    for outbox in outboxes:
        outbox.close()


@pytest.fixture
def outbox(opened: Opened, tmp_path: FilePath) -> Outbox:
    return opened(tmp_path / OUTBOX)


def accept(outbox: Outbox, items: Sequence[Item], name: str = "ops") -> None:
    outbox.accept(items[-1].event.serial, {name: items}, {})


def test_what_was_accepted_is_there_for_the_next_process(opened: Opened, outbox: Outbox) -> None:
    assert outbox.cursor is None
    faults = {Path("isp-a", 4): AT}
    outbox.accept(4, {"ops": ITEMS, "web": ITEMS[:1]}, {"ops": faults})
    outbox.begin("web", "1", 1)
    outbox.failed("web", "connection refused", AT)
    outbox.failed("web", "no answer", AT + 5.0)
    again = opened(outbox._path)
    assert again.cursor == 4
    assert again.waiting("ops") == ITEMS
    assert again.message("ops") is None
    assert again.faults("ops") == faults
    assert again.waiting("web") == []
    assert again.message("web") == ("1", ITEMS[:1])
    assert again.count("web") == 1
    assert again.record("web") == Record(0.0, AT, 2, "no answer", 0)
    assert (again._path.stat().st_mode & 0o777) == 0o600
    again.delivered("web", "1", AT + 9.0)
    assert again.count("web") == 0
    assert again.record("web") == Record(sent_at=AT + 9.0)


def test_a_message_keeps_its_events_until_it_is_released(outbox: Outbox) -> None:
    accept(outbox, ITEMS[:2])
    outbox.begin("ops", "1-3", 2)
    accept(outbox, ITEMS[2:])
    assert outbox.message("ops") == ("1-3", ITEMS[:2])
    assert outbox.waiting("ops") == ITEMS[2:]
    outbox.release("ops", "1-3")
    assert outbox.message("ops") is None
    assert outbox.waiting("ops") == ITEMS


def test_who_is_not_configured_any_more_is_forgotten(outbox: Outbox) -> None:
    outbox.accept(4, {"ops": ITEMS, "web": ITEMS}, {"web": {Path("isp-a", 4): AT}})
    outbox.failed("web", "no answer", AT)
    outbox.keep_only(["ops"])
    assert (outbox.count("ops"), outbox.count("web"), outbox.faults("web")) == (4, 0, {})
    assert outbox.record("web") == Record()


def test_the_oldest_go_if_there_are_too_many(outbox: Outbox) -> None:
    accept(outbox, ITEMS[:1])
    outbox.begin("ops", "1", 1)
    accept(outbox, [Item(event(n, f"problem {n}"), AT) for n in range(5, MOST_ITEMS + 12)])
    kept = outbox.waiting("ops")
    assert len(kept) == MOST_ITEMS
    assert kept[-1].event.serial == MOST_ITEMS + 11
    assert outbox.message("ops") == ("1", ITEMS[:1])  # it may have arrived
    assert outbox.record("ops").omitted == 7


@pytest.mark.parametrize("content", [b"not a database" * 100, b"", "half", "format", "event"])
def test_a_damaged_file_is_set_aside(opened: Opened, outbox: Outbox, content: bytes | str) -> None:
    accept(outbox, ITEMS)
    path = outbox._path
    outbox.close()
    if content == "half":
        content = path.read_bytes()[: path.stat().st_size // 2]
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        change = {"format": "PRAGMA user_version = 9", "event": "UPDATE item SET event = '{}'"}
        with sqlite3.connect(path) as db:
            db.execute(change[content])
        db.close()
    again = opened(path)
    assert again.cursor is None
    assert again.count("ops") == 0
    accept(again, ITEMS)
    assert opened(again._path).cursor == 4
    if content:  # an empty one is as good as none
        assert again.begun_anew
        (problem,) = again.news
        assert str(problem).startswith(f"{path}: is damaged: ")
        assert path.with_name(f"{OUTBOX}.damaged").exists()


def test_on_a_full_disk_it_goes_on_in_memory(opened: Opened, outbox: Outbox) -> None:
    accept(outbox, ITEMS[:2])
    (pages,) = outbox._db.execute("PRAGMA page_count").fetchone()
    outbox._db.execute(f"PRAGMA max_page_count = {pages}")
    many = [Item(event(n, "x" * 500), AT) for n in range(5, 100)]
    accept(outbox, many)
    assert outbox.unsaved == f"{outbox._path}: can't be saved: database or disk is full"
    assert outbox.waiting("ops") == [*ITEMS[:2], *many]
    outbox.begin("ops", "1-99", 97)
    assert (opened(outbox._path).cursor, outbox.cursor) == (3, 99)
    outbox.save_again()
    assert outbox.unsaved == ""
    assert [str(problem).rpartition(": ")[2] for problem in outbox.news] == [
        "database or disk is full; kept in memory",
        "saved again; nothing is lost",
    ]
    again = opened(outbox._path)
    assert again.cursor == 99
    assert again.message("ops") == ("1-99", [*ITEMS[:2], *many])
    assert (again._path.stat().st_mode & 0o777) == 0o600


def test_without_a_directory_it_is_in_memory(opened: Opened, tmp_path: FilePath) -> None:
    outbox = opened(tmp_path / "none" / OUTBOX)
    accept(outbox, ITEMS)
    assert outbox.waiting("ops") == ITEMS
    assert "can't be saved: unable to open database file" in outbox.unsaved
    outbox.save_again()
    assert outbox.unsaved
    (tmp_path / "none").mkdir()
    outbox.save_again()
    assert not outbox.unsaved
    assert opened(outbox._path).waiting("ops") == ITEMS
