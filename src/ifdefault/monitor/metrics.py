"""The metrics of Prometheus: what the engine reports, in its exposition formats.

Rules: nothing is kept, so that what is rendered depends on its arguments alone. Names follow what
Prometheus recommends: base units, `_total` for counters. What has a state has a series for each
state, one of which is 1. docs/metrics.md lists all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from prometheus_client import exposition
from prometheus_client.core import InfoMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from ifdefault import __version__
from ifdefault.model.health import Forced, Health, PathState, ServerState
from ifdefault.model.report import (
    DECIDE_BUCKETS_S,
    RTT_BUCKETS_S,
    CounterReport,
    DaemonStatus,
    DnsStatus,
    PathCounters,
    PublisherState,
)
from ifdefault.monitor.history import budget as history
from ifdefault.monitor.metric_families import counter, gauge, histogram, states
from ifdefault.monitor.status_file import MonitorStatus

TEXT = exposition.CONTENT_TYPE_PLAIN_0_0_4
OPENMETRICS = openmetrics.CONTENT_TYPE_LATEST

_PATH = ("uplink", "family")
_PUBLISHER = ("publisher", "at")


@dataclass(frozen=True, slots=True)
class Budget:
    """What an uplink may carry in a month, and has carried since its `reset_day`, in and out."""

    uplink: str
    limit_bytes: int  # 0: no limit
    used_bytes: int


def budgets_now(status: DaemonStatus | None, used: Mapping[str, history.Budget]) -> list[Budget]:
    """By the engine's count, and by the history where that doesn't count."""
    found = {name: Budget(name, each.limit, each.used) for name, each in used.items()}
    for usage in status.usage if status else ():
        found[usage.uplink] = Budget(usage.uplink, usage.limit_bytes, usage.used_bytes)
    return list(found.values())


def content_type(accept: str) -> str:
    """The format for a scraper, by the Accept header of its request."""
    return OPENMETRICS if "application/openmetrics-text" in accept else TEXT


def render(
    status: DaemonStatus | None,
    counters: CounterReport | None,
    budgets: Iterable[Budget] = (),
    content_type: str = TEXT,
    monitor: MonitorStatus | None = None,
) -> bytes:
    """All metrics; `status` and `counters` are None if the daemon doesn't answer, and `monitor` if
    that doesn't run."""
    report = _Report(status, counters, budgets, monitor)
    if content_type == OPENMETRICS:
        text: bytes = openmetrics.generate_latest(report)  # type: ignore[no-untyped-call]
        return text
    return exposition.generate_latest(report)


class _Report(Collector):
    def __init__(
        self,
        status: DaemonStatus | None,
        counters: CounterReport | None,
        budgets: Iterable[Budget],
        monitor: MonitorStatus | None,
    ) -> None:
        self._status, self._counters = status, counters
        self._budgets, self._monitor = budgets, monitor

    def collect(self) -> Iterator[Metric]:
        status, counters = self._status, self._counters
        yield gauge("up", "1 if the daemon answers, else 0.", (), [((), status is not None)])
        yield InfoMetricFamily(
            "ifdefault_build", "The version of ifdefault.", value={"version": __version__}
        )
        if status is not None:
            yield from _daemon(status)
            yield from _paths(status)
            yield from _dns(status.dns)
            yield from _servers(status)
        if counters is not None:
            yield from _path_counters(counters)
            yield from _uplink_counters(counters)
            yield from _other_counters(counters)
        if status is not None and counters is not None:
            yield from _times(status, counters)
        yield from _of_monitor(self._monitor, list(self._budgets))


# --- from the status --------------------------------------------------------------------------


def _daemon(status: DaemonStatus) -> Iterator[Metric]:
    yield gauge(
        "config_valid",
        "1 if the config is in use; 0 if it has errors and the last one that worked is in use.",
        (),
        [((), not status.config_errors)],
    )
    yield gauge(
        "held",
        "1 while the daemon changes nothing in the kernel, as after ifdefault down.",
        (),
        [((), bool(status.held) and status.undone_in_s is None)],
    )
    yield gauge(
        "unconfirmed",
        "1 while an apply waits for confirmation.",
        (),
        [((), status.undone_in_s is not None)],
    )
    problems = {
        "config": status.config_errors,
        "conflict": status.conflicts,
        "dns": status.dns.problems,
        "self-check": status.astray,
        "state": status.unsaved,
        "other": status.problems,
    }
    yield gauge(
        "problems",
        "Problems that ifdefault status shows now: errors of the config, conflicts with other"
        " programs, names, findings of the self-check, state files that can't be written, others.",
        ("kind",),
        (((kind,), len(found)) for kind, found in problems.items()),
    )


def _paths(status: DaemonStatus) -> Iterator[Metric]:
    health = status.health
    primary = {(family, names[0]) for family, names in status.decision.order if names}
    usable = {(family, name) for family, names in status.decision.usable for name in names}
    yield gauge(
        "path_state",
        "1 for the state that the path is in.",
        (*_PATH, "state"),
        states(((_path(h), h.state) for h in health), get_args(PathState)),
    )
    yield gauge(
        "path_primary",
        "1 if new outgoing connections use this path.",
        _PATH,
        ((_path(h), (h.family, h.uplink) in primary) for h in health),
    )
    yield gauge(
        "path_usable",
        "1 if this path may get new connections and its addresses may be published.",
        _PATH,
        ((_path(h), (h.family, h.uplink) in usable) for h in health),
    )
    yield gauge(
        "path_gateway_answers",
        "1 if the gateway of the path answers, 0 if it is silent; absent if unknown.",
        _PATH,
        ((_path(h), h.gateway == "answers") for h in health if h.gateway != "unknown"),
    )
    names = dict.fromkeys(h.uplink for h in health)
    forced = (((name,), status.forced.get(name, "auto")) for name in names)
    yield gauge(
        "uplink_forced",
        "1 for what the operator set the uplink to; auto is the default.",
        ("uplink", "state"),
        states(forced, get_args(Forced)),
    )


def _times(status: DaemonStatus, counters: CounterReport) -> Iterator[Metric]:
    """Times of the monotonic clock, as seconds since the epoch."""
    offset_s = counters.started_at - (status.now_s - status.up_s)
    yield gauge(
        "path_last_transition_timestamp_seconds",
        "When the path entered its state, in seconds since the epoch.",
        _PATH,
        ((_path(h), round(h.since_s + offset_s, 1)) for h in status.health),
    )


def _dns(dns: DnsStatus) -> Iterator[Metric]:
    published: dict[tuple[str, str], int] = {}
    for name in dns.names:
        for uplink, _ in name.addresses:
            published[name.name, uplink] = published.get((name.name, uplink), 0) + 1
    yield gauge(
        "dns_published_addresses",
        "Addresses of an uplink that a name leads to.",
        ("name", "uplink"),
        published.items(),
    )
    publishers = (((p.kind, p.where, p.zone, p.name), p.state) for p in dns.publishers)
    yield gauge(
        "dns_publisher_state",
        "1 for the state of a server or program that a name, or a whole zone, is published by.",
        (*_PUBLISHER, "zone", "name", "state"),
        states(publishers, get_args(PublisherState)),
    )


def _servers(status: DaemonStatus) -> Iterator[Metric]:
    servers = (((s.forward, s.address, str(s.port)), s.state) for s in status.servers)
    yield gauge(
        "server_state",
        "1 for the state of a server of a forwarded service, by its check.",
        ("forward", "address", "port", "state"),
        states(servers, get_args(ServerState)),
    )


# --- from the counters ------------------------------------------------------------------------


def _path_counters(counters: CounterReport) -> Iterator[Metric]:
    paths = counters.paths
    yield counter(
        "path_probes_total",
        "Probes of the path, by their result: answered or lost.",
        (*_PATH, "result"),
        (
            ((*_path(p), result), number)
            for p in paths
            for result, number in (("answered", p.answered), ("lost", p.lost))
        ),
    )
    yield histogram(
        "path_rtt_seconds",
        "Round-trip times of probes that were answered.",
        _PATH,
        ((_path(p), RTT_BUCKETS_S, p.rtt, p.rtt_s) for p in paths),
    )
    yield counter(
        "path_transitions_total",
        "Transitions of the path, by the state entered.",
        (*_PATH, "state"),
        (
            ((*_path(p), state), dict(p.entered).get(state, 0))
            for p in paths
            for state in get_args(PathState)
        ),
    )
    yield histogram(
        "path_failure_detection_seconds",
        "Times from the first lost probe of a failure until the path was down.",
        _PATH,
        ((_path(p), DECIDE_BUCKETS_S, p.decide, p.decide_s) for p in paths),
    )


def _uplink_counters(counters: CounterReport) -> Iterator[Metric]:
    uplinks = counters.uplinks
    yield counter(
        "uplink_receive_bytes_total",
        "Bytes that the uplink's interface received.",
        ("uplink",),
        (((u.uplink,), u.bytes_in) for u in uplinks),
    )
    yield counter(
        "uplink_transmit_bytes_total",
        "Bytes that the uplink's interface sent.",
        ("uplink",),
        (((u.uplink,), u.bytes_out) for u in uplinks),
    )
    yield gauge(
        "uplink_connections",
        "Established TCP connections of this host over the uplink.",
        ("uplink",),
        (((u.uplink,), u.connections) for u in uplinks),
    )
    yield gauge(
        "uplink_mptcp_subflows",
        "Of these connections, those that are subflows of MPTCP.",
        ("uplink",),
        (((u.uplink,), u.subflows) for u in uplinks),
    )


def _other_counters(counters: CounterReport) -> Iterator[Metric]:
    yield gauge(
        "start_time_seconds",
        "When the daemon started and its counters were 0, in seconds since the epoch.",
        (),
        [((), counters.started_at)],
    )
    yield counter(
        "dns_queries_total",
        "Queries that the embedded DNS server answered, by the uplink that they came in on and"
        " the response code of the answer.",
        ("uplink", "rcode"),
        (((uplink, rcode), number) for uplink, rcode, number in counters.queries),
    )
    yield counter(
        "dns_updates_total",
        "Attempts to publish names by a server or program, by their result: published or failed.",
        (*_PUBLISHER, "result"),
        (
            ((kind, at, result), number)
            for kind, at, published, failed in counters.updates
            for result, number in (("published", published), ("failed", failed))
        ),
    )
    yield counter(
        "repairs_total",
        "Operations by which the daemon undid what other programs had changed.",
        (),
        [((), counters.repairs)],
    )
    yield counter(
        "refused_operations_total",
        "Operations that the kernel refused.",
        (),
        [((), counters.refused)],
    )


# --- from the monitor -------------------------------------------------------------------------


def _of_monitor(monitor: MonitorStatus | None, budgets: Sequence[Budget]) -> Iterator[Metric]:
    running = monitor is not None
    yield gauge("monitor_up", "1 if ifdefault monitor is running, else 0.", (), [((), running)])
    yield gauge(
        "monitor_trouble",
        "1 for each part of ifdefault monitor that fails: history, config, textfile, a notifier.",
        ("part",),
        (((trouble.what,), 1) for trouble in (monitor.troubles if monitor else ())),
    )
    yield gauge(
        "uplink_budget_bytes",
        "What the uplink may carry in a month, in and out; absent if there is no budget.",
        ("uplink",),
        (((b.uplink,), b.limit_bytes) for b in budgets if b.limit_bytes),
    )
    yield gauge(
        "uplink_budget_used_bytes",
        "What the uplink has carried in this month of its budget, in and out.",
        ("uplink",),
        (((b.uplink,), b.used_bytes) for b in budgets),
    )


def _path(path: Health | PathCounters) -> tuple[str, str]:
    return path.uplink, f"IPv{path.family}"
