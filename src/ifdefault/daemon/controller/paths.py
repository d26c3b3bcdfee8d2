"""The paths: an uplink in one family each, with its probe socket, its probes and its state.

Rules: `health.path` detects failures; this module connects it to the uplinks as they are now, and
to the frontend. A path whose uplink can't be used has no socket and sends no probes; only the loss
of its link can bring it down. A probe that this host can't send has the outcome "local", which is
no evidence.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from math import inf

from ifdefault.daemon.controller.effects import (
    CloseProbeSocket,
    Effect,
    OpenProbeSocket,
    ProbeSource,
    SendProbe,
    VerifyRouter,
)
from ifdefault.daemon.controller.events import ProbeOutcome, TrafficSeen
from ifdefault.daemon.controller.gateways import Gateways
from ifdefault.daemon.controller.never_worked import NeverWorked
from ifdefault.daemon.controller.probe_source import (
    link_fault,
    probe_source,
    probe_targets,
    source_fault,
)
from ifdefault.health.counts import PathCounts
from ifdefault.health.path import Path
from ifdefault.health.states import Memory
from ifdefault.model.address import is_address
from ifdefault.model.config import FAMILIES, Config, Family, HealthConfig, Probe
from ifdefault.model.health import (
    GATEWAY,
    Ask,
    Decision,
    Health,
    PathState,
    TcpStats,
    Transition,
    Way,
)
from ifdefault.model.kernel import Facts, Uplink
from ifdefault.model.kernel_events import KernelChange, LinkChanged, NeighbourChanged
from ifdefault.model.report import PathCounters

Key = tuple[str, Family]
Transitions = tuple[Transition, ...]
_TOGETHER_S = 0.01  # probes due within this time are sent in one turn
_GRACE_S = 2.0  # an uplink may lack an address or gateway for so long while it is renumbered
_RETRY_S = 0.4  # during renumbering, or after a socket couldn't be opened
_ACK_DELAY_S = 0.02  # between reading the time of an ACK, to its clock's tick, and evaluating it
_MANY = 3  # connections that stall together; a single one proves nothing


@dataclass(slots=True)
class ProbedPath:
    """A path, and what is needed to send its probes."""

    number: int  # identifies the path in messages to the frontend
    path: Path
    targets: tuple[Probe, ...]
    terms: HealthConfig
    gateway: str
    routers: tuple[str, ...] = ()  # that the kernel has defaults for, if several
    verified: bool = False  # whether the kernel was asked about the gateway's present silence
    source: ProbeSource | None = None  # None: no socket
    closed_s: float = 0.0  # when the socket was closed


class Paths:
    """Effects are appended to `out`, except `probes`, which are sent last in a turn."""

    def __init__(self, out: list[Effect]) -> None:
        self._out = out
        self.probes: list[SendProbe] = []
        self._paths: dict[Key, ProbedPath] = {}
        self._numbers: dict[int, ProbedPath] = {}
        self._last_number = 0
        self._addresses: dict[str, tuple[str, ...]] = {}  # of targets given by name
        self._own: frozenset[str] = frozenset()  # the host's addresses, which always answer
        self._unresolved: dict[str, str] = {}
        self._wake_s = inf
        self.memories: dict[Key, Memory] = {}
        self._counts: dict[Key, PathCounts] = {}
        self._never_worked = NeverWorked()
        self.gateways = Gateways(out)

    def health(self) -> tuple[Health, ...]:
        healths = (probed.path.health() for probed in self._paths.values())
        return tuple(map(self._never_worked.shown, healths))

    def degraded(self) -> tuple[str, ...]:
        """The uplinks of degraded paths."""
        return tuple(name for (name, _), t in self._paths.items() if t.path.state == "degraded")

    def counters(self) -> tuple[PathCounters, ...]:
        return tuple(self._counts[key].report(*key) for key in self._paths)

    def states(self) -> dict[Key, tuple[PathState, float]]:
        """The state of each path, and since when. One that never worked counts as down."""
        return {
            key: ("down" if key in self._never_worked.paths else t.path.state, t.path.since_s)
            for key, t in self._paths.items()
        }

    def path_states(self) -> dict[Key, PathState]:
        return {key: state for key, (state, _) in self.states().items()}

    def check_unproven(self) -> bool:
        """Find out which unproven paths never worked. True if that changed."""
        return self._never_worked.update([probed.path for probed in self._paths.values()])

    def hosts(self) -> tuple[str, ...]:
        """Target names to resolve, sorted."""
        probes = (probe for probed in self._paths.values() for probe in probed.targets)
        return tuple(sorted({probe.host for probe in probes if not is_address(probe.host)}))

    @property
    def problems(self) -> tuple[str, ...]:
        hosts = self.hosts()
        return tuple(
            f"probe target {host} doesn't resolve: {error}"
            for host, error in sorted(self._unresolved.items())
            if host in hosts
        )

    # --- which paths there are ------------------------------------------------------------

    def update(
        self, now: float, config: Config, uplinks: tuple[Uplink, ...], facts: Facts
    ) -> Transitions:
        """Add, change and remove paths according to the uplinks as they are now, and keep them in
        the uplinks' order, however late an address came."""
        self.gateways.update(now, config, uplinks, facts)
        transitions: list[Transition] = []
        links = {link.name: link for link in facts.links}
        self._own = frozenset(a.address for a in facts.addresses)
        known = {u.name for u in uplinks}
        for key in [key for key in self._paths if key[0] not in known]:
            self._remove(now, self._paths.pop(key))
        for uplink in uplinks:
            for family in FAMILIES:
                link = links.get(uplink.interface)
                source = probe_source(uplink, family, link)
                probed = self._create_or_update(
                    now, config, uplink, family, create=source is not None
                )
                if probed is None:
                    continue
                fault = link_fault(uplink.interface, link)
                if source is not None:
                    self._open(probed, source)
                else:
                    self._close(now, probed)
                    if not fault and now - probed.closed_s >= _GRACE_S:
                        fault = source_fault(uplink, family)
                transitions += probed.path.link(now, not fault, fault)
        keys = ((uplink.name, family) for uplink in uplinks for family in FAMILIES)
        self._paths = {key: self._paths[key] for key in keys if key in self._paths}
        self._set_wake_s()
        return tuple(transitions)

    def _create_or_update(
        self, now: float, config: Config, uplink: Uplink, family: Family, *, create: bool
    ) -> ProbedPath | None:
        key = (uplink.name, family)
        targets, terms = probe_targets(config, uplink.name, family), config.health
        probed = self._paths.get(key)
        if probed is None and not create:
            return None
        gateway, verified = uplink.gateway(family) or "", False
        if probed is None:
            memory = self.memories.pop(key, None)
        else:
            gateway = gateway if create else probed.gateway
            probed.routers = uplink.routers if create else probed.routers
            if (probed.targets, probed.terms, probed.gateway) == (targets, terms, gateway):
                return probed
            memory = probed.path.memory()  # targets, [health] or the router changed
            verified = True  # the silence is that of the previous router
            self._remove(now, probed)
        self._last_number += 1
        probes = [str(probe) for probe in targets]
        counts = self._counts.setdefault(key, PathCounts())
        path = Path(*key, probes, terms, now, memory, has_gateway=bool(gateway), counts=counts)
        state = (gateway, uplink.routers, verified)
        probed = ProbedPath(self._last_number, path, targets, terms, *state, closed_s=now)
        self._paths[key] = self._numbers[probed.number] = probed
        return probed

    def _remove(self, now: float, probed: ProbedPath) -> None:
        self._close(now, probed)
        del self._numbers[probed.number]

    def _open(self, probed: ProbedPath, source: ProbeSource) -> None:
        if probed.source != source:
            probed.source = source
            self._out.append(OpenProbeSocket(probed.number, source))

    def _close(self, now: float, probed: ProbedPath) -> None:
        if probed.source is not None:
            probed.source, probed.closed_s = None, now
            self._out.append(CloseProbeSocket(probed.number))

    def socket_failed(self, now: float, number: int) -> None:
        """The address isn't there yet, or no longer; tried again soon, see `retry_s`."""
        if probed := self._numbers.get(number):
            probed.source, probed.closed_s = None, now

    def reopen(self) -> None:
        """A new frontend has no sockets yet."""
        for probed in self._paths.values():
            if probed.source is not None:
                self._out.append(OpenProbeSocket(probed.number, probed.source))

    def retry_s(self, now: float) -> float:
        """When to call `update` again without any event: a socket that was closed a moment ago may
        be opened again, or the grace period of its path ends."""
        fresh = [t.closed_s for t in self._paths.values() if t.source is None]
        return now + _RETRY_S if any(now - at_s < 2 * _GRACE_S for at_s in fresh) else inf

    # --- probes and their outcomes ----------------------------------------------------------

    @property
    def wake_s(self) -> float:
        """When `send_due` must be called next."""
        return self._wake_s

    def _set_wake_s(self) -> None:
        due = (t.path.wake_s for t in self._paths.values() if t.source is not None)
        self._wake_s = min(due, default=inf)

    def send_due(self, now: float) -> Transitions:
        """Send the probes that are due."""
        transitions: list[Transition] = []
        for probed in self._paths.values():
            if probed.source is None or probed.path.wake_s > now + _TOGETHER_S:
                continue
            transitions += probed.path.tick(now)
            for ask in probed.path.asks(now):
                if not self._send(probed, probed.source, ask):
                    transitions += probed.path.observe(now, ask.seq, "local")
        self._set_wake_s()
        return tuple(transitions)

    def _send(self, probed: ProbedPath, source: ProbeSource, ask: Ask) -> bool:
        gateway = ask.target == GATEWAY
        probe = Probe("icmp", source.gateway) if gateway else probed.targets[ask.target]
        address = self._address(probe.host, source.family)
        if not address:
            return False
        timeout_ms = round(ask.timeout_s * 1000)
        what = (probe.port, probe.host, probe.path, probe.statuses, timeout_ms)
        self.probes.append(SendProbe(probed.number, ask.seq, probe.kind, address, *what, source))
        return True

    def observe(self, now: float, outcome: ProbeOutcome) -> Transitions:
        """Process a probe's outcome; the path ignores those of probes that it didn't send."""
        probed = self._numbers.get(outcome.path)
        if probed is None:
            return ()
        transitions = probed.path.observe(now, outcome.seq, outcome.verdict, outcome.rtt_us)
        self._wake_earlier(probed)
        self._verify_router(probed)
        return transitions

    def _verify_router(self, probed: ProbedPath) -> None:
        """Ask the kernel about a silent gateway, once for each silence, if there are others."""
        silent = probed.path.gateway_is_silent
        if silent and not probed.verified and probed.source and probed.gateway in probed.routers:
            self._out.append(VerifyRouter(probed.source.dev, probed.gateway))
        probed.verified = silent

    def _wake_earlier(self, probed: ProbedPath) -> None:
        """The path's next probe may be due earlier now."""
        if probed.source is not None and (wake_s := probed.path.wake_s) < self._wake_s:
            self._wake_s = wake_s

    def resolved(self, host: str, addresses: tuple[str, ...], error: str) -> None:
        """A target name's addresses; if there are none, the previous ones are kept."""
        if addresses:
            self._addresses[host] = addresses
            self._unresolved.pop(host, None)
        else:
            self._unresolved[host] = error

    def _address(self, host: str, family: Family) -> str:
        known = (host,) if is_address(host) else self._addresses.get(host, ())
        fit = (a for a in known if (":" in a) == (family == 6) and a not in self._own)
        return next(fit, "")

    def remembered(self) -> dict[Key, Memory]:
        """What to save of each path, including paths that don't exist at present."""
        return self.memories | {key: probed.path.memory() for key, probed in self._paths.items()}

    # --- other evidence -------------------------------------------------------------------

    def kernel_changed(self, now: float, change: KernelChange) -> tuple[Transitions, bool]:
        """The transitions that follow, and whether a plan may depend on the change."""
        match change:
            case LinkChanged():
                return self.link(now, change), True
            case NeighbourChanged():
                return self.neighbour(now, change), self.gateways.concern_plan(change)
        return (), True

    def link(self, now: float, event: LinkChanged) -> Transitions:
        cause = link_fault(event.name, None if event.gone else event)
        transitions: list[Transition] = []
        for probed in self._paths.values():
            if probed.source and probed.source.dev == event.name:
                transitions += probed.path.link(now, not cause, cause)
        self._set_wake_s()
        return tuple(transitions)

    def neighbour(self, now: float, event: NeighbourChanged) -> Transitions:
        """A gateway answers ARP or neighbour discovery, or no longer does."""
        if event.reachable is None:
            return ()
        transitions: list[Transition] = []
        for probed in self._paths.values():
            source = probed.source
            if source and (source.dev, source.gateway) == (event.dev, event.address):
                transitions += probed.path.neighbour(now, event.reachable)
                self._wake_earlier(probed)
        return tuple(transitions)

    def traffic(self, now: float, seen: TrafficSeen) -> Transitions:
        """Statistics of the host's TCP connections, by local address. They may confirm a path or
        make it suspect, but never bring it down: outsiders can leave connections half-open. An
        address that several paths share is no evidence for any of them."""
        by_address: dict[str, list[ProbedPath]] = {}
        for probed in self._paths.values():
            if probed.source:
                by_address.setdefault(probed.source.address, []).append(probed)
        transitions: list[Transition] = []
        for address, stats in seen.stats:
            match by_address.get(address):
                case [probed]:
                    if stats.progressed:
                        at_s = now - stats.ack_ms / 1000 - _ACK_DELAY_S
                        transitions += probed.path.confirm(now, at_s)
                    elif cause := _suspect_cause(stats):
                        probed.path.suspect(now, cause)
                    self._wake_earlier(probed)
        return tuple(transitions)

    def stand_by(self, now: float, decision: Decision, graces: Container[Key]) -> None:
        """Probe a standby sparsely while another uplink works. `graces`: paths that still carry
        connections, which end soon."""
        standby = dict(decision.standby)
        for key, probed in self._paths.items():
            name, family = key
            used = decision.usable_in(family)
            others = (self._paths.get((other, family)) for other in used)
            works = any(other and other.path.state in ("up", "degraded") for other in others)
            idle = name in standby and name not in used and key not in graces
            probed.path.stand_by(now, idle=idle and works)
        self._set_wake_s()

    def ways(self, decision: Decision) -> tuple[Way, ...]:
        """The usable paths that have a source address, best first."""
        return tuple(
            Way(name, family, probed.source.address, probed.source.dev, probed.source.mark)
            for family in FAMILIES
            for name in decision.ranking(family)
            if name in decision.usable_in(family)
            and (probed := self._paths.get((name, family)))
            and probed.source
        )


def _suspect_cause(stats: TcpStats) -> str:
    """Why the connections make a path suspect, "" if they don't. Always the same text, so that one
    cause doesn't start burst after burst."""
    if stats.stalled >= _MANY and 2 * stats.stalled >= stats.sockets:
        return "TCP connections stall"
    unanswered = stats.half_open_unanswered
    if unanswered >= _MANY and 2 * unanswered >= stats.half_open:
        return "SYN-ACKs stay unanswered"
    return ""
