"""What uplinks cost, and what they carry, told to the daemon with the time of a clock that is set
now and then.

Rules: drawn apart from all else, so that hours without a cost are as they were.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import get_args

from ifdefault.daemon.controller import events as e
from ifdefault.model.config import Config, OnBudget, UplinkConfig
from ifdefault.model.health import LinkCounter
from tests.simulation.clock import Process
from tests.simulation.daemon import Daemon
from tests.simulation.world import World

COUNT_S = 5.0
COSTLY, SET = 0.3, 0.01  # of the hours have a cost; chance that the clock is set at a count
_DAY_S = 86_400.0
_BEGAN_S = 20_787 * _DAY_S + 0.75 * _DAY_S  # the evening of 2026-11-30


def draw_costs(seed: str, config: Config) -> Config:
    rng = Random(f"{seed} costs")
    if rng.random() > COSTLY:
        return config
    return replace(config, uplinks=tuple(_costly(rng, uplink) for uplink in config.uplinks))


def _costly(rng: Random, uplink: UplinkConfig) -> UplinkConfig:
    match rng.choice(("free", "metered", "budget", "hours")):
        case "metered":
            return replace(uplink, metered=True, on_return="end", grace_s=20)
        case "budget":
            limit = rng.choice((10**6, 10**9))
            on_budget: OnBudget = rng.choice(get_args(OnBudget))
            return replace(uplink, budget_bytes=limit, on_budget=on_budget)
        case "hours":
            return replace(uplink, hours=(18 * 60, 18 * 60 + 20))
    return uplink


def count_traffic(world: World, daemon: Daemon) -> Process:
    """Let the uplinks carry bytes, and tell the daemon."""
    rng, set_s = Random(f"{world.seed} bytes"), 0.0
    while True:
        yield COUNT_S
        for uplink in world.uplinks:
            carried, link = world.carried.get(uplink.name, (0, 1))
            more = rng.randrange(50_000)
            if rng.random() < SET:  # the interface is created again
                carried, link = 0, link + 1
            world.carried[uplink.name] = carried + more, link
            world.total[uplink.name] = world.total.get(uplink.name, 0) + more
        if rng.random() < SET:
            set_s = rng.choice((0.0, 0.0, 3600.0, -3600.0, 9 * _DAY_S, -40 * _DAY_S, -_BEGAN_S))
        boot_s = world.clock.now
        wall_s = _BEGAN_S + boot_s + set_s
        counters = (
            LinkCounter(name, link, carried, 0) for name, (carried, link) in world.carried.items()
        )
        if daemon.controller:
            world.inbox.append(e.TrafficCounted(wall_s, wall_s, tuple(counters), boot_s))
