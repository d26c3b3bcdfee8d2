"""The file for node_exporter: written as a whole, readable for all, said if it can't be."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ifdefault.lab.waiting import PATIENCE_S
from ifdefault.model.config import HistoryConfig
from ifdefault.monitor import textfile
from ifdefault.monitor.config import MonitorConfig
from ifdefault.monitor.feed import Away, Sample
from ifdefault.monitor.replace_file import replace_file
from ifdefault.monitor.status_file import StatusFile, status_dir
from ifdefault.monitor.textfile import Textfile
from tests.unit.test_metrics import COUNTERS, STATUS

SAMPLE = Sample(0.0, STATUS, COUNTERS)


def config(path: Path | str) -> MonitorConfig:
    return replace(MonitorConfig(), history=HistoryConfig(textfile=str(path)))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


def has(path: Path, line: str) -> bool:
    return path.exists() and line in path.read_text().splitlines()


def test_it_follows_the_engine_and_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(textfile, "EVERY_S", 0.02)
    path = tmp_path / "ifdefault.prom"
    status_dir(tmp_path).mkdir()
    status, said = StatusFile(tmp_path), {"textfile": ""}

    def say(what: str, text: str) -> None:
        said[what] = text
        status.say(what, text)

    async def live() -> None:
        consumer = Textfile(tmp_path, tmp_path, config(path), say)
        await consumer.receive(SAMPLE)
        await until(lambda: has(path, "ifdefault_up 1.0"))
        await consumer.receive(Away(0.0, "no daemon runs"))
        await until(lambda: has(path, "ifdefault_up 0.0"))
        path.unlink()
        await until(path.exists)  # though nothing happens
        await consumer.configure(config(""))
        assert not path.exists()
        other = tmp_path / "none" / "ifdefault.prom"
        await consumer.configure(config(other))
        await until(lambda: said["textfile"].startswith("history.textfile: can't write"))
        other.parent.mkdir()
        # what the monitor says of itself is in it, too
        await until(lambda: has(other, 'ifdefault_monitor_trouble{part="textfile"} 1.0'))
        await until(lambda: not said["textfile"])
        await until(lambda: not has(other, 'ifdefault_monitor_trouble{part="textfile"} 1.0'))
        await consumer.close()

    asyncio.run(live())


def test_it_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "ifdefault.prom"
    umask = os.umask(0o077)
    try:
        replace_file(path, b"old")
        with path.open("rb") as old:
            replace_file(path, b"new")
            assert old.read() == b"old", "who reads it meanwhile has the old one"
    finally:
        os.umask(umask)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_what_can_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ifdefault.prom"
    path.mkdir()
    for impossible in (path, tmp_path / "none/ifdefault.prom"):
        with pytest.raises(OSError, match=str(impossible.name)):
            replace_file(impossible, b"")


@pytest.mark.parametrize("kind", ["link", "pipe", "file"])
def test_what_others_put_in_its_way_is_not_written_to(tmp_path: Path, kind: str) -> None:
    path, elsewhere = tmp_path / "ifdefault.prom", tmp_path / "elsewhere"
    fresh = tmp_path / ".ifdefault.prom.new"
    elsewhere.write_text("theirs")
    match kind:
        case "link":
            fresh.symlink_to(elsewhere)
        case "pipe":
            os.mkfifo(fresh)
        case _:
            fresh.hardlink_to(elsewhere)
    replace_file(path, b"ours")
    assert (path.read_bytes(), elsewhere.read_text()) == (b"ours", "theirs")
