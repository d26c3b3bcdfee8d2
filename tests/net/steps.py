"""Do what `ifdefault init` says is to be done to take over from another program, step by step.

Rules: the steps are read from what it prints, and done as an administrator would: a line of a file
is commented out, a section as a whole, and a command is run as it is written.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ifdefault.lab.node import Completed

Run = Callable[[Sequence[str]], Completed]


@dataclass(frozen=True, slots=True)
class Step:
    text: str
    details: tuple[str, ...]


def read(printed: str) -> list[Step]:
    """The numbered steps that `ifdefault init` printed."""
    steps: list[Step] = []
    for line in printed.partition("To take over from ")[2].splitlines()[1:]:
        if match := re.fullmatch(r"\d+\. (.+)", line):
            steps.append(Step(match[1], ()))
        elif line.startswith("     ") and steps:
            steps[-1] = Step(steps[-1].text, (*steps[-1].details, line.strip()))
        else:
            break
    return steps


def perform(step: Step, run: Run, file: Callable[[str], Path]) -> Iterator[str]:
    """Do a step; yield after each command, with what was done. `file`: where a path is."""
    if step.text.startswith("ifdefault apply --confirm 60"):
        assert run("ifdefault apply --confirm 60".split()).returncode == 0
        yield "apply"
        assert run(["ifdefault", "confirm"]).returncode == 0
    elif step.text.startswith("remove from these files"):
        lines = [detail.split(":", 2)[:2] for detail in step.details]
        for path, number in lines:
            comment_out(file(path), int(number))
    elif step.text.startswith(("let the change take effect", "undo in the kernel", "later")):
        for command in step.details:
            done = run(shlex.split(command))
            must = not command.startswith(("ip ", "ip -6 "))
            assert not (must and done.returncode), done.stdout + done.stderr
            yield command
    elif step.text.startswith("ifdefault apply, then"):
        assert run(["ifdefault", "apply"]).returncode == 0
        yield "the last apply"
    elif not step.text.startswith("systemctl enable"):
        assert run(["sh", "-e", "-c", step.text]).returncode == 0, step.text
    yield step.text


def comment_out(path: Path, number: int) -> None:
    """A line, or a section that begins there; in YAML its key, too, if nothing is left of it."""
    lines = path.read_text().split("\n")
    first, last = number - 1, number
    if lines[first].lstrip().startswith("["):
        while last < len(lines) and not lines[last].lstrip().startswith("["):
            last += 1
    elif path.suffix == ".yaml" and lines[first - 1].endswith(":"):
        rest = next((line for line in lines[last:] if not line.startswith("#")), "")
        first -= not rest.lstrip().startswith("-")
    for n in range(first, last):
        lines[n] = f"#{lines[n]}"
    path.write_text("\n".join(lines))
