"""The largest packet that passes a path, and whether routers say so of what is larger.

    the full size ── answered? ── it fits
                  ── an ICMP error names an MTU? ── path MTU discovery works (RFC 1191, RFC 8201)
                  ── neither: a black hole; its edge is searched for

Rules: packets mustn't be fragmented, and what the kernel knows of the path isn't used. Several
targets are asked, since some answer no large requests at all; one answer is enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ifdefault.host.doctor.echo import SMALL, Echo, exchange, patience_s
from ifdefault.model.health import Way

_MINIMUM = {4: 576, 6: 1280}  # RFC 1122, 3.3.2; RFC 8200, 5
_TARGETS, _SIZES, _ROUNDS = 3, 16, 3
_COMMON = (1280, 1400, 1420, 1428, 1440, 1452, 1456, 1460, 1472, 1480, 1492, 1500)


@dataclass(frozen=True, slots=True)
class PathMtu:
    """`size`: the largest that passed; `limit`: of the link or route; `router`: says so, "" if none
    does. `asked`: the targets that answered."""

    size: int
    limit: int
    router: str = ""
    asked: int = 0


def measure(way: Way, rtts_s: Mapping[str, float], limit: int) -> PathMtu | None:
    """By targets that answer, with their round trip times. None if even the smallest packets that
    must pass aren't answered. Raises OSError."""
    targets = list(rtts_s)[:_TARGETS]
    within_s = patience_s(max(rtts_s[target] for target in targets))
    full = exchange(way, [Echo(target, limit) for target in targets], within_s=within_s)
    if full.rtt_s:
        return PathMtu(limit, limit, asked=len(targets))
    # a router that names no MTU, or one that doesn't help, is as good as none (RFC 4821, 1)
    named = [(mtu, router) for mtu, router in full.too_big.values() if mtu >= SMALL]
    for mtu, router in sorted(named, reverse=True)[:1]:
        smaller = [Echo(target, min(mtu, limit)) for target in targets]
        fits = exchange(way, smaller, within_s=within_s)
        if fits.rtt_s:
            return PathMtu(min(mtu, limit), limit, router, len(targets))
    return _edge(way, targets, limit, within_s)


def _edge(way: Way, targets: Sequence[str], limit: int, within_s: float) -> PathMtu | None:
    """Search for the largest size that passes, some sizes at a time."""
    passed, lost = SMALL, limit
    sizes = sorted({_MINIMUM[way.family], *(n for n in _COMMON if n < limit)})
    for _ in range(_ROUNDS):
        echoes = [Echo(target, size) for target in targets for size in sizes]
        answered = {echo.size for echo in exchange(way, echoes, within_s=within_s).rtt_s}
        passed = max(answered, default=passed)
        lost = min((size for size in (*sizes, lost) if size > passed), default=lost)
        if passed == SMALL:
            return None
        sizes = between(passed, lost)
        if not sizes:
            break
    return PathMtu(passed, limit, asked=len(targets))


def between(passed: int, lost: int) -> list[int]:
    """At most so many sizes in between, evenly spaced."""
    gap = lost - passed
    step = max(1, -(-gap // (_SIZES + 1)))
    return list(range(passed + step, lost, step))
