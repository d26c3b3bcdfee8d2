"""`ifdefault dns check`: what the DNS says of us, asked as a resolver would ask, over each uplink.

Rules: nothing is changed, and no daemon need run. `dns.survey` says what is to be asked, and
`dns.diagnose` reports what came of it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ifdefault.cli.options import Options
from ifdefault.dns.candidate_address import candidate, public_addresses
from ifdefault.dns.delegation import ConfiguredZone, configured_zones
from ifdefault.dns.diagnose import LocalState, diagnose, diagnose_alias
from ifdefault.dns.roots import ROOTS
from ifdefault.dns.survey import (
    Alias,
    Queries,
    QueryResult,
    Question,
    Step,
    Survey,
    ZoneServer,
    ZoneSurvey,
)
from ifdefault.model.address import family_of
from ifdefault.model.config import FAMILIES, Config
from ifdefault.model.dns import CandidateAddresses, DnsConfig
from ifdefault.model.errors import HostError, Problem
from ifdefault.model.kernel import Uplink

if TYPE_CHECKING:
    from ifdefault.daemon.status import DaemonStatus

T = TypeVar("T")
SendQuestion = Callable[[Question], QueryResult]

_AT_ONCE = 32  # questions


@dataclass(frozen=True, slots=True)
class Host:
    """This host, as far as the DNS is concerned. `local`: the address here of a public one."""

    config: Config
    uplinks: tuple[Uplink, ...]
    standing: DaemonStatus | None
    offers: tuple[CandidateAddresses, ...]
    local: Mapping[str, str]
    problems: tuple[Problem, ...]

    @property
    def wanted(self) -> tuple[ConfiguredZone, ...]:
        return configured_zones(self.config.dns, self.offers)

    @property
    def ways(self) -> dict[int, tuple[str, ...]]:
        """The uplinks that work, by family; whichever way there is where none is known."""
        found: dict[int, tuple[str, ...]] = {}
        for family in FAMILIES:
            there = tuple(u.name for u in self.uplinks if u.source(family) and not u.pending)
            if self.standing:
                usable = self.standing.decision.usable_in(family)
                there = tuple(name for name in there if name in usable)
            found[family] = there
        return found if any(found.values()) else dict.fromkeys(FAMILIES, ("",))

    @property
    def truth(self) -> LocalState:
        own = {a.address: u.name for u in self.uplinks for a in u.addresses}
        own |= {address: offer.uplink for offer in self.offers for address in offer.addresses}
        names = self.standing.dns.names if self.standing else ()
        published = {n.name: frozenset(address for _, address in n.addresses) for n in names}
        return LocalState(own, published)


def read(options: Options) -> Host:
    """From the config and the kernel, and from the daemon where one runs."""
    from ifdefault import config as config_file
    from ifdefault.cli import daemon_client
    from ifdefault.host.store import Store
    from ifdefault.host.transaction import prepare_config

    config = config_file.read(options.config)
    standing = daemon_client.standing(options)
    decision = standing.decision if standing else None
    store = Store(options.state_dir)
    uplinks = prepare_config(config, store, thorough=False, decision=decision).uplinks
    return look(config, uplinks, standing)


def look(config: Config, uplinks: tuple[Uplink, ...], standing: DaemonStatus | None) -> Host:
    if config.dns == DnsConfig():
        raise HostError(Problem("", "the config has no [dns]", "ifdefault.toml(5) tells how"))
    public = {each.name: each.public for each in config.uplinks}
    told = [pair for name in standing.dns.names for pair in name.addresses] if standing else []
    offers: list[CandidateAddresses] = []
    local: dict[str, str] = {}
    problems: list[Problem] = []
    for uplink in uplinks:
        found = {family_of(address): address for name, address in told if name == uplink.name}
        seen = public_addresses(uplink, public[uplink.name], found)
        offers.append(candidate(uplink, seen))
        for family, address in seen.items():
            if address:
                local[address] = uplink.source(family) or ""
            else:
                what = f"its public IPv{family} address isn't known"
                remedy = "the daemon finds it out, and tells it as long as a name leads there"
                problems.append(Problem(f"uplink.{uplink.name}", what, remedy, warning=True))
    return Host(config, uplinks, standing, tuple(offers), local, tuple(problems))


# --- asking -------------------------------------------------------------------------------


def asker(host: Host) -> SendQuestion:
    """Put a question to a server, from an uplink's own address and interface."""
    from ifdefault.cli import resolver
    from ifdefault.kernel import open_probe_sockets

    uplinks = {uplink.name: uplink for uplink in host.uplinks}

    def ask(question: Question) -> QueryResult:
        address, port = host.local.get(question.address, question.address), question.port
        if address != question.address:  # whoever translates it may translate the port
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

    return ask


def drive(asking: Queries[T], ask: SendQuestion) -> T:
    """Put each batch of questions at once, until there is a result."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            batch = next(asking)
            while True:
                batch = asking.send(tuple(pool.map(ask, batch)))
        except StopIteration as end:
            result: T = end.value
            return result


# --- checking -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ZoneCheck:
    found: tuple[ZoneSurvey, ...]
    aliases: tuple[Alias, ...]
    problems: tuple[Problem, ...]

    @property
    def is_well(self) -> bool:
        return all(problem.warning for problem in self.problems)


def check(host: Host, ask: SendQuestion, roots: Sequence[str], only: Sequence[str]) -> ZoneCheck:
    """All names of the config and their zones, or some of them, and names that aren't ours."""
    ours = {name.name for name in host.config.dns.names}
    zones = [zone for zone in host.wanted if not only or _is_meant(zone, only)]
    others = [name for name in only if not any(_is_meant(zone, [name]) for zone in zones)]
    truth = host.truth
    pairs = tuple((address, address) for address in roots) or ROOTS
    survey = Survey(pairs, host.ways, truth.own)
    problems = list(host.problems)
    found = [drive(survey.zone(zone), ask) for zone in zones]
    for each in found:
        problems += diagnose(each, truth)
    aliases = [drive(survey.alias(name, ours), ask) for name in others]
    for alias in aliases:
        problems += diagnose_alias(alias, truth, sorted(ours))
    return ZoneCheck(tuple(found), tuple(aliases), tuple(problems))


def _is_meant(zone: ConfiguredZone, names: Sequence[str]) -> bool:
    return zone.zone in names or any(name.name in names for name in zone.names)


# --- telling ------------------------------------------------------------------------------


def lines(checked: ZoneCheck) -> Iterator[str]:
    """The way down to each zone and name, then what its servers are, a line each."""
    for found in checked.found:
        yield found.zone
        yield from _path(found.steps)
        for server in found.servers:
            yield _server(found, server)
    for alias in checked.aliases:
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


def _server(found: ZoneSurvey, server: ZoneServer) -> str:
    """A server, and over which uplinks it answers."""
    heard: dict[str, list[str]] = {}
    for question, reply in found.replies(server, found.zone, "SOA"):
        how = "TCP" if question.tcp else "UDP"
        told = reply.error or (f"{how} {reply.took_ms:.1f} ms" if reply.is_good else "lame")
        heard.setdefault(question.uplink or "this host", []).append(told)
    told = "; ".join(f"{way}: {', '.join(dict.fromkeys(many))}" for way, many in heard.items())
    return f"  at {server}  {told}"


def to_json(checked: ZoneCheck) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "ok": checked.is_well,
        "zones": [
            {
                "zone": found.zone,
                "steps": [asdict(step) for step in found.steps],
                "servers": [asdict(server) for server in found.servers],
                "asked": [
                    {**asdict(question), "reply": asdict(reply)}
                    for question, reply in found.exchanges
                ],
            }
            for found in checked.found
        ],
        "aliases": [asdict(alias) for alias in checked.aliases],
        "problems": [asdict(problem) for problem in checked.problems],
    }
