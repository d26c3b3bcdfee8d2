"""Query the DNS like a resolver: from the root servers down, then every server of a zone.

    root ──refers──> net ──refers──> example.net ──refers──> www.example.net: each of its servers,
                                                              over each uplink, by UDP and TCP

Rules: pure; the caller drives a generator (`Queries`): it sends each batch of questions at the same
time, and returns the replies in order. Problems are found by `dns.diagnose`. Names are canonical;
"" is the root.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from ifdefault.dns.delegation import ConfiguredZone
from ifdefault.dns.exchange import Exchange, Queries, QueryResult, Question, Rrset
from ifdefault.model.address import family_of
from ifdefault.model.config import FAMILIES
from ifdefault.model.dns import within, zone_of

_AT_ONCE = 3  # servers queried at the same time, of which the first good reply counts
_BATCHES_MAX = 4
_CNAMES_MAX = 8  # of a chain
_DEPTH_MAX = 4  # of lookups of name servers whose addresses need further lookups


@dataclass(frozen=True, slots=True)
class Delegation:
    """A delegation at the parent. `glue`: the name servers' addresses in the referral."""

    zone: str
    parent: str
    ttl: int
    hosts: tuple[str, ...]
    glue: tuple[Rrset, ...] = ()

    def glue_of(self, host: str) -> tuple[str, ...]:
        return tuple(a for r in self.glue if r.name == host for a in r.values)


@dataclass(frozen=True, slots=True)
class Step:
    """One referral: the server of a zone that was queried, and the result (`told`, for display)."""

    zone: str
    host: str
    address: str
    uplink: str
    took_ms: float
    told: str


@dataclass(frozen=True, slots=True)
class ReferralEnd:
    """The end of referrals: the last zone, and the reply of its server; None if none replied."""

    zone: str
    reply: QueryResult | None


@dataclass(frozen=True, slots=True)
class ZoneServer:
    """A server that should serve a zone. `host` "": it is only in the config."""

    host: str
    address: str
    port: int = 53

    def __str__(self) -> str:
        address = self.address + (f" port {self.port}" if self.port != 53 else "")
        return address if self.host in ("", self.address) else f"{self.host} ({address})"


@dataclass(frozen=True, slots=True)
class ParentReply:
    """What a server of the parent zone replied about a zone below; `delegation` if it refers."""

    server: ZoneServer
    uplink: str
    reply: QueryResult
    delegation: Delegation | None

    @property
    def told(self) -> str:
        """For display."""
        cut = self.delegation
        return self.reply.error or _result_text(self.reply, (cut.zone, cut.hosts) if cut else None)


@dataclass(frozen=True, slots=True)
class ZoneSurvey:
    """All queries about a zone, and their results. `delegation` is the one that was followed;
    `parents`: the replies of all of the parent's servers; `signed`: the parent has a DS record."""

    wanted: ConfiguredZone
    zone: str  # of `wanted`, or discovered
    steps: tuple[Step, ...]
    end: ReferralEnd
    delegation: Delegation | None
    parents: tuple[ParentReply, ...] = ()
    servers: tuple[ZoneServer, ...] = ()
    exchanges: tuple[Exchange, ...] = ()
    signed: bool = False

    def replies(self, server: ZoneServer, name: str, kind: str) -> list[Exchange]:
        key = (server.address, server.port, name, kind)
        return [
            (question, reply)
            for question, reply in self.exchanges
            if (question.address, question.port, question.name, question.type) == key
        ]


@dataclass(frozen=True, slots=True)
class Alias:
    """A name of another zone that should lead here: its CNAMEs, and their target."""

    name: str
    steps: tuple[Step, ...]
    links: tuple[Rrset, ...]
    target: str
    addresses: tuple[Rrset, ...]
    told: str  # why there are no addresses, for display


class Survey:
    """Queries the DNS. Delegations and addresses are cached, so that nothing is queried twice."""

    def __init__(
        self,
        roots: Iterable[tuple[str, str]],
        ways: Mapping[int, Sequence[str]],
        own: Iterable[str] = (),
    ) -> None:
        """`roots`: (host, address); `ways`: the usable uplinks by family; `own`: addresses of this
        host, which it can't reach through an uplink."""
        pairs = tuple(roots)
        glue = tuple(
            Rrset(host, 0, "AAAA" if ":" in address else "A", (address,)) for host, address in pairs
        )
        hosts = tuple(dict.fromkeys(host for host, _ in pairs))
        self._delegations = {"": Delegation("", "", 0, hosts, glue)}
        self._ways = dict(ways)
        self._own = frozenset(own)
        self._resolved: dict[str, tuple[str, ...]] = {}

    # --- referrals ------------------------------------------------------------------------

    def follow_referrals(
        self, name: str, kind: str, steps: list[Step], depth: int = 0
    ) -> Queries[ReferralEnd]:
        """Follow referrals until a server answers. Each referral leads further down."""
        zone = zone_of(name, tuple(self._delegations))
        while True:
            reply = yield from self._query_any(zone, name, kind, steps, depth)
            cut = reply.referral(zone, name) if reply else None
            if reply is None or cut is None:
                return ReferralEnd(zone, reply)
            self._delegations[cut.name] = _delegation(zone, reply, cut)
            zone = cut.name

    def _query_any(
        self, zone: str, name: str, kind: str, steps: list[Step], depth: int
    ) -> Queries[QueryResult | None]:
        """Query servers of a zone in batches until one answers or refers."""
        servers = yield from self._servers(self._delegations[zone], depth)
        failed = ""
        for batch in islice(self._attempts(servers), _BATCHES_MAX):
            replies = yield tuple(Question(s.address, name, kind, way) for s, way in batch)
            for (server, way), reply in zip(batch, replies, strict=True):
                cut = reply.referral(zone, name)
                if reply.is_good or cut:
                    route = (server.host, server.address, way)
                    told = _result_text(reply, (cut.name, cut.values) if cut else None)
                    steps.append(Step(zone, *route, reply.took_ms, told))
                    self._prefer(family_of(server.address), way)
                    return reply
                failed = f"{server}: {reply.error or _lame_text(reply)}"
        text = f"no server answers; last error: {failed}" if failed else "no server to query"
        steps.append(Step(zone, "", "", "", 0.0, text))
        return None

    def _attempts(self, servers: Sequence[ZoneServer]) -> Iterator[list[tuple[ZoneServer, str]]]:
        """Batches: some servers by the first way of their family, then by the next, then other
        servers. A way that works becomes the first, so that others time out only once."""
        for at in range(0, len(servers), _AT_ONCE):
            batch = [(s, self._ways_to(s.address)) for s in servers[at : at + _AT_ONCE]]
            for turn in range(max(len(ways) for _, ways in batch)):
                yield [(server, ways[turn]) for server, ways in batch if turn < len(ways)]

    def _prefer(self, family: int, way: str) -> None:
        ways = self._ways.get(family, ())
        self._ways[family] = tuple(sorted(ways, key=lambda other: other != way))

    def _servers(self, delegation: Delegation, depth: int) -> Queries[list[ZoneServer]]:
        """The servers with glue; without any glue, look up the servers' addresses."""
        servers = [ZoneServer(h, a) for h in delegation.hosts for a in delegation.glue_of(h)]
        if not servers and depth < _DEPTH_MAX:
            for host in delegation.hosts:
                addresses = yield from self.resolve(host, depth + 1)
                servers += [ZoneServer(host, address) for address in addresses]
                if servers:
                    break
        return servers

    def resolve(self, host: str, depth: int = 0) -> Queries[tuple[str, ...]]:
        """All addresses of a name server."""
        if host not in self._resolved:
            self._resolved[host] = ()  # if the lookup depends on itself
            addresses: list[str] = []
            for kind in ("A", "AAAA"):
                end = yield from self.follow_referrals(host, kind, [], depth)
                rrset = end.reply.find(host, kind) if end.reply else None
                addresses += rrset.values if rrset else ()
            self._resolved[host] = tuple(addresses)
        return self._resolved[host]

    def _ways_to(self, address: str) -> Sequence[str]:
        return ("",) if address in self._own else self._ways.get(family_of(address), ())

    # --- a zone ---------------------------------------------------------------------------

    def zone(self, wanted: ConfiguredZone) -> Queries[ZoneSurvey]:
        """Query all servers that should serve a zone: those of the delegation, of the zone's own NS
        records, and of the config."""
        steps: list[Step] = []
        name = wanted.zone or wanted.names[0].name
        end, zone, parents = yield from self._find_zone(name, bool(wanted.zone), steps)
        delegation = self._delegations.get(zone)
        servers: dict[ZoneServer, None] = {}
        for cut in dict.fromkeys((delegation, *(parent.delegation for parent in parents))):
            for host in cut.hosts if cut else ():
                addresses = (cut.glue_of(host) if cut else ()) or (yield from self.resolve(host))
                servers |= dict.fromkeys(ZoneServer(host, address) for address in addresses)
        known = {server.address for server in servers}
        named = [
            ZoneServer(host, address, wanted.port)
            for host, addresses in wanted.nameservers
            for address in addresses
        ]
        named += [ZoneServer("", endpoint.address, endpoint.port) for endpoint in wanted.servers]
        servers |= dict.fromkeys(s for s in named if s.address not in known)
        if delegation is None and end.reply and end.reply.find(zone, "SOA"):
            # the parent's server serves the zone as well, and so returns no referral
            last = ZoneServer(steps[-1].host, steps[-1].address)
            servers = {last: None, **servers}
        exchanges = yield from self._query_servers(zone, servers)
        hosts = {h for _, r in exchanges if (ns := r.find(zone, "NS")) for h in ns.values}
        new: dict[ZoneServer, None] = {}
        for host in sorted(hosts - {server.host for server in servers}):
            addresses = yield from self.resolve(host)
            found = (ZoneServer(host, address) for address in addresses)
            new |= dict.fromkeys(s for s in found if s not in servers)
        exchanges += yield from self._query_servers(zone, new)
        servers |= new
        exchanges += yield from self._query_addresses(wanted, zone, hosts, exchanges)
        signed = False
        if delegation and wanted.embedded:
            reply = yield from self._query_any(delegation.parent, zone, "DS", [], 0)
            signed = bool(reply and reply.find(zone, "DS"))
        path = (tuple(steps), end, delegation, parents)
        return ZoneSurvey(wanted, zone, *path, tuple(servers), tuple(exchanges), signed)

    def _find_zone(
        self, name: str, is_zone: bool, steps: list[Step]
    ) -> Queries[tuple[ReferralEnd, str, tuple[ParentReply, ...]]]:
        """Follow referrals to a zone, or to that of a name, and ask all servers of its parent. One
        that knows more than the first that answered leads further down."""
        while True:
            end = yield from self.follow_referrals(name, "SOA", steps)
            soa = end.reply.soa if end.reply else None
            zone = name if is_zone else soa.name if soa else end.zone
            cut = self._delegations.get(zone)
            parent = cut.parent if cut else end.zone
            if not zone:
                return end, zone, ()
            parents = yield from self._ask_parents(parent, zone)
            found = (reply.delegation for reply in parents if reply.delegation)
            further = next((cut for cut in found if cut.zone not in self._delegations), None)
            if further is None:
                return end, zone, tuple(parents)
            self._delegations[further.zone] = further

    def _ask_parents(self, parent: str, zone: str) -> Queries[list[ParentReply]]:
        """Ask all servers of a zone about one below it, each by the first way that works."""
        servers = yield from self._all_servers(self._delegations[parent])
        replies: dict[ZoneServer, tuple[str, QueryResult]] = {}
        for turn in range(max(map(len, self._ways.values()), default=0)):
            asked = [s for s in servers if s not in replies or replies[s][1].error]
            pairs = [(s, ways[turn]) for s in asked if turn < len(ways := self._ways_to(s.address))]
            if not pairs:
                break
            results = yield tuple(Question(s.address, zone, "NS", way) for s, way in pairs)
            for (server, way), reply in zip(pairs, results, strict=True):
                replies[server] = way, reply
        return [
            ParentReply(server, way, reply, _delegation(parent, reply, cut) if cut else None)
            for server, (way, reply) in replies.items()
            for cut in (reply.referral(parent, zone),)
        ]

    def _all_servers(self, delegation: Delegation) -> Queries[list[ZoneServer]]:
        """All servers of a zone, in both families: referrals needn't have all of their glue."""
        servers: dict[ZoneServer, None] = {}
        for host in delegation.hosts:
            addresses = dict.fromkeys(delegation.glue_of(host))
            if delegation.zone and len({family_of(a) for a in addresses}) < len(FAMILIES):
                addresses |= dict.fromkeys((yield from self.resolve(host)))
            servers |= dict.fromkeys(ZoneServer(host, address) for address in addresses)
        return list(servers)

    def _query_servers(self, zone: str, servers: Iterable[ZoneServer]) -> Queries[list[Exchange]]:
        """Query the SOA and NS records of each server, over each uplink, by UDP and TCP."""
        questions = (
            Question(server.address, zone, kind, way, tcp, server.port)
            for server in servers
            for way in self._ways_to(server.address)
            for kind, tcp in (("SOA", False), ("SOA", True), ("NS", False))
        )
        batch = tuple(dict.fromkeys(questions))  # several name servers may share an address
        replies = (yield batch) if batch else ()
        return list(zip(batch, replies, strict=True))

    def _query_addresses(
        self, wanted: ConfiguredZone, zone: str, hosts: Iterable[str], known: Iterable[Exchange]
    ) -> Queries[list[Exchange]]:
        """Query the addresses of names and of name servers from each server of the zone, by the
        first way that works."""
        good: dict[tuple[str, int], Question] = {}
        for question, reply in known:
            if question.type == "SOA" and reply.is_good:
                good.setdefault((question.address, question.port), question)
        servers = {host for host, _ in wanted.nameservers} | set(hosts)
        names = [name.name for name in wanted.names]
        names += sorted(host for host in servers if within(host, zone) and host not in names)
        batch = tuple(
            Question(q.address, name, kind, q.uplink, q.tcp, q.port)
            for q in good.values()
            for name in names
            for kind in ("A", "AAAA")
        )
        replies = (yield batch) if batch else ()
        return list(zip(batch, replies, strict=True))

    # --- an alias -------------------------------------------------------------------------

    def alias(self, name: str, known: Iterable[str]) -> Queries[Alias]:
        """Follow a name's CNAMEs to one of the `known` names, or to addresses."""
        steps: list[Step] = []
        links: list[Rrset] = []
        target, ours = name, frozenset(known)
        while True:
            end = yield from self.follow_referrals(target, "A", steps)
            link = end.reply.find(target, "CNAME") if end.reply else None
            if link is None or len(links) == _CNAMES_MAX:
                break
            links.append(link)
            target = link.values[0]
            if target in ours:
                return Alias(name, tuple(steps), tuple(links), target, (), "")
        found = [end.reply.find(target, "A") if end.reply else None]
        ipv6 = yield from self.follow_referrals(target, "AAAA", [])
        found.append(ipv6.reply.find(target, "AAAA") if ipv6.reply else None)
        addresses = tuple(rrset for rrset in found if rrset)
        why = "" if addresses else steps[-1].told
        return Alias(name, tuple(steps), tuple(links), target, addresses, why)


def _delegation(parent: str, reply: QueryResult, cut: Rrset) -> Delegation:
    glue = (r for r in reply.additional if r.name in cut.values and r.type in ("A", "AAAA"))
    return Delegation(cut.name, parent, cut.ttl, cut.values, tuple(glue))


def _result_text(reply: QueryResult, cut: tuple[str, Sequence[str]] | None) -> str:
    if cut:
        return f"refers to {cut[0]}: {', '.join(cut[1])}"
    if not reply.is_good:
        return _lame_text(reply)
    if reply.answer:
        return ", ".join(f"{r.type} {' '.join(r.values)}" for r in reply.answer)
    return "no such name" if reply.code == "NXDOMAIN" else "no record of this type"


def _lame_text(reply: QueryResult) -> str:
    return reply.code if reply.code != "NOERROR" else "doesn't serve the zone"
