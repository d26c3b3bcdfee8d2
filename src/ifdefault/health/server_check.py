"""The failure detector of the servers behind the host.

    unproven ── an answer ──> up ── two failures in a row ──> down ── two answers in a row ──> up
        └───────────────── two failures in a row ────────────> down

Rules: a failed check is repeated soon, since a server may be busy for a moment, and the second one
decides. A refused connection is a failure: nothing but the server itself would refuse it. Local
errors aren't evidence. The number of checks per second is limited, however many servers there are;
the one that is longest overdue comes first.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from ifdefault.model.health import ServerHealth, ServerState, Verdict

ServerAddress = tuple[str, int]  # address, port

INTERVAL_S = 2.0  # between checks of a server, unless there are too many
TIMEOUT_S = 1.0
RETRY_S = 0.3  # after a first failure
HOLD_S = 1.0  # after the first answer of a server that was down
PACE_S = 0.02  # between any two checks
_SPARE = 1.25  # reserve for repeated checks
_NO_OUTCOME_S = TIMEOUT_S + 2.0  # the process that performed the check has ended


@dataclass(slots=True)
class _Server:
    health: ServerHealth
    due_s: float
    asked_s: float = 0.0
    seq: int = -1  # of the check in progress
    streak: int = 0  # failures in a row, or answers if it is down


class ServerChecker:
    """Schedules the checks of servers, and detects failures by their outcomes."""

    def __init__(self) -> None:
        self._servers: dict[ServerAddress, _Server] = {}
        self._asked: dict[int, ServerAddress] = {}
        # a heap; an entry is void if it differs from its server's due_s
        self._due: list[tuple[float, ServerAddress]] = []
        self._seq = 0  # of the next check
        self._free_s = 0.0  # when PACE_S allows the next check
        self.down: tuple[ServerAddress, ...] = ()

    def set_servers(self, now: float, servers: Iterable[ServerAddress]) -> None:
        """Check these servers from now on; new ones as soon as possible."""
        wanted = dict.fromkeys(servers)
        for server in [server for server in self._servers if server not in wanted]:
            self._asked.pop(self._servers.pop(server).seq, None)
        for server in wanted:
            if server not in self._servers:
                health = ServerHealth(*server, "unproven", "unproven", now, "not checked yet")
                self._servers[server] = _Server(health, now)
        self._due = [(entry.due_s, server) for server, entry in self._servers.items()]
        heapq.heapify(self._due)
        self._update_down()

    @property
    def interval_s(self) -> float:
        return max(INTERVAL_S, len(self._servers) * PACE_S * _SPARE)

    @property
    def wake_s(self) -> float:
        """When `asks` must be called next."""
        return max(self._due[0][0], self._free_s) if self._due else float("inf")

    def asks(self, now: float) -> list[tuple[int, ServerAddress]]:
        """What to check now: (sequence number, server)."""
        checks = []
        while self._due and self.wake_s <= now:
            due_s, server = heapq.heappop(self._due)
            entry = self._servers.get(server)
            if entry is None or entry.due_s != due_s:
                continue
            self._asked.pop(entry.seq, None)
            entry.seq, entry.asked_s = self._seq, now
            self._seq += 1
            self._asked[entry.seq] = server
            self._schedule(server, entry, now + _NO_OUTCOME_S)
            self._free_s = now + PACE_S
            checks.append((entry.seq, server))
        return checks

    def observe(self, now: float, seq: int, verdict: Verdict, cause: str) -> ServerHealth | None:
        """Record the outcome of a check; return the server's health if its state changed."""
        server = self._asked.pop(seq, None)
        if server is None:
            return None  # too late, or the server was removed
        entry = self._servers[server]
        entry.seq = -1
        if verdict == "local":
            self._schedule(server, entry, now + self.interval_s)
            return None
        was = entry.health
        is_good, was_down = verdict == "answered", was.state == "down"
        entry.streak = entry.streak + 1 if is_good == was_down else 0
        delay_s = HOLD_S if was_down else RETRY_S
        wait_s = now + delay_s if entry.streak == 1 else entry.asked_s + self.interval_s
        self._schedule(server, entry, max(wait_s, now))
        if entry.streak >= 2 or (is_good and was.state == "unproven"):
            entry.streak = 0
            state: ServerState = "up" if is_good else "down"
            entry.health = ServerHealth(*server, was.state, state, now, cause)
            self._update_down()
            return entry.health
        return None

    def health(self) -> dict[ServerAddress, ServerHealth]:
        return {server: entry.health for server, entry in self._servers.items()}

    def _schedule(self, server: ServerAddress, entry: _Server, due_s: float) -> None:
        entry.due_s = due_s
        heapq.heappush(self._due, (due_s, server))

    def _update_down(self) -> None:
        down = (server for server, j in self._servers.items() if j.health.state == "down")
        self.down = tuple(sorted(down))
