"""Objects that were decoded before, by the messages that the kernel sent for them.

Rules: what a message stands for depends on nothing but the message and the names of the interfaces
in it. Only the objects of the last dump are kept, so the memory that they take is bounded by the
kernel's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from ifdefault.kernel.rtnetlink import Names
from ifdefault.model.many import Many

T = TypeVar("T")


class Decoded(Generic[T]):
    """Decodes the dumps of one kind of object. Looking up a message takes a tenth of the time that
    decoding it takes, and what hasn't changed stays the same object."""

    def __init__(self, decode: Callable[[bytes, Names], T | None]) -> None:
        self._decode = decode
        self._known: dict[bytes, tuple[T | None, frozenset[int]]] = {}  # with its interfaces
        self._names: Names = {}
        self._last: Many[T] = Many()

    def decode(self, messages: Iterable[bytes], names: Names) -> Many[T]:
        """The objects of a dump in order, without those that aren't supported. If they are those of
        the last dump, the very same tuple."""
        changed = {index for index, _ in names.items() ^ self._names.items()}
        known, self._known, self._names = self._known, {}, dict(names)
        asked = _Asked(names)
        objects = []
        for message in messages:
            entry = known.get(message)
            if entry is None or not changed.isdisjoint(entry[1]):
                entry = self._decode(message, asked), asked.taken()
            self._known[message] = entry
            if entry[0] is not None:
                objects.append(entry[0])
        if (found := Many(objects)) != self._last:
            self._last = found
        return self._last


class _Asked(Mapping[int, str]):
    """Names that remember whose was asked for."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._indexes: set[int] = set()
        self._sets: dict[frozenset[int], frozenset[int]] = {}  # thousands of objects have the same

    def __getitem__(self, index: int) -> str:
        self._indexes.add(index)
        return self._names[index]

    def __iter__(self) -> Iterator[int]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def taken(self) -> frozenset[int]:
        """The interfaces asked for since the last time."""
        indexes = frozenset(self._indexes)
        self._indexes.clear()
        return self._sets.setdefault(indexes, indexes)
