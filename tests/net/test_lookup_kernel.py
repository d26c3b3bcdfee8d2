"""Our lookup and the kernel's agree, on every kind of host, asked at random.

client ── core ── isp-… ── wan… host vpn0, tun0, lan0

Rules: only local sources (the kernel refuses others), and questions that `ip route get` can ask:
with IPv6 it takes an oif for a hint if there is a source as well, where a bound socket insists.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ifdefault.host.store import Store
from ifdefault.host.transaction import commit, prepare
from ifdefault.kernel.read import read_facts
from ifdefault.kernel.route_get import route_get
from ifdefault.lab.world import World
from ifdefault.model.config import FAMILIES
from ifdefault.model.flow import Flow
from ifdefault.model.kernel import Facts
from ifdefault.plan.lookup import Fib
from tests.net import answers
from tests.net.conftest import LabWorld

QUESTIONS = 300
ARRIVAL_B, OUTGOING_B = 0x02000000, 0x22000000
MARKS = (0, 0, ARRIVAL_B, OUTGOING_B, 0x80000, 51820, OUTGOING_B | 0x80000)
USERS = (0, 1000)
OUTGOING = """
[[outgoing.rule]]
via = ["isp-b"]
transport = "tcp"
ports = ["20-25"]
[[outgoing.rule]]
via = ["isp-b"]
users = [1000]
to = ["198.18.0.0/15", "2000::/3"]
[[outgoing.rule]]
via = ["isp-a"]
transport = "udp"
to = ["8.8.8.0/24", "2001:db8:b::/48"]
"""
TARGETS = {
    4: ("192.168.1.10", "203.0.113.77", "198.51.100.77", "198.18.1.10", "8.8.8.8", "100.100.0.2",
        "10.20.3.4", "10.8.0.1", "203.0.113.10", "192.0.2.77", "172.31.0.1"),
    6: ("fd00:1::10", "2001:db8:a::77", "2001:db8:b::77", "2001:db8:f:1::10", "2a00::1", "fd7a::2",
        "fd00:8::1", "2001:db8:a::10", "2001:db8:c::77", "fd99::1"),
}  # fmt: skip


def script(name: str) -> Callable[[World], None]:
    def run(world: World) -> None:
        world["host"].script(name)

    return run


def nothing(_: World) -> None:
    pass


def outgoing(world: World) -> None:
    answers.configure(world, OUTGOING)


@pytest.mark.parametrize(
    ("topology", "before", "after"),
    [
        ("two", nothing, nothing),
        ("two", outgoing, nothing),
        ("three", nothing, nothing),
        ("vpn", nothing, nothing),
        ("shared-lan", nothing, nothing),
        ("same-gateway", nothing, nothing),
        ("linklocal", nothing, nothing),
        ("p2p", nothing, nothing),
        ("many-addresses", nothing, nothing),
        ("fulltunnel-wg", script("vpn_up"), nothing),
        ("fulltunnel-wg", nothing, script("vpn_up")),
        ("fulltunnel-openvpn", script("vpn_up"), nothing),
        ("fulltunnel-openvpn", outgoing, script("vpn_up")),
        ("fulltunnel-wg", outgoing, script("vpn_up")),
    ],
)
def test_lookup_agrees_with_the_kernel(
    lab_world: LabWorld,
    topology: str,
    before: Callable[[World], None],
    after: Callable[[World], None],
) -> None:
    world = lab_world(topology)
    before(world)
    world["host"].python(lambda: _apply(world.config, world.dir / "state"))
    after(world)
    facts, answers = world["host"].python(_ask_all)
    ours = Fib.of(facts)
    differing = [f"{flow}: {told} {ours.lookup(flow)}" for flow, told in answers
                 if _ours(ours, flow) != told]  # fmt: skip
    assert len(answers) == QUESTIONS
    assert differing == []


def _apply(config: Path, state: Path) -> None:
    store = Store(state)
    with store.lock():
        commit(prepare(config, store), store)


def _ask_all() -> tuple[Facts, list[tuple[Flow, str]]]:
    facts = read_facts()
    flows = _flows(facts, random.Random(20))
    return facts, [(flow, _kernels(flow)) for flow, _ in zip(flows, range(QUESTIONS), strict=False)]


def _flows(facts: Facts, rng: random.Random) -> Iterator[Flow]:
    own = [a for a in facts.addresses if a.scope < 253]
    devices = [link.name for link in facts.links if not link.loopback]
    while True:
        family = rng.choice(FAMILIES)
        sources = ["", "", *(a.address for a in own if a.family == family)]
        dst, src = rng.choice(TARGETS[family]), rng.choice(sources)
        proto = rng.choice((1 if family == 4 else 58, 6, 17))
        port, uid = rng.choice((25, 443)) if proto in (6, 17) else 0, rng.choice(USERS)
        flow = Flow(family, dst, src, "", "", rng.choice(MARKS), proto, 0, port, uid)
        if rng.random() < 0.3 and (family == 4 or not flow.src):
            flow = replace(flow, oif=rng.choice(devices))
        yield flow


def _kernels(flow: Flow) -> str:
    """Device, gateway and source of the kernel's reply, or its error."""
    told = route_get(flow)
    if told.kind != "unicast":
        return "local" if told.kind == "local" else "none"
    return f"{told.dev} {told.gateway} {flow.src or told.source}"


def _ours(fib: Fib, flow: Flow) -> str:
    verdict = fib.lookup(flow)
    if verdict.hop is None:
        return "local" if verdict.kind == "local" else "none"
    return f"{verdict.hop.dev} {verdict.hop.gateway} {verdict.source}"
