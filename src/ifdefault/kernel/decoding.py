"""Decoding of what the kernel sends: a value, or an OSError (EBADMSG).

Rules: functions from bytes to a value bear the mark `decodes`. Another version of the kernel, or a
module of others, may send what they don't understand; then one look at the kernel fails, with this
as its reason, and is repeated later.
"""

from __future__ import annotations

import errno
import functools
import struct
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def decodes(function: Callable[P, T]) -> Callable[P, T]:
    """A function whose errors about its bytes are OSErrors. Not for generators."""

    @functools.wraps(function)
    def decode(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except (struct.error, LookupError, ValueError) as error:
            what = function.__name__.strip("_").removeprefix("decode_").replace("_", " ")
            raise undecodable(f"{what}: {error!r}") from error

    return decode


def undecodable(what: str) -> OSError:
    return OSError(errno.EBADMSG, f"what the kernel sent is not understood: {what}")
