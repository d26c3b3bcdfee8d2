"""`ifdefault dns check`: follow the delegation of our names as a resolver would, over each uplink.

Rules: nothing is changed, and the daemon need not run. `dns.survey` determines the queries, and
`dns.diagnose` the problems in the responses.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from ifdefault.cli.options import Options
from ifdefault.dns.candidate_address import candidate
from ifdefault.dns.delegation import ConfiguredZone, configured_zones
from ifdefault.dns.diagnose import LocalState, diagnose, diagnose_alias
from ifdefault.dns.exchange import Queries, QueryResult, Question
from ifdefault.dns.roots import ROOTS
from ifdefault.dns.survey import Alias, Step, Survey, ZoneServer, ZoneSurvey
from ifdefault.model.address import family_of
from ifdefault.model.config import FAMILIES, Config
from ifdefault.model.dns import CandidateAddresses, DnsConfig
from ifdefault.model.errors import HostError, Problem
from ifdefault.model.kernel import Uplink
from ifdefault.model.public_address import public_addresses

if TYPE_CHECKING:
    from ifdefault.model.report import DaemonStatus

T = TypeVar("T")
SendQuestion = Callable[[Question], QueryResult]

_PARALLEL = 32  # queries


@dataclass(frozen=True, slots=True)
class Host:
    """What the check knows of this host. `local`: the host's own address for a public one."""

    config: Config
    uplinks: tuple[Uplink, ...]
    status: DaemonStatus | None
    offers: tuple[CandidateAddresses, ...]
    local: Mapping[str, str]
    problems: tuple[Problem, ...]

    @property
    def wanted(self) -> tuple[ConfiguredZone, ...]:
        return configured_zones(self.config.dns, self.offers)

    @property
    def ways(self) -> dict[int, tuple[str, ...]]:
        """The usable uplinks by family; if there are none, the host's default route ("")."""
        usable_uplinks: dict[int, tuple[str, ...]] = {}
        for family in FAMILIES:
            names = tuple(u.name for u in self.uplinks if u.source(family) and not u.pending)
            if self.status:
                usable = self.status.decision.usable_in(family)
                names = tuple(name for name in names if name in usable)
            usable_uplinks[family] = names
        return usable_uplinks if any(usable_uplinks.values()) else dict.fromkeys(FAMILIES, ("",))

    @property
    def truth(self) -> LocalState:
        own = {a.address: u.name for u in self.uplinks for a in u.addresses}
        own |= {address: offer.uplink for offer in self.offers for address in offer.addresses}
        names = self.status.dns.names if self.status else ()
        published = {n.name: frozenset(address for _, address in n.addresses) for n in names}
        return LocalState(own, published)


def read(options: Options) -> Host:
    """Read the config and the kernel, and the status of the daemon if it runs."""
    from ifdefault import config as config_file
    from ifdefault.cli import daemon_client
    from ifdefault.host.store import Store
    from ifdefault.host.transaction import prepare_config
    from ifdefault.kernel import filters
    from ifdefault.plan import conflicts_input

    config = config_file.read(options.config)
    status = daemon_client.status(options)
    decision = status.decision if status else None
    store = Store(options.state_dir)
    uplinks = prepare_config(config, store, thorough=False, decision=decision).uplinks
    host = host_of(config, uplinks, status)
    if not config.dns.server.zones:
        return host
    # queries of this host to its own addresses don't pass the filters that others' pass
    closed = conflicts_input.find(config, filters.read_input_chains(), uplinks)
    return replace(host, problems=(*host.problems, *closed))


def host_of(config: Config, uplinks: tuple[Uplink, ...], status: DaemonStatus | None) -> Host:
    if config.dns == DnsConfig():
        raise HostError(Problem("dns", "the config has no [dns]", "add it, see ifdefault.toml(5)"))
    public = {uplink.name: uplink.public for uplink in config.uplinks}
    published = [pair for name in status.dns.names for pair in name.addresses] if status else []
    offers: list[CandidateAddresses] = []
    local: dict[str, str] = {}
    problems: list[Problem] = []
    for uplink in uplinks:
        discovered = {family_of(a): a for name, a in published if name == uplink.name}
        seen = public_addresses(uplink, public[uplink.name], discovered)
        offers.append(candidate(uplink, seen))
        for family, address in seen.items():
            if address:
                local[address] = uplink.source(family) or ""
            else:
                what = f"public IPv{family} address unknown"
                remedy = "start ifdefault run, which discovers it; it is known once published"
                problems.append(Problem(f"uplink.{uplink.name}", what, remedy, warning=True))
    return Host(config, uplinks, status, tuple(offers), local, tuple(problems))


# --- sending ------------------------------------------------------------------------------


def sender(host: Host) -> SendQuestion:
    """A function that sends a query from an uplink's own address and interface."""
    from ifdefault.cli import resolver
    from ifdefault.kernel import open_probe_sockets

    uplinks = {uplink.name: uplink for uplink in host.uplinks}

    def send(question: Question) -> QueryResult:
        address, port = host.local.get(question.address, question.address), question.port
        if address != question.address:  # a NAT that translates the address may translate the port
            port = host.config.dns.server.port

        def make(tcp: bool) -> socket.socket:
            family = family_of(address)
            if not (uplink := uplinks.get(question.uplink)):
                kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
                return socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, kind)
            mark = 0 if uplink.mechanism == "source" else uplink.arrival_mark
            bound = open_probe_sockets.stream_socket if tcp else open_probe_sockets.datagram_socket
            return bound(family, uplink.source(family) or "", uplink.interface, mark)

        return resolver.ask(make, question, address, port)

    return send


def drive(asking: Queries[T], send: SendQuestion) -> T:
    """Send the queries of each batch in parallel, until there is a result."""
    with ThreadPoolExecutor(_PARALLEL) as pool:
        try:
            batch = next(asking)
            while True:
                batch = asking.send(tuple(pool.map(send, batch)))
        except StopIteration as end:
            result: T = end.value
            return result


# --- checking -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CheckResult:
    zones: tuple[ZoneSurvey, ...]
    aliases: tuple[Alias, ...]
    problems: tuple[Problem, ...]

    @property
    def is_ok(self) -> bool:
        return all(problem.warning for problem in self.problems)


def check(host: Host, send: SendQuestion, roots: Sequence[str], only: Sequence[str]) -> CheckResult:
    """Check all names of the config and their zones, or only some, and names that aren't ours."""
    ours = {name.name for name in host.config.dns.names}
    zones = [zone for zone in host.wanted if not only or _is_selected(zone, only)]
    others = [name for name in only if not any(_is_selected(zone, [name]) for zone in zones)]
    truth = host.truth
    pairs = tuple((address, address) for address in roots) or ROOTS
    survey = Survey(pairs, host.ways, truth.own)
    problems = list(host.problems)
    surveys = [drive(survey.zone(zone), send) for zone in zones]
    for zone_survey in surveys:
        problems += diagnose(zone_survey, truth)
    aliases = [drive(survey.alias(name, ours), send) for name in others]
    for alias in aliases:
        problems += diagnose_alias(alias, truth, sorted(ours))
    # several zones may have the same parent
    return CheckResult(tuple(surveys), tuple(aliases), tuple(dict.fromkeys(problems)))


def _is_selected(zone: ConfiguredZone, names: Sequence[str]) -> bool:
    return zone.zone in names or any(name.name in names for name in zone.names)


# --- output -------------------------------------------------------------------------------


def lines(result: CheckResult) -> Iterator[str]:
    """The delegation path to each zone and name, then a line for each of its servers."""
    for survey in result.zones:
        yield survey.zone
        yield from _path(survey.steps)
        for parent in survey.parents[1:] and survey.parents:
            over = f" over {parent.uplink}" if parent.uplink else ""
            yield f"  of {parent.server}{over}: {parent.told}"
        for server in survey.servers:
            yield _server(survey, server)
    for alias in result.aliases:
        yield alias.name
        yield from _path(alias.steps)


def _path(steps: Iterable[Step]) -> Iterator[str]:
    for step in steps:
        over = f" over {step.uplink}" if step.uplink else ""
        by = f"{step.host} {step.address}".strip()
        if step.host == step.address:
            by = step.address
        took = f"{by}{over} in {step.took_ms:.1f} ms: " if by else ""
        yield f"  {step.zone or '.'}  {took}{step.told}"


def _server(survey: ZoneSurvey, server: ZoneServer) -> str:
    """A server, and the uplinks over which it answers."""
    responses: dict[str, list[str]] = {}
    for question, reply in survey.replies(server, survey.zone, "SOA"):
        protocol = "TCP" if question.tcp else "UDP"
        text = reply.error or (f"{protocol} {reply.took_ms:.1f} ms" if reply.is_good else "lame")
        responses.setdefault(question.uplink or "this host", []).append(text)
    by_uplink = (f"{name}: {', '.join(dict.fromkeys(t))}" for name, t in responses.items())
    return f"  at {server}  {'; '.join(by_uplink)}"


def to_json(result: CheckResult) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "ok": result.is_ok,
        "zones": [
            {
                "zone": survey.zone,
                "steps": [asdict(step) for step in survey.steps],
                "parents": [asdict(parent) for parent in survey.parents],
                "servers": [asdict(server) for server in survey.servers],
                "asked": [
                    {**asdict(question), "reply": asdict(reply)}
                    for question, reply in survey.exchanges
                ],
            }
            for survey in result.zones
        ],
        "aliases": [asdict(alias) for alias in result.aliases],
        "problems": [asdict(problem) for problem in result.problems],
    }
