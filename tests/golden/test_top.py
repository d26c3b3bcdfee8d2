"""The picture of `top` in the documentation is what `top` shows; `--golden-update` makes it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from ifdefault.cli.show import dashboard
from ifdefault.cli.show.dashboard import View
from ifdefault.cli.show.samples import Samples
from tests.golden.screen_svg import picture
from tests.unit.fake_engine import FakeEngine

PICTURE = Path(__file__).parents[2] / "docs" / "top.svg"
ROWS, COLUMNS = 25, 132
AT_S, EPOCH = 10_000.0, 1e9  # where the clocks stand


def test_the_picture_in_the_docs(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    clock = [AT_S - 120]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr("time.time", lambda: EPOCH + clock[0])
    engine, samples = FakeEngine(), Samples()
    engine.events.pop()  # that is for tests
    while clock[0] < AT_S:
        clock[0] += 1.0
        status = engine.status()
        samples.add(status, engine.counters())
    healthy = tuple(replace(path, targets=()) for path in status.health)
    view = View(replace(status, health=healthy), samples, engine.events, "isp-a")
    shown = picture(dashboard.rows(view, ROWS, COLUMNS), COLUMNS, "ifdefault top")
    monkeypatch.undo()
    time.tzset()
    if request.config.getoption("--golden-update"):
        PICTURE.write_text(shown)
    assert PICTURE.read_text() == shown
