"""`ifdefault dns`: what is published, the delegation for the parent, and the output of checks."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from ifdefault.cli import dnscheck, main, status
from ifdefault.cli.show import names, paths
from ifdefault.dns.exchange import QueryResult, Question, Rrset
from ifdefault.host.status import Status
from ifdefault.ipc.control import client
from ifdefault.ipc.control.client import NotRunning
from ifdefault.model.config import Config, UplinkConfig
from ifdefault.model.dns import DISCOVER, DnsConfig, NameConfig, ServerConfig
from ifdefault.model.errors import HostError, Problem
from ifdefault.model.health import Decision
from ifdefault.model.kernel import Address, Uplink
from ifdefault.model.report import DaemonStatus, DnsStatus, Named, PublisherStatus

A, A6, B = "203.0.113.10", "2001:db8:a::10", "198.51.100.10"
ZONE = "www.example.net"
TOLD = DnsStatus(
    (
        Named(ZONE, "rotate", 30, (("isp-a", A), ("isp-b", B), ("isp-a", A6)), 940.0),
        Named("empty.example.org", "failover", 5, (), 999.5),
    ),
    (
        PublisherStatus("server", f"{A} and 2 more", ZONE, "", "current", 940.0),
        PublisherStatus(
            "update", "192.0.2.53", "example.org", "empty.example.org", "failing", 988.0,
            "NOTAUTH (BADKEY)", (A,),
        ),
        PublisherStatus("exec", "/usr/local/sbin/publish", "", "", "pending", 999.0),
    ),
    ("uplink.isp-c: its public address isn't known yet",),
    (("isp-a", "NOERROR", 1200), ("isp-b", "NOERROR", 5), ("isp-b", "NXDOMAIN", 2)),
)  # fmt: skip
STATUS = DaemonStatus(1, 100.0, 1000.0, "f.toml", dns=TOLD)
BRIEF = [
    "Name|Policy|TTL|Since|Leads to",
    f"{ZONE}|rotate|30|1m00s|isp-a {A} {A6}",
    f"|isp-b {B}",
    "empty.example.org|failover|5|0.5s|no address",
    "update 192.0.2.53, empty.example.org: failing for 12s: NOTAUTH (BADKEY)",
    "exec /usr/local/sbin/publish, any name: pending for 1.0s",
    "uplink.isp-c: its public address isn't known yet",
]


def piped(lines: list[str]) -> list[str]:
    return [re.sub("  +", "|", line) for line in lines]


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> dict[str, DaemonStatus]:
    """The status that a daemon returns; no daemon runs while it is empty."""
    answer: dict[str, DaemonStatus] = {}

    def ask(*_: object) -> DaemonStatus:
        if not answer:
            raise NotRunning(Problem("", "no daemon runs", "start it"))
        return answer["status"]

    monkeypatch.setattr(client, "ask", ask)
    monkeypatch.setattr(client, "listener", lambda _: "1" if answer else "")
    return answer


# --- what is published --------------------------------------------------------------------


def test_dns_shows_all_of_it(
    daemon: dict[str, DaemonStatus], capsys: pytest.CaptureFixture[str]
) -> None:
    daemon["status"] = STATUS
    assert main.run(["dns"]) == 1  # something fails
    assert piped(capsys.readouterr().out.splitlines()) == [
        *BRIEF[:4],
        "",
        "Publisher|At|Names|State|Since",
        "|Addresses, detail",
        f"server|{A} and 2 more|{ZONE}|current|1m00s",
        "update|192.0.2.53|empty.example.org|failing|12s",
        f"|{A}, NOTAUTH (BADKEY)",
        "exec|/usr/local/sbin/publish|any name|pending|1.0s",
        "",
        "queries answered: isp-a 1200, isp-b 7 (2 NXDOMAIN)",
        "",
        "uplink.isp-c: its public address isn't known yet",
    ]
    assert main.run(["dns", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["now_s"] == 1000
    assert told["publishers"][1]["detail"] == "NOTAUTH (BADKEY)"
    well = replace(STATUS, dns=replace(TOLD, publishers=TOLD.publishers[:1]))
    daemon["status"] = well
    assert main.run(["dns"]) == 0
    daemon["status"] = replace(STATUS, dns=DnsStatus())
    assert main.run(["dns"]) == 0
    assert "nothing is published: the config has no [dns]\n" in capsys.readouterr().out


def test_dns_needs_a_daemon(
    daemon: dict[str, DaemonStatus], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["dns"]) == 1
    assert capsys.readouterr().err == (
        "ifdefault: dns: no daemon runs; start ifdefault run, which publishes the names\n"
    )


def test_status_is_brief_and_says_nothing_without_names() -> None:
    assert piped(names.brief(STATUS)) == BRIEF
    assert names.brief(replace(STATUS, dns=DnsStatus())) == []
    many = tuple(Named(f"{n}.example", "rotate", 30, (), 1.0) for n in range(13))
    told = names.brief(replace(STATUS, dns=DnsStatus(many)))
    assert told[-1] == "and 3 more: ifdefault dns"
    assert len(told) == 12


def test_a_name_that_cant_be_published_is_a_problem_of_the_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = status._Snapshot(Status(True, (), (), {}, {}, (), ()), STATUS)
    monkeypatch.setattr(status, "_read", lambda _: seen)
    assert main.run(["status"]) == 1
    shown = piped(capsys.readouterr().out.splitlines())
    at = shown.index(BRIEF[0])
    assert shown[at - 1 : at + len(BRIEF)] == ["", *BRIEF]
    assert not paths.has_problem(
        replace(STATUS, dns=replace(TOLD, publishers=TOLD.publishers[::2]))
    )


# --- what this host is to the DNS ---------------------------------------------------------


def uplink(name: str, number: int, *sources: str, pending: str = "") -> Uplink:
    own = tuple(
        Address(6 if ":" in source else 4, f"wan{number}", source, 24) for source in sources
    )
    return Uplink(
        name, number, f"wan{number}", 1000 + number, 0, 0, 0,
        addresses=own, sources=tuple((a.family, a.address) for a in own), pending=pending,
    )  # fmt: skip


UPLINKS = (uplink("isp-a", 1, A, A6), uplink("isp-b", 2, "192.168.1.10"))


def config(public_b: tuple[str, ...] = (B,)) -> Config:
    uplinks = (UplinkConfig("isp-a", "wan1"), UplinkConfig("isp-b", "wan2", public=public_b))
    names = (NameConfig(ZONE, ttl=30),)
    return Config(uplinks, dns=DnsConfig(names, ServerConfig(zones=(ZONE,))))


def test_offers_are_what_the_internet_sees() -> None:
    host = dnscheck.host_of(config(), UPLINKS, None)
    assert [offer.addresses for offer in host.offers] == [(A, A6), (B,)]
    assert host.local == {A: A, A6: A6, B: "192.168.1.10"}
    assert host.truth.own == {A: "isp-a", A6: "isp-a", B: "isp-b", "192.168.1.10": "isp-b"}
    assert host.ways == {4: ("isp-a", "isp-b"), 6: ("isp-a",)}
    assert host.problems == ()
    # private, and nothing said of what it is seen as
    assert dnscheck.host_of(config(()), UPLINKS, None).offers[1].addresses == ()


def test_what_is_discovered_the_daemon_knows() -> None:
    host = dnscheck.host_of(config((DISCOVER,)), UPLINKS, None)
    assert [str(problem) for problem in host.problems] == [
        (
            "uplink.isp-b: public IPv4 address unknown; start ifdefault run, which discovers it; "
            "it is known once published"
        )
    ]
    host = dnscheck.host_of(config((DISCOVER,)), UPLINKS, STATUS)
    assert (host.problems, host.offers[1].addresses) == ((), (B,))
    assert host.truth.published[ZONE] == {A, A6, B}


def test_ways_are_those_that_work() -> None:
    decision = Decision(usable=((4, ("isp-b",)), (6, ())))
    daemon_status = replace(STATUS, decision=decision)
    assert dnscheck.host_of(config(), UPLINKS, daemon_status).ways == {4: ("isp-b",), 6: ()}
    gone = tuple(replace(u, pending="no gateway") for u in UPLINKS)
    assert dnscheck.host_of(config(), gone, None).ways == {4: ("",), 6: ("",)}


def test_without_dns_there_is_nothing_to_check() -> None:
    with pytest.raises(HostError, match=r"the config has no \[dns\]"):
        dnscheck.host_of(replace(config(), dns=DnsConfig()), UPLINKS, None)


# --- what the parent is to say ------------------------------------------------------------


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> dnscheck.Host:
    host = dnscheck.host_of(config(), UPLINKS, None)
    monkeypatch.setattr(dnscheck, "read", lambda _: host)
    return host


@pytest.mark.usefixtures("host")
def test_delegation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["dns", "delegation"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told == [
        "; www.example.net: records for the parent zone",
        "www.example.net.          3600 IN NS   ns-isp-a.www.example.net.",
        "www.example.net.          3600 IN NS   ns-isp-b.www.example.net.",
        f"ns-isp-a.www.example.net. 3600 IN A    {A}",
        f"ns-isp-a.www.example.net. 3600 IN AAAA {A6}",
        f"ns-isp-b.www.example.net. 3600 IN A    {B}",
    ]
    assert main.run(["dns", "delegation", "WWW.Example.net.", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[ZONE][-1] == [f"ns-isp-b.{ZONE}", "A", B]
    assert main.run(["dns", "delegation", "example.net"]) == 1
    assert capsys.readouterr().err == (
        'ifdefault: dns delegation: "example.net" is not a zone of the embedded server; use one '
        "of www.example.net\n"
    )


# --- check --------------------------------------------------------------------------------


def say(q: Question) -> QueryResult:
    """A DNS in which one server has all zones, with wrong records."""
    soa = Rrset("www.example.net", 60, "SOA", ("a. b. 1 1 1 1 1",))
    if q.tcp:
        return QueryResult("no answer")
    if q.name == "www.example.net" and q.type == "SOA":
        return QueryResult(authoritative=True, answer=(soa,), took_ms=1.25)
    if q.type in ("A", "CNAME") and q.name == "shop.example":
        return QueryResult(
            authoritative=True, answer=(Rrset(q.name, 5, "CNAME", (ZONE,)),), took_ms=2.0
        )
    return QueryResult(authoritative=True, authority=(soa,))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Question]:
    asked: list[Question] = []

    def ask(question: Question) -> QueryResult:
        asked.append(question)
        return say(question)

    monkeypatch.setattr(dnscheck, "sender", lambda _: ask)
    return asked


@pytest.mark.usefixtures("host")
def test_check_shows_the_delegation_and_what_is_wrong(
    asked: list[Question], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["dns", "check", "--root", "198.18.0.53"]) == 1
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        ZONE,
        "  .  198.18.0.53 over isp-a in 1.2 ms: SOA a. b. 1 1 1 1 1",
        "  at 198.18.0.53  isp-a: UDP 1.2 ms, no answer; isp-b: UDP 1.2 ms, no answer",
        f"  at ns-isp-a.{ZONE} ({A})  this host: UDP 1.2 ms, no answer",
        f"  at ns-isp-a.{ZONE} ({A6})  this host: UDP 1.2 ms, no answer",
        f"  at ns-isp-b.{ZONE} ({B})  this host: UDP 1.2 ms, no answer",
    ]
    assert told.err.splitlines()[-1] == (
        f"error: {ZONE}: it has no address; the daemon publishes it: see `ifdefault dns`"
    )
    assert asked[0] == Question("198.18.0.53", ZONE, "SOA", "isp-a")


@pytest.mark.usefixtures("host")
def test_check_shows_what_each_server_of_the_parent_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Rrset("", 60, "SOA", ("a. b. 1 1 1 1 1",))

    def ask(question: Question) -> QueryResult:
        if question.address == "198.18.0.54":
            return QueryResult("no answer")
        if question.address == "198.18.0.53" and question.type == "NS":
            return QueryResult(code="NXDOMAIN", authoritative=True, authority=(root,))
        return say(question)

    monkeypatch.setattr(dnscheck, "sender", lambda _: ask)
    main.run(["dns", "check", "--root", "198.18.0.53", "--root", "198.18.0.54"])
    told = capsys.readouterr()
    assert [line for line in told.out.splitlines() if line.startswith("  of ")] == [
        "  of 198.18.0.53 over isp-a: no such name",
        "  of 198.18.0.54 over isp-b: no answer",
    ]
    assert [line.partition(";")[0] for line in told.err.splitlines() if "the root" in line] == [
        f"error: {ZONE}: the root doesn't delegate it (no such name)",
        "warning: the root at 198.18.0.54: doesn't answer (no answer)",
    ]
    main.run(["dns", "check", "--root", "198.18.0.53", "--json"])
    [parent] = json.loads(capsys.readouterr().out)["zones"][0]["parents"]
    assert parent["server"]["address"] == "198.18.0.53"
    assert parent["reply"]["code"] == "NXDOMAIN"


@pytest.mark.usefixtures("host")
def test_check_of_a_name_that_is_not_ours(
    asked: list[Question], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["dns", "check", "--root", "2001:db8::53", "Shop.example."]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        "shop.example",
        f"  .  2001:db8::53 over isp-a in 2.0 ms: CNAME {ZONE}",
    ]
    assert told.err == ""
    assert {question.name for question in asked} == {"shop.example"}


@pytest.mark.usefixtures("host", "asked")
def test_check_json_and_one_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["dns", "check", "--root", "198.18.0.53", ZONE, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["aliases"]) == (False, [])
    (zone,) = told["zones"]
    assert zone["steps"][0]["address"] == "198.18.0.53"
    assert {each["uplink"] for each in zone["asked"]} == {"isp-a", "isp-b", ""}
    assert zone["asked"][0]["reply"]["authoritative"]
    assert told["problems"][0].keys() == {"where", "what", "remedy", "warning", "blocks", "hint"}


def test_check_begins_at_the_roots_of_the_internet(
    host: dnscheck.Host, asked: list[Question]
) -> None:
    assert main.run(["dns", "check"]) == 1
    assert asked[0].address == "198.41.0.4"
    assert host.config.dns.names[0].name == asked[0].name


def test_bad_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "f.toml"
    path.write_text("[uplink.a]\n")
    assert main.run(["-c", str(path), "dns", "check"]) == 2
    assert main.run(["dns", "check", "--root", "a.root-servers.net"]) == 2
    assert "does not appear to be an IPv4 or IPv6 address" in capsys.readouterr().err
    for name in ("a..b", "b\u00fccher.example", "a b", "x" * 64, ".".join(["x"] * 128)):
        assert main.run(["dns", "check", name]) == 2
        assert "is not a domain name; write it like www.example.net" in capsys.readouterr().err
    assert main.run(["dns", "chekc"]) == 2
