"""`./dev fuzz`: run the targets under libFuzzer.

Rules: what is found stays in `.fuzz`, from where a next run goes on. A crash is saved among the
tests, and makes the command fail.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha1
from importlib import import_module
from pathlib import Path

from bench.results import Figure, Machine, Report, Table, read, read_machine, write
from tests.fuzz import corpus

WORK = Path(".fuzz")
MEMORY_MIB, INPUT_S, LONGEST = 2048, 10, 4096  # of a target, for an input, and its bytes
TREE_BYTES = 22 << 10  # of a target's corpus in the tree
_STATUS = re.compile(r"#(\d+)\t\w+ +cov: (\d+) ft: (\d+) corp: (\d+)")
_HOW = """\
Each target (`tests/fuzz/targets`) runs under libFuzzer (atheris), which mutates inputs, keeps those
that reach new code, and mutates these again. It begins with the corpus in the tree
(`tests/corpus/fuzz`). A crash is any exception that the code doesn't promise, and any rule of the
target that is broken."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`crashes`: their files."""

    target: str
    inputs: int
    coverage: int
    corpus: int
    crashes: tuple[Path, ...]

    def __str__(self) -> str:
        crashes = f"  {', '.join(map(str, self.crashes))}" if self.crashes else ""
        counts = f"{self.inputs:>10,} inputs  {self.coverage:>5} branches  {self.corpus:>5} kept"
        return f"{self.target:<14} {counts}  {len(self.crashes)} crashes{crashes}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(corpus.TARGETS))
    parser.add_argument("--minutes", type=float, default=1.0, help="for each target")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="at a time")
    parser.add_argument(
        "--minimize", action="store_true", help="write the tree's corpus anew, fuzz nothing"
    )
    parser.add_argument("--results", action="store_true", help="write bench/results/fuzz.json")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(corpus.TARGETS):
        parser.error(f"no target {', '.join(unknown)}; there are {', '.join(corpus.TARGETS)}")
    targets = options.targets or corpus.TARGETS
    machine = read_machine()
    outcomes = []
    with ThreadPoolExecutor(options.jobs) as executor:
        if options.minimize:
            for line in executor.map(minimize, targets):
                print(line, flush=True)
            return 0
        for outcome in executor.map(lambda target: fuzz(target, options.minutes), targets):
            print(outcome, flush=True)
            outcomes.append(outcome)
    if options.results:
        write("fuzz", report(outcomes, options.minutes, read("fuzz")), machine)
    return any(outcome.crashes for outcome in outcomes)


def fuzz(target: str, minutes: float) -> Outcome:
    """Run a target; the crash that ends it becomes a test."""
    kept, found = _folder(target)
    options = (f"-max_total_time={max(1, round(60 * minutes))}", f"-artifact_prefix={found}/")
    output = _run(target, *options, str(kept))
    status = [*_STATUS.finditer(output)]
    inputs, coverage, _, _ = map(int, status[-1].groups()) if status else (0, 0, 0, 0)
    crashes = tuple(_adopt(target, path) for path in sorted(found.iterdir()))
    if crashes or not status:
        print(_told(output), file=sys.stderr, flush=True)
    return Outcome(target, inputs, coverage, len([*kept.iterdir()]), crashes)


def _told(output: str) -> str:
    """What libFuzzer and Python say of a crash, without the progress before it."""
    lines = [line for line in output.splitlines() if not line.startswith("#")]
    return "\n".join(lines[-60:])


def _adopt(target: str, crash: Path) -> Path:
    path = corpus.CRASHES / target / crash.name[:20]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(crash.read_bytes())
    return path


def minimize(target: str) -> str:
    """Write into the tree the fewest inputs that reach all branches that those of `.fuzz` do, and
    then, as long as there is room, such that take them another number of times."""
    kept, _ = _folder(target)
    chosen: dict[bytes, None] = {}
    room = TREE_BYTES
    for options in (["-use_counters=0"], []):
        with tempfile.TemporaryDirectory() as merged:
            _run(target, "-set_cover_merge=1", *options, merged, str(kept))
            inputs = sorted((path.read_bytes() for path in Path(merged).iterdir()), key=len)
        for data in inputs:
            if data not in chosen and corpus.size(data) <= room:
                chosen[data] = None
                room -= corpus.size(data)
    corpus.write(target, chosen.keys())
    return f"{target:<14} {len(chosen)} inputs, {TREE_BYTES - room:,} bytes"


def _folder(target: str) -> tuple[Path, Path]:
    """The folders of what a target keeps, with all that is known, and of what crashes it."""
    kept, found = WORK / target / "corpus", WORK / target / "found"
    for path in (kept, found):
        path.mkdir(parents=True, exist_ok=True)
    for path in found.iterdir():
        path.unlink()
    seeds: list[bytes] = import_module(f"tests.fuzz.targets.{target}").seeds()
    for data in (*seeds, *corpus.read(target), *corpus.read_crashes(target).values()):
        (kept / sha1(data).hexdigest()).write_bytes(data)
    return kept, found


def _run(target: str, *arguments: str) -> str:
    limits = (f"-rss_limit_mb={MEMORY_MIB}", f"-timeout={INPUT_S}", f"-max_len={LONGEST}")
    command = [sys.executable, "-m", "tests.fuzz.libfuzzer", target, *limits, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    return ended.stderr + ended.stdout


def report(
    outcomes: Sequence[Outcome], minutes: float, before: tuple[Report, Machine] | None
) -> Report:
    """The outcomes of a run; of the targets that weren't run, those of earlier runs."""
    runs: dict[str, list[float]] = dict(before[0].samples) if before else {}
    for o in outcomes:
        runs[o.target] = [minutes, o.inputs, o.coverage, o.corpus, len(o.crashes)]
    runs = {target: runs[target] for target in corpus.TARGETS if target in runs}
    rows = tuple(
        (target, f"{run[0]:g}", *(f"{count:,.0f}" for count in run[1:]))
        for target, run in runs.items()
    )
    figures = (
        Figure("crashes", sum(run[4] for run in runs.values()), "", 0),
        Figure("inputs", sum(run[1] for run in runs.values())),
        Figure("targets", len(runs)),
    )
    heads = ("target", "minutes", "inputs", "branches reached", "inputs kept", "crashes")
    return Report("Fuzzing", _HOW, figures, (Table("By target", heads, rows),), {**runs})


if __name__ == "__main__":
    sys.exit(main())
