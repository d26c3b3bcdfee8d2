"""Faults of lines and links: processes of simulated time.

Rules: each line and each link has a life and a seed of its own, so that one changes no other's.
Times are exponential; `Uplink` and `Line` know the truth at every moment.
"""

from __future__ import annotations

from random import Random

from ifdefault.model.config import Family
from ifdefault.model.kernel_events import NeighbourChanged
from tests.simulation import host
from tests.simulation.clock import Process
from tests.simulation.internet import Line, Uplink
from tests.simulation.world import World

HEALTHY_S = 700.0  # of a line, mean between two faults
LINKED_S = 1800.0  # of a link
FAULTS_S = {"black hole": 60.0, "gateway dead": 60.0, "loss": 30.0, "bursts": 40.0}
FAULTS_S |= {"delay": 20.0, "flapping": 30.0}
BURST_S, BURST_EVERY_S, FLAP_S = 0.2, 8.0, 5.0
CARRIER_S = 20.0
LINK_FAULTS = ("carrier", "carrier", "down", "gone", "renumber", "renumber", "default gone")
UNREACHABLE_S = 3.0  # until the kernel gives a neighbour up


def live_line(world: World, line: Line, rng: Random) -> Process:
    clock, uplink = world.clock, world.uplink(line.uplink)
    while True:
        yield 10.0 + rng.expovariate(1 / HEALTHY_S)
        kind = rng.choice(list(FAULTS_S))
        world.count(kind)
        lasts_s = 0.3 + rng.expovariate(1 / FAULTS_S[kind])
        if kind in ("bursts", "flapping"):
            yield from _come_and_go(world, line, kind, lasts_s, rng)
        else:
            line.become(clock.now, kind, rng.uniform(0.01, 0.3))
            if kind == "gateway dead":
                clock.start(_unreachable(world, uplink, line, line.since_s))
            yield lasts_s
        was = line.kind
        line.become(clock.now, "healthy")
        if was == "gateway dead":
            _tell_gateway(world, uplink, line.family, reachable=True)


def _come_and_go(world: World, line: Line, kind: str, lasts_s: float, rng: Random) -> Process:
    bad, bad_s, good_s = "black hole", FLAP_S, FLAP_S
    if kind == "bursts":
        bad, bad_s, good_s = "burst", BURST_S, BURST_EVERY_S
    end_s = world.clock.now + lasts_s
    while world.clock.now < end_s:
        line.become(world.clock.now, bad)
        yield rng.expovariate(1 / bad_s)
        line.become(world.clock.now, "healthy")
        yield rng.expovariate(1 / good_s)


def _unreachable(world: World, uplink: Uplink, line: Line, since_s: float) -> Process:
    yield UNREACHABLE_S
    if (line.kind, line.since_s) == ("gateway dead", since_s):
        _tell_gateway(world, uplink, line.family, reachable=False)


def _tell_gateway(world: World, uplink: Uplink, family: Family, *, reachable: bool) -> None:
    if uplink.linked:
        gateway = uplink.gateway(family)
        world.tell_kernel((NeighbourChanged(uplink.dev, gateway, reachable),))


# --- links --------------------------------------------------------------------------------


def live_link(world: World, uplink: Uplink, rng: Random) -> Process:
    while True:
        yield 10.0 + rng.expovariate(1 / LINKED_S)
        kind = rng.choice(LINK_FAULTS)
        if kind in ("renumber", "default gone") and not uplink.learned:
            kind = "carrier"
        world.count(kind)
        match kind:
            case "carrier":
                yield from lose_carrier(world, uplink, rng)
            case "down":
                yield from go_down(world, uplink, rng)
            case "gone":
                yield from leave(world, uplink, rng)
            case "renumber":
                yield from renumber(world, uplink, rng)
            case _:
                yield from lose_default(world, uplink, rng)


def lose_carrier(world: World, uplink: Uplink, rng: Random) -> Process:
    uplink.carrier = False
    world.set_link(uplink)
    yield 0.05 + rng.expovariate(1 / CARRIER_S)
    uplink.carrier = True
    world.set_link(uplink)


def go_down(world: World, uplink: Uplink, rng: Random) -> Process:
    uplink.up = uplink.carrier = False
    world.set_link(uplink)
    yield 0.05 + rng.expovariate(1 / CARRIER_S)
    uplink.up = True
    world.set_link(uplink)
    yield from come_up(world, uplink, rng)


def leave(world: World, uplink: Uplink, rng: Random) -> Process:
    uplink.there = uplink.carrier = False
    uplink.moved_s = world.clock.now
    world.kernel.drop_link(world.clock.now, uplink.dev)
    yield 0.05 + rng.expovariate(1 / CARRIER_S)
    uplink.there, uplink.up, uplink.index = True, True, uplink.index + 100
    uplink.moved_s = world.clock.now
    world.kernel.add_link(world.clock.now, host.link(uplink), host.link_sysctls(uplink))
    yield from come_up(world, uplink, rng)


def come_up(world: World, uplink: Uplink, rng: Random) -> Process:
    """Carrier, then addresses, then routes, as DHCP and routers' advertisements bring them."""
    yield rng.uniform(0, 2)
    uplink.carrier = True
    world.set_link(uplink)
    yield from number(world, uplink, rng)


def number(world: World, uplink: Uplink, rng: Random) -> Process:
    families = list(uplink.families)
    rng.shuffle(families)
    for family in families:
        yield rng.uniform(0, 1.5)
        world.kernel.add_address(world.clock.now, uplink.own(family), uplink.prefix(family))
        world.kernel.set_neighbour(world.clock.now, host.neighbour(uplink, family))
        uplink.moved_s = world.clock.now
        yield rng.choice((0.0, 0.0, 0.3, 3.0))
        if uplink.learned:
            world.kernel.add_route(world.clock.now, uplink.default(family))
        uplink.moved_s = world.clock.now


def renumber(world: World, uplink: Uplink, rng: Random) -> Process:
    for family in uplink.families:
        world.kernel.drop_address(world.clock.now, uplink.dev, family)
    uplink.generation += 1
    uplink.moved_s = world.clock.now
    yield rng.choice((0.0, 0.1, 1.0, 10.0))
    yield from number(world, uplink, rng)


def lose_default(world: World, uplink: Uplink, rng: Random) -> Process:
    for family in uplink.families:
        world.kernel.drop_route(world.clock.now, uplink.default(family))
    uplink.moved_s = world.clock.now
    yield rng.choice((0.05, 1.0, 30.0))
    for family in uplink.families:
        world.kernel.add_route(world.clock.now, uplink.default(family))
    uplink.moved_s = world.clock.now


def come_late(world: World, uplink: Uplink, rng: Random) -> Process:
    """It is missing at the beginning."""
    world.count("late")
    yield rng.uniform(0.5, 60)
    uplink.up = True
    world.set_link(uplink)
    yield from come_up(world, uplink, rng)
    yield from live_link(world, uplink, rng)
