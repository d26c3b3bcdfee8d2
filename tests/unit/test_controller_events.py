"""Every event is processed, every effect has its performer, and the result is deterministic."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import cast, get_args

import pytest

from ifdefault.daemon import perform
from ifdefault.daemon.controller import effects as f
from ifdefault.daemon.controller import events as e
from ifdefault.daemon.controller.watch import not_beyond
from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.perform import Performers
from ifdefault.host.store import Store
from ifdefault.kernel import watch as kernel_watch
from ifdefault.model.health import LinkCounter, TcpStats
from ifdefault.model.kernel import TABLE_MAIN, Facts, Hop, Route
from ifdefault.model.kernel_events import LinkChanged, NeighbourChanged, ObjectChanged, Overrun
from tests.unit.controlled import CONFIG, Host


@pytest.fixture
def host() -> Host:
    return Host().start()


def test_every_effect_has_its_performer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Watch:
        interfaces: frozenset[str] = frozenset()

    async def table() -> set[type]:
        store = Store(tmp_path)
        watch = cast(kernel_watch.Watch, Watch())
        with monkeypatch.context() as patched:
            patched.setattr(perform, "PassiveMonitor", object)  # no netlink
            performers = Performers(CONFIG, tmp_path, store, EventLog(store), watch, lambda _: None)
        return set(performers._performers)

    assert asyncio.run(table()) == set(get_args(f.Effect)) - {f.Answer, f.Stop}


def _strangers() -> Iterator[e.Event]:
    """Each event that may come unsolicited, about things that don't exist."""
    yield e.Woke()
    yield e.KernelChanged((LinkChanged("eth9", 99), NeighbourChanged("eth9", "192.0.2.9", True)))
    yield e.KernelChanged((ObjectChanged("nft"), Overrun()))
    yield e.SilentlyChanged()
    yield e.SilentlyChanged(groups=True)
    yield e.ConnectionsEnded("nobody", 4)
    yield e.FrontendEnded()
    yield e.FrontendStarted()
    yield from (e.ProbeOutcome(n, 1 << 30, "answered") for n in (0, 1, 999, f.SERVER_CHECKS))
    yield from (e.SocketFailed(n) for n in (0, 999, f.SERVER_CHECKS))
    yield e.NameResolved("nobody.example", ("192.0.2.9",))
    yield e.NameResolved("nobody.example", error="no such name")
    yield e.TrafficSeen((("192.0.2.9", TcpStats(sockets=3, progressed=1)),))
    yield e.TrafficCounted(1e9, 1e9, (LinkCounter("nobody", 9, 5, 7),), 100.0)
    yield e.PublicAddressFound("nobody", 4, "192.0.2.9")
    yield e.ForcedSaved(99)
    yield e.GroupEntered(99, "/path", "/was")
    yield e.UplinkRequested(1, "nobody", "down")
    yield e.ReloadRequested(2, CONFIG)
    yield e.ConfirmRequested(3)
    yield e.DownRequested(4)
    yield e.UndoRequested(6)
    yield e.ExecRequested(5, 1, 0, "nobody")


ANSWERS = {e.Started, e.Observed, e.LookFailed, e.Applied, e.Committed, e.CommitFailed}


def test_every_event_is_taken(host: Host) -> None:
    for event in _strangers():
        host.receive(event)
        host.run(0.1)
    taken = {type(event) for event in _strangers()} | ANSWERS
    assert taken == set(get_args(e.Event)), "a test for each kind"
    for request in range(1, 7):
        host.answer(request)


def test_without_a_frontend_nothing_is_probed_and_the_next_one_gets_all_sockets(host: Host) -> None:
    host.receive(e.FrontendEnded())
    host.run(5.0)
    assert host.every(f.SendProbe) == []
    host.forget()
    host.receive(e.FrontendStarted())
    assert len(host.every(f.OpenProbeSocket)) == 4
    host.run(1.0)
    assert host.every(f.SendProbe)
    assert host.leaves_by() == "wan0"


def test_a_socket_that_cannot_be_opened_is_tried_again(host: Host) -> None:
    host.receive(e.SocketFailed(1))
    host.run(1.0)
    assert [opened.path for opened in host.every(f.OpenProbeSocket)] == [1]


def test_the_same_events_give_the_same_effects() -> None:
    def live() -> list[f.Effect]:
        host = Host().start()
        host.black_hole("wan0")
        host.run(3.0)
        host.receive(e.UplinkRequested(1, "isp-b", "drain"))
        host.set_carrier("wan1", False)
        host.run(3.0)
        return host.done

    assert live() == live()


def test_who_is_behind_a_router_of_the_lan_is_no_evidence_for_an_uplink() -> None:
    """But who is behind an uplink's router is, and the halves of a VPN are everybody."""
    lan = (Route(4, TABLE_MAIN, "192.168.1.0/24", hops=(Hop("lan0"),)),)
    routed = Route(4, TABLE_MAIN, "10.1.0.0/16", hops=(Hop("lan0", "192.168.1.2"),))
    beyond = Route(4, TABLE_MAIN, "10.2.0.0/16", hops=(Hop("wan0", "203.0.113.1"),))
    half = Route(4, TABLE_MAIN, "128.0.0.0/1", hops=(Hop("tun0", "10.8.0.1"),))
    found = not_beyond(Facts(routes=(*lan, routed, beyond, half)), ("wan0",))
    assert found == ("192.168.1.0/24", "10.1.0.0/16")
