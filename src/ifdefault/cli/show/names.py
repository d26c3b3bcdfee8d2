"""The published names, and whether each publisher is current, as `status` and `dns` show them.

Rules: as in `paths`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ifdefault.cli.show.style import Line, Style
from ifdefault.cli.show.table import table
from ifdefault.model.report_text import age

if TYPE_CHECKING:
    from ifdefault.model.report import DaemonStatus, Named, PublisherStatus

_MOST = 10  # names that `status` shows
_NAMES = ("Name", "Policy", "TTL", "Since", "Leads to")
_PUBLISHERS = ("Publisher", "At", "Names", "State", "Since", "Addresses, detail")


def brief(status: DaemonStatus) -> list[str]:
    """For `status`: the names, and the publishers that aren't current; nothing without [dns]."""
    dns = status.dns
    lines = _names(status, dns.names[:_MOST]) if dns.names else []
    if (rest := len(dns.names) - _MOST) > 0:
        lines.append(f"and {rest} more: ifdefault dns")
    for publisher in dns.publishers:
        if publisher.state != "current":
            detail = f": {publisher.detail}" if publisher.detail else ""
            since = age(status.now_s - publisher.since_s)
            where = f"{publisher.kind} {publisher.where}, {_of(publisher)}"
            worse: Style = "bad" if publisher.state == "failing" else "warn"
            lines.append(Line(f"{where}: {publisher.state} for {since}{detail}", worse))
    return lines + [Line(problem, "warn") for problem in dns.problems]


def all_lines(status: DaemonStatus) -> list[str]:
    """For `dns`: names, publishers, queries and problems."""
    dns = status.dns
    if not (dns.names or dns.publishers or dns.problems or dns.queries):
        return ["nothing is published: the config has no [dns]"]
    lines = _names(status, dns.names)
    if dns.publishers:
        rows = [_publisher(status, publisher) for publisher in dns.publishers]
        lines += ["", *table(_PUBLISHERS, rows)]
    if dns.queries:
        lines += ["", f"queries answered: {', '.join(_queries(dns.queries))}"]
    if dns.problems:
        lines += ["", *(Line(problem, "warn") for problem in dns.problems)]
    return lines


def _queries(queries: Sequence[tuple[str, str, int]]) -> Iterator[str]:
    """How many by uplink, with the codes of those that weren't NOERROR."""
    by_uplink: dict[str, Counter[str]] = {}
    for uplink, code, number in queries:
        by_uplink.setdefault(uplink, Counter())[code] += number
    for uplink, codes in by_uplink.items():
        errors = ", ".join(f"{n} {code}" for code, n in codes.items() if code != "NOERROR")
        yield f"{uplink} {codes.total()}" + (f" ({errors})" if errors else "")


def _names(status: DaemonStatus, names: Sequence[Named]) -> list[str]:
    rows = [
        (
            name.name,
            name.policy,
            str(name.ttl),
            age(status.now_s - name.since_s),
            "\n".join(_by_uplink(name)) or "no address",
        )
        for name in names
    ]
    return table(_NAMES, rows)


def _by_uplink(named: Named) -> Iterator[str]:
    """ "isp-a 203.0.113.10 2001:db8:a::10", the best uplink first."""
    by_uplink: dict[str, list[str]] = {}
    for uplink, address in named.addresses:
        by_uplink.setdefault(uplink, []).append(address)
    return (f"{uplink} {' '.join(addresses)}" for uplink, addresses in by_uplink.items())


def _of(publisher: PublisherStatus) -> str:
    return publisher.name or publisher.zone or "any name"


def _publisher(status: DaemonStatus, publisher: PublisherStatus) -> Sequence[str]:
    since = age(status.now_s - publisher.since_s)
    seen = " ".join(publisher.seen)
    return (
        publisher.kind,
        publisher.where,
        _of(publisher),
        publisher.state,
        since,
        "\n".join(filter(None, (seen, publisher.detail))),
    )
