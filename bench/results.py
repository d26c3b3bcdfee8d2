"""What a bench found, and the file it is kept in: `bench/results/NAME.json`.

Rules: a figure holds its target, and `met` is computed, never written by hand. A table is for
reading; every number in it comes from `samples`, which hold all measured values.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Figure:
    """One number. `target` None: no target was set, it stands for comparison."""

    what: str
    value: float
    unit: str = ""
    target: float | None = None
    at_least: bool = False  # the target is a floor; otherwise it is a ceiling

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What one bench found. `how` tells a reader what was done to get it."""

    title: str
    how: str
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...] = ()
    samples: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    image: str = ""  # a file in docs/


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and when it was measured. `load` is the machine's load average before the bench."""

    date: str
    cores: int
    cpu: str
    kernel: str
    python: str
    nft: str
    load: float


def read_machine() -> Machine:
    nft = subprocess.run(["nft", "--version"], capture_output=True, text=True, check=False).stdout
    return Machine(
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        cores=len(os.sched_getaffinity(0)),
        cpu=_cpu(),
        kernel=platform.release(),
        python=platform.python_version(),
        nft=nft.split()[1].removeprefix("v") if nft else "",
        load=round(os.getloadavg()[0], 2),
    )


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def write(name: str, report: Report, machine: Machine) -> Path:
    DIRECTORY.mkdir(exist_ok=True)
    path = DIRECTORY / f"{name}.json"
    content = {"name": name, "machine": asdict(machine), **asdict(report)}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read(name: str) -> tuple[Report, Machine] | None:
    """A bench's last results; None if it has never run."""
    try:
        told = json.loads((DIRECTORY / f"{name}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    del told["name"]
    machine = Machine(**told.pop("machine"))
    told["figures"] = tuple(Figure(**row) for row in told["figures"])
    told["tables"] = tuple(
        Table(row["title"], tuple(row["heads"]), tuple(map(tuple, row["rows"])))
        for row in told["tables"]
    )
    told["notes"] = tuple(told["notes"])
    return Report(**told), machine
