"""JSON texts without what JSON doesn't have or leaves open: NaN and infinities, numbers that no
float can hold, keys that are there twice."""

from __future__ import annotations

import json
from math import isfinite
from typing import Any


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(result := dict(pairs)) < len(pairs):
        raise ValueError("duplicate key")
    return result


def _finite(text: str) -> float:
    """Also of NaN and Infinity, which Python would take."""
    if isfinite(number := float(text)):
        return number
    raise ValueError("a number beyond all floats")


write = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode
read = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_float=_finite, parse_constant=_finite
).decode
