"""The monitor as a whole, in process, beside an engine's socket: what its consumers get."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from ifdefault.model.errors import HostError
from ifdefault.model.report import Event
from ifdefault.monitor import feed, monitor
from ifdefault.monitor.config import read_apart
from ifdefault.monitor.history.reader import history_dir, reading
from ifdefault.monitor.history.schema import FILE
from ifdefault.monitor.monitor import Monitor
from ifdefault.monitor.status_file import read_status, status_dir
from tests.unit.engine_socket import Engine, running

CONFIG = '[uplink.isp-a]\ninterface = "wan0"\n'


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "AGAIN_S", 0.01)
    monkeypatch.setattr(monitor, "AWAY_S", 0.0)


def _texts(state_dir: Path) -> list[str]:
    with reading(state_dir) as reader:
        return [event.text for event in reader.events(0, 1e11)]


async def _until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def _monitor(folder: Path) -> AsyncIterator[None]:
    """It runs, and has opened its history."""
    status_dir(folder).mkdir(exist_ok=True)
    task = asyncio.create_task(Monitor(folder / "c.toml", folder, folder).run())
    await _until(lambda: (history_dir(folder) / FILE).exists() and read_status(folder, _now()))
    yield
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(task, 20) == 0


def _now() -> float:
    return time.time()


def _event(text: str, kind: str = "path") -> Event:
    return Event(_now(), kind, "isp-a", text)


def _troubles(folder: Path) -> dict[str, str]:
    status = read_status(folder, _now())
    return {trouble.what: trouble.text for trouble in status.troubles} if status else {}


def test_events_and_an_engine_that_goes_are_recorded(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(CONFIG)

    async def test() -> None:
        engine = Engine()
        async with _monitor(tmp_path):
            async with running(engine, tmp_path):
                await engine.note(_event("one"))
                await _until(lambda: "one" in _texts(tmp_path))
            await _until(lambda: "hasn't answered since" in _texts(tmp_path)[-1])
            await engine.note(_event("two"))
            async with running(engine, tmp_path):
                await _until(lambda: _texts(tmp_path)[-1] == "two")
        # another monitor, and nothing twice
        await engine.note(_event("three"))
        async with running(engine, tmp_path), _monitor(tmp_path):
            await _until(lambda: _texts(tmp_path)[-1] == "three")
        texts = _texts(tmp_path)
        assert [text for text in texts if " " not in text] == ["one", "two", "three"]
        assert any(text.startswith("the daemon answers again, after ") for text in texts)
        assert not (status_dir(tmp_path) / "status.json").exists(), "it doesn't run"

    asyncio.run(test())


def test_a_reload_reads_the_config_and_an_invalid_one_is_said(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(CONFIG)

    async def test() -> None:
        engine = Engine()
        async with running(engine, tmp_path), _monitor(tmp_path):
            config.write_text(CONFIG + "[history]\nkeep = 7\n")
            await engine.note(_event("reloaded", "reload"))
            await _until(lambda: "config" in _troubles(tmp_path))
            assert _troubles(tmp_path)["config"].startswith(f"{config}:4: history.keep: ")
            config.write_text(CONFIG)
            await engine.note(_event("reloaded", "reload"))
            await _until(lambda: "config" not in _troubles(tmp_path))

    asyncio.run(test())


def test_a_history_that_cant_be_written_is_said_and_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c.toml").write_text(CONFIG)

    async def test() -> None:
        engine = Engine()
        async with running(engine, tmp_path), _monitor(tmp_path):
            with monkeypatch.context() as full:
                error = OSError(28, "No space left on device")
                full.setattr("ifdefault.monitor.history.store.Store.write", _raise(error))
                await engine.note(_event("one"))
                await _until(lambda: "history" in _troubles(tmp_path))
                assert "no space left on device" in _troubles(tmp_path)["history"]
            await engine.note(_event("two"))
            await _until(lambda: "history" not in _troubles(tmp_path))
            assert _texts(tmp_path) == ["one", "two"]

    asyncio.run(test())


def _raise(error: OSError) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


def test_a_pipe_in_place_of_its_status_keeps_nobody_waiting(tmp_path: Path) -> None:
    status_dir(tmp_path).mkdir()
    os.mkfifo(status_dir(tmp_path) / "status.json")
    assert read_status(tmp_path, 0.0) is None


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("/root/bin/nobody's/python", "python can't be run: no such file or directory; restart"),
        ("/bin/false", "its reader ended with status 1; see the log"),
    ],
)
def test_why_the_config_was_not_read_is_said_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, why: str
) -> None:
    monkeypatch.setattr(sys, "executable", program)
    with pytest.raises(HostError, match=why):
        read_apart(tmp_path / "c.toml")
