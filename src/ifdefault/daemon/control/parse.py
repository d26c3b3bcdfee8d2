"""Requests as they come over the control sockets, and refusals.

Rules: only valid requests reach the engine; a refusal says what would be valid.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_args

from ifdefault.ipc import codec
from ifdefault.ipc.codec import DecodeError
from ifdefault.ipc.control.protocol import Refusal, Request
from ifdefault.model.errors import HostError, IfdefaultError, Problem

_decode = codec.decoder(Request)


class BadRequest(HostError):
    """An invalid request."""


def parse(line: bytes) -> Request:
    """The request in a line; BadRequest says what would be valid."""
    value: Any = None
    try:
        request: Request = _decode(value := codec.read(line))
    except DecodeError as error:
        raise BadRequest(Problem("request", str(error), _remedy(value))) from None
    return request


def _remedy(value: Any) -> str:
    """What would be valid instead of a value that isn't a request."""
    kinds = {kind.__name__: kind for kind in get_args(Request)}
    if not isinstance(value, dict) or not isinstance(name := value.get(codec.TAG), str):
        return 'send {"type": "Status"}'
    if name not in kinds:
        return f"use one of {', '.join(kinds)}"
    names = [field.name for field in fields(kinds[name])]
    return f"send {name} with {', '.join(names) or 'nothing else'}"


def refusal(error: IfdefaultError) -> Refusal:
    return Refusal(error.problems, error.exit_status, not isinstance(error, BadRequest))
