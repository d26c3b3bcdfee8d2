"""Responses of the embedded server: policies and records."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import pytest

from ifdefault.dns.answer import Responder
from ifdefault.dns.table import Table
from ifdefault.model.dns import AddressRecord, Zone
from tests.unit.dnszones import (
    A4,
    A6,
    B4,
    B6,
    CLIENT,
    SECRET,
    ZONE,
    ask,
    asking,
    published,
    query,
    responder,
    texts,
    zone,
)

NS = [f"ns1.{ZONE}.", f"ns2.{ZONE}."]
SOA = f"ns1.{ZONE}. hostmaster.{ZONE}. 7 300 60 604800 30"
NOERROR, NXDOMAIN, REFUSED = dns.rcode.NOERROR, dns.rcode.NXDOMAIN, dns.rcode.REFUSED


# --- policies -----------------------------------------------------------------------------


def run(label: str, kind: str = "A", uplink: str = "isp-a", times: int = 8) -> list[list[str]]:
    server = responder()
    return [texts(ask(server, asking(label, kind), uplink).answer, kind) for _ in range(times)]


def test_rotate_begins_with_another_each_time() -> None:
    assert run("", times=4) == [[A4, B4], [B4, A4]] * 2
    assert run("", "AAAA", times=2) == [[A6, B6], [B6, A6]]


def test_weighted_gives_one_as_often_as_its_weight_says() -> None:
    assert run("weighted", times=4) == [[A4], [A4], [B4], [A4]]


def test_failover_gives_all_that_it_is_given_in_their_order() -> None:
    assert run("failover", times=3) == [[A4, B4]] * 3


def test_arrival_gives_first_what_is_known_to_reach_the_asker() -> None:
    assert run("arrival", uplink="isp-b", times=3) == [[B4, A4]] * 3
    assert run("arrival", uplink="", times=2) == [[A4, B4], [B4, A4]]


def test_arrival_only_gives_it_alone_if_there_is_one() -> None:
    assert run("only", uplink="isp-b", times=2) == [[B4]] * 2
    assert run("only", "AAAA", uplink="isp-b", times=2) == [[A6]] * 2  # isp-b has none


def test_all_forms_of_a_question_share_the_turns() -> None:
    """Otherwise clients whose queries differ would all get the first one."""
    server = responder()
    forms = [asking(""), asking("", use_edns=0), query(ZONE.upper()), asking("", flags=0)]
    first = [texts(ask(server, form).answer)[0] for form in forms for _ in range(3)]
    assert first == [A4, B4] * 6


def test_hints_follow_the_policy_of_their_target() -> None:
    server = responder()
    found = [texts(ask(server, asking("weighted", "HTTPS")).answer)[0] for _ in range(4)]
    assert [A4 in text for text in found] == [True, True, False, True]
    assert texts(ask(server, asking("", "HTTPS")).answer) == [
        f'1 . alpn="h2,h3" ipv4hint="{A4},{B4}" ipv6hint="{A6},{B6}"'
    ]
    (by_b,) = texts(ask(server, asking("arrival", "SVCB"), "isp-b").answer)
    assert by_b == f'1 . port="8443" ipv4hint="{B4},{A4}" ipv6hint="{B6},{A6}"'


def test_uplinks_that_share_an_address_give_it_once() -> None:
    shared = [AddressRecord("isp-a", A4), AddressRecord("isp-b", A4)]
    for policy in ("rotate", "failover", "arrival", "arrival-only"):
        server = responder(published("", policy, shared))
        assert texts(ask(server, asking(""), "isp-b").answer) == [A4]


# --- records ------------------------------------------------------------------------------


def test_the_apex() -> None:
    server = responder()
    soa = ask(server, asking("", "SOA"))
    assert (texts(soa.answer), soa.answer[0].ttl) == ([SOA], 3600)
    names = ask(server, asking("", "NS"))
    assert texts(names.answer) == NS
    assert texts(names.additional) == [A4, A6, B4, B6]
    assert names.flags & dns.flags.AA
    assert texts(ask(server, asking("", "CAA")).answer) == ['0 issue "ca.example"']


def test_aliases() -> None:
    server = responder()
    assert texts(ask(server, asking("alias")).answer) == [f"weighted.{ZONE}.", A4]
    assert texts(ask(server, asking("alias", "CNAME")).answer) == [f"weighted.{ZONE}."]
    away = ask(server, asking("away"))
    assert (away.rcode(), texts(away.answer)) == (NOERROR, ["cdn.example.com."])
    dangling = ask(server, asking("dangling"))  # RFC 6604: the code is the last name's
    assert (dangling.rcode(), texts(dangling.authority)) == (NXDOMAIN, [SOA])
    assert ask(server, asking("loop")).rcode() == NOERROR
    bare = ask(server, asking("alias", "TXT"))
    assert (texts(bare.answer), texts(bare.authority)) == ([f"weighted.{ZONE}."], [SOA])


@pytest.mark.parametrize(
    ("label", "kind", "rcode", "found"),
    [
        ("x.wild", "TXT", NOERROR, ['"any"']),
        ("x.y.wild", "TXT", NOERROR, ['"any"']),
        ("*.wild", "TXT", NOERROR, ['"any"']),
        ("x.wild", "MX", NOERROR, []),
        ("own.wild", "TXT", NOERROR, ['"own"']),
        ("own.wild", "A", NOERROR, []),  # a name that exists isn't covered
        ("x.own.wild", "TXT", NXDOMAIN, []),  # nor is anything below it
        ("wild", "TXT", NOERROR, []),
        ("empty", "TXT", NOERROR, []),
        ("b.empty", "TXT", NOERROR, ['"below"']),
        ("c.empty", "TXT", NXDOMAIN, []),
        ("no", "A", NXDOMAIN, []),
        ("", "TYPE0", NOERROR, []),
        ("", "DS", NOERROR, []),
    ],
)
def test_what_exists_and_what_does_not(label: str, kind: str, rcode: int, found: list[str]) -> None:
    got = ask(responder(), asking(label, kind))
    assert (got.rcode(), texts(got.answer)) == (rcode, found)
    assert texts(got.authority) == ([] if found else [SOA])
    assert all(rrset.ttl == 30 for rrset in got.authority)  # RFC 2308: the SOA's minimum
    assert got.flags & dns.flags.AA


@pytest.mark.parametrize("name", ["example.net", "example.com", ".", "net", f"x{ZONE}"])
def test_what_is_not_ours_is_refused(name: str) -> None:
    for kind in ("A", "ANY", "SOA"):
        got = ask(responder(), query(name, kind))
        assert (got.rcode(), got.answer, got.authority) == (REFUSED, [], [])
        assert not got.flags & dns.flags.AA


def test_any_gets_as_little_as_there_can_be() -> None:
    server = responder()
    plain = ask(server, asking("", "ANY"))
    assert plain.flags & dns.flags.TC
    (over_tcp,) = server.tcp(asking("", "ANY").to_wire(), CLIENT, "isp-a", 0.0)
    assert texts(dns.message.from_wire(over_tcp).answer) == ['"RFC8482" ""']
    (alias,) = server.tcp(asking("alias", "ANY").to_wire(), CLIENT, "isp-a", 0.0)
    assert texts(dns.message.from_wire(alias).answer) == [f"weighted.{ZONE}."]


def test_a_zone_within_a_zone_answers_for_itself() -> None:
    inner = Zone(f"in.{ZONE}", 9, f"hostmaster.{ZONE}", (f"ns1.{ZONE}",), ())
    table = Table.build([inner, zone(published("", addresses=[]), published("a.b"))])
    server = Responder(table, secrets=[SECRET])
    assert table.zones == (ZONE, f"in.{ZONE}")
    assert (table.serial(ZONE), table.serial(f"in.{ZONE}"), table.serial("net")) == (7, 9, None)
    assert str(ask(server, asking("x.in")).authority[0].name) == f"in.{ZONE}."
    assert str(ask(server, asking("x.out")).authority[0].name) == f"{ZONE}."
