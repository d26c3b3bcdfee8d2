"""`history`: a simulated year in the history's file: its size, the time of a query, writes a day.

Rules: the monitor's own store and reader, over real files; what it would write each minute comes
from a seeded simulation of paths with loss, jitter, outages and traffic. All hours of the year are
written, and all minutes of the last three days, which is all that the file keeps of them.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path as FilePath

from bench.clock import log
from bench.results import Figure, Report, Table
from bench.stats import median
from ifdefault.model.config import FAMILIES
from ifdefault.model.report import RTT_BUCKETS_S, Event
from ifdefault.monitor.history.file import HistoryFile
from ifdefault.monitor.history.reader import history_dir, reading
from ifdefault.monitor.history.records import DAY_S, HOUR_S, MINUTE_S, Batch, Path, Span, Tally
from ifdefault.monitor.history.schema import FILE

MOST_MB, MOST_MONTH_MS = 50, 500
YEAR_S, MINUTES_S = 365 * DAY_S, 3 * DAY_S
BEGIN = 1_767_225_600  # 2026-01-01 00:00 UTC
KEEP_S = 400 * DAY_S
_OUTAGES_A_DAY = 0.5  # of a path
_HOW = """\
A year of 2 and of 31 uplinks with IPv4 and IPv6, two rounds a second, an outage of each path every
two days, and traffic, is written as the monitor does it: every hour of the year, and every minute
of its last three days. *Writes a day* are what the kernel counted for this process
(`/proc/self/io`) while the minutes of the last day were written, with the journal. A *month* is all
hours, outages and traffic of 30 days, of all uplinks and of one, each read by a new connection as
`ifdefault history` does."""


def run() -> Report:
    figures: list[Figure] = []
    rows = []
    samples: dict[str, list[float]] = {}
    for uplinks in (2, 31):
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            state_dir = FilePath(folder)
            log(f"a year of {uplinks} uplinks")
            write_s, written_mb = _write_year(state_dir, uplinks)
            size_mb = (history_dir(state_dir) / FILE).stat().st_size / 1e6
            all_ms, one_ms = _read_month(state_dir, ""), _read_month(state_dir, "isp-1")
            count = _rows(state_dir)
        key = f"{uplinks} uplinks"
        samples |= {f"{key}, month of all": all_ms, f"{key}, month of one": one_ms}
        figures += [
            Figure(f"a year of {key}: size", round(size_mb, 1), "MB", MOST_MB),
            Figure(f"a year of {key}: writes a day", round(written_mb, 1), "MB"),
            Figure(f"a year of {key}: a month", round(median(all_ms), 1), "ms", MOST_MONTH_MS),
        ]
        cells: tuple[str, ...] = (f"{size_mb:.1f} MB", f"{count:,}", f"{written_mb:.1f} MB")
        cells += (f"{median(all_ms):.0f} ms", f"{median(one_ms):.0f} ms", f"{write_s:.0f} s")
        rows.append((str(uplinks), *cells))
    heads = ("uplinks", "size", "rows", "writes a day", "a month of all", "of one", "written in")
    return Report(
        "History",
        _HOW,
        tuple(figures),
        (Table("A year's history", heads, tuple(rows)),),
        samples,
    )


def _write_year(state_dir: FilePath, uplinks: int) -> tuple[float, float]:
    """Write it; return how long that took, and the MB that the last day's minutes wrote."""
    file, random_ = HistoryFile(history_dir(state_dir)), random.Random(18)
    paths = [Path(f"isp-{n}", family) for n in range(1, uplinks + 1) for family in FAMILIES]
    start, before = time.monotonic(), 0
    for at, step_s in _steps():
        if at == BEGIN + YEAR_S - DAY_S:
            before = _written()
        file.write(_batch(random_, paths, at, step_s), at + step_s, (), KEEP_S)
    written = _written() - before
    file.close()
    return time.monotonic() - start, written / 1e6


def _steps() -> Iterator[tuple[int, int]]:
    end = BEGIN + YEAR_S
    yield from ((at, HOUR_S) for at in range(BEGIN, end - MINUTES_S, HOUR_S))
    yield from ((at, MINUTE_S) for at in range(end - MINUTES_S, end, MINUTE_S))


def _batch(random_: random.Random, paths: list[Path], at: int, step_s: int) -> Batch:
    batch = Batch(seen=float(at + step_s), counters={})
    for path in paths:
        probes, down_ms = 2 * step_s, 0
        if random_.random() < _OUTAGES_A_DAY * step_s / DAY_S:
            down_ms = random_.randrange(1000, step_s * 900)
            _add_outage(batch, path, at + 10.0, down_ms / 1000)
        lost = int(probes * (down_ms / 1000 / step_s)) + (random_.random() < 0.3)
        answered = probes - lost
        slow = answered // random_.randrange(20, 60)
        middle = 3 + int(path.uplink[4:]) % 3
        rtt = [0] * (len(RTT_BUCKETS_S) + 1)
        rtt[middle], rtt[middle + 1], rtt[middle + 2] = answered - slow - slow // 9, slow, slow // 9
        mean_us = int(RTT_BUCKETS_S[middle] * 800_000)
        up_ms = step_s * 1000 - down_ms
        batch.add(
            at,
            path,
            Tally(answered, lost, answered * mean_us, tuple(rtt), up_ms=up_ms, down_ms=down_ms),
        )
        if path.family == 4:
            moved = random_.randrange(10**6, 10**9) * step_s // 60
            batch.add_traffic(at, path.uplink, moved // 9, moved)
    return batch


def _add_outage(batch: Batch, path: Path, at: float, down_s: float) -> None:
    cause = "8 rounds lost in 430 ms, the gateway answers"
    for was, state, begin, why in (
        ("up", "down", at, cause),
        ("down", "recovering", at + down_s, "1 round answered"),
        ("recovering", "up", at + down_s + 2.5, "answered for 2.5 s"),
    ):
        batch.spans.append(Span(path, state, begin, None, why))  # type: ignore[arg-type]
        text = f"{path}: {was} -> {state} ({why})"
        batch.events.append(Event(begin, "path", path.uplink, text, "error", int(begin * 1000)))


def _read_month(state_dir: FilePath, uplink: str) -> list[float]:
    until = BEGIN + YEAR_S
    since = until - 30 * DAY_S
    times = []
    for _ in range(7):
        start = time.perf_counter()
        with reading(state_dir) as reader:
            reader.hours(since, until, uplink)
            reader.outages(since, until, uplink)
            reader.traffic(since, until, uplink)
        times.append((time.perf_counter() - start) * 1000)
    return times


def _rows(state_dir: FilePath) -> int:
    with reading(state_dir) as reader:
        return sum(len(part) for part in (reader.hours(0, 1e10), reader.minutes(0, 1e10)))


def _written() -> int:
    """Bytes that this process had written to disks; proc_pid_io(5)."""
    for line in FilePath("/proc/self/io").read_text().splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    raise AssertionError
