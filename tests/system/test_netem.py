"""Lossy and slow links, made by the kernel's own emulator (tc-netem(8)).

                ┌─ isp-a ── wan0 ┐   cust0 of each provider loses and delays what goes to the host
client ── core ─┤                ├ host
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from tests.net.conftest import LabWorld
from tests.net.watched import (
    await_default,
    await_states,
    events,
    leaves_by,
    standing,
    start,
)

SLOW = "delay 150ms 40ms distribution normal loss 10%"


def test_slow_and_lossy_links_stay_up_and_dead_ones_dont(lab_world: LabWorld) -> None:
    """The failure detector learns what is usual for a link, and then finds out that it died."""
    world = lab_world("two")
    for provider in ("isp-a", "isp-b"):
        netem(world, provider, SLOW)
    start(world, "degraded_loss = 0\ndegraded_rtt_ms = 0\n")
    assert leaves_by(world) == "wan0"
    until_s = standing(world).up_s + 10.0
    eventually(lambda: standing(world).up_s > until_s, what="some time")
    assert not [text for text in events(world, "path") if "-> down" in text]

    netem(world, "isp-a", "loss 100%")
    await_default(world, "wan1")
    await_states(world, ["down"], "isp-a")
    netem(world, "isp-a", SLOW)
    await_default(world, "wan0")
    assert not [text for text in events(world, "path") if "isp-b" in text and "-> down" in text]


def netem(world: World, provider: str, what: str) -> None:
    world[provider].run(f"tc qdisc replace dev cust0 root netem {what}".split())
