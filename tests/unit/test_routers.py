"""Several routers on an uplink's link: the daemon has the kernel verify a silent one, and follows.

wan0  isp-a  203.0.113.10, routers 203.0.113.1 and, with a greater metric, 203.0.113.2
wan1  isp-b  198.51.100.10
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

import pytest

from ifdefault.daemon.controller import effects as f
from ifdefault.daemon.controller import events as e
from ifdefault.host import routers
from ifdefault.model.kernel import TABLE_MAIN, Facts, Hop, Neighbour, Route
from ifdefault.model.kernel_events import NeighbourChanged
from ifdefault.plan import kernel_default
from tests.unit.test_lookup import CONFIG, HOST
from tests.unit.test_one_turn import Host, heavy

R1, R2 = "203.0.113.1", "203.0.113.2"
MAC = "00:00:5e:00:53:01"
SECOND = Route(4, TABLE_MAIN, "default", 50, hops=(Hop("wan0", R2),))
TWO = replace(HOST, routes=(*HOST.routes, SECOND))


def with_neighbours(facts: Facts, **macs: str) -> Facts:
    found = tuple(Neighbour(4, "wan0", {"r1": R1, "r2": R2}[n], mac) for n, mac in macs.items())
    return replace(facts, neighbours=found)


def started(facts: Facts) -> Host:
    host = Host(CONFIG, facts)
    host.live(20.0)
    return host


def gateway(host: Host) -> str:
    routes = host.observation.facts.routes
    return (
        next(r for r in routes if (r.family, r.table, r.dst) == (4, 1001, "default"))
        .hops[0]
        .gateway
    )


def verified(turns: list[list[f.Effect]]) -> list[f.VerifyRouter]:
    return [effect for turn in turns for effect in turn if isinstance(effect, f.VerifyRouter)]


def test_silent_router_is_verified_once_and_left_when_it_failed() -> None:
    host = started(with_neighbours(TWO, r1=MAC, r2=MAC))
    assert gateway(host) == R1
    assert verified(host.live(20.0)) == []
    assert verified(host.live(2.0, silent="wan0")) == [f.VerifyRouter("wan0", R1)]
    assert verified(host.live(60.0, silent="wan0")) == []

    facts = with_neighbours(host.observation.facts, r1="", r2=MAC)
    host.observation = replace(host.observation, facts=facts)
    host.turn(e.KernelChanged((NeighbourChanged("wan0", R1, False),)))
    host.live(0.1)
    assert gateway(host) == R2
    # the next silence is its own
    assert verified(host.live(20.0)) == []
    assert verified(host.live(2.0, silent="wan0")) == [f.VerifyRouter("wan0", R2)]


def test_only_router_is_not_verified() -> None:
    assert verified(started(HOST).live(60.0, silent="wan0")) == []


@pytest.mark.parametrize(
    ("change", "looks"),
    [
        (NeighbourChanged("wan0", R1, False), True),
        (NeighbourChanged("wan0", R2, True, MAC), True),
        (NeighbourChanged("wan0", R1, None), False),
        (NeighbourChanged("wan0", "203.0.113.77", False), False),
    ],
)
def test_failure_of_a_gateway_is_a_reason_to_look(change: NeighbourChanged, looks: bool) -> None:
    host = started(with_neighbours(TWO, r1=MAC, r2=MAC))
    host.turn(e.KernelChanged((change,)))
    assert bool([turn for turn in host.live(0.1) if "Look" in heavy(turn)]) == looks


@dataclass
class Kernel:
    """What the kernel is asked at one look, and what planning is told."""

    monkeypatch: pytest.MonkeyPatch
    asked: dict[str, set[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.seen = routers.RoutersSeen()
        for verb in ("resolve", "verify"):
            ask = partial(self._ask, verb)
            self.monkeypatch.setattr(routers, f"{verb}_neighbour", ask)

    def _ask(self, verb: str, gateway: str, dev: str) -> None:
        assert dev == "wan0"
        self.asked.setdefault(verb, set()).add(gateway)

    def look(self, facts: Facts) -> dict[str, str]:
        self.asked.clear()
        return {n.address: n.mac for n in self.seen.completed(CONFIG, facts).neighbours}


def test_routers_that_the_kernel_forgot_stay_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It deletes neighbours that it couldn't resolve; they are asked again at every look."""
    kernel = Kernel(monkeypatch)
    assert kernel.look(TWO) == {}  # nothing is known: the kernel's order counts
    assert kernel.asked == {"resolve": {R1, R2}}
    answered = Neighbour(4, "wan0", R2, MAC, confirmed=True)
    assert kernel.look(replace(TWO, neighbours=(answered,))) == {R1: "", R2: MAC}
    assert kernel.asked == {"resolve": {R1}}
    assert kernel_default.alternatives(HOST, {"wan0", "wan1"}) == frozenset()


def test_silent_router_must_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A router that only sends tells the kernel its MAC by every ARP request."""
    kernel = Kernel(monkeypatch)
    heard = with_neighbours(TWO, r1=MAC, r2=MAC)
    assert kernel.look(with_neighbours(TWO, r1="", r2=MAC)) == {R1: "", R2: MAC}
    for _ in range(2):
        assert kernel.look(heard) == {R1: "", R2: MAC}
        assert kernel.asked == {"verify": {R1}}
    first, second = heard.neighbours
    answered = replace(heard, neighbours=(replace(first, confirmed=True), second))
    for facts in (answered, heard):  # from now on its MAC may be remembered
        assert kernel.look(facts) == {R1: MAC, R2: MAC}
        assert kernel.asked == {}
