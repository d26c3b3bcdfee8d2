"""Budgets and hours: what is counted, said, saved, and decided by it.

isp-a   wan0, free
lte     wan1, with a budget
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from ifdefault.daemon.controller import effects as f
from ifdefault.daemon.controller import events as e
from ifdefault.health.pace import SPARSE_S
from ifdefault.model.config import FAMILIES, UplinkConfig
from ifdefault.model.health import LinkCounter
from ifdefault.model.usage import SavedUsage
from tests.unit.controlled import CONFIG, Host

MB = 10**6
LIMIT = 100 * MB
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC).timestamp()


class Metered:
    """A host whose second uplink has a budget; `carried` bytes so far in its interface's life."""

    def __init__(self, *, rank: int = -1, **keys: Any) -> None:
        keys = {"budget_bytes": LIMIT} | keys
        lte = UplinkConfig("lte", "wan1", rank=rank, **keys)  # the first in rank unless it is spent
        self.config = replace(CONFIG, uplinks=(UplinkConfig("isp-a", "wan0"), lte))
        self.host = Host(config=self.config)
        self.carried, self.link, self.at, self.boot_s, self.offset_s = 0, 11, NOON, 500.0, 0.0
        self.saved: SavedUsage | None = None

    def start(self) -> Metered:
        self.host.receive(e.Started(self.config, usage=self.saved), self._counted())
        self.host.receive(e.FrontendStarted())
        self.host.run(5.0)
        self.count()
        return self

    def again(self, *, boot: bool) -> Metered:
        """The engine is replaced, after another boot perhaps."""
        saved = self.host.controller.saved().usage
        assert saved is not None
        self.saved = replace(saved, boot="" if boot else "this")
        self.host = Host(config=self.config)
        if boot:
            self.boot_s, self.carried = 20.0, 0
        return self.start()

    def count(self, more: int = 0, passed_s: float = 1.0) -> list[f.Effect]:
        """Let the uplink carry bytes."""
        self.carried += more
        self.at += passed_s
        self.boot_s += passed_s
        return self.host.receive(self._counted())

    def _counted(self) -> e.TrafficCounted:
        counters = (LinkCounter("lte", self.link, self.carried, 0),)
        return e.TrafficCounted(self.at, self.at + self.offset_s, counters, self.boot_s)

    @property
    def used(self) -> int:
        [usage] = self.host.controller.status(self.host.now).usage
        return usage.used_bytes

    @property
    def primary(self) -> str:
        decision = self.host.controller.status(self.host.now).decision
        [name] = {decision.ranking(family)[0] for family in FAMILIES}
        return name

    @property
    def news(self) -> list[tuple[str, str]]:
        return [(log.severity, log.text) for log in self.host.every(f.Log) if log.kind == "budget"]


WARNING = (
    "warning",
    "lte: 85.0 of 100 MB (85 %) of its budget used; the next month begins on 1 December",
)
FOLLOWS = "the uplink is a standby until 1 December"
ERROR = ("error", f"lte: its budget of 100 MB is used up; {FOLLOWS}")
AGAIN = ("info", "lte: a new month of its budget began; the uplink is used again")


def test_a_budget_warns_and_is_obeyed_and_a_new_month_ends_it() -> None:
    lte = Metered(on_budget="standby").start()
    assert (lte.used, lte.primary) == (0, "lte")  # what was carried before it was counted is not
    lte.count(79 * MB)
    assert lte.news == []
    saved = [effect for effect in lte.count(6 * MB) if isinstance(effect, f.Save)]
    assert lte.news == [WARNING]
    assert saved[-1].usage is not None  # at once
    lte.count(1 * MB)
    lte.count(20 * MB)
    assert lte.news == [WARNING, ERROR]
    assert lte.primary == "isp-a"
    status = lte.host.controller.status(lte.host.now)
    assert status.decision.standby == (("lte", "budget used up"),)
    [usage] = status.usage
    assert (usage.since, usage.until, usage.used_up) == ("2026-11-01", "2026-12-01", True)
    lte.count(passed_s=DECEMBER - lte.at - 1)
    assert lte.primary == "isp-a"
    lte.count(passed_s=2)
    assert (lte.used, lte.primary, lte.news) == (0, "lte", [WARNING, ERROR, AGAIN])


def test_events_come_once_over_restarts_too() -> None:
    lte = Metered(on_budget="standby").start()
    lte.count(85 * MB)
    lte = lte.again(boot=False)
    assert (lte.used, lte.news) == (85 * MB, [])
    lte.count(20 * MB)
    lte = lte.again(boot=True)
    assert (lte.used, lte.news, lte.primary) == (105 * MB, [], "isp-a")
    lte.at = DECEMBER
    assert lte.again(boot=True).news == [AGAIN]


def test_no_engine_counts_and_what_was_carried_meanwhile_is_counted() -> None:
    lte = Metered().start()
    lte.count(10 * MB)
    lte.carried += 7 * MB
    lte = lte.again(boot=False)
    assert lte.used == 17 * MB
    lte.carried = 3 * MB  # the interface was created again
    lte.link += 1
    lte.count()
    assert lte.used == 20 * MB
    lte.carried = 1 * MB  # its counters began anew
    lte.count()
    assert lte.used == 21 * MB


def test_an_interface_is_counted_from_when_it_is_the_uplinks() -> None:
    lte = Metered().start()
    lte.count(10 * MB)
    uplinks = tuple(replace(u, interface="wan0") for u in lte.config.uplinks)
    lte.host.controller.state.config = replace(lte.config, uplinks=uplinks)
    lte.link, lte.carried = 10, 900 * MB
    lte.count()
    assert lte.used == 10 * MB


def test_used_up_takes_it_down_if_configured_but_never_the_last_one() -> None:
    lte = Metered(on_budget="down").start()
    lte.count(100 * MB)
    assert lte.primary == "isp-a"
    ended = lte.host.every(f.EndConnections)
    assert {(effect.uplink, effect.family) for effect in ended} == {("lte", 4), ("lte", 6)}
    assert lte.host.controller.status(lte.host.now).forced == {}
    lte.host.black_hole("wan0")
    lte.host.run(3.0)
    decision = lte.host.controller.status(lte.host.now).decision
    assert [decision.usable_in(family) for family in FAMILIES] == [("isp-a",)] * 2  # fail static
    lte.host.receive(e.UplinkRequested(1, "lte", "up"))
    assert lte.primary == "lte"  # the operator's word counts


def test_with_warn_nothing_follows() -> None:
    lte = Metered().start()
    lte.count(120 * MB)
    assert lte.primary == "lte"
    assert lte.news == [(ERROR[0], ERROR[1].replace(FOLLOWS, "the uplink is used as before"))]


def test_a_greater_budget_makes_it_usable_again() -> None:
    lte = Metered(on_budget="standby").start()
    lte.count(100 * MB)
    lte.host.forget()
    greater = tuple(replace(u, budget_bytes=2 * u.budget_bytes) for u in lte.config.uplinks)
    lte.host.receive(e.ReloadRequested(1, replace(lte.config, uplinks=greater)))
    lte.count()
    assert lte.primary == "lte"
    assert lte.news == [("info", "lte: its budget is now 200 MB; the uplink is used again")]


def test_a_reload_without_a_budget_ends_it() -> None:
    lte = Metered(on_budget="down").start()
    lte.count(LIMIT)
    assert lte.primary == "isp-a"
    free = (lte.config.uplinks[0], replace(lte.config.uplinks[1], budget_bytes=0))
    lte.host.receive(e.ReloadRequested(1, replace(lte.config, uplinks=free)))
    lte.host.run(5.0)
    status = lte.host.controller.status(lte.host.now)
    assert (lte.primary, status.usage) == ("lte", ())


def test_a_clock_that_is_set_over_the_reset_day_and_back_loses_nothing() -> None:
    lte = Metered(on_budget="standby").start()
    lte.count(30 * MB)
    lte = lte.again(boot=True)  # what an earlier boot counted stays in its month
    lte.count(60 * MB)
    assert lte.used == 90 * MB
    right = lte.at
    for wrong in (DECEMBER + 86_400, 0.0, DECEMBER + 90 * 86_400):
        lte.at = wrong
        lte.count(1 * MB)
        lte.at = right
        lte.count()
    assert lte.used == 93 * MB


def test_a_clock_behind_what_was_saved_is_doubted() -> None:
    """A host without a clock of its own may wait for a time server, over the very uplink."""
    lte = Metered(on_budget="standby").start()
    lte.count(100 * MB)
    lte.at = 5.0  # 1970
    lte = lte.again(boot=True)
    assert (lte.used, lte.primary, lte.news) == (100 * MB, "isp-a", [])
    lte.count(1 * MB)
    lte.at = DECEMBER - 600
    lte.count()
    assert lte.used == 101 * MB


def test_a_clock_behind_what_was_saved_is_believed_after_an_hour() -> None:
    lte = Metered().start()
    lte.at = DECEMBER + 800 * 86_400  # by mistake
    lte.count(9 * MB)
    lte.at = NOON
    lte = lte.again(boot=True)
    lte.count(2 * MB)
    lte.count(passed_s=3700)
    [usage] = lte.host.controller.status(lte.host.now).usage
    assert (usage.since, usage.used_bytes) == ("2026-11-01", 2 * MB)


def test_outside_its_hours_it_is_a_standby() -> None:
    lte = Metered(hours=(8 * 60, 20 * 60)).start()
    assert lte.primary == "lte"
    lte.count(passed_s=8 * 3600)
    assert lte.primary == "isp-a"
    assert lte.host.controller.status(0.0).decision.standby == (("lte", "outside its hours"),)
    lte.offset_s = -3600.0  # summer time ends
    lte.count()
    assert lte.primary == "lte"


def test_hours_count_from_the_first_decision_on() -> None:
    lte = Metered(hours=(22 * 60, 6 * 60))
    lte.start()
    assert not any("lte" in text for text in lte.host.logged("primary"))
    assert lte.primary == "isp-a"


def test_a_metered_uplink_carries_what_no_other_can() -> None:
    lte = Metered(metered=True, budget_bytes=0).start()
    assert lte.primary == "isp-a"
    lte.count(5 * MB)
    assert lte.used == 5 * MB
    lte.host.black_hole("wan0")
    lte.host.run(3.0)
    assert lte.primary == "lte"
    lte.host.revive("wan0")
    lte.host.run(10.0)
    assert lte.primary == "isp-a"


def test_a_standby_is_probed_sparsely_and_verified_once_it_is_needed() -> None:
    lte = Metered(metered=True).start()
    host = lte.host
    host.run(60.0)
    host.forget()
    host.run(600.0)
    sent = [probe for probe in host.every(f.SendProbe) if probe.source is not None]
    by = {dev: sum(p.source.dev == dev for p in sent if p.source) for dev in ("wan0", "wan1")}
    assert by["wan1"] == 2 * 600 / SPARSE_S  # in both families
    assert by["wan0"] > 2000
    host.black_hole("wan1")  # between two rounds: nobody sees it
    host.black_hole("wan0")
    host.run(3.0)
    fell_s = {h.uplink: h.since_s for h in host.controller.paths.health() if h.state == "down"}
    assert fell_s.keys() == {"isp-a", "lte"}
    assert fell_s["lte"] - fell_s["isp-a"] < 1.5  # its only target is asked 5 times a second
    host.forget()
    host.run(60.0)
    sent = [probe for probe in host.every(f.SendProbe) if probe.source is not None]
    assert sum(p.source.dev == "wan1" for p in sent if p.source) > 100  # it may be the first back
