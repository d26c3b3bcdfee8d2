"""What survives a restart of the engine."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from ifdefault import daemon
from ifdefault.daemon.controller import adopt
from ifdefault.daemon.controller.effects import Save
from ifdefault.daemon.event_log import KEPT_ON_DISK, EventLog
from ifdefault.health.states import Memory
from ifdefault.host.routers import RoutersSeen
from ifdefault.host.state_file import StateFile
from ifdefault.host.store import HEALTH, Store
from ifdefault.model.config import EVENT_KINDS
from ifdefault.model.dns import CandidateAddresses
from ifdefault.model.kernel import Neighbour
from ifdefault.monitor import monitor

MEMORY = Memory("down", 12.5, "4 rounds lost", (0.5, 1.0), (("icmp://192.0.2.1", 3.5),), (9.0,))
SAVE = Save(
    (("isp-a", 4, MEMORY), ("isp-b", 6, Memory())),
    (CandidateAddresses("isp-a", 1, ("192.0.2.10",)),),
)
ROUTER = Neighbour(4, "wan0", "192.0.2.1", "02:00:00:00:00:01", True)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    routers = RoutersSeen()
    routers.known[("wan0", "192.0.2.1")] = ROUTER
    event_log = EventLog(store)
    for number in range(KEPT_ON_DISK + 1):
        event_log.note("path", f"event {number}", "isp-a")
    event_log.save(SAVE, routers)
    return store


def change(store: Store, **values: Any) -> dict[str, Any]:
    raw: StateFile[Any] = StateFile(HEALTH, None)
    changed = {**(store.read(raw) or {}), **values}
    store.write(raw, changed)
    return changed


def test_a_restart(store: Store) -> None:
    event_log, routers = EventLog(store), RoutersSeen()
    assert event_log.load(routers) == SAVE
    assert routers.known == {("wan0", "192.0.2.1"): ROUTER}
    assert [event.text for event in event_log.recent(2)] == ["event 99", "event 100"]
    assert len(event_log.recent(1000)) == KEPT_ON_DISK
    assert event_log.recent(0) == ()


def serials(event_log: EventLog) -> list[int]:
    return [event.serial for event in event_log.recent(1000)]


def test_serials_go_on_and_never_back(store: Store) -> None:
    """By one after an orderly end; after a crash, a lost file or a clock set back, they leap."""
    first = EventLog(store)
    first.load(RoutersSeen())
    crashed = serials(first)
    assert crashed == [*range(crashed[0], crashed[0] + KEPT_ON_DISK)]
    assert first.last > crashed[-1] + 1000
    first.note("path", "another", "isp-a", "error")
    assert first.recent(5, first.last - 1) == first.recent(1)
    assert first.recent(1)[0].severity == "error"
    first.ends = True
    first.save(SAVE, RoutersSeen())
    second = EventLog(store)
    second.load(RoutersSeen())
    assert (second.last, second.recent(1)) == (first.last, first.recent(1))
    third = EventLog(store)  # the second one said nothing, and crashed
    third.load(RoutersSeen())
    assert third.last > second.last + 1000
    change(store, last=1 << 60)
    fourth = EventLog(store)
    fourth.load(RoutersSeen())
    assert fourth.last > 1 << 60


def test_an_event_that_was_noted_meanwhile_gets_a_serial(store: Store) -> None:
    saved: list[dict[str, Any]] = change(store)["events"]
    without = {"at": 1.0, "kind": "apply", "uplink": "", "text": "undone"}
    change(store, events=[*saved, without])
    event_log = EventLog(store)
    event_log.load(RoutersSeen())
    assert serials(event_log) == sorted(set(serials(event_log)))
    assert event_log.recent(1)[0].serial == event_log.last


def test_the_kinds_that_a_config_may_name_are_those_that_there_are() -> None:
    source = "".join(path.read_text() for path in Path(daemon.__path__[0]).rglob("*.py"))
    noted = set(re.findall(r'\b(?:note|log|Log)\(\s*"([a-z-]+)"', source))
    noted |= set(re.findall(r'return "(\w+)", f?"', inspect.getsource(adopt)))  # as it was adopted
    # those of the rollback timer and of the monitor
    assert noted | {"apply", monitor.KIND} == set(EVENT_KINDS)


def test_another_boot_keeps_events_and_addresses(store: Store) -> None:
    change(store, boot="another")
    event_log, routers = EventLog(store), RoutersSeen()
    assert (event_log.load(routers), routers.known) == (Save((), SAVE.candidates), {})
    assert len(event_log.recent(1000)) == KEPT_ON_DISK


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"routers": 3}, "routers: not a list"),
        ({"events": [{"at": "now"}]}, "events[0].kind: missing"),
        (
            {"paths": [["a", 4, {"state": "odd"}]]},
            "state: not",
        ),
    ],
)
def test_what_is_of_another_form_is_passed_over_whole(
    store: Store, broken: dict[str, Any], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    change(store, **broken)
    event_log, routers = EventLog(store), RoutersSeen()
    with store.lock():
        assert (event_log.load(routers), routers.known) == (Save(()), {})
    assert event_log.recent(9) == ()
    event_log.note_state()
    assert f"{HEALTH}: is damaged: " in caplog.text
    assert told in caplog.text


def test_nothing_on_disk_is_no_fault(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert EventLog(Store(tmp_path)).load(RoutersSeen()) == Save(())
    assert not caplog.records
