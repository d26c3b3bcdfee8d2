"""The story's second half: a provider dies, and visitors come by name.

    client ── unbound ─┬─ static.example   all addresses, as the parent zone has them
                       └─ www.example      delegated to the host: those of uplinks that work

Rules: both names are visited at the same time, through the same resolver, in the same outage. The
daemon's own word is shown beside what became of the visitors, and never counted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ifdefault.lab import dns, lookup
from ifdefault.lab.clients_by_name import Visit, Visits
from ifdefault.lab.faults import suffering
from ifdefault.lab.topology import ZONE
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.errors import HostError

PROVIDER, FAULT = "isp-a", "blackhole"
STATIC = f"{dns.STATIC}.example"
TTL_S = 3
PER_S = 40.0  # new connections to each name
SPAN_S = 0.25  # of a strip
_CALM_S = 1.5
_DEAD_S = 6.0
_HEALED_S = 7.5  # until the uplink has proved itself, and the resolver's cache has run out
_FOUND_S = 1.5  # an outage is found within this; the resolver counts whole seconds, up to one more

CONFIG = f"""
[[dns.name]]
name = "{ZONE}"
policy = "rotate"
ttl = {TTL_S}

[dns.server]
zones = ["{ZONE}"]
"""


@dataclass(frozen=True, slots=True)
class Span:
    """The visits that were begun within a while; times are seconds after the cut."""

    at_s: float
    tried: int
    answered: int


@dataclass(frozen=True, slots=True)
class VisitSummary:
    """What became of all visits to one name. `last_failed_s`: when the last that failed was begun;
    `return_s`: after the provider's return, when it was first visited through it again."""

    name: str
    tried: int
    failed: int
    last_failed_s: float | None
    return_s: float | None
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Outage:
    """`events`: the daemon's, (seconds after the cut, kind, text)."""

    provider: str
    ttl_s: int
    dead_s: float
    static: VisitSummary
    ours: VisitSummary
    events: tuple[tuple[float, str, str], ...]

    @property
    def ok(self) -> bool:
        """Whether visitors went on, by our name, as soon as caches could know, and both uplinks
        were in use again in the end."""
        last_s = self.ours.last_failed_s or 0.0
        return last_s < _FOUND_S + self.ttl_s + 1.0 and self.ours.return_s is not None


def configure(world: World) -> None:
    """Give the world's config its [dns]."""
    world.config.write_text(f"{world.topology.config}\n{CONFIG}", encoding="utf-8")


def await_well(world: World) -> None:
    """Until the daemon calls all paths up and the resolver has all addresses by our name."""

    def well() -> bool:
        told = json.loads(world.ifdefault("status", "--json").stdout or "{}")
        health = (told.get("daemon") or {}).get("health") or ()
        return bool(health) and all(path["state"] == "up" for path in health)

    addresses = sorted({target.address for target in world.topology.targets()})

    def resolves() -> bool:
        found = world["core"].python(lambda: lookup.resolve_both(dns.RESOLVER[0], ZONE))
        return sorted(found) == addresses

    eventually(well, what="all paths are up", poll_s=0.1)
    eventually(resolves, what=f"{ZONE} resolves", poll_s=0.1)


def suffer(world: World, progress: Callable[[str], None]) -> Outage:
    """Let the provider die and return under the eyes of visitors."""
    progress(f"{PER_S:g} visitors a second by each of two names")
    visits = Visits(world["client"], dns.RESOLVER[0], [STATIC, ZONE], per_s=PER_S)
    time.sleep(_CALM_S)
    progress(f"{PROVIDER} forwards nothing any more, and says nothing")
    cut_s, wall_s = time.monotonic(), time.time()
    with suffering(world, FAULT, PROVIDER):
        time.sleep(max(0.0, cut_s + _DEAD_S - time.monotonic()))
        mend_s = time.monotonic()
    progress(f"{PROVIDER} forwards again")
    time.sleep(_HEALED_S)
    begun = visits.stop()
    addresses = {t.address for t in world.topology.targets() if t.provider == PROVIDER}
    static, ours = (
        tell([v for v in begun if v.name == name], addresses, cut_s, mend_s)
        for name in (STATIC, ZONE)
    )
    events = _events(world, wall_s)
    return Outage(PROVIDER, TTL_S, mend_s - cut_s, static, ours, events)


def tell(visits: Sequence[Visit], addresses: set[str], cut_s: float, mend_s: float) -> VisitSummary:
    """What became of the visits to one name; `addresses` are the dead provider's."""
    failed = [visit for visit in visits if not visit.ok]
    again = [v.at_s for v in visits if v.ok and v.at_s > mend_s and v.address in addresses]
    spans: dict[int, list[Visit]] = {}
    for visit in visits:
        spans.setdefault(int((visit.at_s - cut_s) // SPAN_S), []).append(visit)
    return VisitSummary(
        name=visits[0].name,
        tried=len(visits),
        failed=len(failed),
        last_failed_s=max(visit.at_s for visit in failed) - cut_s if failed else None,
        return_s=min(again) - mend_s if again else None,
        spans=tuple(
            Span(place * SPAN_S, len(some), sum(visit.ok for visit in some))
            for place, some in sorted(spans.items())
        ),
    )


def _events(world: World, since_s: float) -> tuple[tuple[float, str, str], ...]:
    done = world.ifdefault("events", "--json")
    if done.returncode:
        raise HostError(f"ifdefault events: {done.stderr.strip()}")
    events = map(json.loads, done.stdout.splitlines())
    return tuple(
        (round(event["at"] - since_s, 3), event["kind"], event["text"])
        for event in events
        if event["at"] >= since_s
    )
