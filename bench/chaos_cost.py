"""What faults of the host cost its visitors and itself, in a record of `chaos`. Pure.

Rules: as `chaos_outcome.HOW` describes them.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.chaos_host import absence
from bench.chaos_outcome import MARGIN_S, Record, has_fault
from bench.results import Figure
from bench.round_trips import RoundTrip

GROWN_MIB = 20.0
LOG_KIB_PER_MINUTE = 64.0
_BACKOFF_S = 30.0  # after a fault so long, the next retransmission may take as long


def figures(record: Record) -> Iterator[Figure]:
    """What faults of the host cost."""
    broken, late = _connections_without_fault(record)
    lost, asked = sum(map(len, queries_without_fault(record).values())), record.queries
    yield Figure("faults of the host", len(record.host))
    yield Figure("DNS queries to all uplinks: sent", sum(stream.sent for stream in asked))
    yield Figure("DNS queries to uplinks without a fault: lost", lost, target=0)
    sent = sum(stream.sent for _, stream in record.connections)
    yield Figure("messages over established connections: sent", sent)
    of = "established connections over uplinks without a fault: "
    yield Figure(f"{of}broken", broken, target=0)
    yield Figure(f"{of}messages late", late, target=0)
    yield Figure("daemon, answers", record.round_trips.count)
    yield Figure("daemon, time to an answer: median", record.round_trips.median_s * 1000, "ms")
    yield Figure("daemon, pause: longest", longest_pause_s(record) * 1000, "ms")
    if len(record.resources) > 1:
        first, *_, last = record.resources
        minutes = (last.at_s - first.at_s) / 60
        most = max(it.total_mib for it in record.resources) - first.total_mib
        yield Figure("daemon, memory at first", first.total_mib, "MiB")
        yield Figure(
            "daemon, memory in the end: more", last.total_mib - first.total_mib, "MiB", GROWN_MIB
        )
        yield Figure("daemon, memory at most: more", most, "MiB")
        per_minute = (last.log_bytes - first.log_bytes) / 1024 / minutes
        yield Figure("daemon, log", per_minute, "KiB a minute", LOG_KIB_PER_MINUTE)
    yield Figure("`check` finds faults in the end", len(record.faults_of_check), target=0)


def queries_without_fault(record: Record) -> dict[str, list[float]]:
    """When queries were lost though their uplink had no fault."""
    return {
        stream.provider: [
            at_s for at_s in stream.lost if not has_fault(record, stream.provider, at_s, MARGIN_S)
        ]
        for stream in record.queries
    }


def _connections_without_fault(record: Record) -> tuple[int, int]:
    """How many connections broke, and how many messages were late, though their uplink had no
    fault: neither then nor within the longest retransmission timeout before."""
    broken = late = 0
    for provider, stream in record.connections:
        intact = [not has_fault(record, provider, at_s, MARGIN_S) for at_s, _ in stream.broken]
        broken += sum(intact)
        late += sum(
            not has_fault(record, provider, at_s, MARGIN_S, after_s=_BACKOFF_S)
            for at_s in stream.late
        )
    return broken, late


def pauses(record: Record) -> list[RoundTrip]:
    """The long round trips while the daemon was there."""
    return [
        it
        for it in record.round_trips.long
        if absence(record.host, it.at_s, it.at_s + it.took_s) is None
    ]


def longest_pause_s(record: Record) -> float:
    return max((it.pause_s for it in pauses(record)), default=0.0)
