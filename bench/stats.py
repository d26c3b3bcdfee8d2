"""Summaries of samples. Pure.

Rules: medians and quantiles, no means: a shared machine has outliers on one side. Quantiles are
interpolated between the two nearest samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

__all__ = ["median", "paired", "quantile", "uncertainty"]


def quantile(samples: Sequence[float], part: float) -> float:
    """The value below which `part` (0..1) of all samples lie."""
    ordered = sorted(samples)
    position = part * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def uncertainty(samples: Sequence[float]) -> float:
    """How far the median may be off: half a box plot's notch (McGill, Tukey, Larsen, 1978)."""
    return 1.57 * (quantile(samples, 0.75) - quantile(samples, 0.25)) / math.sqrt(len(samples))


def paired(samples: Sequence[float], base: Sequence[float]) -> list[float]:
    """The ratio of each sample to the base of its own round."""
    return [value / reference for value, reference in zip(samples, base, strict=True)]
