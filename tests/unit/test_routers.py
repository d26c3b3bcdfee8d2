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
from ifdefault.daemon.controller.gateways import Gateways
from ifdefault.host import routers
from ifdefault.model.kernel import PROTOCOL, TABLE_MAIN, Facts, Hop, Neighbour, Route, Uplink
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
        (NeighbourChanged("wan0", "203.0.113.77", True, MAC), False),
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


# --- routers and MACs that anybody on the link may claim ------------------------------------

REAL, ROGUE = "2001:db8:a::1", "fe80::66"
RTPROT_STATIC, RTPROT_RA = 4, 9  # linux/rtnetlink.h


def default(gateway: str, protocol: int, preference: str = "", metric: int = 1024) -> Route:
    hops = (Hop("wan0", gateway),)
    return Route(
        6, TABLE_MAIN, "default", metric, hops=hops, protocol=protocol, preference=preference
    )


def chosen(*routes: Route, macs: dict[str, str] | None = None) -> tuple[str, tuple[str, ...]]:
    """The router, and those that it was chosen from; ours is REAL."""
    ours = Route(6, 1001, "default", 1024, hops=(Hop("wan0", REAL),), protocol=PROTOCOL)
    neighbours = tuple(Neighbour(6, "wan0", a, mac) for a, mac in (macs or {}).items())
    others = (r for r in HOST.routes if r.dst != "default")
    facts = replace(HOST, routes=(*others, ours, *routes), neighbours=neighbours)
    found = kernel_default.KernelDefaults(CONFIG, facts).find("wan0", 6, [], 1001)
    assert found is not None
    return found.hop.gateway, found.routers


def test_who_may_displace_a_router() -> None:
    real, rogue = default(REAL, RTPROT_STATIC), default(ROGUE, RTPROT_RA, "high")
    both = (REAL, ROGUE)
    assert chosen(real, rogue) == (REAL, both)  # configured before advertised
    assert chosen(rogue, real, macs={REAL: "", ROGUE: MAC}) == (ROGUE, both)  # it is gone
    assert chosen(real, default(ROGUE, RTPROT_RA, metric=100)) == (ROGUE, both)  # as configured
    learned = default(REAL, RTPROT_RA)
    assert chosen(default(ROGUE, RTPROT_RA), learned) == (REAL, both)  # of equal ones, ours
    assert chosen(default(ROGUE, RTPROT_RA, "low"), learned) == (REAL, both)
    assert chosen(rogue, learned) == (ROGUE, both)  # RFC 4191
    assert chosen(rogue) == (ROGUE, ())  # ours was withdrawn


def test_a_flood_of_routers() -> None:
    flood = [default(f"fe80::{n:x}", RTPROT_RA) for n in range(2000)]
    gateway, considered = chosen(*flood, default(REAL, RTPROT_RA))
    assert gateway == REAL
    assert len(considered) == kernel_default.ROUTERS_MAX + 1
    facts = replace(HOST, routes=(*HOST.routes, *flood))
    asked = kernel_default.alternatives(facts, {"wan0", "wan1"})
    assert len([1 for dev, _ in asked if dev == "wan0"]) == kernel_default.ROUTERS_MAX


def test_changes_of_a_gateway_are_logged_at_most_once_a_minute() -> None:
    out: list[f.Effect] = []
    gateways = Gateways(out)

    def seen(now: float, address: str, mac: str = "") -> list[str]:
        facts = replace(HOST, neighbours=(Neighbour(4, "wan0", address, mac),))
        uplink = Uplink("isp-a", 1, "wan0", 1001, 0, 0, 0, gateways=((4, address),))
        gateways.update(now, CONFIG, [uplink], facts)
        texts = [effect.text for effect in out if isinstance(effect, f.Log)]
        out.clear()
        return texts

    other = "02:00:00:00:00:66"
    assert seen(0.0, R1) == seen(1.0, R1, MAC) == seen(2.0, R1, MAC) == seen(3.0, R1) == []
    assert seen(4.0, R1, other) == [f"isp-a IPv4: gateway {R1} was at {MAC}, is at {other}"]
    for now in range(5, 60):
        assert seen(now, R1, (MAC, other)[now % 2]) == []
    assert seen(64.0, R1, MAC) == [f"isp-a IPv4: gateway {R1} was at {other}, is at {MAC}"]
    assert seen(200.0, R2, MAC) == [f"isp-a IPv4: gateway {R1} -> {R2}"]
    assert seen(300.0, R2, MAC) == []
