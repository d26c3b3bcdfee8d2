"""The servers of forwarded services: which are checked, by which questions, and what follows.

    Config.forwards ──> judge (health.server_check) ──> SendProbe ──> ProbeOutcome ──> down

Rules: as in `paths`; a server is asked from no uplink, but as any program of the host would ask it.
None is known to be down before it was checked.
"""

from __future__ import annotations

from ifdefault.daemon.controller.effects import SERVER_CHECKS, Effect, Log, SendProbe
from ifdefault.daemon.controller.events import ProbeOutcome
from ifdefault.daemon.status import CheckedServer
from ifdefault.health import server_check
from ifdefault.model.address import family_of
from ifdefault.model.config import Config, ForwardConfig, ProbeKind
from ifdefault.model.health import ServerHealth
from ifdefault.plan import servers
from ifdefault.plan.servers import Server, server_text, title

_TOLD = 3  # services that are named for one server
_CAUSES = {"refused": "connection refused"}


class ServerChecks:
    """Effects are appended to `out`, but for `probes`, which come after all else in a turn."""

    def __init__(self, out: list[Effect]) -> None:
        self._out = out
        self.probes: list[SendProbe] = []
        self._checker = server_check.ServerChecker()
        self._forwards: tuple[ForwardConfig, ...] = ()
        self._checks: dict[Server, str] = {}
        self._users: dict[Server, list[ForwardConfig]] = {}
        self._titled: list[tuple[str, Server]] = []

    @property
    def down(self) -> tuple[Server, ...]:
        return self._checker.down

    @property
    def wake_s(self) -> float:
        return self._checker.wake_s

    def follow(self, now: float, config: Config) -> None:
        """Take in which servers there are."""
        if config.forwards == self._forwards:
            return
        self._forwards, self._checks = config.forwards, servers.checks(config.forwards)
        self._users, self._titled = {}, []
        for forward in config.forwards:
            for server in servers.checked_addresses(forward):
                self._users.setdefault(server, []).append(forward)
                self._titled.append((title(forward), server))
        self._checker.set_servers(now, self._checks)

    def ask(self, now: float) -> None:
        """Send what is due."""
        for seq, (address, port) in self._checker.asks(now):
            check = self._checks[address, port]
            kind: ProbeKind = "tcp" if check == "tcp" else "http"
            query = "" if check == "tcp" else check
            timeout_ms = round(server_check.TIMEOUT_S * 1000)
            what = (port, address, query, (), timeout_ms)
            self.probes.append(SendProbe(SERVER_CHECKS, seq, kind, address, *what, None))

    def observe(self, now: float, outcome: ProbeOutcome) -> bool:
        """Take in the outcome of a check; whether a server has down, or come back."""
        verdict, detail = outcome.verdict, outcome.detail
        if verdict == "answered" and detail == "refused":
            verdict = "wrong"  # it proves a path, and no server
        cause = _CAUSES.get(detail, detail) or "answers"
        changed = self._checker.observe(now, outcome.seq, verdict, cause)
        return changed is not None and self._tell(changed)

    def _tell(self, changed: ServerHealth) -> bool:
        """Whether something follows: that a server answers at all is no news."""
        server = changed.address, changed.port
        was_down = changed.state == "down"
        users = self._users.get(server, [])
        if not was_down and changed.was == "unproven":
            return False
        what = f"{server_text(server)} is {'down' if was_down else 'back'} ({changed.cause})"
        for forward in users[:_TOLD]:
            text = f"forward {title(forward)}: {what}, {self._left(forward, server)}"
            self._out.append(Log("server", text, level="warning" if was_down else "info"))
        if (rest := len(users) - _TOLD) > 0:
            self._out.append(Log("server", f"{rest} more services: {what}"))
        return True

    def _left(self, forward: ForwardConfig, server: Server) -> str:
        """ "1 of 2 left": how many of those that share this server's work still do it."""
        family = family_of(server[0])
        pools = (servers.pool(forward, ports, family) for ports in forward.listen)
        mine = next((pool for pool in pools if server in pool), None)
        if mine is None:
            return "it drained"
        left = sum(each not in self.down for each in mine)
        return f"{left or 'none'} of {len(mine)} left"

    def checked(self) -> tuple[CheckedServer, ...]:
        """Each server of each service, as it is judged."""
        health = self._checker.health()
        found = ((name, health[server]) for name, server in self._titled if server in health)
        return tuple(
            CheckedServer(name, h.address, h.port, h.state, h.since_s, h.cause) for name, h in found
        )
