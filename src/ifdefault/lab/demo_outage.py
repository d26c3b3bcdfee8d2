"""The demo's second half: a provider fails while clients connect by name.

    client ── unbound ─┬─ static.example   all addresses, static records in the parent zone
                       └─ www.example      delegated to the host: those of uplinks that work

Rules: clients use both names at the same time, through the same resolver, in the same outage. The
daemon's events are shown next to the clients' results, but not counted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ifdefault.lab import dns, lookup
from ifdefault.lab.clients_by_name import Visit, Visits
from ifdefault.lab.faults import injected
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
_RESTORED_S = 7.5  # until the uplink has recovered and the resolver's cache has expired
_DETECTED_S = 1.5  # limit for detection; the resolver counts whole seconds, up to one more

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
    """The visits that began within SPAN_S; times are seconds after the cut."""

    at_s: float
    tried: int
    answered: int


@dataclass(frozen=True, slots=True)
class VisitSummary:
    """All visits to one name. `last_failed_s`: the begin of the last failed one; `return_s`: the
    first visit over the provider after its return, in seconds after that."""

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
        """Whether visits to our name succeeded as soon as caches had expired, and both uplinks were
        in use again in the end."""
        last_s = self.ours.last_failed_s or 0.0
        return last_s < _DETECTED_S + self.ttl_s + 1.0 and self.ours.return_s is not None


def configure(world: World) -> None:
    """Give the world's config its [dns]."""
    world.config.write_text(f"{world.topology.config}\n{CONFIG}", encoding="utf-8")


def await_well(world: World) -> None:
    """Wait until all paths are up and the resolver has all addresses of our name."""

    def all_up() -> bool:
        status = json.loads(world.ifdefault("status", "--json").stdout or "{}")
        health = (status.get("daemon") or {}).get("health") or ()
        return bool(health) and all(path["state"] == "up" for path in health)

    addresses = sorted({target.address for target in world.topology.targets()})

    def resolves() -> bool:
        answer = world["core"].python(lambda: lookup.resolve_both(dns.RESOLVER[0], ZONE))
        return sorted(answer) == addresses

    eventually(all_up, what="all paths are up", poll_s=0.1)
    eventually(resolves, what=f"{ZONE} resolves", poll_s=0.1)


def run_outage(world: World, progress: Callable[[str], None]) -> Outage:
    """Let the provider fail and return while clients connect by name."""
    progress(f"{PER_S:g} connections a second to each of two names")
    visits = Visits(world["client"], dns.RESOLVER[0], [STATIC, ZONE], per_s=PER_S)
    time.sleep(_CALM_S)
    progress(f"{PROVIDER} silently stops forwarding")
    cut_s, wall_s = time.monotonic(), time.time()
    with injected(world, FAULT, PROVIDER):
        time.sleep(max(0.0, cut_s + _DEAD_S - time.monotonic()))
        restored_s = time.monotonic()
    progress(f"{PROVIDER} forwards again")
    time.sleep(_RESTORED_S)
    begun = visits.stop()
    addresses = {t.address for t in world.topology.targets() if t.provider == PROVIDER}
    static, ours = (
        summarize([v for v in begun if v.name == name], addresses, cut_s, restored_s)
        for name in (STATIC, ZONE)
    )
    events = _events(world, wall_s)
    return Outage(PROVIDER, TTL_S, restored_s - cut_s, static, ours, events)


def summarize(
    visits: Sequence[Visit], addresses: set[str], cut_s: float, restored_s: float
) -> VisitSummary:
    """Summarize the visits to one name; `addresses` are the failed provider's."""
    failed = [visit for visit in visits if not visit.ok]
    again = [v.at_s for v in visits if v.ok and v.at_s > restored_s and v.address in addresses]
    spans: dict[int, list[Visit]] = {}
    for visit in visits:
        spans.setdefault(int((visit.at_s - cut_s) // SPAN_S), []).append(visit)
    return VisitSummary(
        name=visits[0].name,
        tried=len(visits),
        failed=len(failed),
        last_failed_s=max(visit.at_s for visit in failed) - cut_s if failed else None,
        return_s=min(again) - restored_s if again else None,
        spans=tuple(
            Span(number * SPAN_S, len(some), sum(visit.ok for visit in some))
            for number, some in sorted(spans.items())
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
