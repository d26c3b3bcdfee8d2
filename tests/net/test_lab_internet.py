"""What is probed by default answers in every world, by the provider that was asked.

           ┌─ isp-a ─┐
client ── core       ├─ lan ── host      1.1.1.1, 2606:4700:4700::1111 … are the core's
           └─ isp-b ─┘
"""

from __future__ import annotations

import pytest

from ifdefault.lab import internet, services
from ifdefault.lab.faults import injected
from ifdefault.lab.topology import names
from ifdefault.lab.traffic import Tally, measure
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from tests.net.conftest import LabWorld

TARGETS = [text.partition("/")[0] for text in internet.targets()]
KINDS = ["icmp", "tcp", "udp-bound", "rst", "unreachable"]


def ask(world: World, kinds: list[str]) -> tuple[Tally, ...]:
    return measure(world["host"], kinds, TARGETS, count=1, timeout_s=1.0)


def lead_through(world: World, provider: str) -> None:
    """Route what the host sends to the targets."""
    spec = next(it for it in world.topology.providers if it.name == provider)
    gateways = {":" in text: text.partition("/")[0] for text in spec.gateways}
    routes = (f"route replace {target} via {gateways[':' in target]}\n" for target in TARGETS)
    world["host"].ip("".join(routes))


@pytest.mark.parametrize("name", names())
def test_every_world_has_the_targets(lab_world: LabWorld, name: str) -> None:
    world = lab_world(name)
    world.ifdefault("apply", check=True)  # or IPv6 takes the wrong source on a shared LAN
    eventually(lambda: all(tally.ok for tally in ask(world, ["icmp"])), what="answers")
    assert not sum(world.misrouted().values())


@pytest.mark.parametrize(("provider", "other"), [("isp-a", "isp-b"), ("isp-b", "isp-a")])
def test_an_answer_returns_by_the_provider_that_was_asked(
    lab_world: LabWorld, provider: str, other: str
) -> None:
    """Both announce the host's only address: its source tells the core nothing."""
    world = lab_world("shared-address")
    services.builtin(world["core"])
    lead_through(world, provider)
    with injected(world, "blackhole", other):
        assert [tally for tally in ask(world, KINDS) if not tally.ok] == []
    with injected(world, "blackhole", provider):
        assert not any(tally.answered for tally in ask(world, ["icmp", "tcp"]))
    assert not sum(world.misrouted().values())
