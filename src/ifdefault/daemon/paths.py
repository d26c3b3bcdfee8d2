"""The paths of the host: what is asked of each, over which socket, and how each stands.

Rules: the judging is `health`'s, the asking the frontend's; this joins the two. A path whose uplink
can't be used is asleep: nothing is asked, and nothing is held against it but the link's end. What
can't be asked for a reason of our own is a local fault, and no evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ifdefault.health.path import Path
from ifdefault.health.states import Memory
from ifdefault.ipc.messages import Bind, Message, Send, Unbind
from ifdefault.kernel import open_probe_sockets
from ifdefault.model.config import FAMILIES, Config, Family, HealthConfig, Probe
from ifdefault.model.health import GATEWAY, Ask, Decision, Health, PathState, Transition, Verdict
from ifdefault.model.kernel import Facts, Link, Uplink

Key = tuple[str, Family]
Post = Callable[[Message, tuple[int, ...]], None]
_TOGETHER_S = 0.01  # what is due so soon is asked at once, in one turn of the loop
_GRACE_S = 2.0  # an uplink may be without address or gateway so long: it is being renumbered


@dataclass(frozen=True, slots=True)
class Place:
    """From where a path's probes leave."""

    address: str
    dev: str
    index: int  # of the interface: one of the same name may be another
    mark: int
    gateway: str


@dataclass(frozen=True, slots=True)
class Way:
    """Where else something may leave from: an uplink in one family."""

    uplink: str
    family: Family
    address: str
    dev: str
    mark: int


@dataclass(slots=True)
class Track:
    """A path, and what is needed to ask on it."""

    number: int  # the path's in messages to the frontend
    path: Path
    targets: tuple[Probe, ...]
    terms: HealthConfig
    has_gateway: bool
    place: Place | None = None  # None: asleep
    asleep_s: float = 0.0  # since when


class Paths:
    def __init__(self, post: Post) -> None:
        self._post = post
        self._tracks: dict[Key, Track] = {}
        self._numbers: dict[int, Key] = {}
        self._next = 0
        self._addresses: dict[str, tuple[str, ...]] = {}  # of targets that go by name
        self._own: frozenset[str] = frozenset()  # the host's, which answer whatever is dead
        self._unresolved: dict[str, str] = {}
        self.memories: dict[Key, Memory] = {}

    def __iter__(self) -> Iterator[tuple[Key, Track]]:
        return iter(self._tracks.items())

    def health(self) -> tuple[Health, ...]:
        return tuple(track.path.health() for track in self._tracks.values())

    def state(self, name: str, family: Family) -> PathState:
        track = self._tracks.get((name, family))
        return track.path.health().state if track else "unproven"

    def down_since_s(self, name: str, family: Family) -> float:
        """0 unless it is down."""
        track = self._tracks.get((name, family))
        health = track.path.health() if track else None
        return health.since_s if health and health.state == "down" else 0.0

    def hosts(self) -> set[str]:
        """Names that must be resolved."""
        probes = (probe for track in self._tracks.values() for probe in track.targets)
        return {probe.host for probe in probes if not is_address(probe.host)}

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
        self, now: float, config: Config, uplinks: Iterable[Uplink], facts: Facts
    ) -> tuple[Transition, ...]:
        """Take in what the uplinks are now: new paths, new addresses, those that can't be used."""
        uplinks = tuple(uplinks)
        told: list[Transition] = []
        links = {link.name: link for link in facts.links}
        self._own = frozenset(a.address for a in facts.addresses)
        known = {u.name for u in uplinks}
        for key in [key for key in self._tracks if key[0] not in known]:
            self._sleep(now, self._tracks[key])
            del self._numbers[self._tracks.pop(key).number]
        for uplink in uplinks:
            for family in FAMILIES:
                link = links.get(uplink.interface)
                place = _place(uplink, family, link)
                track = self._track(now, config, uplink, family, create=place is not None)
                if track is None:
                    continue
                live = link is not None and link.up and link.carrier
                cause = "carrier lost"
                if place is not None:
                    self._wake(now, track, place)
                else:
                    self._sleep(now, track)
                    cause = uplink.pending or f"no IPv{family} address or gateway"
                    live = live and now - track.asleep_s < _GRACE_S
                told += track.path.link(now, live, cause)
        return tuple(told)

    def renumbering(self, now: float) -> bool:
        """Whether a path fell asleep lately: it may have to be given up."""
        sleepers = (t for t in self._tracks.values() if t.place is None)
        return any(now - track.asleep_s < 2 * _GRACE_S for track in sleepers)

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
            self._sleep(now, track)
            memory = track.path.memory()  # judged on other terms from now on
            del self._numbers[track.number]
        self._next += 1
        probes = [str(probe) for probe in targets]
        path = Path(*key, probes, terms, now, memory, has_gateway=has_gateway)
        track = Track(self._next, path, targets, terms, has_gateway, asleep_s=now)
        self._tracks[key], self._numbers[self._next] = track, key
        return track

    def _wake(self, now: float, track: Track, place: Place) -> None:
        if track.place == place:
            return
        track.place = place
        family: Family = 6 if ":" in place.address else 4
        try:
            with open_probe_sockets.icmp_socket(
                family, place.address, place.dev, place.mark
            ) as sock:
                self._post(Bind(track.number, family), (sock.fileno(),))
        except OSError:
            # not there yet, or gone again: tried again soon, see `renumbering`
            track.place, track.asleep_s = None, now

    def _sleep(self, now: float, track: Track) -> None:
        if track.place is not None:
            track.place, track.asleep_s = None, now
            self._post(Unbind(track.number), ())

    def rebind(self, now: float) -> None:
        """A new frontend has come: it knows nothing yet."""
        for track in self._tracks.values():
            place, track.place = track.place, None
            if place is not None:
                self._wake(now, track, place)

    # --- asking, and hearing --------------------------------------------------------------

    @property
    def wake_s(self) -> float:
        """When `ask` must be called next."""
        due = (t.path.wake_s for t in self._tracks.values() if t.place is not None)
        return min(due, default=float("inf"))

    def wake_of_s(self, number: int) -> float:
        """The same, of one path."""
        key = self._numbers.get(number)
        track = self._tracks[key] if key else None
        return track.path.wake_s if track and track.place is not None else float("inf")

    def ask(self, now: float) -> tuple[Transition, ...]:
        """Send what is due."""
        told: list[Transition] = []
        for track in self._tracks.values():
            if track.place is None or track.path.wake_s > now + _TOGETHER_S:
                continue
            told += track.path.tick(now)
            for ask in track.path.asks(now):
                if not self._send(track, track.place, ask):
                    told += track.path.observe(now, ask.seq, "local")
        return tuple(told)

    def _send(self, track: Track, place: Place, ask: Ask) -> bool:
        family: Family = 6 if ":" in place.address else 4
        gateway = ask.target == GATEWAY
        probe = Probe("icmp", place.gateway) if gateway else track.targets[ask.target]
        address = self._address(probe.host, family)
        if not address:
            return False
        message = Send(
            path=track.number,
            seq=ask.seq,
            kind=probe.kind,
            address=address,
            port=probe.port,
            host=probe.host,
            query=probe.path,
            statuses=probe.statuses,
            timeout_ms=round(ask.timeout_s * 1000),
        )
        if probe.kind == "icmp":
            self._post(message, ())
            return True
        make = (
            open_probe_sockets.datagram_socket
            if probe.kind == "dns"
            else open_probe_sockets.stream_socket
        )
        try:
            with make(family, place.address, place.dev, place.mark) as sock:
                self._post(message, (sock.fileno(),))
        except OSError:
            return False
        return True

    def hear(
        self, now: float, number: int, seq: int, verdict: Verdict, rtt_us: int
    ) -> tuple[Transition, ...]:
        """An outcome, as the frontend tells it; what we never asked is passed over by the path."""
        key = self._numbers.get(number)
        if key is None:
            return ()
        return self._tracks[key].path.observe(now, seq, verdict, rtt_us)

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

    def link(self, now: float, dev: str, why_not: str) -> tuple[Transition, ...]:
        """A link changed; `why_not` tells why nothing goes over it, "" if something may."""
        found = (t.path for t in self._tracks.values() if t.place and t.place.dev == dev)
        return tuple(step for path in found for step in path.link(now, not why_not, why_not))

    def neighbour(
        self, now: float, dev: str, address: str, reachable: bool
    ) -> tuple[Transition, ...]:
        return tuple(
            change
            for track in self._tracks.values()
            if track.place and (track.place.dev, track.place.gateway) == (dev, address)
            for change in track.path.neighbour(now, reachable)
        )

    def ways(self, decision: Decision) -> tuple[Way, ...]:
        """All that may be used now, the best first; none of those that are asleep."""
        return tuple(
            Way(name, family, track.place.address, track.place.dev, track.place.mark)
            for family in FAMILIES
            for name in decision.ranking(family)
            if name in decision.usable_in(family)
            and (track := self._tracks.get((name, family)))
            and track.place
        )

    def by_address(self) -> dict[str, Path]:
        """The path that each local address tells of; none of those that several share."""
        found: dict[str, list[Path]] = {}
        for track in self._tracks.values():
            if track.place:
                found.setdefault(track.place.address, []).append(track.path)
        return {address: paths[0] for address, paths in found.items() if len(paths) == 1}


def is_address(host: str) -> bool:
    """Whether a probe's host is an address, and no name."""
    return ":" in host or host.replace(".", "").isdigit()


def _targets(config: Config, name: str, family: Family) -> tuple[Probe, ...]:
    """The uplink's own probes, else those of all: names, and addresses of this family."""
    own = next((u.probes for u in config.uplinks if u.name == name), None)
    probes = config.health.probes if own is None else own
    return tuple(p for p in probes if not is_address(p.host) or (":" in p.host) == (family == 6))


def _place(uplink: Uplink, family: Family, link: Link | None) -> Place | None:
    address, gateway = uplink.source(family), uplink.gateway(family)
    if uplink.pending or address is None or gateway is None or link is None:
        return None
    # only where addresses don't tell uplinks apart are there rules for this mark
    mark = 0 if uplink.mechanism == "source" else uplink.arrival_mark
    return Place(address, uplink.interface, link.index, mark, gateway)
