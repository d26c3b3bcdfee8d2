"""Tuples that may be large, such as the routes of a host."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


class Many(tuple[T, ...]):
    """A tuple to cache by: hashing it takes no longer the larger it is, nor does comparing it with
    itself. What is read of the kernel, and hasn't changed, is the same object as before."""

    __slots__ = ()

    @classmethod
    def of(cls, values: Iterable[T]) -> Many[T]:
        """These values; a Many as it is."""
        return values if isinstance(values, Many) else cls(values)

    def __hash__(self) -> int:
        return hash((len(self), self[:1], self[-1:]))
