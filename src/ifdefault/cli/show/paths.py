"""How the uplinks fare, as `status` shows it: what the running engine says of each path.

Rules: text from values alone; times are ages, since the clock of `DaemonStatus` is nobody's else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ifdefault.cli.show.table import table
from ifdefault.model.health import Health

if TYPE_CHECKING:
    from ifdefault.daemon.status import DaemonStatus

_HEADS = ("Uplink", "", "State", "Since", "Loss", "RTT", "In", "Out", "Role", "Cause")


def lines(standing: DaemonStatus) -> list[str]:
    """The table of paths, then what is remarkable, a line each."""
    return [*table(_HEADS, list(_rows(standing))), *remarks(standing)]


def ails(standing: DaemonStatus) -> bool:
    """Whether somebody should look: an uplink is down, a name can't be published, or the engine
    can't do its work."""
    is_down = any(path.state == "down" for path in standing.health)
    is_stuck = any(publisher.state == "failing" for publisher in standing.dns.publishers)
    return is_down or is_stuck or bool(standing.held or standing.conflicts)


def _rows(standing: DaemonStatus) -> Iterator[Sequence[str]]:
    shown: set[str] = set()
    for path in standing.health:
        rates = standing.rates.get(path.uplink) if path.uplink not in shown else None
        yield (
            path.uplink if path.uplink not in shown else "",
            f"IPv{path.family}",
            _state(path, standing),
            age(standing.now_s - path.since_s),
            f"{100 * path.loss_ratio:.{0 if path.loss_ratio >= 0.1 else 1}f} %",
            f"{path.rtt_ms:.1f} ms" if path.rtt_ms else "-",
            *(map(rate, rates) if rates else ("", "")),
            _role(path, standing),
            path.cause,
        )
        shown.add(path.uplink)


def _state(path: Health, standing: DaemonStatus) -> str:
    """As observed; what the operator wants instead, and a doubt, in brackets behind it."""
    notes = []
    if forced := standing.forced.get(path.uplink):
        notes.append(f"forced {forced}")
    if path.bursting and path.state != "down":
        notes.append("in doubt")
    if path.state == "recovering" and path.until_s > standing.now_s:
        notes.append(f"up in {age(path.until_s - standing.now_s)}")
    return path.state + (f" ({', '.join(notes)})" if notes else "")


def _role(path: Health, standing: DaemonStatus) -> str:
    if path.uplink in standing.decision.ranking(path.family)[:1]:
        return "primary"
    return "usable" if path.uplink in standing.decision.usable_in(path.family) else "not used"


def remarks(standing: DaemonStatus) -> Iterator[str]:
    """Whatever isn't as one would wish it."""
    if standing.held:
        yield f"held: {standing.held}"
    yield from (*standing.conflicts, *standing.problems)
    told = [
        (f"{path.uplink} IPv{path.family}", f"{target.probe} {target.note}")
        for path in standing.health
        for target in path.targets
        if target.note
    ]
    told += [
        (f"{path.uplink} IPv{path.family}", "its gateway is silent")
        for path in standing.health
        if path.gateway == "silent" and path.state != "down"
    ]
    for where, what in told:
        yield f"{where}: {what}"


def age(seconds: float) -> str:
    """At most two units: "0.4s", "45s", "3m12s", "2h05m", "4d3h"."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f}s"
    whole = round(seconds)
    minutes, s = divmod(whole, 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days}d{h}h"
    if hours:
        return f"{hours}h{m:02d}m"
    return f"{m}m{s:02d}s" if minutes else f"{s}s"


def rate(bits_per_s: float) -> str:
    """In three digits: "0", "940 bit/s", "1.25 Mbit/s"."""
    for unit in ("bit/s", "kbit/s", "Mbit/s"):
        if bits_per_s < 999.5:
            return f"{bits_per_s:.3g} {unit}"
        bits_per_s /= 1000
    return f"{bits_per_s:.3g} Gbit/s"
