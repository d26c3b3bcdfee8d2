"""Draining an uplink: its timeout, and the count of what is left on it."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click
import pytest

from ifdefault.cli import main
from ifdefault.cli.duration import up_to
from ifdefault.cli.show.paths import drain_lines
from ifdefault.daemon import drain_monitor
from ifdefault.daemon.controller import effects as f
from ifdefault.daemon.drain_monitor import COUNT_S, DrainMonitor, selector
from ifdefault.daemon.host import DRAINS
from ifdefault.daemon.host import Host as HostPerformer
from ifdefault.host.store import Store
from ifdefault.kernel.count_connections import Selector
from ifdefault.model.report import DaemonStatus, Draining
from tests.unit.controlled import Host

READ = up_to(30 * 86400)


def read(text: str) -> int | None:
    return READ(click.Context(click.Command("x")), click.Option(["--timeout"]), text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("30m", 1800),
        ("1h30m", 5400),
        ("1d2h3m4s", 93784),
        ("30d", 2592000),
    ],
)
def test_a_time(text: str, seconds: int) -> None:
    assert read(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0", "0m", "-1", "1.5h", "30 m", "m", "31d", "2m1h", "99999999"]
)
def test_no_time(text: str) -> None:
    with pytest.raises(
        click.BadParameter, match=r"is not a time; use 90s, 30m, 2h or 1h30m, at most"
    ):
        read(text)


def test_a_timeout_is_for_a_drain_only(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["isp-a", "down"], ["isp-a"], []):
        assert main.run(["uplink", *words, "--timeout", "30m"]) == 2
        assert "--timeout is for drain" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("drain", "line"),
    [
        (Draining("isp-a"), r"isp-a: draining"),
        (Draining("isp-a", None, 0), r"isp-a: draining, no connections left"),
        (
            Draining("isp-a", 1300.0, 1, 11_100.0),
            r"isp-a: draining until [-\d :]+, 1 connection left, the oldest for at least 3h05m",
        ),
        (Draining("isp-a", None, 12, 4.0), r"isp-a: draining, 12 connections left, .* 4\.0s"),
    ],
)
def test_what_is_said_of_it(drain: Draining, line: str) -> None:
    status = DaemonStatus(1, 5.0, 1000.0, "", drains=(drain, Draining("isp-b")))
    [said] = drain_lines(status, {"isp-a"})
    assert re.fullmatch(line, said)


def test_the_timeout_is_kept_until_another_state(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def host() -> HostPerformer:
        return HostPerformer(store, None, lambda _: None)  # type: ignore[arg-type]

    def saved(state: str, timeout_s: int | None = None) -> tuple[tuple[str, float], ...]:
        performer = host()
        performer.save_forced(f.SaveForced(1, "isp-a", state, timeout_s))  # type: ignore[arg-type]
        performer.end_turn()
        return host().load_drains()

    [(name, left_s)] = saved("drain", 60)
    assert (name, 0 < left_s <= 60) == ("isp-a", True)
    assert saved("drain") == saved("drain", 60)[1:] == ()
    assert saved("down") == ()
    store.write(DRAINS, {"isp-a": 1.0, "isp-b": 1.0})
    assert host().load_drains() == (), "neither is drained"


class Counted:
    """The kernel, as it is asked for connections."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: Mapping[bytes, float] = {}
        self.asked: list[Selector] = []
        self.error: OSError | None = None
        monkeypatch.setattr(drain_monitor, "connections", self.connections)

    def connections(self, chosen: Selector) -> Mapping[bytes, float]:
        assert threading.current_thread() is not threading.main_thread()
        self.asked.append(chosen)
        if self.error:
            raise self.error
        return self.left


def test_it_is_counted_while_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, said = Counted(monkeypatch), list[str]()
    host = Host()
    host.start()
    state = host.controller.state
    monitor = DrainMonitor(lambda _, text: said.append(text))

    async def count(now: float) -> tuple[Draining, ...]:
        monkeypatch.setattr("time.monotonic", lambda: now)
        monitor.look(now, state)
        await monitor.close()
        monkeypatch.undo()
        monkeypatch.setattr(drain_monitor, "connections", kernel.connections)
        status = replace(host.controller.status(host.now), now_s=now)
        return monitor.add_to(status).drains

    async def run() -> None:
        assert await count(1000.0) == ()
        assert kernel.asked == [], "nothing is drained"
        state.force("isp-a", "drain")
        kernel.left = {b"1": 10.0, b"2": 0.0}
        assert await count(1001.0) == (Draining("isp-a", None, 2, 10.0),)
        await count(1001.0 + COUNT_S / 2)
        assert len(kernel.asked) == 1, "not again so soon"
        kernel.left = {b"2": 0.5}
        assert await count(1011.0) == (Draining("isp-a", None, 1, 10.0),), "since it was counted"
        kernel.left = {}
        assert await count(1021.0) == (Draining("isp-a", None, 0),)
        await count(1031.0)
        assert " ".join(said) == "isp-a: no connections left", "once"
        kernel.error = OSError(12, "Cannot allocate memory")
        await count(1041.0)
        assert monitor.problems == ("can't count connections: cannot allocate memory",)
        state.force("isp-a", "auto")
        assert await count(1051.0) == ()
        assert not monitor.problems

    asyncio.run(run())


def test_which_are_its_connections() -> None:
    host = Host()
    host.start()
    prepared = host.controller.state.prepared
    assert prepared is not None
    a, b = prepared.uplinks[:2]
    chosen = selector(a, prepared, 33)
    assert chosen.addresses == tuple(x.address for x in a.addresses)
    assert chosen.marks == (a.arrival_mark, a.outgoing_mark)
    assert {x.address for x in b.addresses} <= set(chosen.own)
    assert chosen.ignored == 33
    shared = replace(b, addresses=a.addresses)
    assert selector(a, replace(prepared, uplinks=(a, shared))).addresses == ()
