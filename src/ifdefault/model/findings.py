"""What `ifdefault doctor` finds: facts and problems, each with its remedy.

Rules: as in `model`. Commands of a remedy are in backquotes, and can be typed as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from ifdefault.model.errors import Problem

Level = Literal["error", "warning", "note", "fact"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note", "fact")  # the worst first
APPLY = "run `ifdefault apply`"
_COMMAND = re.compile(r"`([^`]+)`")
# remedies of `check` that say in words what a command does
_PLAIN = re.compile(r"^run ((?:sudo |ifdefault |chmod |chown |useradd ).*)$")
_RUN = re.compile(r"\brun: (ifdefault .+)$")  # in what is wrong
_BY_APPLY = re.compile(r"^apply (adds|sets|moves|makes) |ifdefault apply to change it")


@dataclass(frozen=True, slots=True)
class Finding:
    """`subject`: what it is about, such as "isp-a IPv4". `means`: what follows from it. A "note" is
    worth knowing, but not wrong; a "fact" is as it should be."""

    level: Level
    subject: str
    what: str
    remedy: str = ""
    means: str = ""

    @property
    def is_wrong(self) -> bool:
        return self.level in ("error", "warning")

    @property
    def commands(self) -> tuple[str, ...]:
        """The commands of the remedy, in their order."""
        if _BY_APPLY.search(self.remedy):
            return ("ifdefault apply",)
        if plain := _PLAIN.match(self.remedy):
            return (plain[1],)
        return tuple(_COMMAND.findall(self.remedy) or _RUN.findall(self.what))

    @property
    def advice(self) -> str:
        """The remedy, where its commands are printed below it; "" if it has nothing else."""
        text = re.sub(r"this(, this)+", "these", _COMMAND.sub("this", self.remedy))
        if not self.commands or _PLAIN.match(self.remedy):
            return "" if self.commands else text
        return re.sub(r"^(run )?this$", "", re.sub(r": (this|these)$", ":", text))


def from_problem(problem: Problem) -> Finding:
    level: Level = "note" if problem.hint else "warning" if problem.warning else "error"
    return Finding(level, problem.where, problem.what, problem.remedy)


def sorted_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The worst first. What has the same commands as a worse one before it goes without them."""
    ordered = sorted(_merged(findings), key=lambda finding: LEVELS.index(finding.level))
    seen: set[tuple[str, ...]] = set()
    result = []
    for finding in ordered:
        commands = finding.commands
        if finding.is_wrong and commands and commands in seen:
            finding = replace(finding, remedy="the remedy above is for this as well")
        seen.add(commands)
        result.append(finding)
    return tuple(result)


def _merged(findings: Iterable[Finding]) -> Iterator[Finding]:
    """One finding where the same is wrong with several subjects."""
    subjects: dict[Finding, list[str]] = {}
    for finding in dict.fromkeys(findings):
        key = replace(finding, subject="") if finding.is_wrong else finding
        subjects.setdefault(key, []).append(finding.subject)
    for finding, names in subjects.items():
        yield replace(finding, subject=", ".join(names))
