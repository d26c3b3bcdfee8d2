"""`police`: ten minutes with lossy uplinks whose providers police pings: is one called down?"""

from __future__ import annotations

import time

from bench.clock import log
from bench.daemon import Daemon
from bench.results import Figure, Report, Table
from ifdefault.ipc.control import client
from ifdefault.ipc.control.protocol import Events
from ifdefault.lab import faults
from ifdefault.lab.topology import load
from ifdefault.lab.world import World
from ifdefault.model.report import Event

MINUTES = 10
_LOSS = 12  # per cent, each way
_PER_S = 5
_CALM_S = 10.0
_LOOK_S = 10.0
_HOW = f"""\
The lab's world `three`, with `ifdefault run` and default settings. For {MINUTES} minutes each of
the three providers loses {_LOSS} % of all packets in each direction, and lets at most {_PER_S} echo
requests a second through in each family, after a burst of as many. The daemon probes six paths, has
no history, and {_CALM_S:g} s before the faults. Nothing is dead: whatever goes down is a false
alarm."""


def run(minutes: float = MINUTES) -> Report:
    """`minutes`: fewer for a trial run."""
    with World.up(load("three")) as world:
        daemon = Daemon(world, world.topology.config)
        daemon.start()
        time.sleep(_CALM_S)
        for provider in (each.name for each in world.topology.providers):
            faults.inject(world, "loss", provider, _LOSS)
            faults.inject(world, "police-path", provider, _PER_S)
        log(f"{minutes:g} minutes of loss and policing")
        falls: dict[tuple[float, str], None] = {}
        end_s = time.monotonic() + 60 * minutes
        while time.monotonic() < end_s:
            time.sleep(_LOOK_S)
            falls |= dict.fromkeys((each.at, each.text) for each in _falls(world))
        health = daemon.status().health
        daemon.stop()
    rows = tuple(
        (path.uplink, f"IPv{path.family}", path.state, f"{path.loss_ratio:.0%}") for path in health
    )
    figure = Figure(f"false alarms in {minutes:g} minutes, six paths", len(falls), target=0)
    table = Table("Paths at the end", ("uplink", "family", "state", "loss"), rows)
    return Report("Policed probes", _HOW, (figure,), (table,), {"down": list(falls)})


def _falls(world: World) -> list[Event]:
    events = client.ask(world.run_dir, Events(500), timeout_s=10).events
    return [event for event in events if event.kind == "path" and "-> down" in event.text]
