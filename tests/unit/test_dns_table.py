"""The tables of the embedded server: hints in HTTPS records, and zone transfers."""

from __future__ import annotations

import dns.message
import dns.rdata
import dns.zone
import pytest

from ifdefault.dns import svcb, wire
from ifdefault.dns.answer import Responder
from ifdefault.dns.table import Table
from ifdefault.dns.transfer import axfr, is_newer, portions
from ifdefault.model.dns import Published, Record, Zone
from tests.unit.dnszones import (
    A4,
    A6,
    B4,
    BOTH,
    CLIENT,
    SECRET,
    ZONE,
    ask,
    asking,
    published,
    query,
    record,
    responder,
    texts,
    zone,
)

TXT = 16

V4, V6 = (b"\xc0\0\2\1", b"\xc0\0\2\2"), (b"\x20\1\x0d\xb8" + bytes(11) + b"\1",)


def shown(rdata: bytes) -> str:
    return dns.rdata.from_wire("IN", "HTTPS", rdata, 0, len(rdata)).to_text()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1 .", '1 . ipv4hint="192.0.2.1,192.0.2.2" ipv6hint="2001:db8::1"'),
        (
            "1 x. alpn=h3 ech=AAQAAAAA key7=/q",
            "1 x. alpn=h3 ipv4hint=192.0.2.1,192.0.2.2 ech=AAQAAAAA ipv6hint=2001:db8::1 key7=/q",
        ),
    ],
)
def test_hints_stand_where_their_keys_belong(text: str, found: str) -> None:
    rdata = svcb.hinted(record("HTTPS", text).rdata, V4, V6)
    assert shown(rdata) == dns.rdata.from_text("IN", "HTTPS", found).to_text()


def test_hints_of_one_family() -> None:
    plain = record("HTTPS", "1 .").rdata
    assert shown(svcb.hinted(plain, (), V6)) == '1 . ipv6hint="2001:db8::1"'
    assert svcb.hinted(plain, (), ()) == plain


@pytest.mark.parametrize(
    ("rdata", "target"),
    [
        (record("HTTPS", "1 .").rdata, b"\1o\0"),
        (record("HTTPS", "1 x.").rdata, b"\1x\0"),
        (record("HTTPS", "0 x.").rdata, b""),
        (record("HTTPS", '1 . ipv4hint="192.0.2.1"').rdata, b""),
        (record("HTTPS", '1 . ipv6hint="::1"').rdata, b""),
        (b"", b""),
        (b"\0\1", b""),
        (b"\0\1\0\0", b""),
        (b"\0\1\0\0\1\0", b""),
        (b"\0\1\0\0\1\0\5x", b""),
    ],
)
def test_whose_addresses_are_hinted_at(rdata: bytes, target: bytes) -> None:
    assert svcb.target(b"\1o\0", rdata) == target


# --- transfers ----------------------------------------------------------------------------


def as_zone(records: tuple[bytes, ...]) -> dns.zone.Zone:
    head = wire.HEADER.pack(0, wire.QR, 0, len(records), 0, 0)
    message = dns.message.from_wire(head + b"".join(records), one_rr_per_rrset=True)
    read = dns.zone.Zone(f"{ZONE}.", relativize=False)
    for rrset in message.answer[:-1]:
        read.find_rdataset(rrset.name, rrset.rdtype, create=True).update(rrset)  # type: ignore[no-untyped-call]
    read.check_origin()
    return read


def test_a_secondary_gets_all_addresses_and_hints() -> None:
    records = axfr(responder().table, ZONE)
    assert records[0] == records[-1]
    read = as_zone(records)

    def found(label: str, kind: str) -> set[str]:
        name = f"{label}.{ZONE}." if label else f"{ZONE}."
        return {rdata.to_text() for rdata in read.find_rdataset(name, kind)}

    for label in ("", "weighted", "arrival", "failover", "*.wild"):
        assert found(label, "A") == {A4, B4}
    assert found("weighted", "HTTPS") == {
        f'1 . ipv4hint="{A4},{B4}" ipv6hint="{A6},2001:db8:b::10"'
    }
    assert found("", "NS") == {f"ns1.{ZONE}.", f"ns2.{ZONE}."}
    assert found("alias", "CNAME") == {f"weighted.{ZONE}."}


def test_a_zone_that_is_not_there() -> None:
    assert axfr(responder().table, "example.com") == ()


def test_a_transfer_holds_what_is_in_the_zone_alone() -> None:
    inner = Zone(f"in.{ZONE}", 9, ZONE, (f"ns1.{ZONE}",), (published("a.in"),))
    table = Table.build([zone(published("b")), inner])
    assert len(axfr(table, ZONE)) == 4  # SOA, two NS, SOA
    assert len(axfr(table, f"in.{ZONE}")) == 3


def test_the_root_as_a_zone() -> None:
    table = Table.build([Zone("", 1, "a", ("b",), ())])
    found = table.find(b"\3com\0")
    assert found is not None
    assert (found[0].name, found[1]) == (b"\0", None)


def test_what_is_outside_a_zone_is_left_out_and_its_own_ns_and_soa_stay() -> None:
    stray = published("", records=[("NS", "a."), ("SOA", "a. b. 1 1 1 1 1")])
    names = (stray, published("x"), *zone().names)
    table = Table.build([Zone(f"x.{ZONE}", 1, "a", ("b",), names)])
    assert len(axfr(table, f"x.{ZONE}")) == 3


@pytest.mark.parametrize("kind", [wire.HTTPS, wire.SVCB, wire.CNAME, TXT, wire.A, 65535])
@pytest.mark.parametrize("rdata", [b"", b"\0\1\xff\xff", b"\1x", b"\xc0\0", b"\1x\0\0"])
def test_rubbish_in_a_record_makes_nothing_fail(kind: int, rdata: bytes) -> None:
    rubbish = Published(ZONE, "rotate", 1, BOTH[:1], (Record(kind, rdata, ""),))
    server = Responder(Table.build([zone(rubbish)]), secrets=[SECRET])
    assert axfr(server.table, ZONE)
    for asked in (kind, wire.A, wire.ANY):
        assert server.udp(query(ZONE, f"TYPE{asked}").to_wire(), CLIENT, "isp-a", 0.0)


def test_an_alias_is_found_in_any_case() -> None:
    server = responder(
        published("a", records=[("CNAME", f"B.{ZONE.upper()}.")]), published("b", addresses=BOTH)
    )
    assert texts(ask(server, asking("a")).answer, "A") == [A4, B4]


@pytest.mark.parametrize(
    ("serial", "other", "newer"),
    [(1, 0, True), (0, 1, False), (5, 5, False), (0, (1 << 32) - 1, True), (1 << 31, 0, False)],
)
def test_serials(serial: int, other: int, newer: bool) -> None:
    assert is_newer(serial, other) == newer


def test_portions() -> None:
    records = tuple(bytes(size) for size in (16000, 300, 300, 17000, 5))
    assert [[len(r) for r in p] for p in portions(records)] == [[16000, 300], [300], [17000], [5]]


def test_a_large_zone_is_transferred_in_several_messages() -> None:
    names = [published(f"n{n}", records=[("TXT", f'"{"x" * 250}"')]) for n in range(200)]
    server = responder(*names)
    asked = asking("", "AXFR", use_edns=0)
    messages = server.tcp(asked.to_wire(), CLIENT, "isp-a", 0.0, may_transfer=True)
    assert len(messages) > 3
    read = [dns.message.from_wire(wire) for wire in messages]
    assert [bool(one.question) for one in read] == [True] + [False] * (len(read) - 1)
    assert {one.id for one in read} == {asked.id}
    assert sum(len(rrset) for one in read for rrset in one.answer) >= 203
