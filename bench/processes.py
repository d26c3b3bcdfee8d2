"""`processes`: how long commands take, as whole processes."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.clock import log
from bench.results import Figure, Report
from bench.stats import median, paired, quantile
from ifdefault.lab.topology import load
from ifdefault.lab.world import World

TARGET_MS = 250
_COUNT = 25
_QUESTION = ("tcp", "198.18.1.10:1234", "198.51.100.10:443")
_HOW = f"""\
Each command as a new process, {_COUNT} times, on the lab's host with two uplinks after `apply`;
byte code is compiled and files are cached. `python -c pass` is Python's own start. *Processor* time
is disturbed least by other work on the machine. *Now to before* compares with an earlier version,
in another world, whose runs alternate with those of this version."""


def run(before: Path | None = None) -> Report:
    programs = {"": str(Path(sys.executable).with_name("ifdefault"))}
    if before is not None:
        programs["before: "] = str(before / ".venv/bin/ifdefault")
    samples: dict[str, list[float]] = {}
    with ExitStack() as stack:
        worlds = {who: stack.enter_context(World.up(load("two"))) for who in programs}
        for who, world in worlds.items():
            world["host"].run([*_at(world, programs[who]), "apply"])
        for name, arguments in COMMANDS.items():
            log(name)
            for turn in range(_COUNT + 1):
                for who, world in worlds.items():
                    wall_ms, spent_ms = _time(world, arguments(_at(world, programs[who])))
                    if turn:  # the first one warms the caches
                        samples.setdefault(who + name, []).append(wall_ms)
                        samples.setdefault(f"{who}{name}, processor", []).append(spent_ms)
    figures = [figure for name in COMMANDS for figure in _figures(name, samples)]
    return Report("Commands", _HOW, tuple(figures), samples=samples)


def _at(world: World, program: str) -> list[str]:
    return [program, "-c", str(world.config), "--state-dir", str(world.dir / "state")]


COMMANDS: dict[str, Callable[[list[str]], list[str]]] = {
    "ifdefault --help": lambda own: [own[0], "--help"],
    "ifdefault status": lambda own: [*own, "status"],
    "ifdefault explain": lambda own: [*own, "explain", *_QUESTION],
    "ifdefault plan": lambda own: [*own, "plan"],
    "ifdefault apply": lambda own: [*own, "apply"],
    "python -c pass": lambda _: [sys.executable, "-c", "pass"],
}
_TARGETS_MS = dict.fromkeys(list(COMMANDS)[:3], TARGET_MS)


def _figures(name: str, samples: Mapping[str, Sequence[float]]) -> Iterator[Figure]:
    yield Figure(f"`{name}`: median", median(samples[name]), "ms", _TARGETS_MS.get(name))
    yield Figure(f"`{name}`: p95", quantile(samples[name], 0.95), "ms")
    yield Figure(f"`{name}`: processor, median", median(samples[f"{name}, processor"]), "ms")
    if f"before: {name}" in samples:
        for what, of in (("", name), ("processor, ", f"{name}, processor")):
            ratio = median(paired(samples[of], samples[f"before: {of}"]))
            yield Figure(f"`{name}`: {what}now to before", ratio, "ratio")


def _time(world: World, command: Sequence[str]) -> tuple[float, float]:
    """Wall and processor time, in ms, of a run in the host's namespace, without entering it."""

    def once() -> tuple[float, float]:
        before_ms, began_s = _children_ms(), time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return (time.monotonic() - began_s) * 1000, _children_ms() - before_ms

    return world["host"].python(once)


def _children_ms() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (usage.ru_utime + usage.ru_stime) * 1000
