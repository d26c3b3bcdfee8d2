"""Counts how many times each server or program was published by, and how many times that failed."""

from __future__ import annotations

from collections import Counter

from ifdefault.model.report import PublisherKind

Row = tuple[PublisherKind, str, int, int]  # server or program; published, failed


class UpdateCounts:
    def __init__(self) -> None:
        self._published: Counter[tuple[PublisherKind, str]] = Counter()
        self._failed: Counter[tuple[PublisherKind, str]] = Counter()

    def record(self, kind: PublisherKind, where: str, *, failed: bool) -> None:
        (self._failed if failed else self._published)[kind, where] += 1

    def report(self) -> tuple[Row, ...]:
        keys = sorted(self._published.keys() | self._failed.keys())
        return tuple((*key, self._published[key], self._failed[key]) for key in keys)
