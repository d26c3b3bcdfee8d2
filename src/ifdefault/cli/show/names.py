"""How the names fare, as `status` and `dns` show it: what is published, and where it isn't.

Rules: as in `paths`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ifdefault.cli.show.paths import age
from ifdefault.cli.show.table import table

if TYPE_CHECKING:
    from ifdefault.daemon.status import DaemonStatus, Named, PublisherStatus

_MOST = 10  # names that `status` shows
_NAMES = ("Name", "Policy", "TTL", "Since", "Leads to")
_PUBLISHERS = ("Published by", "", "Of", "State", "Since", "There", "Detail")


def brief(standing: DaemonStatus) -> list[str]:
    """For `status`: the names, and whatever isn't as it should be; nothing without [dns]."""
    told = standing.dns
    lines = _names(standing, told.names[:_MOST]) if told.names else []
    if (rest := len(told.names) - _MOST) > 0:
        lines.append(f"and {rest} more: ifdefault dns")
    for publisher in told.publishers:
        if publisher.state != "current":
            detail = f": {publisher.detail}" if publisher.detail else ""
            since = age(standing.now_s - publisher.since_s)
            where = f"{publisher.kind} {publisher.where}, {_of(publisher)}"
            lines.append(f"{where}: {publisher.state} for {since}{detail}")
    return lines + list(told.problems)


def whole(standing: DaemonStatus) -> list[str]:
    """For `dns`: all of it."""
    told = standing.dns
    if not (told.names or told.publishers or told.problems or told.queries):
        return ["nothing is published: the config has no [dns]"]
    lines = _names(standing, told.names)
    if told.publishers:
        rows = [_publisher(standing, publisher) for publisher in told.publishers]
        lines += ["", *table(_PUBLISHERS, rows)]
    if told.queries:
        counted = ", ".join(f"{uplink} {queries}" for uplink, queries in told.queries)
        lines += ["", f"queries answered: {counted}"]
    if told.problems:
        lines += ["", *told.problems]
    return lines


def _names(standing: DaemonStatus, names: Sequence[Named]) -> list[str]:
    rows = [
        (
            each.name,
            each.policy,
            str(each.ttl),
            age(standing.now_s - each.since_s),
            ", ".join(_by_uplink(each)) or "no address",
        )
        for each in names
    ]
    return table(_NAMES, rows)


def _by_uplink(named: Named) -> Iterator[str]:
    """ "isp-a 203.0.113.10 2001:db8:a::10", the best uplink first."""
    found: dict[str, list[str]] = {}
    for uplink, address in named.addresses:
        found.setdefault(uplink, []).append(address)
    return (f"{uplink} {' '.join(addresses)}" for uplink, addresses in found.items())


def _of(publisher: PublisherStatus) -> str:
    return publisher.name or publisher.zone or "any name"


def _publisher(standing: DaemonStatus, publisher: PublisherStatus) -> Sequence[str]:
    since = age(standing.now_s - publisher.since_s)
    seen = " ".join(publisher.seen)
    return (
        publisher.kind,
        publisher.where,
        _of(publisher),
        publisher.state,
        since,
        seen,
        publisher.detail,
    )
