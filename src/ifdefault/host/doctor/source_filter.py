"""Whether a provider drops packets from another provider's address (BCP 38, RFC 2827).

    echo request from B's address ── A's router ── target ── B's router ── reply

Rules: the request is handed to A's router by a packet socket, so that no rule or route is touched.
It is tried only where both ways work by themselves; otherwise no reply would mean nothing.
"""

from __future__ import annotations

from ifdefault.host.doctor.echo import Echo, exchange, patience_s
from ifdefault.host.doctor.ways import Tried
from ifdefault.model.address import is_private
from ifdefault.model.findings import Finding

_TARGETS = 3


def examine(one: Tried, other: Tried) -> Finding | None:
    """What A's provider does with B's packets; None if it can't be tried. Raises OSError."""
    a, b = one.line.way, other.line.way
    if one.router is None or not one.answering or not other.answering:
        return None
    if is_private(a.address) or is_private(b.address) or a.address == b.address:
        return None
    targets = list(other.answering)[:_TARGETS]
    within_s = patience_s(max(other.answering[target] for target in targets))
    echoes = [Echo(target) for target in targets]
    passed = exchange(b, echoes, within_s=within_s, through=one.router).rtt_s
    if passed:
        what = f"the provider forwards packets from {b.uplink}'s address ({b.address})"
    else:
        what = f"the provider drops packets from {b.uplink}'s address, as most do"
    return Finding("fact", one.line.subject, what)
