"""What survives a restart of the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ifdefault.daemon.controller.effects import Save
from ifdefault.daemon.event_log import KEPT_ON_DISK, EventLog
from ifdefault.health.states import Memory
from ifdefault.host.routers import RoutersSeen
from ifdefault.host.state_file import StateFile
from ifdefault.host.store import HEALTH, Store
from ifdefault.model.dns import CandidateAddresses
from ifdefault.model.kernel import Neighbour

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


def change(store: Store, **values: Any) -> None:
    raw: StateFile[Any] = StateFile(HEALTH, None)
    store.write(raw, {**(store.read(raw) or {}), **values})


def test_a_restart(store: Store) -> None:
    event_log, routers = EventLog(store), RoutersSeen()
    assert event_log.load(routers) == SAVE
    assert routers.known == {("wan0", "192.0.2.1"): ROUTER}
    assert [event.text for event in event_log.recent(2)] == ["event 99", "event 100"]
    assert len(event_log.recent(1000)) == KEPT_ON_DISK
    assert event_log.recent(0) == ()


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
