"""What `dns check` asks and finds, on a made-up DNS: a root, two parents, our zone, a secondary.

"" ─┬─ net ── example.net ── www.example.net   (isp-a, isp-b, ns.hoster.org)
    └─ org ── hoster.org                        (name servers of example.net and of ours)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifdefault.dns.delegation import ConfiguredZone, configured_zones, delegate, zone_file
from ifdefault.dns.diagnose import LocalState, diagnose, diagnose_alias
from ifdefault.dns.exchange import Queries, QueryResult, Question, Rrset
from ifdefault.dns.roots import ROOTS
from ifdefault.dns.survey import Survey
from ifdefault.model.dns import (
    CandidateAddresses,
    DnsConfig,
    Endpoint,
    ExecConfig,
    NameConfig,
    Record,
    ServerConfig,
    UpdateConfig,
    within,
)

T = TypeVar("T")

ZONE = "www.example.net"
A, A6, B = "203.0.113.10", "2001:db8:a::10", "198.51.100.10"
ROOT, NET, ORG, HOSTER = "198.41.0.4", "192.5.6.30", "199.19.56.1", "192.0.2.53"
OFFERS = (CandidateAddresses("isp-a", 1, (A, A6)), CandidateAddresses("isp-b", 1, (B,)))
CONFIG = DnsConfig(
    (NameConfig(ZONE, ttl=30),),
    ServerConfig(zones=(ZONE,), nameservers=("ns.hoster.org",)),
)
TRUTH = LocalState({A: "isp-a", A6: "isp-a", B: "isp-b"})
WAYS = {4: ("isp-a", "isp-b"), 6: ("isp-a",)}
NS_A, NS_B = f"ns-isp-a.{ZONE}", f"ns-isp-b.{ZONE}"


def soa(zone: str, serial: int = 1) -> Rrset:
    text = f"ns.{zone}. hostmaster.{zone}. {serial} 1 1 1 1"
    return Rrset(zone, 3600, "SOA", (text,))


@dataclass
class Net:
    """All servers. `mute`: (address, uplink, tcp), where None matches any."""

    zones: dict[str, list[Rrset]]
    servers: dict[str, tuple[str, ...]]
    copies: dict[tuple[str, str], list[Rrset]] = field(default_factory=dict)  # (address, zone)
    mute: set[tuple[str, str | None, bool | None]] = field(default_factory=set)
    codes: dict[str, str] = field(default_factory=dict)  # address to what it answers always
    local: dict[str, str] = field(default_factory=dict)  # uplink to this host's fault
    asked: list[Question] = field(default_factory=list)

    def __call__(self, q: Question) -> QueryResult:
        self.asked.append(q)
        if q.uplink in self.local:
            return QueryResult(f"this host: {self.local[q.uplink]}", True)
        mute = ((q.address, uplink, tcp) for uplink in (q.uplink, None) for tcp in (q.tcp, None))
        if q.address not in self.servers or self.mute.intersection(mute):
            return QueryResult("no answer")
        holding = [z for z in self.servers[q.address] if not z or within(q.name, z)]
        if q.type == "DS":  # the parent's to tell
            holding = [zone for zone in holding if zone != q.name] or holding
        if q.address in self.codes or not holding:
            return QueryResult(code=self.codes.get(q.address, "REFUSED"))
        zone = max(holding, key=len)
        return answer(self.copies.get((q.address, zone), self.zones[zone]), zone, q)

    def put(self, zone: str, name: str, kind: str, *values: str, ttl: int = 3600) -> None:
        """Replace a set of records; without values remove it."""
        kept = [r for r in self.zones[zone] if (r.name, r.type) != (name, kind)]
        self.zones[zone] = kept + ([Rrset(name, ttl, kind, tuple(sorted(values)))] * bool(values))


def answer(records: list[Rrset], zone: str, q: Question) -> QueryResult:
    cuts = [r for r in records if r.type == "NS" and r.name != zone and within(q.name, r.name)]
    if cuts and not (q.type == "DS" and q.name == cuts[0].name):
        near = tuple(r for r in records if r.name in cuts[0].values)
        return QueryResult(authority=(cuts[0],), additional=near)
    here = tuple(r for r in records if r.name == q.name)
    found = tuple(r for r in here if r.type in (q.type, "CNAME"))
    known = here or any(within(r.name, q.name) for r in records)
    rest = () if found else tuple(r for r in records if r.type == "SOA")
    code = "NOERROR" if known else "NXDOMAIN"
    return QueryResult(code=code, authoritative=True, answer=found, authority=rest)


def rows(*rows: tuple[str, str, str, int]) -> list[Rrset]:
    return [Rrset(name, ttl, kind, tuple(values.split())) for name, kind, values, ttl in rows]


@pytest.fixture
def net() -> Net:
    glue = (
        (NS_A, "A", A, 3600), (NS_A, "AAAA", A6, 3600), (NS_B, "A", B, 3600),
    )  # fmt: skip
    nameservers = (ZONE, "NS", f"{NS_A} {NS_B} ns.hoster.org", 3600)
    return Net(
        zones={
            "": [
                soa(""),
                *rows(
                    ("net", "NS", "a.gtld.net", 172800), ("a.gtld.net", "A", NET, 172800),
                    ("org", "NS", "a.org", 172800), ("a.org", "A", ORG, 172800),
                ),
            ],
            "net": [soa("net"), *rows(("example.net", "NS", "ns.hoster.org", 172800))],
            "org": [
                soa("org"),
                *rows(("hoster.org", "NS", "ns.hoster.org", 3600)),
                *rows(("ns.hoster.org", "A", HOSTER, 3600)),
            ],
            "hoster.org": [soa("hoster.org"), *rows(("ns.hoster.org", "A", HOSTER, 3600))],
            "example.net": [soa("example.net"), *rows(nameservers, *glue)],
            ZONE: [
                soa(ZONE),
                *rows(nameservers, *glue),
                Rrset(ZONE, 30, "A", (B, A)),
                Rrset(ZONE, 30, "AAAA", (A6,)),
            ],
        },
        servers={
            ROOT: ("",), NET: ("net",), ORG: ("org",),
            HOSTER: ("hoster.org", "example.net", ZONE), A: (ZONE,), A6: (ZONE,), B: (ZONE,),
        },
    )  # fmt: skip


def drive(asking: Queries[T], ask: Callable[[Question], QueryResult]) -> T:
    """Like the command, but one query after the other."""
    try:
        batch = next(asking)
        while True:
            batch = asking.send(tuple(map(ask, batch)))
    except StopIteration as end:
        result: T = end.value
        return result


def problems(net: Net, config: DnsConfig = CONFIG, truth: LocalState = TRUTH) -> list[str]:
    found = []
    for zone in configured_zones(config, OFFERS):
        survey = Survey([("root", ROOT)], WAYS, TRUTH.own)
        found += diagnose(drive(survey.zone(zone), net), truth)
    return [f"{'warning: ' * each.warning}{each}" for each in found]


def split_hoster(net: Net) -> None:
    """Give the secondary its own copy of our zone, and example.net another server."""
    net.servers |= {"192.0.2.1": ("example.net",), HOSTER: ("hoster.org", ZONE)}
    net.put("net", "example.net", "NS", "ns.example.net")
    net.put("net", "ns.example.net", "A", "192.0.2.1")


# --- what is asked ------------------------------------------------------------------------


def test_the_way_down_and_nothing_wrong(net: Net) -> None:
    split_hoster(net)
    (zone,) = configured_zones(CONFIG, OFFERS)
    found = drive(Survey([("root", ROOT)], WAYS, TRUTH.own).zone(zone), net)
    assert diagnose(found, TRUTH) == []
    assert [(step.zone, step.address, step.uplink) for step in found.steps] == [
        ("", ROOT, "isp-a"),
        ("net", NET, "isp-a"),
        ("example.net", "192.0.2.1", "isp-a"),
        (ZONE, A, ""),
    ]
    assert found.steps[0].told == "refers to net: a.gtld.net"
    asked = {(q.address, q.uplink, q.tcp) for q in net.asked if (q.name, q.type) == (ZONE, "SOA")}
    over = {(HOSTER, way, tcp) for way in ("isp-a", "isp-b") for tcp in (False, True)}
    own = {(address, "", tcp) for address in (A, A6, B) for tcp in (False, True)}
    assert asked >= over | own
    # this host can't be reached from itself by way of an uplink
    assert {q.uplink for q in net.asked if q.address in TRUTH.own} == {""}


def test_who_serves_parent_and_child_tells_no_delegation(net: Net) -> None:
    assert problems(net) == []
    net.put(ZONE, ZONE, "A", A, B, ttl=300)
    assert problems(net) == [
        (
            f"{ZONE}: has a TTL of 300 s instead of 30 s; "
            "an uplink that is down stays published that long; make the server keep our TTL"
        )
    ]


def test_a_dead_way_is_waited_for_once(net: Net) -> None:
    split_hoster(net)
    net.mute = {(server, "isp-a", None) for server in net.servers}
    told = problems(net)
    assert [each for each in told if "over isp-a" not in each] == []
    down = [q for q in net.asked if q.type == "SOA" and q.name == ZONE and not q.tcp]
    assert [(q.address, q.uplink) for q in down[:3]] == [
        (ROOT, "isp-a"), (ROOT, "isp-b"), (NET, "isp-b"),
    ]  # fmt: skip


def test_with_many_servers_every_way_is_tried(net: Net) -> None:
    mute = {f"192.0.2.{n}" for n in range(100, 130)}
    net.servers |= dict.fromkeys(mute, ("",))
    net.mute = {(server, None, None) for server in mute} | {(ROOT, "isp-a", None)}
    (zone,) = configured_zones(CONFIG, OFFERS)
    roots = [("a", "192.0.2.100"), ("root", ROOT), *((each, each) for each in sorted(mute))]
    found = drive(Survey(roots, WAYS, TRUTH.own).zone(zone), net)
    assert (found.steps[0].address, found.steps[0].uplink) == (ROOT, "isp-b")


def test_name_servers_that_depend_on_each_other_end_somewhere(net: Net) -> None:
    net.put("net", "example.net", "NS", "ns.loop.org")
    net.put("org", "loop.org", "NS", "ns.example.net")
    told = problems(net)
    assert told[0] == (
        f"{ZONE}: no server of example.net answers, so it can't be resolved; see the path above"
    )


@settings(max_examples=50)
@given(st.data())
def test_whatever_is_answered_it_ends(data: st.DataObject) -> None:
    """No malformed reply causes an endless survey or an exception in diagnose."""
    names = st.sampled_from(["", "net", "example.net", ZONE, NS_A, "ns.hoster.org", "a.b"])
    kinds = st.sampled_from(["A", "AAAA", "NS", "CNAME", "DS"])
    values = st.lists(st.one_of(names, st.sampled_from([A, B, A6, HOSTER])), min_size=1, max_size=3)
    plain = st.builds(Rrset, names, st.integers(0, 2**31 - 1), kinds, values.map(tuple))
    soas = st.builds(soa, names, st.integers(0, 2**32 - 1))
    sets = st.lists(st.one_of(plain, soas), max_size=3).map(tuple)
    replies = st.builds(
        QueryResult,
        st.sampled_from(["", "", "", "no answer"]),
        st.booleans(),
        st.sampled_from(["NOERROR", "NOERROR", "NXDOMAIN", "SERVFAIL"]),
        st.booleans(), sets, sets, sets,
    )  # fmt: skip
    count = 0

    def ask(_: Question) -> QueryResult:
        nonlocal count
        count += 1
        assert count < 3000
        return data.draw(replies) if count < 16 else QueryResult("no answer")

    (zone,) = configured_zones(CONFIG, OFFERS)
    survey = Survey([("root", ROOT)], WAYS, TRUTH.own)
    diagnose(drive(survey.zone(zone), ask), TRUTH)
    list(diagnose_alias(drive(survey.alias("a.b", [ZONE]), ask), TRUTH, [ZONE]))


# --- what is found ------------------------------------------------------------------------

Break = Callable[[Net], object]


def no_delegation(net: Net) -> None:
    for name, kind in ((ZONE, "NS"), (NS_A, "A"), (NS_A, "AAAA"), (NS_B, "A")):
        net.put("example.net", name, kind)


def a_cname_instead(net: Net) -> None:
    no_delegation(net)
    net.put("example.net", ZONE, "CNAME", "x.org")


def no_address(net: Net) -> None:
    net.put(ZONE, ZONE, "A")
    net.put(ZONE, ZONE, "AAAA")


def misled(net: Net) -> None:
    elsewhere = Rrset(ZONE, 30, "A", ("192.0.2.7",))
    net.copies[HOSTER, ZONE] = [*net.zones[ZONE][:-2], elsewhere]


def stale(net: Net) -> None:
    net.copies[HOSTER, ZONE] = [*net.zones[ZONE][1:], soa(ZONE, 4294967295)]


def from_elsewhere(net: Net) -> None:
    net.put("example.net", ZONE, "NS", NS_A, NS_B, "ns.hoster.org", "ns.old.example.net")
    net.put("example.net", "ns.old.example.net", "A", "192.0.2.99")
    net.servers["192.0.2.99"] = ()


ADD = (
    f"{ZONE}. NS {NS_A}.; {ZONE}. NS {NS_B}.; {ZONE}. NS ns.hoster.org.; "
    f"{NS_A}. A {A}; {NS_A}. AAAA {A6}; {NS_B}. A {B}"
)
HOSTER_AT = f"{ZONE} at ns.hoster.org ({HOSTER})"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            no_delegation,
            [f"{ZONE}: example.net doesn't delegate it (no such name); add there: {ADD}"],
        ),
        (
            a_cname_instead,
            [
                (f"{ZONE}: example.net doesn't delegate it (a CNAME to x.org is there); "
                f"add there: {ADD}")
            ],
        ),
        (
            lambda net: net.put("example.net", ZONE, "NS", NS_A, "ns.hoster.org"),
            [
                (f"{ZONE}: example.net doesn't name {NS_B} among its name servers; "
                f"add there: {ZONE}. NS {NS_B}.; {NS_B}. A {B}")
            ],
        ),
        (
            lambda net: net.put("example.net", ZONE, "NS", NS_A),
            [
                (f"{ZONE}: example.net doesn't name {NS_B}, ns.hoster.org among its name servers; "
                f"add there: {ZONE}. NS {NS_B}.; {ZONE}. NS ns.hoster.org.; {NS_B}. A {B}"),
                (f"{ZONE}: all its name servers are on isp-a, so the zone fails with that uplink; "
                "add a name server on another uplink, or elsewhere"),
            ],
        ),
        (
            from_elsewhere,
            [
                (f"{ZONE}: example.net names ns.old.example.net as name server, but the zone "
                "doesn't; remove it there, or add it to dns.server.nameservers"),
                (f"{ZONE} at ns.old.example.net (192.0.2.99): is lame: it answers REFUSED; "
                "make it serve the zone, or remove it from the NS records"),
            ],
        ),
        (
            lambda net: net.put("example.net", NS_B, "A"),
            [f"{ZONE}: example.net gives no glue for {NS_B}; add there: {NS_B}. A {B}"],
        ),
        (
            lambda net: net.put("example.net", NS_B, "A", "198.51.100.99"),
            [
                (f"{ZONE}: example.net gives 198.51.100.99 for {NS_B}, which is {B}; "
                f"remove there: {NS_B}. A 198.51.100.99; add there: {NS_B}. A {B}"),
                (f"{ZONE} at {NS_B} (198.51.100.99): port 53 doesn't answer by UDP or TCP "
                "(no answer); open it in the firewall there, "
                "start it, or remove it from the NS records"),
            ],
        ),
        (
            lambda net: net.put("example.net", NS_A, "AAAA"),
            [
                (f"{ZONE}: example.net gives {A} for {NS_A}, which is {A6}, {A}; "
                f"add there: {NS_A}. AAAA {A6}")
            ],
        ),
        (
            lambda net: net.put("example.net", ZONE, "DS", "1 8 2 00"),
            [
                (f"{ZONE}: example.net has a DS record for it, but it isn't signed; remove that "
                "record; validating resolvers can't resolve the zone")
            ],
        ),
        (
            lambda net: net.put(
                "example.net", ZONE, "NS", NS_A, NS_B, "ns.hoster.org", ttl=172800
            ),
            [
                (f"warning: {ZONE}: example.net has a TTL of 172800 s for its delegation; lower it "
                "there if possible: a new address of an uplink takes that long to be known")
            ],
        ),
        (
            lambda net: net.codes.update({HOSTER: "SERVFAIL"}),
            [f"{ZONE}: its name server ns.hoster.org has no address; add an address record for it"],
        ),
        (
            lambda net: net.servers.update({HOSTER: ("hoster.org",)}),
            [
                (f"{HOSTER_AT}: is lame: it answers REFUSED; make it serve the zone, or remove "
                "it from the NS records")
            ],
        ),
        (
            lambda net: net.mute.add((HOSTER, "isp-b", None)),
            [
                (f"{HOSTER_AT}: can't be reached over isp-b (no answer); check for a filter, or "
                "why isp-b doesn't reach it")
            ],
        ),
        (
            lambda net: net.mute.add((HOSTER, None, True)),
            [
                (f"{HOSTER_AT}: answers by UDP, but not by TCP over isp-a, isp-b; open TCP port "
                "53; resolvers need both (RFC 7766)")
            ],
        ),
        (
            lambda net: net.mute.add((B, None, False)),
            [
                (f"{ZONE} at {NS_B} ({B}): answers by TCP, but not by UDP; open UDP port 53; "
                "resolvers need both (RFC 7766)")
            ],
        ),
        (
            lambda net: net.mute.add((B, None, None)),
            [
                (f"{ZONE} at {NS_B} ({B}): port 53 doesn't answer by UDP or TCP (no answer); open "
                "it in the firewall there, or start the daemon: `ifdefault run`")
            ],
        ),
        (
            lambda net: net.local.update({"isp-b": "network is unreachable"}),
            [
                ("warning: this host: network is unreachable over isp-b: "
                f"{HOSTER} couldn't be queried; see ifdefault status")
            ],
        ),
        (
            stale,
            [
                (f"{HOSTER_AT}: is stale: its serial 4294967295 is behind 1 of {NS_A} ({A}); "
                "check why it doesn't transfer the zone: NOTIFY, access, and TSIG key")
            ],
        ),
        (
            lambda net: net.put(ZONE, ZONE, "NS", NS_A, "ns.hoster.org"),
            [
                (f"{ZONE} at {HOSTER}, {B}, {A6}, {A}: has the NS records {NS_A}, ns.hoster.org, "
                f"not {NS_A}, {NS_B}, ns.hoster.org; reload the config: "
                "`ifdefault reload`")
            ],
        ),
        (
            no_address,
            [f"{ZONE}: it has no address; the daemon publishes it: see `ifdefault dns`"],
        ),
        (
            lambda net: net.put(ZONE, ZONE, "A", A, "192.0.2.7", ttl=30),
            [f"{ZONE}: also resolves to 192.0.2.7, which no uplink of this host has; remove that"],
        ),
        (
            misled,
            [
                (f"{ZONE} at {HOSTER}: resolves to 192.0.2.7, but to no address of this host; the "
                "daemon publishes it: see `ifdefault dns`")
            ],
        ),
    ],
)  # fmt: skip
def test_a_fault_is_found_and_no_other(net: Net, change: Break, told: list[str]) -> None:
    split_hoster(net)
    change(net)
    assert problems(net) == told


# --- the parent's servers -----------------------------------------------------------------

STALE = "192.0.2.2"  # of ns1.example.net, asked before ns.example.net
AT_STALE = f"example.net at ns1.example.net ({STALE})"
RIGHT = "make it transfer the zone again: the other servers of example.net are right"


def two_parents(net: Net, *changes: tuple[str, str, tuple[str, ...]]) -> None:
    """A second server of example.net, with its own copy: sets that differ, () for none."""
    split_hoster(net)
    net.put("net", "example.net", "NS", "ns1.example.net", "ns.example.net")
    net.put("net", "ns1.example.net", "A", STALE)
    net.servers[STALE] = ("example.net",)
    copy = Net({"example.net": net.zones["example.net"]}, {})
    for name, kind, values in changes:
        copy.put("example.net", name, kind, *values)
    net.copies[STALE, "example.net"] = copy.zones["example.net"]


NOTHING = tuple((name, kind, ()) for name, kind in (
    (ZONE, "NS"), (NS_A, "A"), (NS_A, "AAAA"), (NS_B, "A"),
))  # fmt: skip


@pytest.mark.parametrize("first", ["ns.example.net", "ns1.example.net"])
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ((), []),
        (NOTHING, [f"{ZONE}: {AT_STALE} doesn't delegate it (no such name); {RIGHT}"]),
        (
            ((ZONE, "NS", (NS_A, "ns.hoster.org")),),
            [f"{ZONE}: {AT_STALE} doesn't name {NS_B} among its name servers; {RIGHT}"],
        ),
        (
            ((NS_A, "A", ("192.0.2.9",)),),
            [
                f"{ZONE}: {AT_STALE} gives 192.0.2.9, {A6} for {NS_A}, which is {A6}, {A}; {RIGHT}",
                (f"{ZONE} at {NS_A} (192.0.2.9): is lame: it answers REFUSED; "
                "make it serve the zone, or remove it from the NS records"),
            ],
        ),
    ],
)  # fmt: skip
def test_a_stale_server_of_the_parent_is_named(
    net: Net, first: str, changes: tuple[tuple[str, str, tuple[str, ...]], ...], told: list[str]
) -> None:
    two_parents(net, *changes)
    net.servers["192.0.2.9"] = ()
    net.codes["192.0.2.9"] = "REFUSED"
    hosts = sorted(["ns1.example.net", "ns.example.net"], key=lambda host: host != first)
    net.zones["net"] = [
        replace(r, values=tuple(hosts)) if r.name == "example.net" else r for r in net.zones["net"]
    ]
    assert problems(net) == told


def test_what_all_servers_of_the_parent_say_is_said_once(net: Net) -> None:
    two_parents(net)
    changed = [r for r in net.zones["example.net"] if r.name != NS_B]
    net.zones["example.net"] = net.copies[STALE, "example.net"] = changed
    assert problems(net) == [
        f"{ZONE}: example.net gives no glue for {NS_B}; add there: {NS_B}. A {B}"
    ]


def test_no_server_of_the_parent_is_right(net: Net) -> None:
    two_parents(net, *NOTHING)
    net.put("example.net", ZONE, "NS", NS_A, "ns.hoster.org")
    told = problems(net)
    assert f"{ZONE}: {AT_STALE} doesn't delegate it (no such name); add there: {ADD}" in told
    assert any("example.net at ns.example.net (192.0.2.1) doesn't name" in line for line in told)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda net: net.mute.add((STALE, None, None)), "doesn't answer (no answer)"),
        (lambda net: net.codes.update({STALE: "REFUSED"}), "is lame: it answers REFUSED"),
    ],
)
def test_a_dead_server_of_the_parent_is_a_warning(net: Net, change: Break, told: str) -> None:
    two_parents(net)
    change(net)
    remedy = "its operator should know: resolvers that ask it have to ask another server"
    assert problems(net) == [f"warning: {AT_STALE}: {told}; {remedy}"]


def test_a_server_of_the_parent_that_one_uplink_reaches_is_well(net: Net) -> None:
    two_parents(net)
    net.mute.add((STALE, "isp-a", None))
    assert problems(net) == []


def test_the_parent_is_asked_in_both_families(net: Net) -> None:
    """Also where the referral to it has the glue of one."""
    two_parents(net)
    net.servers["2001:db8::2"] = ("example.net",)
    net.put("example.net", "ns1.example.net", "AAAA", "2001:db8::2")
    net.copies["2001:db8::2", "example.net"] = [
        r for r in net.zones["example.net"] if r.name not in (ZONE, NS_A, NS_B)
    ]
    problem = f"{ZONE}: example.net at ns1.example.net (2001:db8::2) doesn't delegate it"
    assert problems(net) == [f"{problem} (no such name); {RIGHT}"]


def test_a_stale_server_above_the_parent_hides_nothing(net: Net) -> None:
    """One of net's servers doesn't know example.net yet."""
    split_hoster(net)
    net.zones[""] = [
        replace(r, values=("a.gtld.net", "z.gtld.net")) if r.name == "net" else r
        for r in net.zones[""]
    ]
    net.put("", "z.gtld.net", "A", "192.5.6.31")
    net.servers["192.5.6.31"] = ("net",)
    net.copies[NET, "net"] = [r for r in net.zones["net"] if "example.net" not in r.name]
    assert problems(net) == []


# --- what else counts ---------------------------------------------------------------------


def test_what_the_daemon_publishes_counts(net: Net) -> None:
    split_hoster(net)
    truth = replace(TRUTH, published={ZONE: frozenset((B,))})
    assert problems(net, truth=truth) == [
        (
            f"{ZONE}: still resolves to {A6} (isp-a), {A} (isp-a), which isn't published now; the "
            "daemon publishes it: see `ifdefault dns`"
        )
    ]
    net.put(ZONE, ZONE, "A")
    net.put(ZONE, ZONE, "AAAA")
    assert problems(net, truth=replace(TRUTH, published={ZONE: frozenset()})) == []


def test_another_machine_does_not_know_the_addresses(net: Net) -> None:
    split_hoster(net)
    assert problems(net, truth=LocalState({})) == []
    net.put(ZONE, ZONE, "A", A, B, ttl=300)
    assert len(problems(net, truth=LocalState({}))) == 1, "but the TTL"


def test_records_of_the_config_are_meant(net: Net) -> None:
    split_hoster(net)
    elsewhere = Record(1, bytes([192, 0, 2, 7]), "A 192.0.2.7")
    link = Record(5, b"\1x\0", "CNAME x")
    names = (
        NameConfig(ZONE, ttl=30, records=(elsewhere,)),
        NameConfig(f"alias.{ZONE}", uplinks=(), records=(link,)),
        NameConfig(f"fixed.{ZONE}", uplinks=(), records=(elsewhere,)),
        NameConfig(f"text.{ZONE}", uplinks=()),
    )
    net.put(ZONE, ZONE, "A", A, B, "192.0.2.7", ttl=30)
    net.put(ZONE, f"alias.{ZONE}", "CNAME", "x", ttl=30)
    net.put(ZONE, f"fixed.{ZONE}", "A", "192.0.2.7", ttl=30)
    net.put(ZONE, f"text.{ZONE}", "TXT", "x")
    assert problems(net, replace(CONFIG, names=names)) == []


# --- zones of others ----------------------------------------------------------------------


def by_update(*servers: Endpoint) -> DnsConfig:
    """Our name is in example.net, which other servers serve."""
    return DnsConfig((NameConfig(ZONE, ttl=30),), updates=(UpdateConfig("example.net", servers),))


@pytest.fixture
def theirs(net: Net) -> Net:
    no_delegation(net)
    net.servers[HOSTER] = ("hoster.org", "example.net")
    net.put("example.net", ZONE, "A", A, B, ttl=30)
    net.put("example.net", "example.net", "NS", "ns.hoster.org")
    return net


def test_a_zone_of_others_is_well(theirs: Net) -> None:
    assert problems(theirs, by_update(Endpoint(HOSTER))) == []
    config = DnsConfig((NameConfig(ZONE, ttl=30),), execs=(ExecConfig("/bin/x"),))
    assert problems(theirs, config) == []  # where the zone is to be found out


def test_another_host_may_share_a_name_there(theirs: Net) -> None:
    theirs.put("example.net", ZONE, "A", A, "192.0.2.7", ttl=60)
    assert problems(theirs, by_update()) == [
        (
            f"warning: {ZONE}: also resolves to 192.0.2.7, which no uplink of this host has; "
            "remove that, unless another host shares the name"
        ),
        (
            f"{ZONE}: has a TTL of 60 s instead of 30 s; "
            "an uplink that is down stays published that long; make the server keep our TTL"
        ),
    ]
    theirs.put("example.net", ZONE, "A", "192.0.2.7", ttl=30)
    assert problems(theirs, by_update()) == [
        (
            f"{ZONE}: resolves to 192.0.2.7, but to no address of this host; the daemon "
            "publishes it: see `ifdefault dns`"
        )
    ]


def test_what_else_is_wrong_there(theirs: Net) -> None:
    theirs.servers["192.0.2.66"] = ()
    theirs.put("example.net", ZONE, "A")
    theirs.put("example.net", ZONE, "CNAME", "x.org")
    theirs.put("net", "example.net", "NS", "ns.hoster.org", "ns.gone.org")
    assert problems(theirs, by_update(Endpoint("192.0.2.66", 5353))) == [
        (
            "example.net: net names ns.gone.org as name server, but the zone doesn't; make it "
            "serve the zone and add it to the NS records, or remove it there"
        ),
        "example.net: its name server ns.gone.org has no address; add an address record for it",
        (
            "example.net at 192.0.2.66 port 5353: is lame: it answers REFUSED; make it serve the "
            "zone, or remove it from the config"
        ),
        f"{ZONE}: is a CNAME to x.org; remove that: the name must have addresses",
    ]
    config = DnsConfig((NameConfig("a.b.org"),), updates=(UpdateConfig("b.org", ()),))
    assert problems(theirs, config) == [
        ("b.org: org doesn't delegate it (no such name); delegate it there, or use org as the zone")
    ]


def test_a_root_that_is_silent(net: Net) -> None:
    net.mute.add((ROOT, None, None))
    assert problems(net)[0] == (
        f"{ZONE}: no server of the root answers, so it can't be resolved; see the path above"
    )


# --- names of others ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "values", "ttl", "told"),
    [
        ("CNAME", (ZONE,), 300, []),
        (
            "CNAME", (ZONE,), 86400,
            [
                (f"warning: shop.hoster.org: its CNAME to {ZONE} has a TTL of 86400 s; lower it: "
                "resolvers cache it that long")
            ],
        ),
        (
            "A", (A, B), 30,
            [
                (f"shop.hoster.org: has the fixed addresses {B}, {A}, even of uplinks "
                f"that are down; make it a CNAME to {ZONE}")
            ],
        ),
        (
            "A", ("192.0.2.7",), 30,
            [
                ("shop.hoster.org: resolves to 192.0.2.7, which no uplink has; make it a CNAME to "
                f"{ZONE}")
            ],
        ),
        (
            "TXT", ("x",), 30,
            [
                ("shop.hoster.org: can't be resolved (no record of this type); make it a CNAME to "
                f"{ZONE}")
            ],
        ),
        (
            "CNAME", ("shop.hoster.org",), 30,
            [
                ("shop.hoster.org: can't be resolved (CNAME shop.hoster.org); "
                f"make it a CNAME to {ZONE}")
            ],
        ),
    ],
)  # fmt: skip
def test_a_name_that_is_to_lead_here(
    net: Net, kind: str, values: tuple[str, ...], ttl: int, told: list[str]
) -> None:
    net.put("hoster.org", "shop.hoster.org", kind, *values, ttl=ttl)
    survey = Survey([("root", ROOT)], WAYS, TRUTH.own)
    alias = drive(survey.alias("shop.hoster.org", [ZONE]), net)
    found = diagnose_alias(alias, TRUTH, [ZONE])
    assert [f"{'warning: ' * each.warning}{each}" for each in found] == told


# --- what the parent is to say ------------------------------------------------------------


def test_the_records_for_the_parent() -> None:
    (zone,) = configured_zones(CONFIG, OFFERS)
    assert zone_file(delegate(zone)) == [
        "www.example.net.          3600 IN NS   ns-isp-a.www.example.net.",
        "www.example.net.          3600 IN NS   ns-isp-b.www.example.net.",
        "www.example.net.          3600 IN NS   ns.hoster.org.",
        "ns-isp-a.www.example.net. 3600 IN A    203.0.113.10",
        "ns-isp-a.www.example.net. 3600 IN AAAA 2001:db8:a::10",
        "ns-isp-b.www.example.net. 3600 IN A    198.51.100.10",
    ]


def test_each_zone_is_wanted_with_its_names_and_servers() -> None:
    names = tuple(map(NameConfig, ("a.x.org", "b.y.org", "c.z.org", "d.a.x.org", "e.v.org")))
    config = DnsConfig(
        names,
        ServerConfig(("a.x.org",), port=5353, secondaries=(Endpoint("192.0.2.1"),)),
        (UpdateConfig("x.org", (Endpoint("192.0.2.2", 54),)),),
        execs=(ExecConfig("/x", "y.org"), ExecConfig("/y")),
    )
    nameservers = (("ns-isp-b.a.x.org", (B,)),)
    assert configured_zones(config, OFFERS[1:]) == (
        ConfiguredZone(
            "a.x.org", (names[0], names[3]), True, nameservers, (Endpoint("192.0.2.1"),), 5353
        ),
        ConfiguredZone("x.org", (), servers=(Endpoint("192.0.2.2", 54),)),
        ConfiguredZone("y.org", (names[1],)),
        ConfiguredZone("", (names[2],)),
        ConfiguredZone("", (names[4],)),
    )


def test_the_roots_are_thirteen_in_both_families() -> None:
    assert len({host for host, _ in ROOTS}) == 13
    assert sum(":" in address for _, address in ROOTS) == 13
    assert len({address for _, address in ROOTS}) == 26
