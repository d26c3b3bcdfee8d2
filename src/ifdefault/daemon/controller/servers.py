"""Checks the servers of `[[forward]]` services.

    Config.forwards ──> health.server_check ──> SendProbe ──> ProbeOutcome ──> down

Rules: as in `paths`, but a check is not bound to an uplink: it is sent like any program's packets.
A server counts as up until a check says otherwise.
"""

from __future__ import annotations

from ifdefault.daemon.controller.effects import SERVER_CHECKS, Effect, Log, SendProbe
from ifdefault.daemon.controller.events import ProbeOutcome
from ifdefault.health import server_check
from ifdefault.model.address import family_of
from ifdefault.model.config import Config, ForwardConfig, ProbeKind
from ifdefault.model.health import ServerHealth
from ifdefault.model.report import CheckedServer
from ifdefault.plan import servers
from ifdefault.plan.servers import Server, server_text, title

_LOGGED = 3  # services named for one server
_CAUSES = {"refused": "connection refused"}


class ServerChecks:
    """Effects are appended to `out`, except `probes`, which are sent last in a turn."""

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

    def update(self, now: float, config: Config) -> None:
        """Check the servers of this config from now on."""
        if config.forwards == self._forwards:
            return
        self._forwards, self._checks = config.forwards, servers.checks(config.forwards)
        self._users, self._titled = {}, []
        for forward in config.forwards:
            for server in servers.checked_addresses(forward):
                self._users.setdefault(server, []).append(forward)
                self._titled.append((title(forward), server))
        self._checker.set_servers(now, self._checks)

    def send_due(self, now: float) -> None:
        """Send the checks that are due."""
        for seq, (address, port) in self._checker.asks(now):
            check = self._checks[address, port]
            kind: ProbeKind = "tcp" if check == "tcp" else "http"
            query = "" if check == "tcp" else check
            timeout_ms = round(server_check.TIMEOUT_S * 1000)
            what = (port, address, query, (), timeout_ms)
            self.probes.append(SendProbe(SERVER_CHECKS, seq, kind, address, *what, None))

    def observe(self, now: float, outcome: ProbeOutcome) -> bool:
        """Process the outcome of a check; whether a server went down or came back."""
        verdict, detail = outcome.verdict, outcome.detail
        if verdict == "answered" and detail == "refused":
            verdict = "wrong"  # a refusal proves that a path works, but not a server
        cause = _CAUSES.get(detail, detail) or "answers"
        changed = self._checker.observe(now, outcome.seq, verdict, cause)
        return changed is not None and self._log(changed)

    def _log(self, changed: ServerHealth) -> bool:
        """Log a change; False for a first answer, which changes nothing."""
        server = changed.address, changed.port
        was_down = changed.state == "down"
        users = self._users.get(server, [])
        if not was_down and changed.was == "unproven":
            return False
        what = f"{server_text(server)} is {'down' if was_down else 'back'} ({changed.cause})"
        for forward in users[:_LOGGED]:
            text = f"forward {title(forward)}: {what}, {self._left(forward, server)}"
            self._out.append(Log("server", text, severity="warning" if was_down else "info"))
        if (rest := len(users) - _LOGGED) > 0:
            self._out.append(Log("server", f"{rest} more services: {what}"))
        return True

    def _left(self, forward: ForwardConfig, server: Server) -> str:
        """ "1 of 2 left": how many of the servers of the same pool are still up."""
        family = family_of(server[0])
        pools = (servers.pool(forward, ports, family) for ports in forward.listen)
        mine = next((pool for pool in pools if server in pool), None)
        if mine is None:
            return "it was draining"
        left = sum(s not in self.down for s in mine)
        return f"{left or 'none'} of {len(mine)} left"

    def checked(self) -> tuple[CheckedServer, ...]:
        """The state of each server of each service."""
        health = self._checker.health()
        checked = ((name, health[server]) for name, server in self._titled if server in health)
        return tuple(
            CheckedServer(name, h.address, h.port, h.state, h.since_s, h.cause)
            for name, h in checked
        )
