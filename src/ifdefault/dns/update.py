"""Dynamic updates (RFC 2136) of a name: the records to add and remove, the server, and the timing.

    want ──> due ── change ──> accepted ──> query ── as wanted ──> query again in 10 minutes
              ^                               │
              └── failed: wait, retry ────────┴── different: update again, once a minute

Rules: `now` is an argument. Only records that are or may be *ours* are added and removed, one by
one, so that hosts can share a name. An address is ours before its UPDATE is sent, and until its
removal is certain: when no server can still apply an earlier UPDATE with an unknown outcome.
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
CALM_S = 600.0  # between queries while everything is as wanted
UNKNOWN_OUTCOME_S = 300.0  # how long a server accepts a signature (RFC 8945, 10)
SETTLE_S = 2.0  # a server may answer from a cache
RESTORE_S = 60.0  # another program may keep removing our records
RECORDS_MAX = 64  # in one message


class HasFamily(Protocol):
    @property
    def family(self) -> int: ...


W = TypeVar("W", bound=HasFamily)


@dataclass(frozen=True, slots=True)
class Change:
    """The contents of an UPDATE: records to remove, then records to add."""

    ttl: int
    add: tuple[str, ...]
    remove: tuple[str, ...]


def differences(
    seen: Collection[str], wanted: Collection[str], ours: Collection[str]
) -> frozenset[str]:
    """Our addresses of a name that are missing from the observed ones, or should not be there.
    Other hosts' addresses don't count."""
    return frozenset(wanted) - set(seen) | (frozenset(ours) - set(wanted)) & set(seen)


def usable_ways(server: Endpoint, ways: Iterable[W]) -> tuple[W, ...]:
    return tuple(way for way in ways if way.family == family_of(server.address))


def choose_server(
    servers: Sequence[Endpoint],
    ways: Sequence[W],
    failed_s: Mapping[tuple[Endpoint, W], float],
) -> tuple[Endpoint, W] | None:
    """The next server and way to try: the first server by the best way, or the pair whose last
    failure is the oldest, varying servers and ways; None if no way leads to any server."""
    ways_by_server = [usable_ways(server, ways) for server in servers]
    pairs = [
        (server, usable[(turn + index) % len(usable)])
        for turn in range(len(ways))
        for index, (server, usable) in enumerate(zip(servers, ways_by_server, strict=True))
        if turn < len(usable)
    ]
    return min(pairs, key=lambda pair: failed_s.get(pair, -inf), default=None)


def pause_s(failures: int, servers: int) -> float:
    """The delay after so many failures in a row; 0 until each server was tried once."""
    doublings = failures - servers
    if doublings < 0:
        return 0.0
    return min(FIRST_WAIT_S * 2.0 ** min(doublings, 16), LONGEST_WAIT_S)


class UpdateState:
    """The state of one name in one zone: wanted and observed addresses."""

    def __init__(self, ours: Iterable[str] = ()) -> None:
        self.ours = frozenset(ours)
        self.wanted: frozenset[str] = frozenset()
        self.ttl = 1
        self._sent_ttl = 0  # unknown
        self.due_s = inf  # when to send an UPDATE; inf if it was accepted
        self.look_s = inf  # when to query the servers
        self._failures = self._looks = 0
        self._unknown_until_s = -inf  # an UPDATE with an unknown outcome may be applied until then
        self._accepted_s = self._restored_s = -inf
        self._confirmed = False  # observed to be as wanted since it was accepted

    def want(self, now: float, addresses: Iterable[str], ttl: int) -> bool:
        """Set the wanted addresses; return whether they changed. `ours` grows, and must be saved
        before the UPDATE is sent."""
        wanted = frozenset(addresses)
        if (wanted, ttl) == (self.wanted, self.ttl) and (self.due_s, self.look_s) != (inf, inf):
            return False
        self.wanted, self.ttl = wanted, ttl
        self.ours |= wanted
        return self.retry(now, anyway=True)

    @property
    def is_done(self) -> bool:
        """Whether no record of ours exists or is wanted."""
        return not self.ours and self.due_s == inf

    def retry(self, now: float, *, anyway: bool = False) -> bool:
        """Send a pending UPDATE at once, as there may be better ways now; with `anyway` even if
        none is pending. Return whether one is sent."""
        self._failures = 0
        if self.due_s == inf and not anyway:
            return False
        self.due_s, self.look_s = now, inf
        return True

    def change(self) -> Change:
        """The UPDATE to send."""
        add, stale = sorted(self.wanted), sorted(self.ours - self.wanted)
        # Knot ignores a new TTL of an existing record, so remove it first
        replaced = add if self.ttl != self._sent_ttl else []
        remove = (stale[: RECORDS_MAX - len(replaced)], replaced)
        return Change(self.ttl, tuple(add), tuple(chain(*remove)))

    def failed(self, now: float, servers: int) -> None:
        self._failures += 1
        self.due_s = now + pause_s(self._failures, servers)

    def outcome_unknown(self, now: float) -> None:
        """An UPDATE may or may not have been applied."""
        self._unknown_until_s = now + UNKNOWN_OUTCOME_S

    def accepted(self, now: float, change: Change) -> None:
        """A server has applied the UPDATE."""
        if now >= self._unknown_until_s:
            self.ours -= set(change.remove) - set(change.add)
        self._sent_ttl = change.ttl
        rest = len(self.ours - self.wanted) > 0 and len(change.remove) == RECORDS_MAX
        self.due_s = now if rest else inf
        self._failures, self._looks = 0, 1
        self._accepted_s, self._confirmed = now, False
        self.look_s = now + LOOKS_S[0]

    def observed(
        self, now: float, seen: Collection[str] | None, *, all_fit: bool
    ) -> frozenset[str]:
        """Record the addresses `seen` at the server that accepted the UPDATE, None if it didn't
        respond; `all_fit`: all servers have the wanted addresses. Return the differences if they
        cause another UPDATE."""
        different = frozenset() if seen is None else differences(seen, self.wanted, self.ours)
        is_unknown = now < self._unknown_until_s
        if seen is not None and not different:
            self._confirmed = True
            if not is_unknown:
                self.ours = self.wanted
        calm = all_fit and not is_unknown
        self.look_s = now + (CALM_S if calm else LOOKS_S[min(self._looks, len(LOOKS_S) - 1)])
        self._looks = 0 if calm else self._looks + 1
        settled_s = self._accepted_s + (0.0 if self._confirmed else SETTLE_S)
        if not different or now < max(settled_s, self._restored_s + RESTORE_S):
            return frozenset()
        self._restored_s = self.due_s = now
        return different
