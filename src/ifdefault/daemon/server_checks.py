"""The content servers behind the host: which are checked, by which questions, and what follows.

    config.forwards ──> judge (health.server_check) ──> frontend ──> outcome ──> judge ──> decide

Rules: as in `paths`; a server is asked from no uplink, but as any program of the host would ask it.
Nothing is known to be gone until it was checked. When many change at once they are decided on
together, so that there is time left for all else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from ifdefault.daemon.control.status import CheckedServer
from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.paths import Post
from ifdefault.health import server_check
from ifdefault.ipc.messages import Send
from ifdefault.kernel import open_probe_sockets
from ifdefault.model.address import family_of
from ifdefault.model.config import Config, ForwardConfig
from ifdefault.model.health import ServerHealth, Verdict
from ifdefault.plan import servers
from ifdefault.plan.servers import Server, server_text, title

NUMBER = 1 << 20  # in messages to the frontend, where paths have theirs, and far fewer
_SHARE = 4  # of the time at most one part in so many goes into deciding
_TOLD = 3  # services that are named for one server
_CAUSES = {"refused": "connection refused"}


class ServerChecks:
    """`decide` is called soon after servers have gone or come back."""

    def __init__(self, post: Post, event_log: EventLog, decide: Callable[[], None]) -> None:
        self._post, self._event_log, self._decide = post, event_log, decide
        self._judge = server_check.ServerJudge()
        self._forwards: tuple[ForwardConfig, ...] = ()
        self._checks: dict[Server, str] = {}
        self._users: dict[Server, list[ForwardConfig]] = {}
        self._titled: list[tuple[str, Server]] = []
        self._decided_s = self._cost_s = 0.0
        self.owes = False  # whether a decision is yet to be made

    @property
    def gone(self) -> tuple[Server, ...]:
        return self._judge.gone

    @property
    def wake_s(self) -> float:
        return self._judge.wake_s

    def follow(self, now: float, config: Config) -> None:
        """Take in which servers there are."""
        if config.forwards == self._forwards:
            return
        self._forwards, self._checks = config.forwards, servers.checks(config.forwards)
        self._users, self._titled = {}, []
        for forward in config.forwards:
            for server in servers.places(forward):
                self._users.setdefault(server, []).append(forward)
                self._titled.append((title(forward), server))
        self._judge.follow(now, self._checks)

    def ask(self, now: float) -> None:
        """Send what is due."""
        for seq, server in self._judge.asks(now):
            if not self._send(seq, server):
                self._judge.observe(now, seq, "local", "")

    def _send(self, seq: int, server: Server) -> bool:
        address, port = server
        check = self._checks[server]
        message = Send(
            path=NUMBER,
            seq=seq,
            kind="tcp" if check == "tcp" else "http",
            address=address,
            port=port,
            host=address,
            query="" if check == "tcp" else check,
            statuses=(),
            timeout_ms=round(server_check.TIMEOUT_S * 1000),
        )
        try:
            with open_probe_sockets.unbound_socket(family_of(address)) as sock:
                self._post(message, (sock.fileno(),))
        except OSError:
            return False
        return True

    def hear(self, now: float, seq: int, verdict: Verdict, detail: str) -> None:
        """An outcome, as the frontend tells it."""
        if verdict == "answered" and detail == "refused":
            verdict = "wrong"  # it proves a path, and no server
        changed = self._judge.observe(now, seq, verdict, _CAUSES.get(detail, detail) or "answers")
        if changed and self._tell(changed) and not self.owes:
            self.owes = True
            at_s = max(now, self._decided_s + _SHARE * self._cost_s)
            asyncio.get_running_loop().call_at(at_s, self._decide_now)

    def _decide_now(self) -> None:
        begun_s, self.owes = time.monotonic(), False
        self._decide()
        self._decided_s = time.monotonic()
        self._cost_s = self._decided_s - begun_s

    def _tell(self, changed: ServerHealth) -> bool:
        """Whether something follows: that a server answers at all is no news."""
        server = changed.address, changed.port
        is_gone = changed.state == "gone"
        users = self._users.get(server, [])
        if not is_gone and changed.was == "unproven":
            return False
        what = f"{server_text(server)} is {'gone' if is_gone else 'back'} ({changed.cause})"
        for forward in users[:_TOLD]:
            text = f"forward {title(forward)}: {what}, {self._left(forward, server)}"
            level = logging.WARNING if is_gone else logging.INFO
            self._event_log.note("content", text, level=level)
        if (rest := len(users) - _TOLD) > 0:
            self._event_log.note("content", f"{rest} more services: {what}")
        return True

    def _left(self, forward: ForwardConfig, server: Server) -> str:
        """ "1 of 2 left": how many of those that share this server's work still do it."""
        family = family_of(server[0])
        pools = (servers.pool(forward, ports, family) for ports in forward.listen)
        its = next((pool for pool in pools if server in pool), None)
        if its is None:
            return "it drained"
        left = len(its.keys() - set(self.gone))
        return f"{left or 'none'} of {len(its)} left"

    def standing(self) -> tuple[CheckedServer, ...]:
        health = self._judge.health()
        return tuple(
            CheckedServer(name, *server, h.state, h.since_s, h.cause)
            for name, server in self._titled
            for h in (health[server],)
        )
