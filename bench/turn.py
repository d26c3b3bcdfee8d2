"""`turn`: from the verdict that an uplink is down to the rule in the kernel that leads elsewhere.

Rules: the verdict's time is the daemon's own (`since_s` of the path, as `status --json` tells it),
the rule's is that at which the kernel's news of it is read by a process of the bench's. Both are of
the monotonic clock. With `--before DIR` the daemon of another checkout takes turns, in a world of
its own, so that what else the machine does falls on both.
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

from bench import many
from bench.clock import say
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
_TARGETS = ("192.0.2.1", "2001:db8:ffff::1")  # beyond the routers of the world of many
_QUICK = "[health]\nrecover_s = 0.3\ndamp_s = 0.3\n"
_NAME = '[[dns.name]]\nname = "www.example.org"\n[dns.server]\nzones = ["www.example.org"]\n'
_HOW = f"""\
The uplink that carries the default dies in both families: what is forwarded by its router is
dropped, and the router still answers. {_TRIALS} times in each world, with a name that leads to all
uplinks and the embedded server. A trial's time is from the verdict, which is when the daemon says
that the path is down since, until the kernel tells of the rule that leads new connections to
another uplink; the family that took longer counts. *2 uplinks* is the lab's world `two`; of *31
uplinks* each has an address of each family. An uplink may return soon (`recover_s` and `damp_s` are
0.3 s), so that the next trial can begin. *before* is an earlier version of the daemon, in a world
beside, where the trials are made in turn with those of this version; both run all the time."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A world, and how its first uplink dies and returns."""

    name: str
    first: str  # the uplink that dies
    topology: Callable[[], Topology]
    config: str
    cut: Callable[[World], None]
    mend: Callable[[World], None]
    prepare: Callable[[World], None] = lambda _: None


class Side:
    """A version of the daemon in a world of its own."""

    def __init__(self, scene: Scene, world: World, command: Sequence[str]) -> None:
        self._scene, self._world = scene, world
        scene.prepare(world)
        world.config.write_text(scene.config, encoding="utf-8")
        options = ("-c", str(world.config), "--state-dir", str(world.dir / "state"))
        self._command = [*command, *options]
        self._watch = Watch(world["host"], "rules")
        with (world.dir / "daemon.log").open("a") as log:
            world["host"].popen([*self._command, "run"], stdout=log, stderr=log)
        self._await("up")

    def trial(self) -> float:
        """Seconds from the verdict to the kernel, in the family that took longer."""
        self._scene.cut(self._world)
        down_s = self._await("down")
        taken = [self._moved_s(family, since_s) - since_s for family, since_s in down_s.items()]
        self._scene.mend(self._world)
        self._await("up")
        return max(taken)

    def _moved_s(self, family: Family, since_s: float) -> float:
        found = self._watch.told_after(f"IPv{family}", since_s, _PATIENCE_S)
        if found is None:
            raise HostError(f"the kernel told of no rule of IPv{family}")
        return found

    def _await(self, state: str) -> dict[Family, float]:
        """Until the first uplink is in a state in both families; since when it is."""
        found: dict[Family, float] = {}

        def is_so() -> bool:
            paths = [p for p in self._health() if p["uplink"] == self._scene.first]
            found.clear()
            found.update({p["family"]: p["since_s"] for p in paths if p["state"] == state})
            return len(found) == len(FAMILIES)

        eventually(is_so, _BEGIN_S, what=f"{self._scene.first} is {state}", poll_s=_POLL_S)
        return found

    def _health(self) -> list[dict[str, Any]]:
        said = self._world["host"].run([*self._command, "status", "--json"], check=False).stdout
        daemon = json.loads(said).get("daemon") if said else None
        return daemon["health"] if daemon else []


def run(before: Path | None = None) -> Report:
    commands = {"now": [sys.executable, "-m", "ifdefault"]}
    if before is not None:
        commands = {"before": [str(before / ".venv/bin/ifdefault")], **commands}
    samples = {scene.name: _series(scene, commands) for scene in _SCENES}
    figures = [figure for name, found in samples.items() for figure in _figures(name, found)]
    return Report("From the verdict to the kernel", _HOW, tuple(figures), samples=samples)


def _series(scene: Scene, commands: dict[str, list[str]]) -> dict[str, list[float]]:
    """The milliseconds of all trials, by side."""
    found: dict[str, list[float]] = {name: [] for name in commands}
    with ExitStack() as stack:
        sides = {
            name: Side(scene, stack.enter_context(World.up(scene.topology())), command)
            for name, command in commands.items()
        }
        for n in range(_TRIALS):
            for name in sorted(sides, reverse=bool(n % 2)):
                found[name].append(sides[name].trial() * 1000)
    for name, times_ms in found.items():
        say(f"{scene.name}, {name}: {median(times_ms):.1f} ms")
    return found


def _figures(scene: str, found: dict[str, list[float]]) -> Iterator[Figure]:
    for name, times_ms in found.items():
        of = f"{scene}, {name}: "
        yield Figure(f"{of}trials", len(times_ms))
        yield Figure(f"{of}median", median(times_ms), "ms")
        yield Figure(f"{of}p95", quantile(times_ms, 0.95), "ms")
    if "before" in found:
        ratios = paired(found["now"], found["before"])
        yield Figure(f"{scene}: now to before, median of pairs", median(ratios), "ratio")


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
_SCENES = (
    Scene(
        "2 uplinks",
        "isp-a",
        lambda: load("two"),
        two_uplinks() + _QUICK + _NAME,
        cut=lambda world: _drop(world, "isp-a", "forward", "policy drop;"),
        mend=lambda world: _pass(world, "isp-a"),
    ),
    Scene(
        "31 uplinks",
        "isp-1",
        many.topology,
        many.config_text() + _QUICK + _PROBES + _NAME,
        cut=lambda world: _drop(
            world,
            "peer",
            "input",
            f'iifname "up1" ip daddr {_TARGETS[0]} drop; '
            f'iifname "up1" ip6 daddr {_TARGETS[1]} drop;',
        ),
        mend=lambda world: _pass(world, "peer"),
        prepare=_with_targets,
    ),
)
