"""`simulate`: the whole daemon in simulated time, with faults of every kind and invariants.

Rules: the simulation is that of tests/simulation, each hour a new world. The first violation of an
hour ends that hour; its seed and number are printed.
"""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from functools import partial

from bench.clock import log
from bench.results import Figure, Report, Table
from tests.simulation.planted import PLANTED
from tests.simulation.simulation import UNLEAPED, Hour, live

SEED = 2026
HOURS = 1000
HOURS_A_MINUTE = 50.0  # a thousand in twenty minutes, on two cores
_EFFECTS = {"default moved": "failovers", "starts": "starts, after kills all but one an hour"}
_WORK = ("turns", "looks", "converges", "commits", "default moved", "starts", "restarts at rest")
_HOW = f"""\
{HOURS} simulated hours, each a new world: two to four uplinks in one or both families, a config,
and random events (see the table), in a fake kernel that accepts and refuses operations as the real
one does, and a fake Internet. The daemon's own controller, planner, detector and DNS run on it, and
are killed between any two effects and any two operations. After each turn the invariants of
`tests/simulation/invariants.py` must hold: replies leave by their uplink, dead uplinks are left in
time, no transition is without a cause, no name loses its last address, a restart changes nothing,
and so on. Time leaps over quiet periods, except in one of {UNLEAPED} hours. {len(PLANTED)} planted
defects (`tests/simulation/planted.py`) show that the simulation finds defects."""


def run() -> Report:
    log(f"{HOURS} simulated hours")
    start_s = time.monotonic()
    hours: list[Hour] = []
    with multiprocessing.get_context("forkserver").Pool() as pool:
        for hour in pool.imap_unordered(partial(live, SEED), range(HOURS), chunksize=4):
            hours.append(hour)
            if hour.violation:
                log(f"seed {SEED}, hour {hour.number}: {hour.violation}")
    return _report(hours, time.monotonic() - start_s)


def _report(hours: list[Hour], took_s: float) -> Report:
    counts: Counter[str] = Counter()
    for hour in hours:
        counts += hour.counts
    wrong = sorted((hour.number, hour.violation) for hour in hours if hour.violation)
    figures = (
        Figure("hours with a violated invariant", len(wrong), target=0),
        Figure("simulated hours", len(hours), target=HOURS, at_least=True),
        Figure(
            "simulated hours per minute",
            round(len(hours) / took_s * 60, 1),
            target=HOURS_A_MINUTE,
            at_least=True,
        ),
    )
    work = tuple((_EFFECTS.get(what, what), f"{counts[what]:,}") for what in _WORK)
    quiet = ("leaps", "leaped seconds")
    faults = sorted((n, what) for what, n in counts.items() if what not in (*_WORK, *quiet))
    rows = tuple((what, f"{times:,}") for times, what in reversed(faults))
    return Report(
        "Simulated hours of the whole daemon",
        _HOW,
        figures,
        (
            Table("What the daemon did", ("", "times"), work),
            Table("Random events", ("", "times"), rows),
        ),
        {"counts": dict(sorted(counts.items())), "violations": wrong},
    )
