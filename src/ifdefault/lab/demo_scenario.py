"""The demo's scenario: the same clients before and after `ifdefault apply`; then a provider fails.

Rules: all results are measured in this run: answers by the clients, misrouted packets by the
providers' source filters. Where a real server isn't installed the lab's own is used, and a note
says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from ifdefault.lab import demo_outage, dns, ports, services
from ifdefault.lab.rotation import rotate
from ifdefault.lab.topology import ProviderAddress, Topology
from ifdefault.lab.traffic import Tally, measure
from ifdefault.lab.waiting import PATIENCE_S
from ifdefault.lab.world import World
from ifdefault.model.errors import HostError

COUNT = 20  # tries of each kind to each address
_HANGS_S = 2.0  # what isn't answered by then hangs; after `apply` a busy machine may take longer
VISITS = 1000  # connections by name

# The answers of each kind in the providers' filters: (protocol, port), ICMP by type * 256 + code.
_ANSWERS = {
    "tcp": {("tcp", ports.TCP_ECHO)},
    "http": {("tcp", ports.HTTP)},
    "quic": {("udp", ports.QUIC)},
    "udp-bound": {("udp", ports.UDP_BOUND)},
    "udp-pktinfo": {("udp", ports.UDP_PKTINFO)},
    "udp-wildcard": {("udp", ports.UDP_WILDCARD)},
    "icmp": {("icmp", 0), ("ipv6-icmp", 129 << 8)},
    "rst": {("tcp", ports.CLOSED)},
    "unreachable": {("icmp", 3 << 8 | 3), ("ipv6-icmp", 1 << 8 | 4)},
}


@dataclass(frozen=True, slots=True)
class Row:
    """The results of one kind of traffic to one address. `misrouted` is in packets."""

    kind: str
    uplink: str
    family: int
    tried: int
    answered: int
    hung: int
    wrong: int  # answered from another address, which a client ignores
    failed: int
    misrouted: int


@dataclass(frozen=True, slots=True)
class UplinkShare:
    """The connections that DNS rotation brought to one uplink."""

    uplink: str
    tried: int
    answered: int


@dataclass(frozen=True, slots=True)
class DemoResult:
    topology: str
    drawing: str
    notes: tuple[str, ...]
    before: tuple[Row, ...]
    plan: str
    status: str
    after: tuple[Row, ...]
    rotation: tuple[UplinkShare, ...]
    outage: demo_outage.Outage | None
    misrouted_after: int

    @property
    def ok(self) -> bool:
        """Whether after `apply` everything was answered, nothing misrouted, and clients by name
        reached the host when a provider had failed."""
        rows: tuple[Row | UplinkShare, ...] = (*self.after, *self.rotation)
        answered = all(row.answered == row.tried for row in rows)
        return answered and self.misrouted_after == 0 and (self.outage is None or self.outage.ok)


Progress = Callable[[str], None]


def run_demo(topology: Topology, progress: Progress) -> DemoResult:
    """Run the scenario, and return the measurements."""
    progress("building the world")
    with World.up(topology) as world:
        progress("starting the servers")
        kinds, notes = _start_servers(world)
        progress("clients, before: what isp-a drops hangs")
        before = _measure(world, kinds, _HANGS_S)
        progress("ifdefault plan, ifdefault apply")
        plan = _ifdefault(world, "plan")
        _ifdefault(world, "apply")
        status = _ifdefault(world, "status")
        progress("the same clients, after")
        baseline = sum(world.misrouted().values())
        after = _measure(world, kinds, PATIENCE_S)
        rotation: tuple[UplinkShare, ...] = ()
        outage = None
        if dns.installed():
            progress(f"{VISITS:,} connections by name")
            rotation = _rotate(world)
            outage = _run_outage(world, progress)
        else:
            notes.append("no connections by name: install BIND (named) and unbound")
        return DemoResult(
            topology=topology.name,
            drawing=topology.drawing,
            notes=tuple(notes),
            before=before,
            plan=plan,
            status=status,
            after=after,
            rotation=rotation,
            outage=outage,
            misrouted_after=sum(world.misrouted().values()) - baseline,
        )


def _start_servers(world: World) -> tuple[list[str], list[str]]:
    """Return the kinds of traffic that have servers, and notes about missing ones."""
    host = world["host"]
    kinds, notes = list(_ANSWERS), []
    nginx = services.installed("nginx")
    services.builtin(host, http=not nginx)
    if nginx:
        services.nginx(host)
    else:
        notes.append("nginx isn't installed: using the lab's own HTTP server")
    if services.installed("caddy") and find_spec("aioquic"):
        services.caddy(host)
    else:
        kinds.remove("quic")
        notes.append("no QUIC: install caddy and the Python package aioquic")
    return kinds, notes


def _measure(world: World, kinds: list[str], timeout_s: float) -> tuple[Row, ...]:
    targets = world.topology.targets()
    addresses = [target.address for target in targets]
    refused = _refused(world)
    tallies = measure(world["client"], kinds, addresses, count=COUNT, timeout_s=timeout_s)
    refused = _refused(world) - refused
    by_address = {target.address: target for target in targets}
    return tuple(_row(tally, by_address[tally.target], refused) for tally in tallies)


def _row(tally: Tally, target: ProviderAddress, refused: Counter[tuple[str, str, int]]) -> Row:
    return Row(
        kind=tally.kind,
        uplink=target.provider,
        family=target.family,
        tried=tally.tried,
        answered=tally.answered,
        hung=tally.hung,
        wrong=tally.wrong,
        failed=sum(count for _, count in tally.errors),
        misrouted=sum(refused[(target.address, *answer)] for answer in _ANSWERS[tally.kind]),
    )


def _refused(world: World) -> Counter[tuple[str, str, int]]:
    """Packets that the providers refused, by source, protocol and port."""
    counts: Counter[tuple[str, str, int]] = Counter()
    for row in world.refusals():
        counts[row.source, row.protocol, row.port] += row.packets
    return counts


def _ifdefault(world: World, subcommand: str) -> str:
    done = world.ifdefault(subcommand)
    if done.returncode:
        raise HostError(f"ifdefault {subcommand}: {(done.stderr or done.stdout).strip()}")
    return done.stdout.rstrip()


def _rotate(world: World) -> tuple[UplinkShare, ...]:
    dns.start(world, static_ttl_s=demo_outage.TTL_S)
    uplink = {target.address: target.provider for target in world.topology.targets()}
    tried: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    for share in rotate(world["client"], dns.RESOLVER[0], demo_outage.STATIC, count=VISITS):
        tried[uplink[share.address]] += share.tried
        answered[uplink[share.address]] += share.answered
    return tuple(UplinkShare(name, tried[name], answered[name]) for name in sorted(tried))


def _run_outage(world: World, progress: Progress) -> demo_outage.Outage:
    progress("ifdefault run, with a name in the DNS")
    demo_outage.configure(world)
    world.daemon()
    demo_outage.await_well(world)
    return demo_outage.run_outage(world, progress)
