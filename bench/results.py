"""The results of a bench, and their file: `bench/results/NAME.json`.

Rules: a figure has its target, and `met` is computed. Every number of a table comes from `samples`,
which hold all measured values. A file is compact JSON: short records share lines, a series of
numbers is one line, and samples are rounded.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parent / "results"
_LINE = 160  # characters


@dataclass(frozen=True, slots=True)
class Figure:
    """One number; `target` is None if there is none. "SUBJECT: MEASURE" groups figures."""

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
    """The results of one bench. `how` describes the measurement; its first paragraph is shown,
    the others are folded."""

    title: str
    how: str
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...] = ()
    samples: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


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
    path.write_text(encode(name, report, machine), encoding="utf-8")
    return path


def read(name: str) -> tuple[Report, Machine] | None:
    """The last results of a bench; None if it has never run."""
    try:
        content = json.loads((DIRECTORY / f"{name}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    tables = (
        Table(row["title"], tuple(row["heads"]), tuple(map(tuple, row["rows"])))
        for row in content["tables"]
    )
    report = Report(
        content["title"],
        content["how"],
        tuple(Figure(**row) for row in content["figures"]),
        tuple(tables),
        content["samples"],
        tuple(content["notes"]),
    )
    return report, Machine(**content["machine"])


def encode(name: str, report: Report, machine: Machine) -> str:
    """The text of a file: equal results give equal bytes."""
    content = {"name": name, "machine": asdict(machine), **asdict(report)}
    content["samples"] = _rounded(content["samples"])
    return _compact(content) + "\n"


def _rounded(value: Any) -> Any:
    """Samples with four significant digits, and three decimals at least: seconds to the ms."""
    if isinstance(value, float) and math.isfinite(value):
        digits = 3 if value == 0 else max(3, 3 - math.floor(math.log10(abs(value))))
        return round(value, digits)
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


def _compact(value: Any, depth: int = 0) -> str:
    """JSON indented by one. A series of numbers is one line, of any length; other values are one
    line if they fit, and short items of a list share lines."""
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, Mapping | list | tuple) or _is_series(value):
        return line
    if depth + len(line) <= _LINE:
        return line
    newline = "\n" + " " * (depth + 1)
    if isinstance(value, Mapping):
        items = [
            f"{json.dumps(str(key), ensure_ascii=False)}: {_compact(item, depth + 1)}"
            for key, item in value.items()
        ]
        return f"{{{newline}{(',' + newline).join(items)}{newline[:-1]}}}"
    items = _filled([_compact(item, depth + 1) for item in value], _LINE - depth)
    return f"[{newline}{(',' + newline).join(items)}{newline[:-1]}]"


def _filled(items: Sequence[str], width: int) -> list[str]:
    """Join items into lines of at most that width; wider items get their own line."""
    lines: list[str] = []
    for item in items:
        if lines and len(lines[-1]) + len(item) + 2 <= width and "\n" not in lines[-1] + item:
            lines[-1] += f", {item}"
        else:
            lines.append(item)
    return lines


def _is_series(value: Any) -> bool:
    """Whether a value has only numbers, or only numbers and lists of numbers."""
    if isinstance(value, Mapping):
        return bool(value) and all(isinstance(item, int | float) for item in value.values())
    return all(
        isinstance(item, int | float)
        or (isinstance(item, list | tuple) and all(isinstance(n, int | float) for n in item))
        for item in value
    )
