"""A record: every event survives it, it contains no secrets, and no error in it ends the daemon."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from ifdefault.daemon import record
from ifdefault.daemon.controller import events as e
from ifdefault.daemon.controller.controller import Controller
from ifdefault.daemon.record import Recorder
from ifdefault.daemon.replay import Replay
from ifdefault.health.states import Memory
from ifdefault.model.config import (
    Config,
    Family,
    ForwardConfig,
    ForwardServer,
    HealthConfig,
    HostConfig,
    Ports,
    Probe,
    UplinkConfig,
)
from ifdefault.model.dns import DnsConfig, NameConfig, Record
from ifdefault.model.errors import HostError, Problem
from ifdefault.model.health import LinkCounter, TcpStats
from ifdefault.model.host import Observation, State
from ifdefault.model.kernel import Hook, Neighbour, NftTable, Rule, Ruleset
from ifdefault.model.kernel_events import LinkChanged, NeighbourChanged, ObjectChanged, Overrun
from tests.unit.test_lookup import CONFIG, HOST

RECORDED = Path(__file__).parents[1] / "records" / "two-blackhole.jsonl"
PROBLEM = Problem("rule 5000", "refused: \udc80", "wait", warning=True, blocks=False)
OBSERVATION = Observation(
    replace(HOST, hook=Hook(1, ((4, (1, 2)),), spared=(Rule(4, 1),), cgroups=(("/a", 1, 2),))),
    State({"isp-a": 1}, {"net/x": ("0", "1")}, {"wan0": (0, 171)}, {"isp-a": "down"}, {"/a": "b"}),
    (("ifdefault", Ruleset("table inet ifdefault", NftTable("sha256:1", "2"))),),
    (("/a", 7),),
    "no cgroup",
    (PROBLEM,),
)
DNS = DnsConfig((NameConfig("www.example.com", records=(Record(16, b"\x00\xff", '"x"'),)),))
SETTINGS = replace(CONFIG, dns=DNS, host=HostConfig(udp_wildcard=(53, 443)))
MEMORY = Memory("down", -1.5, "carrier lost", (0.1, 0.0), (("icmp://192.0.2.1", 0.01),), (1.0,))
CHANGES = (LinkChanged("wan0", 2), NeighbourChanged("wan0", "192.0.2.1", None), Overrun())
EVENTS: tuple[e.Event, ...] = (
    e.Started(SETTINGS, (("isp-a", "drain"),), (("isp-a", 6, MEMORY),)),
    e.Woke(),
    e.Observed(OBSERVATION, 0.01),
    e.LookFailed((PROBLEM,), locked=True),
    e.Applied(replace(OBSERVATION, no_balance=""), 0.01, (PROBLEM,)),
    e.Committed(replace(OBSERVATION, facts=replace(HOST, neighbours=())), float("inf")),
    e.CommitFailed((PROBLEM,)),
    e.KernelChanged((*CHANGES, ObjectChanged("nft", ours=True))),
    e.SilentlyChanged(groups=True),
    e.ConnectionsEnded("isp-a", 4, 1, 2, 0.5, "no such process"),
    e.FrontendStarted(),
    e.FrontendEnded(),
    e.ProbeOutcome(1, 2, "wrong", 3, "status 500\n"),
    e.SocketFailed(3),
    e.NameResolved("example.net", ("192.0.2.1",), "none"),
    e.TrafficSeen((("192.0.2.1", TcpStats(5, 4, 3, 2, 1)),)),
    e.TrafficCounted(1.5, 3601.5, (LinkCounter("a", 2, 1 << 40, 7),), 9.5),
    e.PublicAddressFound("isp-a", 6, "2001:db8::1"),
    e.UplinkRequested(1, "isp-a", "auto"),
    e.ForcedSaved(1, (PROBLEM,)),
    e.ReloadRequested(5, SETTINGS, 60),
    e.ConfirmRequested(2),
    e.DownRequested(3),
    e.UndoRequested(3),
    e.ExecRequested(4, 99, 1000, "isp-a"),
    e.GroupEntered(4, "/a", "/b", (PROBLEM,)),
)


def create(path: Path) -> Recorder:
    def fail(why: str) -> None:
        raise AssertionError(why)

    return record.create(path, fail)


def written(path: Path, *turns: tuple[e.Event, ...]) -> Path:
    recorder = create(path)
    now = Replay(path).header.now
    for n, events in enumerate(turns):
        recorder.write(now + n, events)
    recorder.close()
    return path


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[e.Event]:
    """What controllers are given, of which they make nothing."""
    taken: list[e.Event] = []

    def receive(_: Controller, events: Sequence[e.Event], now: float) -> tuple[()]:
        taken.extend(events)
        return ()

    monkeypatch.setattr(Controller, "receive", receive)
    return taken


def test_every_event_survives(tmp_path: Path, taken: list[e.Event]) -> None:
    assert {type(event) for event in EVENTS} == {*get_args(e.Event)}
    path = written(tmp_path / "r", EVENTS, EVENTS, *((event,) for event in EVENTS))
    assert len([*Replay(path).turns()]) == 2 + len(EVENTS)
    assert taken == [*EVENTS] * 3


def test_an_observation_holds_what_differs_from_the_one_before(tmp_path: Path) -> None:
    other = replace(HOST, neighbours=(*HOST.neighbours, Neighbour(4, "wan0", "192.0.2.1")))
    turns = [(e.Observed(Observation(facts), 0.0),) for facts in (HOST, HOST, other)]
    path = written(tmp_path / "r", *turns)
    _, _, same, different = path.read_bytes().splitlines()
    assert b'"observation":{}' in same
    assert b'"observation":{"facts":{"neighbours":' in different
    assert b'"routes"' not in different


# --- the file -----------------------------------------------------------------------------


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    create(tmp_path / "r").close()
    assert stat.S_IMODE((tmp_path / "r").stat().st_mode) == 0o600


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "r").write_text("precious")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("r", "link"):
        with pytest.raises(
            HostError, match=rf"{name}: already exists; give the name of a new file$"
        ):
            create(tmp_path / name)
    assert (tmp_path / "r").read_text() == "precious"
    with pytest.raises(HostError, match="can't be created: no such file or directory"):
        create(tmp_path / "none" / "r")


def test_a_full_disk_ends_the_record_and_is_logged_once() -> None:
    told: list[str] = []
    file = os.open("/dev/full", os.O_WRONLY)
    recorder = Recorder(file, told.append)
    recorder.write(1.0, (e.Woke(),))
    recorder.close()
    assert told == ["the record ends here: no space left on device"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.close(file)


# --- secrets ------------------------------------------------------------------------------

CANARY = "canary-"
PROBES = (
    Probe("https", "example.net", 443, f"/health?token={CANARY}1"),
    Probe("https", "example.net", 443, f"/health?token={CANARY}2&b?c"),
    Probe("http", "192.0.2.53", 80, f"/?{CANARY}3"),
)
SECRETIVE = Config(
    (UplinkConfig("isp-a", "wan0", probes=PROBES), *CONFIG.uplinks[1:]),
    health=HealthConfig(probes=PROBES[1:]),
    dns=DnsConfig(discover=(f"https://{CANARY}4:{CANARY}5@example.net/ip?{CANARY}6", "dns://a/b")),
    forwards=(
        ForwardConfig(
            (Ports("tcp", 80, 80),), (ForwardServer("10.0.0.1"),), check=f"/ok?{CANARY}7"
        ),
        ForwardConfig(
            (Ports("tcp", 81, 81),), (ForwardServer("10.0.0.1"),), check=f"/ok?{CANARY}8"
        ),
    ),
)
QUOTED = Memory("up", cause=f"{PROBES[0]} answers", seen=((str(PROBES[0]), 0.1),))
REMEMBERED: tuple[tuple[str, Family, Memory], ...] = (("isp-a", 4, QUOTED),)


def test_no_secret_gets_into_it(tmp_path: Path) -> None:
    started = e.Started(SECRETIVE, memories=REMEMBERED)
    path = written(tmp_path / "r", (started,), (e.ReloadRequested(1, SECRETIVE),))
    text = path.read_text()
    assert CANARY not in text
    assert "https://REDACTED4@example.net/ip?REDACTED5" in text
    assert '"cause":"https://example.net/health?REDACTED1 answers"' in text
    assert '"seen":[["https://example.net/health?REDACTED1",0.1]]' in text


def test_the_controller_decides_the_same(tmp_path: Path) -> None:
    """Of the same run with a config that has secrets, all effects are the same but for these."""
    path, recorder = tmp_path / "r", create(tmp_path / "r")
    begun_s, controller, redactor = Replay(path).header.now, Controller(), record.Redactor()
    meant = []
    for turn in Replay(RECORDED).turns():
        events = tuple(map(secretive, turn.events))
        recorder.write(begun_s + turn.at_s, events)
        for event in events:
            if isinstance(event, e.Started):
                redactor.event(event)
        meant.append(repr(controller.receive(events, begun_s + turn.at_s)))
    assert CANARY in "".join(meant)
    found = [repr(turn.effects) for turn in Replay(path).turns()]
    assert found == [redacted(text, redactor) for text in meant]


def secretive(event: e.Event) -> e.Event:
    """The same with secrets, where it has a config."""
    if not isinstance(event, e.Started):
        return event
    uplinks = tuple(replace(uplink, probes=PROBES) for uplink in event.config.uplinks)
    return replace(event, config=replace(SECRETIVE, uplinks=uplinks), memories=REMEMBERED)


def redacted(text: str, redactor: record.Redactor) -> str:
    for secret, number in redactor.numbers.items():
        text = text.replace(secret, f"REDACTED{number}")
    return text


def test_a_record_ends_where_there_is_no_more_room(tmp_path: Path) -> None:
    path = tmp_path / "r"
    recorder = record.create(path, pytest.fail, most_bytes=500)
    for n in range(50):
        recorder.write(float(n), (e.Woke(),))
    recorder.close()
    lines = path.read_bytes().splitlines(keepends=True)
    assert 2 < len(lines) < 50
    assert sum(map(len, lines)) <= 500
    assert all(line.endswith(b"}\n") for line in lines)
