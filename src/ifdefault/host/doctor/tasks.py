"""Run checks side by side, and wait no longer than allowed.

Rules: each check runs in a thread of its own, which nobody waits for once the time is over: a
resolver can't be interrupted. A check that fails is a finding itself.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Sequence
from threading import Thread
from typing import Generic, TypeVar

from ifdefault.model.errors import IfdefaultError, internal, reason
from ifdefault.model.findings import Finding

T = TypeVar("T")
Check = Callable[[], Iterable[Finding]]


class Result(Generic[T]):
    """What a function returns in a thread of its own."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._value: T
        self._error: Exception | None = None
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._function()
        except Exception as error:  # noqa: BLE001  raised where somebody waits for it
            self._error = error

    def wait(self) -> T:
        self._thread.join()
        if self._error:
            raise self._error
        return self._value


def run(
    checks: Sequence[tuple[str, Check]],
    deadline: float,
    progress: Callable[[int, int], None],
) -> list[Finding]:
    """The findings of all checks, by their subject, that end before a monotonic time."""
    done: queue.SimpleQueue[tuple[int, list[Finding]]] = queue.SimpleQueue()
    for number, (about, check) in enumerate(checks):
        Thread(target=_run, args=(number, about, check, done.put), daemon=True).start()
    results: dict[int, list[Finding]] = {}
    progress(0, len(checks))
    while len(results) < len(checks):
        try:
            number, findings = done.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        results[number] = findings
        if len(results) < len(checks):
            progress(len(results), len(checks))
    progress(len(checks), len(checks))
    late = [
        Finding("note", about, "not finished in time")
        for number, (about, _) in enumerate(checks)
        if number not in results
    ]
    return [finding for number in sorted(results) for finding in results[number]] + late


def _run(
    number: int, about: str, check: Check, put: Callable[[tuple[int, list[Finding]]], None]
) -> None:
    findings: list[Finding] = []
    try:
        findings.extend(check())
    except IfdefaultError as error:
        findings += [Finding("warning", p.where or about, p.what, p.remedy) for p in error.problems]
    except PermissionError:
        findings.append(Finding("note", about, "not tried; it needs root's rights"))
    except OSError as error:
        findings.append(Finding("note", about, f"not tried ({reason(error)})"))
    except Exception as error:  # noqa: BLE001  one check's fault must not hide the others
        findings.append(Finding("warning", about, internal(error)))
    put((number, findings))
