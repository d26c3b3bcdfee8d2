"""RFC 2136: what to add and to remove of a name, by which server and way, and when to look.

    want ──> due ── change ──> taken ──> look ── fits ──> calm: look again in 10 minutes
              ^                            │
              └── failed: later, else ─────┴── gone, or back: once more, once a minute

Rules: `now` is an argument. Records are added and removed one by one, and of no others but those
that are or may be *ours*: so hosts can share a name. An address is ours before it is said, and
until its removal is certain: no server can any more carry out an UPDATE that came to no end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import inf
from typing import Protocol, TypeVar

from ifdefault.model.address import family_of
from ifdefault.model.dns import Endpoint

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0
LOOKS_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0)
CALM_S = 600.0
DOUBT_S = 300.0  # so long a server takes what was signed (RFC 8945, 10)
SETTLE_S = 2.0  # a server may answer from a cache
RESTORE_S = 60.0  # whoever takes records of ours away may go on doing so
MOST = 64  # records in one message


class HasFamily(Protocol):
    @property
    def family(self) -> int: ...


W = TypeVar("W", bound=HasFamily)


@dataclass(frozen=True, slots=True)
class Change:
    """What an UPDATE asks for: first to remove, then to add."""

    ttl: int
    add: tuple[str, ...]
    remove: tuple[str, ...]


def wrong(seen: Collection[str], wanted: Collection[str], ours: Collection[str]) -> frozenset[str]:
    """Of what is seen of a name: what should be there, or shouldn't. Others' doesn't count."""
    return frozenset(wanted) - set(seen) | (frozenset(ours) - set(wanted)) & set(seen)


def fitting(server: Endpoint, ways: Iterable[W]) -> tuple[W, ...]:
    return tuple(way for way in ways if way.family == family_of(server.address))


def choose(
    servers: Sequence[Endpoint],
    ways: Sequence[W],
    failed_s: Mapping[tuple[Endpoint, W], float],
) -> tuple[Endpoint, W] | None:
    """Whom to tell next, and by which way: the first server by the best way, or what hasn't failed
    for the longest time, each time another server by another way; None if no way leads anywhere."""
    fit = [fitting(server, ways) for server in servers]
    pairs = [
        (server, its[(turn + at) % len(its)])
        for turn in range(len(ways))
        for at, (server, its) in enumerate(zip(servers, fit, strict=True))
        if turn < len(its)
    ]
    return min(pairs, key=lambda pair: failed_s.get(pair, -inf), default=None)


def pause_s(failures: int, servers: int) -> float:
    """How long to wait after so many failures in a row: not before each server was tried once."""
    doublings = failures - servers
    if doublings < 0:
        return 0.0
    return min(FIRST_WAIT_S * 2.0 ** min(doublings, 16), LONGEST_WAIT_S)


class UpdateState:
    """One name in one zone, from what is to be said of it to what is seen of it."""

    def __init__(self, ours: Iterable[str] = ()) -> None:
        self.ours = frozenset(ours)
        self.wanted: frozenset[str] = frozenset()
        self.ttl = 1
        self._said_ttl = 0  # not known
        self.due_s = inf  # when to say it; never, if it was taken
        self.look_s = inf
        self._failures = self._looks = 0
        self._doubt_s = -inf  # until then an UPDATE that came to no end may be carried out
        self._taken_s = self._restored_s = -inf
        self._held = False  # whether it was once seen to be right since it was taken

    def want(self, now: float, addresses: Iterable[str], ttl: int) -> bool:
        """Say this from now on; whether it is anything else than before. `ours`, which has grown,
        must be remembered before it is said."""
        wanted = frozenset(addresses)
        if (wanted, ttl) == (self.wanted, self.ttl) and (self.due_s, self.look_s) != (inf, inf):
            return False
        self.wanted, self.ttl = wanted, ttl
        self.ours |= wanted
        return self.retry(now, anyway=True)

    @property
    def over(self) -> bool:
        """Whether nothing of ours is there, nor is to be."""
        return not self.ours and self.due_s == inf

    def retry(self, now: float, *, anyway: bool = False) -> bool:
        """If anything is left to say, or anyway, say it at once: there may be better ways now."""
        self._failures = 0
        if self.due_s == inf and not anyway:
            return False
        self.due_s, self.look_s = now, inf
        return True

    def change(self) -> Change:
        add, stale = sorted(self.wanted), sorted(self.ours - self.wanted)
        # Knot takes the TTL of a record that is there already for nothing new
        anew = add if self.ttl != self._said_ttl else []
        remove = (stale[: MOST - len(anew)], anew)
        return Change(self.ttl, tuple(add), tuple(chain(*remove)))

    def failed(self, now: float, servers: int) -> None:
        self._failures += 1
        self.due_s = now + pause_s(self._failures, servers)

    def doubt(self, now: float) -> None:
        """An UPDATE came to no end that we know."""
        self._doubt_s = now + DOUBT_S

    def taken(self, now: float, change: Change) -> None:
        """A server says that it is done."""
        if now >= self._doubt_s:
            self.ours -= set(change.remove) - set(change.add)
        self._said_ttl = change.ttl
        rest = len(self.ours - self.wanted) > 0 and len(change.remove) == MOST
        self.due_s = now if rest else inf
        self._failures, self._looks = 0, 1
        self._taken_s, self._held = now, False
        self.look_s = now + LOOKS_S[0]

    def looked(self, now: float, seen: Collection[str] | None, *, all_fit: bool) -> frozenset[str]:
        """What is seen at the server that took it, None if nothing; and whether all servers say
        the same. What is wrong there is returned, if it is therefore said once more."""
        bad = frozenset() if seen is None else wrong(seen, self.wanted, self.ours)
        doubted = now < self._doubt_s
        if seen is not None and not bad:
            self._held = True
            if not doubted:
                self.ours = self.wanted
        calm = all_fit and not doubted
        self.look_s = now + (CALM_S if calm else LOOKS_S[min(self._looks, len(LOOKS_S) - 1)])
        self._looks = 0 if calm else self._looks + 1
        settled_s = self._taken_s + (0.0 if self._held else SETTLE_S)
        if not bad or now < max(settled_s, self._restored_s + RESTORE_S):
            return frozenset()
        self._restored_s = self.due_s = now
        return bad
