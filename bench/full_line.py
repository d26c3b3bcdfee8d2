"""`full_line`: a line is full while another is idle: where do new connections and visitors go?

Rules: all variants have the same world, load and rates; a variant is one that follows the lines'
free capacity or has fixed weights, and a DNS policy.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from bench.clock import log
from bench.daemon import Daemon
from bench.fetches import BYTES, Transfer, Transfers, serve
from bench.lan import UPLINKS
from bench.results import Figure, Report, Table
from bench.stats import median, quantile
from bench.subject import config
from ifdefault.lab import dns
from ifdefault.lab.topology import ZONE, load
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World

MBIT_S = 10
_PORT = 7950
_TTL_S = 1
_STREAMS = 8
_VISITS_PER_S, _OUTGOING_PER_S = 10, 10
_BEFORE_S, _MOVE_S, _FULL_S, _BACK_S = 10.0, 15.0, 36.0, 90.0
_FULL, _IDLE = "isp-a", "isp-b"
_FAR = "198.18.1.10"  # the client
_HOW = f"""\
The lab's world `two`; each provider lets {MBIT_S} Mbit/s through in each direction (`tc tbf`,
100 ms of buffer). {_VISITS_PER_S} visitors a second resolve the name through unbound, use the first
address, and fetch {BYTES // 1000} kB from the host; {_OUTGOING_PER_S} times a second the host
connects to a server beyond the providers and fetches as much (`[outgoing] mode = "balance"`). Both
uplinks have weight 1. Then {_STREAMS} downloads without end by {_FULL}'s address fill its line; the
other is idle but for what was described. After {_MOVE_S:g} s, the transfers of {_FULL_S:g} s count.
IPv4.

*Fixed weights* is the same config without `capacity`. *First byte* and *complete* include the
lookup; what isn't complete after 10 s has failed. *Moved* is the time from the begin of the
downloads until {_FULL} has an eighth of its weight, *back* from their end until it has all of it.
The TTL is {_TTL_S} s, so that there are many answers to count: with another one, visitors follow as
much later. unbound shuffles the addresses of an answer, unless it is told not to
(`rrset-roundrobin: no`, *order kept*). All variants run at once, each in its own world."""


@dataclass(frozen=True, slots=True)
class Variant:
    policy: str
    follows: bool
    shuffles: bool = True  # the resolver

    @property
    def title(self) -> str:
        policy = self.policy if self.shuffles else f"{self.policy}, order kept"
        return f"{policy}, {'free capacity' if self.follows else 'fixed weights'}"


@dataclass(frozen=True, slots=True)
class Share:
    """The transfers of one kind: how many took the full line, and how long all took."""

    variant: str
    kind: str
    tried: int
    by_full: int
    failed: int
    first_s: tuple[float, float]  # median, 95th percentile
    whole_s: tuple[float, float]

    @property
    def percent(self) -> float:
        return 100 * self.by_full / max(1, self.tried)


@dataclass(frozen=True, slots=True)
class Outcome:
    shares: tuple[Share, ...]
    used: float  # of the full line's capacity while it was measured
    moved_s: float | None = None
    back_s: float | None = None


_VARIANTS = (
    *(Variant(policy, f) for policy in ("weighted", "rotate") for f in (False, True)),
    Variant("rotate", follows=True, shuffles=False),
)


def run() -> Report:
    with ThreadPoolExecutor(len(_VARIANTS)) as pool:
        outcomes = dict(zip(_VARIANTS, pool.map(attempt, _VARIANTS), strict=True))
    samples = {variant.title: asdict(outcome) for variant, outcome in outcomes.items()}
    figures = tuple(_figures(outcomes))
    return Report("A full line", _HOW, figures, tuple(_tables(outcomes)), samples)


def attempt(variant: Variant) -> Outcome:
    with World.up(load("two")) as world:
        for provider in (_FULL, _IDLE):
            _limit(world, provider)
        for node in ("host", "client"):
            serve(world[node], _PORT)
        dns.start(world, options={} if variant.shuffles else {"rrset-roundrobin": "no"})
        daemon = Daemon(world, _config(variant))
        daemon.start()
        addresses = {t.provider: t.address for t in world.topology.targets() if "." in t.address}
        visits = Transfers(world["client"], "visit", _PORT, _VISITS_PER_S, dns.RESOLVER[0], ZONE)
        outgoing = Transfers(world["host"], "fetch", _PORT, _OUTGOING_PER_S, _FAR)
        time.sleep(_BEFORE_S)
        begin_s = time.monotonic()
        fill = Transfers(world["client"], "fill", _PORT, _STREAMS, addresses[_FULL])
        moved_s = _moved_s(daemon, variant, begin_s)
        time.sleep(max(0.0, begin_s + _MOVE_S - time.monotonic()))
        from_s, passed = time.monotonic(), _passed(world)
        time.sleep(_FULL_S)
        to_s = time.monotonic()
        used = 8 * (_passed(world) - passed) / (to_s - from_s) / (MBIT_S * 1e6)
        fill.stop()
        back_s = _back_s(daemon, to_s) if variant.follows else None
        done = {"visitors": visits.stop(), "outgoing": outgoing.stop()}
        daemon.stop()
    spans = {"before": (begin_s - _BEFORE_S, begin_s), "full": (from_s, to_s)}
    shares = tuple(
        _share(variant, f"{kind}, {when}", transfers, span, addresses[_FULL])
        for kind, transfers in done.items()
        for when, span in spans.items()
    )
    outcome = Outcome(shares, used, moved_s, back_s)
    log(f"{variant.title}: {', '.join(f'{s.kind}: {s.percent:.0f} %' for s in shares)}")
    return outcome


def _config(variant: Variant) -> str:
    more: dict[str, object] = {"capacity": f"{MBIT_S} Mbit/s"} if variant.follows else {}
    uplinks = [uplink | more for uplink in UPLINKS]
    name = f'[[dns.name]]\nname = "{ZONE}"\npolicy = "{variant.policy}"\nttl = {_TTL_S}\n'
    zone = f'[dns.server]\nzones = ["{ZONE}"]\n[outgoing]\nmode = "balance"\n'
    return f"{config(uplinks)}\n{name}{zone}"


def _links(world: World, provider: str) -> dict[str, int]:
    """The bytes that have left by each of its links."""
    links = json.loads(world[provider].run(["ip", "-j", "-s", "link"]).stdout)
    sent = {link["ifname"]: link["stats64"]["tx"]["bytes"] for link in links}
    return {name: count for name, count in sent.items() if name != "lo"}


def _limit(world: World, provider: str) -> None:
    """What passes through it, in each direction."""
    for name in _links(world, provider):
        tbf = ["tbf", "rate", f"{MBIT_S}mbit", "burst", "32kb", "latency", "100ms"]
        world[provider].run(["tc", "qdisc", "add", "dev", name, "root", *tbf])


def _passed(world: World) -> int:
    """The bytes of the host that the provider of the full line has let through."""
    return sum(count for name, count in _links(world, _FULL).items() if name != "cust0")


def _moved_s(daemon: Daemon, variant: Variant, begin_s: float) -> float | None:
    if not variant.follows:
        return None
    eventually(
        lambda: dict(daemon.status().decision.shares).get(_FULL) == 1,
        60.0,
        what=f"{_FULL} has an eighth of its weight",
        poll_s=0.1,
    )
    return time.monotonic() - begin_s


def _back_s(daemon: Daemon, end_s: float) -> float:
    def is_back() -> bool:
        return daemon.status().decision.shares == ()

    eventually(is_back, _BACK_S, what=f"{_FULL} has its weight again", poll_s=0.2)
    return time.monotonic() - end_s


def _share(
    variant: Variant,
    kind: str,
    transfers: Sequence[Transfer],
    span: tuple[float, float],
    full: str,
) -> Share:
    counted = [t for t in transfers if span[0] <= t.at_s < span[1]]
    whole = [t for t in counted if t.whole_s >= 0]
    firsts, wholes = [t.first_s for t in whole], [t.whole_s for t in whole]
    return Share(
        variant.title,
        kind,
        len(counted),
        sum(full in (t.own, t.peer) for t in counted),
        len(counted) - len(whole),
        (median(firsts), quantile(firsts, 0.95)),
        (median(wholes), quantile(wholes, 0.95)),
    )


# --- the report ---------------------------------------------------------------------------


def _figures(outcomes: dict[Variant, Outcome]) -> Iterator[Figure]:
    for variant, outcome in outcomes.items():
        yield Figure(f"{variant.title}: line used", 100 * outcome.used, "%")
        for share in outcome.shares:
            if share.kind.endswith("full"):
                kind = share.kind.partition(",")[0]
                yield Figure(f"{variant.title}: {kind} by the full line", share.percent, "%")
        if outcome.moved_s is not None:
            yield Figure(f"{variant.title}: moved", outcome.moved_s, "s")
        if outcome.back_s is not None:
            yield Figure(f"{variant.title}: back", outcome.back_s, "s")


def _tables(outcomes: dict[Variant, Outcome]) -> Iterator[Table]:
    rows = tuple(
        (
            share.variant,
            share.kind,
            f"{share.tried:,}",
            f"{share.percent:.0f} %",
            f"{share.failed:,}",
            *(f"{1000 * s:.0f} ms" for s in (*share.first_s, *share.whole_s)),
        )
        for outcome in outcomes.values()
        for share in outcome.shares
    )
    heads = (
        *("", "of", "tried", "by the full line", "failed"),
        *("first byte, median", "95 %", "complete, median", "95 %"),
    )
    yield Table("Transfers", heads, rows)
