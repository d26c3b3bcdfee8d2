"""A message as it is sent: subject, text and events, the same by whatever it is sent.

Rules: pure. The id is that of the events that it contains: a message that is sent again, since
nobody knows whether it arrived, has the same one, and a receiver can tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ifdefault.model.config import Severity
from ifdefault.model.report import Event
from ifdefault.model.text import escaped
from ifdefault.monitor.notify.schedule import Item, worst
from ifdefault.monitor.notify.summary import Families, Line, summarize

LONGEST_SUBJECT = 160
_LISTED = 200  # events in the text


@dataclass(frozen=True, slots=True)
class Message:
    id: str
    host: str
    notifier: str
    severity: Severity
    subject: str
    text: str
    at: float  # when it was written
    events: tuple[Event, ...] = ()
    test: bool = False


def message_id(items: Sequence[Item]) -> str:
    first, last = items[0].event.serial, items[-1].event.serial
    return f"{first}-{last}" if first != last else f"{first}"


def compose(
    items: Sequence[Item],
    notifier: str,
    host: str,
    families: Families,
    now: float,
    omitted: int = 0,
) -> Message:
    """A message of these events. `omitted`: how many more there were that couldn't be kept."""
    lines = summarize(items, families, now)
    events = tuple(item.event for item in items)
    text = [_sentence(line) for _, line in lines]
    if omitted:
        text.append(f"{omitted} earlier events couldn't be kept: see ifdefault events.")
    text += ["", *_timeline(events), "", *_footer(host, notifier)]
    return Message(
        id=message_id(items),
        host=host,
        notifier=notifier,
        severity=worst(event.severity for event in events),
        subject=_subject(host, lines),
        text="\n".join(text) + "\n",
        at=now,
        events=events,
    )


def compose_test(notifier: str, host: str, now: float) -> Message:
    """A message that shows that messages arrive."""
    text = [f"This is a test of the notifier {notifier}. Nothing has happened."]
    return Message(
        id=f"test-{int(now * 1e6)}",
        host=host,
        notifier=notifier,
        severity="info",
        subject=f"{host.partition('.')[0]}: test of the notifier {notifier}",
        text="\n".join([*text, "", *_footer(host, notifier)]) + "\n",
        at=now,
        test=True,
    )


def _subject(host: str, lines: Sequence[Line]) -> str:
    """As many lines as fit, at least the first."""
    texts = [escaped(text) for _, text in lines] or ["nothing has changed"]
    subject = f"{host.partition('.')[0]}: {texts[0]}"
    for number, text in enumerate(texts[1:], 1):
        if len(subject) + len(text) > LONGEST_SUBJECT - 20:
            return f"{subject[:LONGEST_SUBJECT]}; and {len(texts) - number} more"
        subject += f"; {text}"
    return subject[: LONGEST_SUBJECT + 20]


def _sentence(text: str) -> str:
    return escaped(text[:1].upper() + text[1:] if text.startswith("new ") else text) + "."


def _timeline(events: Sequence[Event]) -> Iterator[str]:
    shown = events
    if len(events) > _LISTED:
        shown = (*events[: _LISTED // 2], *events[-_LISTED // 2 :])
    for number, event in enumerate(shown):
        if len(shown) < len(events) and number == _LISTED // 2:
            yield f"… {len(events) - len(shown)} more …"
        at = datetime.fromtimestamp(event.at, UTC)
        yield f"{at:%Y-%m-%d %H:%M:%S} UTC  {event.severity:<7}  {escaped(event.text)}"


def _footer(host: str, notifier: str) -> Iterator[str]:
    yield "-- "  # the usual sign of a signature
    yield f'ifdefault on {host}, notifier "{notifier}"; its state now: ifdefault status'
