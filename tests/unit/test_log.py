"""The log's lines, for the journal and for people."""

from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ifdefault.ipc import log


@pytest.fixture(autouse=True)
def _root_logger(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the process its logging back."""
    root = logging.getLogger()
    handlers, level, raising = list(root.handlers), root.level, logging.raiseExceptions
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    yield
    root.handlers[:], logging.raiseExceptions = handlers, raising
    root.setLevel(level)
    logging.getLogger("asyncio").setLevel(logging.NOTSET)


def test_a_line_for_people() -> None:
    out = io.StringIO()
    log.set_up(stream=out)
    logging.getLogger("ifdefault").warning("isp-a: %s", "up -> down")
    logging.getLogger("ifdefault").debug("nobody asked for this")
    assert re.fullmatch(r"\d\d:\d\d:\d\d warning isp-a: up -> down\n", out.getvalue())


def test_more_if_asked_for() -> None:
    out = io.StringIO()
    log.set_up(verbose=True, stream=out)
    logging.getLogger("ifdefault").debug("details")
    logging.getLogger("asyncio").info("of the loop")
    assert out.getvalue().endswith(" debug details\n")


def test_a_record_is_one_line_whatever_is_in_it() -> None:
    out = io.StringIO()
    log.set_up(stream=out)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("ifdefault").exception("a\r\nb\x1b[2J\u202e ä")
    text = out.getvalue()
    assert text.count("\n") == 1
    assert r"error a\r\nb\x1b[2J\u202e ä\nTraceback" in text
    assert text.endswith("ValueError: two\\nlines\n")


@pytest.mark.parametrize(
    ("level", "line"),
    [
        ("critical", "<2>x"),
        ("error", "<3>x"),
        ("warning", "<4>x"),
        ("info", "<6>x"),
        ("debug", "<7>x"),
    ],
)
def test_a_line_for_the_journal(level: str, line: str) -> None:
    number = logging.getLevelNamesMapping()[level.upper()]
    record = logging.LogRecord("a", number, "", 0, "x", None, None)
    assert log.Line(journal=True).format(record) == line


def test_which_stream_is_the_journals(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w") as ours, (tmp_path / "b").open("w") as other:
        status = os.fstat(ours.fileno())
        told = f"{status.st_dev}:{status.st_ino}"
        assert log.is_journal(ours, told)
        assert not log.is_journal(other, told)
        assert not log.is_journal(ours, "")
        assert not log.is_journal(ours, "x")
    assert not log.is_journal(io.StringIO(), told)


def test_as_a_service(tmp_path: Path) -> None:
    """As systemd starts it: the variable names the stream that stderr is."""
    script = (
        "import logging\nfrom ifdefault.ipc import log\nlog.set_up()\n"
        "logging.getLogger('ifdefault').warning('it is so')"
    )
    with (tmp_path / "journal").open("w+") as journal:
        status = os.fstat(journal.fileno())
        env = {**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        subprocess.run([sys.executable, "-c", script], stderr=journal, env=env, check=True)
        journal.seek(0)
        assert journal.read() == "<4>it is so\n"


def test_a_text_that_repeats_itself_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("ifdefault.ipc.log.time.monotonic", lambda: now[0])
    out = io.StringIO()
    log.set_up(stream=out)
    logger = logging.getLogger("ifdefault")
    for number in range(30_000):
        logger.error("too many open files")
        if number % 1000 == 0:
            logger.info("isp-a: up -> down (%d)", number)
    now[0] += log.WITHIN_S
    logger.info("isp-a: down -> up")
    lines = [line.split(" ", 1)[1] for line in out.getvalue().splitlines()]
    assert lines.count("error too many open files") == log.OFTEN
    assert sum("up -> down" in line for line in lines) == 30
    assert lines[-2:] == [
        f"error too many open files ({30_000 - log.OFTEN} more times within 60 s)",
        "info isp-a: down -> up",
    ]


def test_one_more_time() -> None:
    assert log.repeated("x", 1) == "x (1 more time within 60 s)"


def test_as_many_different_texts_as_there_may_be_are_kept_in_mind() -> None:
    repeats: log.Repeats[str] = log.Repeats()
    for number in range(1000):
        assert not list(repeats.over(number / 1000))
        assert repeats.passes(str(number), number / 1000)
    assert len(repeats._said) <= 256
