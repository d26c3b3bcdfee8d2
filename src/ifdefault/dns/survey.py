"""Ask the DNS as a resolver would: from the root's servers down, then every server of a zone.

    root ──refers──> net ──refers──> example.net ──refers──> www.example.net: each of its servers,
                                                              over each uplink, by UDP and TCP

Rules: whoever drives an `Asking` puts each batch of questions, all at once, and hands the replies
back in their order. Nothing is judged here. Names are canonical; "" is the root.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from ifdefault.dns.delegation import Wanted
from ifdefault.model.address import family_of
from ifdefault.model.dns import within, zone_of

T = TypeVar("T")

_AT_ONCE = 3  # servers that are asked for the same, of whom the first good reply counts
_MOST_BATCHES = 4
_MOST_LINKS = 8  # of a chain of CNAMEs
_MOST_DEPTH = 4  # name servers whose addresses depend on others whose addresses …


@dataclass(frozen=True, slots=True)
class Question:
    """`uplink` "" is whichever way the host takes."""

    address: str
    name: str
    type: str
    uplink: str = ""
    tcp: bool = False
    port: int = 53


@dataclass(frozen=True, slots=True)
class Rrset:
    """Records of one name and type. Names in `values` are canonical, the rest is as dig prints."""

    name: str
    ttl: int
    type: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class QueryResult:
    """What came of a question. `error` says why there is no response; if `is_local`, for a
    reason of this host's own, which says nothing of the server or the uplink."""

    error: str = ""
    is_local: bool = False
    code: str = "NOERROR"
    authoritative: bool = False
    answer: tuple[Rrset, ...] = ()
    authority: tuple[Rrset, ...] = ()
    additional: tuple[Rrset, ...] = ()
    took_ms: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether somebody who knows says that this is so, or that there is no such thing."""
        known = self.code in ("NOERROR", "NXDOMAIN")
        return not self.error and self.authoritative and known

    @property
    def soa(self) -> Rrset | None:
        return next((r for r in (*self.answer, *self.authority) if r.type == "SOA"), None)

    def find(self, name: str, kind: str) -> Rrset | None:
        return next((r for r in self.answer if (r.name, r.type) == (name, kind)), None)

    def referral(self, zone: str, name: str) -> Rrset | None:
        """The NS records of a zone below that holds a name; those of others are no referral."""
        if self.error or self.code != "NOERROR" or self.answer:
            return None
        below = (r for r in self.authority if r.type == "NS" and r.name != zone)
        return next((r for r in below if within(name, r.name) and _under(r.name, zone)), None)


Asking = Generator[tuple[Question, ...], tuple[QueryResult, ...], T]
Exchange = tuple[Question, QueryResult]


@dataclass(frozen=True, slots=True)
class Delegation:
    """What a parent says of a zone. `glue`: the addresses of name servers that it gives along."""

    zone: str
    parent: str
    ttl: int
    hosts: tuple[str, ...]
    glue: tuple[Rrset, ...] = ()

    def glue_of(self, host: str) -> tuple[str, ...]:
        return tuple(a for r in self.glue if r.name == host for a in r.values)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the way down: who of a zone's servers was asked, and what it told."""

    zone: str
    host: str
    address: str
    uplink: str
    took_ms: float
    told: str


@dataclass(frozen=True, slots=True)
class ReferralEnd:
    """Where referrals end: the last zone, and what its server says; None if none of them does."""

    zone: str
    reply: QueryResult | None


@dataclass(frozen=True, slots=True)
class ZoneServer:
    """A server that should know a zone. `host` "" is one that the config alone names."""

    host: str
    address: str
    port: int = 53

    def __str__(self) -> str:
        where = self.address + (f" port {self.port}" if self.port != 53 else "")
        return where if self.host in ("", self.address) else f"{self.host} ({where})"


@dataclass(frozen=True, slots=True)
class ZoneSurvey:
    """All that was asked about a zone, and answered. `signed`: the parent says that it is."""

    wanted: Wanted
    zone: str  # what `wanted` names, or leaves to be found out
    steps: tuple[Step, ...]
    end: ReferralEnd
    delegation: Delegation | None
    servers: tuple[ZoneServer, ...] = ()
    exchanges: tuple[Exchange, ...] = ()
    signed: bool = False

    def replies(self, server: ZoneServer, name: str, kind: str) -> list[Exchange]:
        asked = (server.address, server.port, name, kind)
        return [
            (question, reply)
            for question, reply in self.exchanges
            if (question.address, question.port, question.name, question.type) == asked
        ]


@dataclass(frozen=True, slots=True)
class Alias:
    """A name that isn't ours and may lead here: its CNAMEs, and where they end."""

    name: str
    steps: tuple[Step, ...]
    links: tuple[Rrset, ...]
    target: str
    addresses: tuple[Rrset, ...]
    told: str  # why there are none


class Survey:
    """Remembers delegations and addresses, so that nobody is asked twice."""

    def __init__(
        self,
        roots: Iterable[tuple[str, str]],
        ways: Mapping[int, Sequence[str]],
        own: Iterable[str] = (),
    ) -> None:
        """`roots`: (host, address); `ways`: the uplinks that work, by family; `own`: addresses of
        this host, which can't be reached from itself by way of an uplink."""
        pairs = tuple(roots)
        glue = tuple(
            Rrset(host, 0, "AAAA" if ":" in address else "A", (address,)) for host, address in pairs
        )
        hosts = tuple(dict.fromkeys(host for host, _ in pairs))
        self._delegations = {"": Delegation("", "", 0, hosts, glue)}
        self._ways = dict(ways)
        self._own = frozenset(own)
        self._resolved: dict[str, tuple[str, ...]] = {}

    # --- the way down ---------------------------------------------------------------------

    def reach(self, name: str, kind: str, steps: list[Step], depth: int = 0) -> Asking[ReferralEnd]:
        """Follow referrals until a server answers by itself. Each leads further down."""
        zone = zone_of(name, tuple(self._delegations))
        while True:
            reply = yield from self._ask_any(zone, name, kind, steps, depth)
            cut = reply.referral(zone, name) if reply else None
            if reply is None or cut is None:
                return ReferralEnd(zone, reply)
            near = [r for r in reply.additional if r.name in cut.values]
            glue = tuple(r for r in near if r.type in ("A", "AAAA"))
            self._delegations[cut.name] = Delegation(cut.name, zone, cut.ttl, cut.values, glue)
            zone = cut.name

    def _ask_any(
        self, zone: str, name: str, kind: str, steps: list[Step], depth: int
    ) -> Asking[QueryResult | None]:
        """Ask servers of a zone, some at a time, until one refers or knows."""
        servers = yield from self._servers(self._delegations[zone], depth)
        failed = ""
        for batch in islice(self._attempts(servers), _MOST_BATCHES):
            replies = yield tuple(Question(s.address, name, kind, way) for s, way in batch)
            for (server, way), reply in zip(batch, replies, strict=True):
                cut = reply.referral(zone, name)
                if reply.is_good or cut:
                    by = (server.host, server.address, way)
                    steps.append(Step(zone, *by, reply.took_ms, _told(reply, cut)))
                    self._prefer(family_of(server.address), way)
                    return reply
                failed = f"{server}: {reply.error or _lame(reply)}"
        told = f"no server answers; the last one, {failed}" if failed else "no server to ask"
        steps.append(Step(zone, "", "", "", 0.0, told))
        return None

    def _attempts(self, servers: Sequence[ZoneServer]) -> Iterator[list[tuple[ZoneServer, str]]]:
        """Some servers by the first way of their family, then by the next, then others: a dead
        way is waited for but once, since what worked goes first from then on."""
        for at in range(0, len(servers), _AT_ONCE):
            some = [(s, self._ways_to(s.address)) for s in servers[at : at + _AT_ONCE]]
            for turn in range(max(len(ways) for _, ways in some)):
                yield [(server, ways[turn]) for server, ways in some if turn < len(ways)]

    def _prefer(self, family: int, way: str) -> None:
        ways = self._ways.get(family, ())
        self._ways[family] = tuple(sorted(ways, key=lambda other: other != way))

    def _servers(self, delegation: Delegation, depth: int) -> Asking[list[ZoneServer]]:
        """Those with glue; only where there is none the others' addresses are looked up."""
        found = [ZoneServer(h, a) for h in delegation.hosts for a in delegation.glue_of(h)]
        if not found and depth < _MOST_DEPTH:
            for host in delegation.hosts:
                addresses = yield from self.resolve(host, depth + 1)
                found += [ZoneServer(host, address) for address in addresses]
                if found:
                    break
        return found

    def resolve(self, host: str, depth: int = 0) -> Asking[tuple[str, ...]]:
        """All addresses of a name server."""
        if host not in self._resolved:
            self._resolved[host] = ()  # for whom it depends on itself
            found: list[str] = []
            for kind in ("A", "AAAA"):
                end = yield from self.reach(host, kind, [], depth)
                rrset = end.reply.find(host, kind) if end.reply else None
                found += rrset.values if rrset else ()
            self._resolved[host] = tuple(found)
        return self._resolved[host]

    def _ways_to(self, address: str) -> Sequence[str]:
        return ("",) if address in self._own else self._ways.get(family_of(address), ())

    # --- a zone ---------------------------------------------------------------------------

    def zone(self, wanted: Wanted) -> Asking[ZoneSurvey]:
        """Ask all servers that should know a zone: those that the parent names, those that they
        name, and those of the config."""
        steps: list[Step] = []
        end = yield from self.reach(wanted.zone or wanted.names[0].name, "SOA", steps)
        soa = end.reply.soa if end.reply else None
        zone = wanted.zone or (soa.name if soa else end.zone)
        delegation = self._delegations.get(zone)
        servers: dict[ZoneServer, None] = {}
        for host in delegation.hosts if delegation else ():
            addresses = delegation.glue_of(host) if delegation else ()
            addresses = addresses or (yield from self.resolve(host))
            servers |= dict.fromkeys(ZoneServer(host, address) for address in addresses)
        known = {server.address for server in servers}
        named = [
            ZoneServer(host, a, wanted.port) for host, many in wanted.nameservers for a in many
        ]
        named += [ZoneServer("", each.address, each.port) for each in wanted.servers]
        servers |= dict.fromkeys(s for s in named if s.address not in known)
        if delegation is None and end.reply and end.reply.find(zone, "SOA"):
            # the parent's server has the zone as well, and so tells no delegation
            last = ZoneServer(steps[-1].host, steps[-1].address)
            servers = {last: None, **servers}
        exchanges = yield from self._examine(zone, servers)
        hosts = {h for _, r in exchanges if (ns := r.find(zone, "NS")) for h in ns.values}
        new: dict[ZoneServer, None] = {}
        for host in sorted(hosts - {server.host for server in servers}):
            addresses = yield from self.resolve(host)
            told = (ZoneServer(host, address) for address in addresses)
            new |= dict.fromkeys(s for s in told if s not in servers)
        exchanges += yield from self._examine(zone, new)
        servers |= new
        exchanges += yield from self._look_up(wanted, zone, hosts, exchanges)
        signed = False
        if delegation and wanted.embedded:
            reply = yield from self._ask_any(delegation.parent, zone, "DS", [], 0)
            signed = bool(reply and reply.find(zone, "DS"))
        return ZoneSurvey(
            wanted, zone, tuple(steps), end, delegation, tuple(servers), tuple(exchanges), signed
        )

    def _examine(self, zone: str, servers: Iterable[ZoneServer]) -> Asking[list[Exchange]]:
        """What each server says of the zone, over each uplink, by UDP and TCP."""
        asked = (
            Question(server.address, zone, kind, way, tcp, server.port)
            for server in servers
            for way in self._ways_to(server.address)
            for kind, tcp in (("SOA", False), ("SOA", True), ("NS", False))
        )
        batch = tuple(dict.fromkeys(asked))  # several name servers may share an address
        replies = (yield batch) if batch else ()
        return list(zip(batch, replies, strict=True))

    def _look_up(
        self, wanted: Wanted, zone: str, hosts: Iterable[str], known: Iterable[Exchange]
    ) -> Asking[list[Exchange]]:
        """The addresses of names and of name servers, from each server that knows the zone, by
        the first way that leads to it."""
        good: dict[tuple[str, int], Question] = {}
        for question, reply in known:
            if question.type == "SOA" and reply.is_good:
                good.setdefault((question.address, question.port), question)
        near = {host for host, _ in wanted.nameservers} | set(hosts)
        names = [each.name for each in wanted.names]
        names += sorted(host for host in near if within(host, zone) and host not in names)
        batch = tuple(
            Question(by.address, name, kind, by.uplink, by.tcp, by.port)
            for by in good.values()
            for name in names
            for kind in ("A", "AAAA")
        )
        replies = (yield batch) if batch else ()
        return list(zip(batch, replies, strict=True))

    # --- a name of somebody else ----------------------------------------------------------

    def alias(self, name: str, known: Iterable[str]) -> Asking[Alias]:
        """Follow a name until one of ours is met, or addresses."""
        steps: list[Step] = []
        links: list[Rrset] = []
        target, ours = name, frozenset(known)
        while True:
            end = yield from self.reach(target, "A", steps)
            link = end.reply.find(target, "CNAME") if end.reply else None
            if link is None or len(links) == _MOST_LINKS:
                break
            links.append(link)
            target = link.values[0]
            if target in ours:
                return Alias(name, tuple(steps), tuple(links), target, (), "")
        found = [end.reply.find(target, "A") if end.reply else None]
        more = yield from self.reach(target, "AAAA", [])
        found.append(more.reply.find(target, "AAAA") if more.reply else None)
        addresses = tuple(rrset for rrset in found if rrset)
        told = "" if addresses else steps[-1].told
        return Alias(name, tuple(steps), tuple(links), target, addresses, told)


def _under(name: str, zone: str) -> bool:
    return not zone or within(name, zone)


def _told(reply: QueryResult, cut: Rrset | None) -> str:
    if cut:
        return f"refers to {cut.name}: {', '.join(cut.values)}"
    if reply.answer:
        return ", ".join(f"{r.type} {' '.join(r.values)}" for r in reply.answer)
    return "no such name" if reply.code == "NXDOMAIN" else "nothing of this type"


def _lame(reply: QueryResult) -> str:
    return reply.code if reply.code != "NOERROR" else "knows nothing of it"
