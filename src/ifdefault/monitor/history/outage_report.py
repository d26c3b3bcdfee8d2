"""One outage as a plain text for the provider: what happened when, and the evidence.

Rules: UTC, ASCII, 76 columns, so that it survives any mail. It states what was seen from this host,
and what was not kept; it judges nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ifdefault.model.report_text import duration
from ifdefault.monitor.history.reader import Reader
from ifdefault.monitor.history.records import HOUR_S, MINUTE_S, Interval, Outage, Path, Span, Target

_AROUND = 2  # minutes, or hours, before and after
_MOST = 24  # rows at the beginning, and at the end, of a long outage
_OTHERS = 2  # other uplinks beside this one
_WIDTH = 76


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of an outage. `step_s`: of the intervals; minutes are kept for some days."""

    outage: Outage
    spans: Sequence[Span]
    intervals: Sequence[Interval]  # of all paths of its family
    step_s: int
    targets: Sequence[Target]
    seen: float  # until when anything is known


def evidence(reader: Reader, outage: Outage) -> Evidence:
    until = reader.seen if outage.until is None else outage.until
    step_s = MINUTE_S
    intervals = reader.minutes(outage.since - _AROUND * step_s, until + _AROUND * step_s)
    if not intervals or intervals[0].at > outage.since:
        step_s = HOUR_S
        intervals = reader.hours(outage.since - _AROUND * step_s, until + _AROUND * step_s)
    spans = [
        span
        for span in reader.spans(outage.since - 1, until + 1, outage.path.uplink)
        if span.path == outage.path and span.since >= outage.since
    ]
    alike = [each for each in intervals if each.path.family == outage.path.family]
    return Evidence(outage, spans, alike, step_s, reader.targets(outage), reader.seen)


def outage_report(reader: Reader, outage: Outage, host: str) -> str:
    """The text, with the host's name."""
    known = evidence(reader, outage)
    sections = [
        _head(known, host),
        _timeline(known),
        _probes(known),
        _targets(known),
        _how(known),
    ]
    return "\n\n".join("\n".join(lines) for lines in map(list, sections) if lines) + "\n"


def _utc(at: float, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    text = datetime.fromtimestamp(at, UTC).strftime(f"{form}.%f")
    return text[:-3]


def _head(known: Evidence, host: str) -> Iterator[str]:
    outage, path = known.outage, known.outage.path
    yield f"OUTAGE OF {path.uplink} (IPv{path.family})"
    yield ""
    yield f"Host:      {host}"
    yield f"From:      {_utc(outage.since)} UTC"
    if outage.until is None:
        yield f"Until:     not over at {_utc(known.seen)} UTC"
    else:
        yield f"Until:     {_utc(outage.until)} UTC"
    yield f"Duration:  {duration(outage.duration_s(known.seen))}"


def _timeline(known: Evidence) -> Iterator[str]:
    yield "Timeline (UTC)"
    for span in known.spans:
        yield from _folded(f"  {_utc(span.since)}  ", f"{span.state}: {span.cause}")


def _folded(head: str, text: str) -> Iterator[str]:
    line = head
    for word in text.split():
        if len(line) + len(word) >= _WIDTH and line.strip():
            yield line.rstrip()
            line = " " * len(head)
        line += f"{word} "
    yield line.rstrip()


def _probes(known: Evidence) -> Iterator[str]:
    if not known.intervals:
        return
    paths = _compared(known)
    by_time: dict[int, dict[Path, Interval]] = {}
    for interval in known.intervals:
        by_time.setdefault(interval.at, {})[interval.path] = interval
    unit = "minute" if known.step_s == MINUTE_S else "hour"
    yield f"Probes by the {unit} (UTC): answered of sent"
    yield "  " + " " * 16 + "".join(f"  {path.uplink[:16]:>16}" for path in paths)
    times = sorted(by_time)
    for n, at in enumerate(times):
        if _MOST <= n < len(times) - _MOST:
            if n == _MOST:
                yield f"  … {len(times) - 2 * _MOST} more …".replace("…", "...")
            continue
        cells = (_cell(by_time[at].get(path)) for path in paths)
        yield f"  {datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}" + "".join(cells)
    if (last := _last_answer(known)) is not None:
        yield f"Last {unit} with an answer before it: {datetime.fromtimestamp(last, UTC):%H:%M} UTC"


def _cell(interval: Interval | None) -> str:
    if interval is None:
        return f"  {'-':>16}"
    tally = interval.tally
    return f"  {f'{tally.answered} of {tally.answered + tally.lost}':>16}"


def _compared(known: Evidence) -> list[Path]:
    """The path itself, and some others that probes were answered on meanwhile."""
    others = sorted({interval.path for interval in known.intervals} - {known.outage.path})
    return [known.outage.path, *others[:_OTHERS]]


def _last_answer(known: Evidence) -> int | None:
    """The last interval with an answer that began before the outage."""
    return max(
        (
            interval.at
            for interval in known.intervals
            if interval.path == known.outage.path
            and interval.tally.answered
            and interval.at <= known.outage.since
        ),
        default=None,
    )


def _targets(known: Evidence) -> Iterator[str]:
    """What was reached over other uplinks while it wasn't over this one."""
    if not known.targets:
        return
    paths = sorted({target.path for target in known.targets}, key=lambda p: p != known.outage.path)
    paths = paths[: 1 + _OTHERS]
    counts = {(target.path, target.probe): target for target in known.targets}
    yield "Probes by target, during the outage: answered of sent"
    yield "  " + " " * 32 + "".join(f"  {path.uplink[:16]:>16}" for path in paths)
    for probe in dict.fromkeys(target.probe for target in known.targets):
        cells = []
        for path in paths:
            target = counts.get((path, probe))
            of = f"{target.answered} of {target.answered + target.lost}" if target else "-"
            cells.append(f"  {of:>16}")
        yield f"  {probe[:32]:<32}" + "".join(cells)


def _how(known: Evidence) -> Iterator[str]:
    yield "How it was measured"
    text = (
        "The host probes targets on the Internet over each uplink, from an address of that "
        "uplink: two rounds a second or fewer, and a round each 50 ms as soon as one is lost. The "
        "uplink is down when the losses can't be explained by those that it usually has, and up "
        "again when probes have been answered for some seconds. Times are by the host's clock."
    )
    yield from _folded("  ", text)
