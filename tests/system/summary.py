"""The end of what `./dev system` prints: why parts have failed, and how long each took.

Rules: it comes after everything else, and is short: who sees the last lines alone knows what has
failed. All of a part's output is in the cache folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

LINES = 150  # for the failures of all parts
TIMED_OUT = "124"  # exit status of timeout(1)
_RULE = re.compile(r"=+ (?P<title>.+?) =+$")  # of pytest, between its sections
_FAILURES = ("ERRORS", "FAILURES")
_TEST = re.compile(r"_+ (?P<title>.+?) _+$")
_STARTED = re.compile(r"(?P<test>tests/\S+::.*?)(?P<result> [A-Z]+)?(?: +\[ *\d+%\])?$")
_DONE = re.compile(r"\[gw\d+\].* [A-Z]+ (?P<test>tests/\S+::.*?) *$")


@dataclass(frozen=True, slots=True)
class Outcome:
    """`status`: an exit status, or what went wrong instead; `said`: the output's lines."""

    part: str
    status: str
    took_s: float
    said: Sequence[str]

    @property
    def passed(self) -> bool:
        return self.status == "0"

    @property
    def result(self) -> str:
        if self.passed:
            return f"passed in {self.took_s:.0f} s"
        why = f"exit status {self.status}" if self.status.isdigit() else self.status
        if self.status == TIMED_OUT:
            why = f"its time was up; unfinished: {', '.join(unfinished(self.said)) or 'nothing'}"
        return f"failed after {self.took_s:.0f} s: {why}"


def summary(outcomes: Sequence[Outcome]) -> list[str]:
    """What has failed in detail, and then in a line for each part and failed test."""
    failed = [outcome for outcome in outcomes if not outcome.passed]
    lines: list[str] = []
    for outcome in failed:
        lines += ["", f"======== {outcome.part}: failures ========"]
        lines += _details(outcome, LINES // len(failed))
    lines += ["", "======== all parts ========"]
    for outcome in outcomes:
        lines.append(f"{outcome.part:>8}  {outcome.result}")
        if not outcome.passed:
            lines += [f"{'':10}{line[:300]}" for line in _short(outcome.said)]
    return lines


def unfinished(said: Iterable[str]) -> list[str]:
    """The tests that have started and not ended, of what `pytest -v` says, with workers or not."""
    running: dict[str, None] = {}
    for line in said:
        if done := _DONE.match(line):
            running.pop(done["test"], None)
        elif (started := _STARTED.match(line)) and not started["result"]:
            running[started["test"].rstrip()] = None
    return list(running)


def _details(outcome: Outcome, room: int) -> list[str]:
    """Each failed test's report, in an equal share of the room; without any, the output's end."""
    reports = [report for title in _FAILURES for report in _reports(_section(outcome.said, title))]
    if not reports:
        return list(outcome.said[-min(room, 40) :])
    share = max(room // len(reports), 6)
    return [line for report in reports[: room // share] for line in _shortened(report, share)]


def _shortened(lines: Sequence[str], room: int) -> list[str]:
    """The traceback comes first, and what happened last is at the end."""
    if len(lines) <= room:
        return list(lines)
    last = room // 3
    first = room - last - 1
    return [*lines[:first], f"[{len(lines) - first - last} lines left out]", *lines[-last:]]


def _section(said: Sequence[str], title: str) -> list[str]:
    starts = [n for n, line in enumerate(said) if _RULE.match(line)]
    for start, end in pairwise([*starts, len(said)]):
        found = _RULE.match(said[start])
        if found and found["title"] == title:
            return list(said[start + 1 : end])
    return []


def _reports(section: Sequence[str]) -> list[Sequence[str]]:
    starts = [n for n, line in enumerate(section) if _TEST.match(line)]
    return [section[start:end] for start, end in pairwise([*starts, len(section)])]


def _short(said: Sequence[str]) -> list[str]:
    """What pytest's short summary says."""
    return [line for line in _section(said, "short test summary info") if line.strip()]
