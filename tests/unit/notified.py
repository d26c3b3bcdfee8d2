"""Events as the engine writes them, for tests of notifications."""

from __future__ import annotations

from collections.abc import Iterator

from ifdefault.model.config import Severity
from ifdefault.model.health import PathState, Transition
from ifdefault.model.report import Event

AT = 1793196130.25  # 2026-10-28 14:02:10 UTC
FAMILIES = {"isp-a": (4, 6), "isp-b": (4, 6)}
LOST = "4 rounds lost in 310 ms"


def event(
    serial: int,
    text: str,
    kind: str = "state",
    severity: Severity = "warning",
    uplink: str = "",
    after_s: float = 0.0,
) -> Event:
    return Event(AT + after_s, kind, uplink, text, severity, serial)


def path(
    serial: int, uplink: str, state: PathState, after_s: float = 0.0, family: int = 4
) -> Event:
    was: PathState = "up" if state in ("down", "degraded") else "recovering"
    cause = {"down": LOST, "degraded": "loss 12 %"}.get(state, "answers for 2.5 s")
    assert family in (4, 6)
    change = Transition(0.0, uplink, 4 if family == 4 else 6, was, state, cause)
    severities: dict[str, Severity] = {"down": "error", "degraded": "warning"}
    severity = severities.get(state, "info")
    return event(serial, str(change), "path", severity, uplink, after_s)


def primary(serial: int, was: str, now: str, after_s: float = 0.0, family: int = 4) -> Event:
    text = f"primary IPv{family}: {was} -> {now}"
    return event(serial, text, "primary", "warning", now, after_s)


def outage(serial: int, after_s: float = 0.0, up_after_s: float | None = None) -> Iterator[Event]:
    """Of isp-a, in both families; it is over so long after it began, if that is given."""
    for n, family in enumerate((4, 6)):
        yield path(serial + n, "isp-a", "down", after_s, family)
        yield primary(serial + 2 + n, "isp-a", "isp-b", after_s, family)
    if up_after_s is not None:
        end_s = after_s + up_after_s
        for n, family in enumerate((4, 6)):
            yield path(serial + 4 + n, "isp-a", "up", end_s, family)
            yield primary(serial + 6 + n, "isp-b", "isp-a", end_s, family)
