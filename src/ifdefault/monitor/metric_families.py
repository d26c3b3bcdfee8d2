"""Families of metrics: a name, its help text, and a sample for each row.

Rules: names are given without the prefix that all of them have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.utils import floatToGoString

PREFIX = "ifdefault_"
Row = tuple[Sequence[str], float]  # values of the labels, value


def states(
    rows: Iterable[tuple[Sequence[str], str]], states: Sequence[str]
) -> Iterator[tuple[Sequence[str], float]]:
    """A row for each state, as the enumerations of Prometheus' clients have it."""
    for labels, current in rows:
        yield from (((*labels, state), state == current) for state in states)


def gauge(name: str, text: str, labels: Sequence[str], rows: Iterable[Row]) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def counter(name: str, text: str, labels: Sequence[str], rows: Iterable[Row]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def histogram(
    name: str,
    text: str,
    labels: Sequence[str],
    rows: Iterable[tuple[Sequence[str], Sequence[float], Sequence[int], float]],
) -> Metric:
    """Rows: values of the labels, upper bounds, how many up to each and beyond, the sum."""
    family = HistogramMetricFamily(PREFIX + name, text, labels=labels)
    for values, bounds, counts, total in rows:
        edges = (*map(floatToGoString, bounds), "+Inf")
        family.add_metric(values, list(zip(edges, accumulate(counts), strict=True)), total)
    return family
