"""The paths of the host: what is asked of each, from where, and how each stands.

Rules: the judging is `health`'s; this joins it to the uplinks as they are, and to the frontend. A
path whose uplink can't be used is asleep: nothing is asked, and nothing is held against it but the
link's end. What can't be asked for a reason of our own is a local fault, and no evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from ifdefault.daemon.controller.effects import (
    CloseProbeSocket,
    Effect,
    OpenProbeSocket,
    ProbeSource,
    SendProbe,
)
from ifdefault.daemon.controller.events import ProbeOutcome, TrafficSeen
from ifdefault.health.path import Path
from ifdefault.health.states import Memory
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
from ifdefault.model.kernel import Facts, Link, Uplink
from ifdefault.model.kernel_events import LinkChanged, NeighbourChanged

Key = tuple[str, Family]
Transitions = tuple[Transition, ...]
_TOGETHER_S = 0.01  # what is due so soon is asked at once, in one turn
_GRACE_S = 2.0  # an uplink may be without address or gateway so long: it is being renumbered
_RETRY_S = 0.4  # while something is being renumbered, or a socket can't be opened
_MANY = 3  # connections that must stall together: one alone has its own reasons


@dataclass(slots=True)
class Track:
    """A path, and what is needed to ask on it."""

    number: int  # the path's in messages to the frontend
    path: Path
    targets: tuple[Probe, ...]
    terms: HealthConfig
    has_gateway: bool
    source: ProbeSource | None = None  # None: asleep
    asleep_s: float = 0.0  # since when


class Paths:
    """Effects are appended to `out`, but for `probes`, which come after all else in a turn."""

    def __init__(self, out: list[Effect]) -> None:
        self._out = out
        self.probes: list[SendProbe] = []
        self._tracks: dict[Key, Track] = {}
        self._numbers: dict[int, Track] = {}
        self._last_number = 0
        self._addresses: dict[str, tuple[str, ...]] = {}  # of targets that go by name
        self._own: frozenset[str] = frozenset()  # the host's, which answer whatever is dead
        self._unresolved: dict[str, str] = {}
        self._wake_s = inf
        self.memories: dict[Key, Memory] = {}

    def health(self) -> tuple[Health, ...]:
        return tuple(track.path.health() for track in self._tracks.values())

    def states(self) -> dict[Key, tuple[PathState, float]]:
        """The state of each path, and since when it is so."""
        return {key: (t.path.state, t.path.since_s) for key, t in self._tracks.items()}

    def hosts(self) -> tuple[str, ...]:
        """Names that must be resolved, sorted."""
        probes = (probe for track in self._tracks.values() for probe in track.targets)
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

    def follow(
        self, now: float, config: Config, uplinks: tuple[Uplink, ...], facts: Facts
    ) -> Transitions:
        """Take in what the uplinks are now: new paths, new addresses, those that can't be used."""
        told: list[Transition] = []
        links = {link.name: link for link in facts.links}
        self._own = frozenset(a.address for a in facts.addresses)
        known = {u.name for u in uplinks}
        for key in [key for key in self._tracks if key[0] not in known]:
            self._forget(now, self._tracks.pop(key))
        for uplink in uplinks:
            for family in FAMILIES:
                link = links.get(uplink.interface)
                source = _source(uplink, family, link)
                track = self._track(now, config, uplink, family, create=source is not None)
                if track is None:
                    continue
                live = link is not None and link.up and link.carrier
                cause = "carrier lost"
                if source is not None:
                    self._wake_up(track, source)
                else:
                    self._sleep(now, track)
                    cause = uplink.pending or f"no IPv{family} address or gateway"
                    live = live and now - track.asleep_s < _GRACE_S
                told += track.path.link(now, live, cause)
        self._reckon()
        return tuple(told)

    def _track(
        self, now: float, config: Config, uplink: Uplink, family: Family, *, create: bool
    ) -> Track | None:
        key = (uplink.name, family)
        targets, terms = _targets(config, uplink.name, family), config.health
        track = self._tracks.get(key)
        if track is None and not create:
            return None
        has_gateway = bool(uplink.gateway(family))
        if track is None:
            memory = self.memories.pop(key, None)
        else:
            has_gateway = has_gateway if create else track.has_gateway
            if (track.targets, track.terms, track.has_gateway) == (targets, terms, has_gateway):
                return track
            memory = track.path.memory()  # judged on other terms from now on
            self._forget(now, track)
        self._last_number += 1
        probes = [str(probe) for probe in targets]
        path = Path(*key, probes, terms, now, memory, has_gateway=has_gateway)
        track = Track(self._last_number, path, targets, terms, has_gateway, asleep_s=now)
        self._tracks[key] = self._numbers[track.number] = track
        return track

    def _forget(self, now: float, track: Track) -> None:
        self._sleep(now, track)
        del self._numbers[track.number]

    def _wake_up(self, track: Track, source: ProbeSource) -> None:
        if track.source != source:
            track.source = source
            self._out.append(OpenProbeSocket(track.number, source))

    def _sleep(self, now: float, track: Track) -> None:
        if track.source is not None:
            track.source, track.asleep_s = None, now
            self._out.append(CloseProbeSocket(track.number))

    def socket_failed(self, now: float, number: int) -> None:
        """Not there yet, or gone again: tried again soon, see `retry_s`."""
        if track := self._numbers.get(number):
            track.source, track.asleep_s = None, now

    def reopen(self) -> None:
        """A new frontend has come: it knows nothing yet."""
        for track in self._tracks.values():
            if track.source is not None:
                self._out.append(OpenProbeSocket(track.number, track.source))

    def retry_s(self, now: float) -> float:
        """When uplinks are to be followed again although nothing was told: a path that fell asleep
        lately may have to be given up, or its socket be opened after all."""
        fresh = [t.asleep_s for t in self._tracks.values() if t.source is None]
        return now + _RETRY_S if any(now - at_s < 2 * _GRACE_S for at_s in fresh) else inf

    # --- asking, and hearing --------------------------------------------------------------

    @property
    def wake_s(self) -> float:
        """When `ask` must be called next."""
        return self._wake_s

    def _reckon(self) -> None:
        due = (t.path.wake_s for t in self._tracks.values() if t.source is not None)
        self._wake_s = min(due, default=inf)

    def ask(self, now: float) -> Transitions:
        """Send what is due."""
        told: list[Transition] = []
        for track in self._tracks.values():
            if track.source is None or track.path.wake_s > now + _TOGETHER_S:
                continue
            told += track.path.tick(now)
            for ask in track.path.asks(now):
                if not self._send(track, track.source, ask):
                    told += track.path.observe(now, ask.seq, "local")
        self._reckon()
        return tuple(told)

    def _send(self, track: Track, source: ProbeSource, ask: Ask) -> bool:
        gateway = ask.target == GATEWAY
        probe = Probe("icmp", source.gateway) if gateway else track.targets[ask.target]
        address = self._address(probe.host, source.family)
        if not address:
            return False
        timeout_ms = round(ask.timeout_s * 1000)
        what = (probe.port, probe.host, probe.path, probe.statuses, timeout_ms)
        self.probes.append(SendProbe(track.number, ask.seq, probe.kind, address, *what, source))
        return True

    def observe(self, now: float, outcome: ProbeOutcome) -> Transitions:
        """A probe's fate; what was never asked is passed over by the path."""
        track = self._numbers.get(outcome.path)
        if track is None:
            return ()
        told = track.path.observe(now, outcome.seq, outcome.verdict, outcome.rtt_us)
        self._hurry(track)
        return told

    def _hurry(self, track: Track) -> None:
        """What was learned may have moved the path's next probe forward."""
        if track.source is not None and (wake_s := track.path.wake_s) < self._wake_s:
            self._wake_s = wake_s

    def resolved(self, host: str, addresses: tuple[str, ...], error: str) -> None:
        """A name's addresses; what was known stays if there are none now."""
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
        """What is to be kept of each path, also of those that aren't there at present."""
        return self.memories | {key: track.path.memory() for key, track in self._tracks.items()}

    # --- other evidence -------------------------------------------------------------------

    def link(self, now: float, event: LinkChanged) -> Transitions:
        """A link changed."""
        cause = _why_not(event)
        told: list[Transition] = []
        for track in self._tracks.values():
            if track.source and track.source.dev == event.name:
                told += track.path.link(now, not cause, cause)
        self._reckon()
        return tuple(told)

    def neighbour(self, now: float, event: NeighbourChanged) -> Transitions:
        """A gateway answers, or doesn't any more, to ARP or neighbour discovery."""
        if event.reachable is None:
            return ()
        told: list[Transition] = []
        for track in self._tracks.values():
            source = track.source
            if source and (source.dev, source.gateway) == (event.dev, event.address):
                told += track.path.neighbour(now, event.reachable)
                self._hurry(track)
        return tuple(told)

    def traffic(self, now: float, seen: TrafficSeen) -> Transitions:
        """What the host's own connections tell, by the local address of each path. It may confirm
        a path or make it suspect, and never decides: outsiders can open half a connection and fall
        silent. An address that several paths share tells of none."""
        by_address: dict[str, list[Track]] = {}
        for track in self._tracks.values():
            if track.source:
                by_address.setdefault(track.source.address, []).append(track)
        told: list[Transition] = []
        for address, stats in seen.stats:
            match by_address.get(address):
                case [track]:
                    if stats.progressed:
                        told += track.path.confirm(now, seen.since_s)  # some time since then
                    elif cause := _suspicious(stats):
                        track.path.suspect(now, cause)
                    self._hurry(track)
        return tuple(told)

    def ways(self, decision: Decision) -> tuple[Way, ...]:
        """All that may be used now, the best first; none of those that are asleep."""
        return tuple(
            Way(name, family, track.source.address, track.source.dev, track.source.mark)
            for family in FAMILIES
            for name in decision.ranking(family)
            if name in decision.usable_in(family)
            and (track := self._tracks.get((name, family)))
            and track.source
        )


def is_address(host: str) -> bool:
    """Whether a probe's host is an address, and no name."""
    return ":" in host or host.replace(".", "").isdigit()


def _targets(config: Config, name: str, family: Family) -> tuple[Probe, ...]:
    """The uplink's own probes, else those of all: names, and addresses of this family."""
    own = next((u.probes for u in config.uplinks if u.name == name), None)
    probes = config.health.probes if own is None else own
    return tuple(p for p in probes if not is_address(p.host) or (":" in p.host) == (family == 6))


def _source(uplink: Uplink, family: Family, link: Link | None) -> ProbeSource | None:
    address, gateway = uplink.source(family), uplink.gateway(family)
    if uplink.pending or address is None or gateway is None or link is None:
        return None
    # only where addresses don't tell uplinks apart are there rules for this mark
    mark = 0 if uplink.mechanism == "source" else uplink.arrival_mark
    return ProbeSource(address, uplink.interface, link.index, mark, gateway)


def _why_not(link: LinkChanged) -> str:
    """Why nothing goes over a link; "" if something may."""
    if link.gone:
        return f"interface {link.name} is gone"
    if not link.up:
        return f"interface {link.name} is down"
    return "" if link.carrier else "carrier lost"


def _suspicious(stats: TcpStats) -> str:
    """The same words each time: one cause starts no burst again and again."""
    if stats.stalled >= _MANY and 2 * stats.stalled >= stats.sockets:
        return "TCP connections stall"
    unanswered = stats.half_open_unanswered
    if unanswered >= _MANY and 2 * unanswered >= stats.half_open:
        return "SYN-ACKs stay unanswered"
    return ""
