"""`turn`: from the decision that an uplink is down to the rule in the kernel that uses another.

Rules: the time of the decision is the daemon's own (`since_s` of the path in `status --json`), that
of the rule is when a process of the bench reads the kernel's notification. Both are of the
monotonic clock. With `--before DIR` the daemon of another checkout alternates with this one, in
another world, so that other work on the machine affects both.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import many_uplinks
from bench.clock import log
from bench.daemon import two_uplinks
from bench.observer import Watch
from bench.results import Figure, Report
from bench.stats import median, paired, quantile
from ifdefault.kernel import nft
from ifdefault.lab.topology import Topology, load
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.errors import HostError

_TRIALS = 24
_BEGIN_S, _PATIENCE_S = 60.0, 20.0
_POLL_S = 0.2
_TARGETS = ("192.0.2.1", "2001:db8:ffff::1")  # beyond the routers of the world of 31 uplinks
_QUICK = "[health]\nrecover_s = 0.3\ndamp_s = 0.3\n"
_NAME = '[[dns.name]]\nname = "www.example.org"\n[dns.server]\nzones = ["www.example.org"]\n'
_HOW = f"""\
The primary uplink dies in both families: its router stops forwarding but still answers. {_TRIALS}
times in each world, with a name that has addresses of all uplinks and the embedded server. A
trial's time is from the decision, when the daemon declares the path down, until the kernel's
notification of the rule that leads new connections to another uplink; the slower family counts.
*2 uplinks* is the lab's world `two`; *31 uplinks* have an address of each family. `recover_s` and
`damp_s` are 0.3 s, so that the next trial can begin soon. *Before* is an earlier version of the
daemon in another world; both run all the time, and trials alternate."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A world, and how its first uplink fails and returns."""

    name: str
    first: str  # the uplink that dies
    topology: Callable[[], Topology]
    config: str
    cut: Callable[[World], None]
    restore: Callable[[World], None]
    prepare: Callable[[World], None] = lambda _: None


class Side:
    """A version of the daemon, in its own world."""

    def __init__(self, scenario: Scenario, world: World, command: Sequence[str]) -> None:
        self._scenario, self._world = scenario, world
        scenario.prepare(world)
        world.config.write_text(scenario.config, encoding="utf-8")
        options = ("-c", str(world.config), "--state-dir", str(world.dir / "state"))
        self._command = [*command, *options]
        self._watch = Watch(world["host"], "rules")
        with (world.dir / "daemon.log").open("a") as log:
            world["host"].popen([*self._command, "run"], stdout=log, stderr=log)
        self._await("up")

    def trial(self) -> float:
        """Seconds from the decision to the kernel, in the slower family."""
        self._scenario.cut(self._world)
        down_s = self._await("down")
        taken = [self._moved_s(family, since_s) - since_s for family, since_s in down_s.items()]
        self._scenario.restore(self._world)
        self._await("up")
        return max(taken)

    def _moved_s(self, family: Family, since_s: float) -> float:
        at_s = self._watch.seen_after(f"IPv{family}", since_s, _PATIENCE_S)
        if at_s is None:
            raise HostError(f"no notification of a rule for IPv{family}")
        return at_s

    def _await(self, state: str) -> dict[Family, float]:
        """Wait until the first uplink is in a state in both families; return since when."""
        since_s: dict[Family, float] = {}

        def is_so() -> bool:
            paths = [p for p in self._health() if p["uplink"] == self._scenario.first]
            since_s.clear()
            since_s.update({p["family"]: p["since_s"] for p in paths if p["state"] == state})
            return len(since_s) == len(FAMILIES)

        eventually(is_so, _BEGIN_S, what=f"{self._scenario.first} is {state}", poll_s=_POLL_S)
        return since_s

    def _health(self) -> list[dict[str, Any]]:
        output = self._world["host"].run([*self._command, "status", "--json"], check=False).stdout
        daemon = json.loads(output).get("daemon") if output else None
        return daemon["health"] if daemon else []


def run(before: Path | None = None) -> Report:
    commands = {"now": [sys.executable, "-m", "ifdefault"]}
    if before is not None:
        commands = {"before": [str(before / ".venv/bin/ifdefault")], **commands}
    samples = {scenario.name: _series(scenario, commands) for scenario in _SCENARIOS}
    figures = [figure for name, times in samples.items() for figure in _figures(name, times)]
    return Report("From the decision to the kernel", _HOW, tuple(figures), samples=samples)


def _series(scenario: Scenario, commands: dict[str, list[str]]) -> dict[str, list[float]]:
    """The milliseconds of all trials, by side."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    with ExitStack() as stack:
        sides = {
            name: Side(scenario, stack.enter_context(World.up(scenario.topology())), command)
            for name, command in commands.items()
        }
        for n in range(_TRIALS):
            for name in sorted(sides, reverse=bool(n % 2)):
                times[name].append(sides[name].trial() * 1000)
    for name, times_ms in times.items():
        log(f"{scenario.name}, {name}: {median(times_ms):.1f} ms")
    return times


def _figures(scenario: str, times: dict[str, list[float]]) -> Iterator[Figure]:
    for name, times_ms in times.items():
        of = f"{scenario}, {name}: "
        yield Figure(f"{of}trials", len(times_ms))
        yield Figure(f"{of}median", median(times_ms), "ms")
        yield Figure(f"{of}p95", quantile(times_ms, 0.95), "ms")
    if "before" in times:
        ratios = paired(times["now"], times["before"])
        yield Figure(f"{scenario}, now: ratio to before, median", median(ratios), "ratio")


# --- worlds ------------------------------------------------------------------------------------


def _drop(world: World, node: str, hook: str, match: str) -> None:
    rules = f"chain c {{ type filter hook {hook} priority -20; {match} }}; "
    world[node].python(partial(nft.run, f"add table inet cut {{ {rules}}}"))


def _pass(world: World, node: str) -> None:
    world[node].python(partial(nft.run, "delete table inet cut"))


def _with_targets(world: World) -> None:
    lengths = zip(_TARGETS, (32, 128), strict=True)
    world["peer"].ip("".join(f"addr add {a}/{length} dev lo\n" for a, length in lengths))


_PROBES = f'probes = ["icmp://{_TARGETS[0]}", "icmp://[{_TARGETS[1]}]"]\n'
_SCENARIOS = (
    Scenario(
        "2 uplinks",
        "isp-a",
        lambda: load("two"),
        two_uplinks() + _QUICK + _NAME,
        cut=lambda world: _drop(world, "isp-a", "forward", "policy drop;"),
        restore=lambda world: _pass(world, "isp-a"),
    ),
    Scenario(
        "31 uplinks",
        "isp-1",
        many_uplinks.topology,
        many_uplinks.config_text() + _QUICK + _PROBES + _NAME,
        cut=lambda world: _drop(
            world,
            "peer",
            "input",
            f'iifname "up1" ip daddr {_TARGETS[0]} drop; '
            f'iifname "up1" ip6 daddr {_TARGETS[1]} drop;',
        ),
        restore=lambda world: _pass(world, "peer"),
        prepare=_with_targets,
    ),
)
