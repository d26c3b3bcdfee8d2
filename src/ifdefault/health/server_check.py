"""Whether the content servers behind the host answer.

    unproven ── an answer ──> up ── two failures in a row ──> down ── two answers in a row ──> up
        └───────────────── two failures in a row ────────────> down

Rules: one failure is asked about once more at once, since a server may be busy for a moment, and
the next decides. A refusal is a failure: there is nothing between us and the server that would
refuse for it. What went wrong on our own side is no evidence. However many servers there are, only
so many are asked a second, the longest overdue first.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from ifdefault.model.health import ServerHealth, ServerState, Verdict

ServerAddress = tuple[str, int]  # address, port

INTERVAL_S = 2.0  # between checks of a server, while they aren't too many
TIMEOUT_S = 1.0
AGAIN_S = 0.3  # after a first failure
HOLD_S = 1.0  # after the first answer of one that was down
PACE_S = 0.02  # between any two checks
_SPARE = 1.25  # room for what is asked out of turn
_MUTE_S = TIMEOUT_S + 2.0  # no outcome came at all: whoever was to ask has ended


@dataclass(slots=True)
class _Judged:
    health: ServerHealth
    due_s: float
    asked_s: float = 0.0
    seq: int = -1  # of the check that is under way
    streak: int = 0  # failures in a row, of one that is down answers


class ServerJudge:
    def __init__(self) -> None:
        self._servers: dict[ServerAddress, _Judged] = {}
        self._asked: dict[int, ServerAddress] = {}
        self._due: list[
            tuple[float, ServerAddress]
        ] = []  # a heap; what isn't its server's due_s is void
        self._seqs = itertools.count()
        self._free_s = 0.0  # when the pace allows the next check
        self.down: tuple[ServerAddress, ...] = ()

    def follow(self, now: float, servers: Iterable[ServerAddress]) -> None:
        """These are to be checked from now on; the new ones among them soon."""
        wanted = dict.fromkeys(servers)
        for server in [server for server in self._servers if server not in wanted]:
            self._asked.pop(self._servers.pop(server).seq, None)
        for server in wanted:
            if server not in self._servers:
                health = ServerHealth(*server, "unproven", "unproven", now, "not checked yet")
                self._servers[server] = _Judged(health, now)
        self._due = [(judged.due_s, server) for server, judged in self._servers.items()]
        heapq.heapify(self._due)
        self._list_down()

    @property
    def interval_s(self) -> float:
        return max(INTERVAL_S, len(self._servers) * PACE_S * _SPARE)

    @property
    def wake_s(self) -> float:
        """When `asks` must be called next."""
        return max(self._due[0][0], self._free_s) if self._due else float("inf")

    def asks(self, now: float) -> list[tuple[int, ServerAddress]]:
        """What to check now: (sequence number, server)."""
        found = []
        while self._due and self.wake_s <= now:
            due_s, server = heapq.heappop(self._due)
            judged = self._servers.get(server)
            if judged is None or judged.due_s != due_s:
                continue
            self._asked.pop(judged.seq, None)
            judged.seq, judged.asked_s = next(self._seqs), now
            self._asked[judged.seq] = server
            self._put_off(server, judged, now + _MUTE_S)
            self._free_s = now + PACE_S
            found.append((judged.seq, server))
        return found

    def observe(self, now: float, seq: int, verdict: Verdict, cause: str) -> ServerHealth | None:
        """Take in what came of a check; what the server has become, if that is something else."""
        server = self._asked.pop(seq, None)
        if server is None:
            return None  # it came late, or nobody wants to know any more
        judged = self._servers[server]
        judged.seq = -1
        if verdict == "local":
            self._put_off(server, judged, now + self.interval_s)
            return None
        was = judged.health
        is_good, was_down = verdict == "answered", was.state == "down"
        judged.streak = judged.streak + 1 if is_good == was_down else 0
        soon_s = HOLD_S if was_down else AGAIN_S
        wait_s = now + soon_s if judged.streak == 1 else judged.asked_s + self.interval_s
        self._put_off(server, judged, max(wait_s, now))
        if judged.streak >= 2 or (is_good and was.state == "unproven"):
            judged.streak = 0
            state: ServerState = "up" if is_good else "down"
            judged.health = ServerHealth(*server, was.state, state, now, cause)
            self._list_down()
            return judged.health
        return None

    def health(self) -> dict[ServerAddress, ServerHealth]:
        return {server: judged.health for server, judged in self._servers.items()}

    def _put_off(self, server: ServerAddress, judged: _Judged, due_s: float) -> None:
        judged.due_s = due_s
        heapq.heappush(self._due, (due_s, server))

    def _list_down(self) -> None:
        down = (server for server, j in self._servers.items() if j.health.state == "down")
        self.down = tuple(sorted(down))
