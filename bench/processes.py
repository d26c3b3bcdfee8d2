"""`processes`: how long a person waits for a command, as whole processes."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.clock import say, times_ms
from bench.results import Figure, Report
from bench.stats import median, quantile
from bench.subject import Subject
from ifdefault.lab.topology import load
from ifdefault.lab.world import World

TARGET_MS = 250
_COUNT = 15
_QUESTION = ("tcp", "198.18.1.10:1234", "198.51.100.10:443")
_HOW = f"""\
Each command as a process of its own, {_COUNT} times, on the lab's host with two uplinks after
`apply`; byte code is compiled, files are cached. `python -c pass` is what Python itself takes.
*Processor* is the part of it that other work on the machine disturbs least."""


def run() -> Report:
    program = [str(Path(sys.executable).with_name("ifdefault"))]
    with World.up(load("two")) as world:
        Subject(world).apply()
        own = [*program, "-c", str(world.config), "--state-dir", str(world.dir / "state")]
        commands: dict[str, tuple[Sequence[str], int | None]] = {
            "ifdefault --help": ([*program, "--help"], TARGET_MS),
            "ifdefault status": ([*own, "status"], TARGET_MS),
            "ifdefault explain": ([*own, "explain", *_QUESTION], TARGET_MS),
            "ifdefault plan": ([*own, "plan"], None),
            "ifdefault apply": ([*own, "apply"], None),
            "python -c pass": ([sys.executable, "-c", "pass"], None),
        }
        samples: dict[str, list[float]] = {}
        for name, (command, _) in commands.items():
            say(name)
            samples[name], samples[f"{name}, processor"] = _time(world, command)
    figures = []
    for name, (_, target_ms) in commands.items():
        figures.append(Figure(f"`{name}`, median", median(samples[name]), "ms", target_ms))
        figures.append(Figure(f"`{name}`, p95", quantile(samples[name], 0.95), "ms"))
        spent_ms = median(samples[f"{name}, processor"])
        figures.append(Figure(f"`{name}`, processor, median", spent_ms, "ms"))
    return Report("Whole processes", _HOW, tuple(figures), samples=samples)


def _time(world: World, command: Sequence[str]) -> tuple[list[float], list[float]]:
    """Wall and processor time of runs in the host's namespace; entering it isn't counted."""
    spent_ms = []

    def once() -> None:
        before_ms = _children_ms()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        spent_ms.append(_children_ms() - before_ms)

    taken_ms = world["host"].python(lambda: times_ms(once, _COUNT))
    return taken_ms, spent_ms[-_COUNT:]


def _children_ms() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (usage.ru_utime + usage.ru_stime) * 1000
