"""The controller's state in a record: restored, it does what the one that went on does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ifdefault.daemon import record
from ifdefault.daemon.controller import events as e
from ifdefault.daemon.controller.controller import Controller
from ifdefault.daemon.record import Redactor
from ifdefault.daemon.replay import RecordError, Replay
from ifdefault.daemon.snapshot import Restorer, Snapshot
from ifdefault.ipc import codec
from ifdefault.ipc.codec import DecodeError
from ifdefault.model.config import ForwardConfig, ForwardServer, NotifyConfig, Ports, Probe
from tests.unit.controlled import CONFIG, Host

SECRETS = ("hunter2", "s3cr3t", "T0/B0/XXXX", "private-topic", "mailpass")
SECRET_PROBE = Probe("https", "example.net", 443, "/up?token=s3cr3t")
NOTIFY = (
    NotifyConfig("chat", webhook="https://hooks.example.net/services/T0/B0/XXXX"),
    NotifyConfig("phone", ntfy="https://ntfy.example.net/private-topic"),
    NotifyConfig("mail", mail="a@example.net", smtp="smtps://me:mailpass@mail.example.net"),
)
FORWARD = ForwardConfig(
    (Ports("tcp", 443, 443),),
    (ForwardServer("192.0.2.7"), ForwardServer("192.0.2.8")),
    check="/health?key=hunter2",
)


def fails(host: Host) -> None:
    host.black_hole("wan0")
    host.run(0.2)  # in the midst of the detector's burst


def is_down(host: Host) -> None:
    host.black_hole("wan0", 4)
    host.run(20.0)


def is_forced(host: Host) -> None:
    host.receive(e.UplinkRequested(1, "isp-b", "drain", 60), e.UplinkRequested(2, "isp-a", "down"))
    host.run(1.0)


def is_unconfirmed(host: Host) -> None:
    changed = replace(host.config, forwards=())
    host.receive(e.ReloadRequested(3, changed, 30))


STATES = (Host.forget, fails, is_down, is_forced, is_unconfirmed)


def running() -> Host:
    probes = (*CONFIG.health.probes, SECRET_PROBE)
    health = replace(CONFIG.health, probes=probes)
    host = Host(config=replace(CONFIG, health=health, forwards=(FORWARD,), notify=NOTIFY))
    return host.start()


def restored(controller: Controller) -> Controller:
    restorer = Restorer()
    lines = [codec.write(node) for node in Snapshot(controller).nodes(Redactor())]
    restorer.add(map(codec.read, lines))
    return restorer.controller()


@pytest.mark.parametrize("bring", STATES)
def test_a_restored_controller_goes_on(
    bring: Callable[[Host], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record from here on replays to the effects that there were."""
    host = running()
    bring(host)
    monkeypatch.setattr("time.monotonic", lambda: host.now)
    recorder = record.create(tmp_path / "record", pytest.fail, Snapshot(host.controller))
    receive, effects = host.controller.receive, []

    def receive_and_record(events: Any, now: float) -> Any:
        recorder.write(now, events)
        effects.append(receive(events, now))
        return effects[-1]

    monkeypatch.setattr(host.controller, "receive", receive_and_record)
    host.run(3.0)  # which has to wait for the state
    monkeypatch.undo()
    asyncio.run(recorder.write_state())
    recorder.close()

    turns = [*Replay(tmp_path / "record").turns()]
    assert len(turns) == len(effects) > 5
    for turn, performed in zip(turns, effects, strict=True):
        assert [*map(type, turn.effects)] == [*map(type, performed)]
        for effect, its in zip(performed, turn.effects, strict=True):
            assert effect == its or any(secret in repr(effect) for secret in SECRETS)
    assert turns[0].number == 1
    text = (tmp_path / "record").read_text()
    assert not [secret for secret in SECRETS if secret in text]


@pytest.mark.parametrize("bring", STATES)
def test_its_status_is_the_same(bring: Callable[[Host], object]) -> None:
    host = running()
    bring(host)
    mine, its = host.controller.status(host.now), restored(host.controller).status(host.now)
    assert Redactor().text(repr(mine)).count("REDACTED") == repr(its).count("REDACTED")
    assert [(h.state, h.since_s, h.rtt_ms) for h in mine.health] == [
        (h.state, h.since_s, h.rtt_ms) for h in its.health
    ]
    assert replace(mine, health=()) == replace(its, health=())


def test_what_a_turn_changes_afterwards_is_not_in_it() -> None:
    host = running()
    snapshot, before = Snapshot(host.controller), host.controller.status(host.now)
    at_s = host.now
    host.black_hole("wan0")
    host.run(10.0)
    assert host.controller.status(host.now).health[0].state == "down"
    restorer = Restorer()
    restorer.add(snapshot.nodes(Redactor()))
    assert restorer.controller().status(at_s).decision == before.decision
    assert restorer.controller().status(at_s).health[0].state == "up"


BAD: dict[str, Any] = {
    "not a list": {},
    "empty": [],
    "no class": [1, {}],
    "a class of the system": ["os.system", {}],
    "of another package": ["daemon.engine.Engine", {}],
    "no such module": ["model.nothing.Nothing", {}],
    "a function": ["model.text.escaped", {}],
    "what a module imports": ["model.errors.escaped", {}],
    "an exception": ["model.errors.HostError", {}],
    "a tuple of another kind": ["model.many.Many", {}],
    "other attributes": ["model.flow.Flow", {"family": 4}],
    "its class": ["health.path.Path", {"__class__": 1}],
    "a node to come": ["list", {"node": 7}],
    "a node from behind": ["list", {"node": -1}],
    "an unknown value": ["list", {"float": "1"}],
    "not hashable": ["set", {"node": 0}],
    "half an item": ["dict", [1]],
    "no length": ["deque"],
}


@pytest.mark.parametrize("node", BAD.values(), ids=BAD)
def test_what_is_no_state(node: Any) -> None:
    restorer = Restorer()
    restorer.add([["list"]])
    with pytest.raises(DecodeError, match=r"^state\[1\]"):
        restorer.add([node])


def test_errors_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "record"
    recorder = record.create(path, pytest.fail, Snapshot(running().controller))
    asyncio.run(recorder.write_state())
    lines = path.read_text().splitlines(keepends=True)
    header = json.loads(lines[0])
    for changed, error in (
        ([json.dumps(header | {"ifdefault": "0.0.1"}), "\n"], r":1: begins with the state of"),
        ([lines[0], '{"state": 1}\n'], r':2: not an object with "state"'),
        ([lines[0], '{"state": [["list"]]}\n'], r":2: state: doesn't end with the controller"),
        ([lines[0]], r":1: state: doesn't end with the controller"),
    ):
        path.write_text("".join(changed))
        with pytest.raises(RecordError, match=error):
            [*Replay(path).turns()]
