"""The protocol of the embedded server: EDNS, cookies, limits and transfers."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rrset
import dns.tsigkeyring
import pytest

from ifdefault.dns.answer import CACHE_BYTES_MAX, Responder
from ifdefault.dns.limiter import Limiter
from ifdefault.dns.secondaries import SecondaryAccess
from ifdefault.dns.shape import UDP_MAX
from ifdefault.dns.table import Table
from ifdefault.dns.wire import FIXED, IN, read_record
from ifdefault.model.dns import AddressRecord
from tests.unit.dnszones import (
    A4,
    B4,
    CLIENT,
    COOKIE,
    NSID,
    ZONE,
    ask,
    asking,
    option,
    published,
    query,
    responder,
    texts,
    zone,
)

NS = [f"ns1.{ZONE}.", f"ns2.{ZONE}."]
SOA = f"ns1.{ZONE}. hostmaster.{ZONE}. 7 300 60 604800 30"
NOERROR, REFUSED = dns.rcode.NOERROR, dns.rcode.REFUSED
FORMERR, NOTIMP, NOTAUTH = dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.NOTAUTH


# --- the protocol -------------------------------------------------------------------------


def test_the_question_keeps_its_case() -> None:
    server = responder()
    for name in ("WwW.ExAmPlE.nEt", "www.EXAMPLE.net", ZONE):
        for _ in range(3):
            asked = query(name)
            wire = server.udp(asked.to_wire(), CLIENT, "isp-a", 0.0)
            assert wire is not None
            assert wire[12:].startswith(asked.to_wire()[12:])


def test_flags() -> None:
    got = ask(responder(), asking("", flags=dns.flags.RD | dns.flags.CD | dns.flags.AD))
    assert got.flags == dns.flags.QR | dns.flags.AA | dns.flags.RD | dns.flags.CD
    assert ask(responder(), asking("", flags=0)).flags == dns.flags.QR | dns.flags.AA


@pytest.mark.parametrize("opcode", [1, 2, 4, 5, 15])
def test_other_opcodes(opcode: int) -> None:
    asked = asking("")
    asked.set_opcode(dns.opcode.Opcode(opcode))
    got = ask(responder(), asked.to_wire())
    assert (got.rcode(), got.opcode(), got.id) == (NOTIMP, opcode, asked.id)


def test_what_is_no_query_gets_no_answer() -> None:
    server = responder()
    response = dns.message.make_response(asking(""))
    for wire in (b"", b"\0" * 11, response.to_wire(), b"\0\0\x80\0" + b"\xff" * 40):
        assert server.udp(wire, CLIENT, "isp-a", 0.0) is None
        assert server.tcp(wire, CLIENT, "isp-a", 0.0) == ()


PLAIN = asking("").to_wire()
OPT = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"


def counted(wire: bytes, *counts: int) -> bytes:
    return wire[:4] + b"".join(count.to_bytes(2, "big") for count in counts) + wire[12:]


@pytest.mark.parametrize(
    "wire",
    [
        PLAIN[:12],
        PLAIN[:-1],
        PLAIN + b"\0",
        counted(PLAIN, 0, 0, 0, 0),
        counted(PLAIN[:12], 0, 0, 0, 0),
        counted(PLAIN + PLAIN[12:], 2, 0, 0, 0),
        counted(PLAIN, 1, 1, 0, 0),
        counted(PLAIN, 1, 0, 0, 1),
        counted(PLAIN[:12] + b"\xc0\x0c\0\1\0\1", 1, 0, 0, 0),
        counted(PLAIN[:12] + b"\3www\xc0\x0c\0\1\0\1", 1, 0, 0, 0),
        counted(PLAIN[:12] + b"\x40" + b"x" * 64 + b"\0\0\1\0\1", 1, 0, 0, 0),
        counted(PLAIN[:12] + (b"\x3f" + b"x" * 63) * 4 + b"\0\0\1\0\1", 1, 0, 0, 0),
        counted(PLAIN + OPT + OPT, 1, 0, 0, 2),
        counted(PLAIN + b"\1x" + OPT, 1, 0, 0, 1),
        counted(PLAIN + b"\xc0\x1c" + OPT[1:], 1, 0, 0, 1),  # a pointer to the root
        counted(PLAIN + OPT[:-1] + b"\3\0\x0a\0", 1, 0, 0, 1),
        counted(PLAIN + OPT[:-1] + b"\5\0\x0a\0\x08x", 1, 0, 0, 1),
        counted(PLAIN + OPT[:-1] + b"\x0b\0\x0a\0\7" + b"x" * 7, 1, 0, 0, 1),  # too short
        counted(PLAIN + OPT[:-1] + b"\x0d\0\x0a\0\x09" + b"x" * 9, 1, 0, 0, 1),
    ],
)  # fmt: skip
def test_what_is_malformed(wire: bytes) -> None:
    server = responder()
    for _ in range(3):
        assert ask(server, wire).rcode() == FORMERR


@pytest.mark.parametrize("class_", ["CH", "HS", "ANY", "NONE"])
def test_other_classes(class_: str) -> None:
    assert ask(responder(), asking("", "TXT", rdclass=class_)).rcode() == REFUSED


@pytest.mark.parametrize(
    ("kind", "rcode"),
    [
        ("MAILA", NOTIMP),
        ("MAILB", NOTIMP),
        ("OPT", FORMERR),
        ("TSIG", FORMERR),
        ("TYPE200", FORMERR),
    ],
)
def test_types_that_no_record_has(kind: str, rcode: int) -> None:
    assert ask(responder(), asking("", kind).to_wire()).rcode() == rcode


def test_a_signature_by_a_key_that_nobody_knows() -> None:
    asked = asking("")
    asked.use_tsig(dns.tsigkeyring.from_text({"nobody.": "c2VjcmV0"}))
    for over_tcp in (False, True):
        server = responder()
        wire = asked.to_wire()
        got = server.udp(wire, CLIENT, "isp-a", 0.0)
        if over_tcp:
            (got,) = server.tcp(wire, CLIENT, "isp-a", 0.0)
        assert got is not None
        with pytest.raises(dns.message.UnknownTSIGKey):
            dns.message.from_wire(got)
        read = dns.message.from_wire(got, keyring=False)
        assert read.rcode() == NOTAUTH
        assert read.had_tsig
        assert read.tsig is not None
        (tsig,) = read.tsig
        assert (tsig.error, tsig.mac) == (dns.rcode.BADKEY, b"")
        assert tsig.original_id == asked.id


# --- EDNS ---------------------------------------------------------------------------------


def test_edns_only_to_those_who_speak_it() -> None:
    server = responder()
    assert ask(server, asking("")).edns == -1
    got = ask(server, asking("", use_edns=0, payload=4096))
    assert (got.edns, got.payload, got.ednsflags) == (0, UDP_MAX, 0)
    assert ask(server, asking("", want_dnssec=True)).ednsflags == dns.flags.DO
    flags = ask(server, asking("", use_edns=0, ednsflags=0x4321)).ednsflags
    assert flags == 0


def test_a_later_version_of_edns() -> None:
    got = ask(responder(), asking("", use_edns=1, options=[option(100)]))
    assert (got.rcode(), got.edns, got.answer, got.options) == (dns.rcode.BADVERS, 0, [], ())


@pytest.mark.parametrize(
    "wire",
    [
        counted(PLAIN + OPT + b"\0", 1, 0, 0, 1),
        counted(PLAIN + PLAIN[12:] + OPT, 2, 0, 0, 1),
        counted(PLAIN + OPT + OPT, 1, 0, 0, 2),
        counted(PLAIN + OPT[:-1] + b"\3\0\x0a\0", 1, 0, 0, 1),
        counted(PLAIN + b"\1x" + OPT, 1, 0, 0, 1),
    ],
)  # fmt: skip
def test_what_is_malformed_has_edns_where_the_query_did(wire: bytes) -> None:
    """RFC 6891, 6.1.1."""
    for _ in range(3):
        got = ask(responder(), wire)
        assert (got.rcode(), got.edns, got.options) == (FORMERR, 0, ())


@pytest.mark.parametrize("opcode", [1, 2, 4, 5, 15])
def test_other_opcodes_have_edns_where_the_query_did(opcode: int) -> None:
    asked = asking("", use_edns=0, want_dnssec=True)
    asked.set_opcode(dns.opcode.Opcode(opcode))
    got = ask(responder(), asked.to_wire())
    assert (got.rcode(), got.edns, got.ednsflags) == (NOTIMP, 0, dns.flags.DO)


def test_edns_is_not_searched_among_many_records() -> None:
    wire = counted(PLAIN + PLAIN[12:] * 100 + OPT, 101, 0, 0, 1)
    got = ask(responder(), wire)
    assert (got.rcode(), got.edns) == (FORMERR, -1)


def test_many_records_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def counting(data: bytes, at: int) -> tuple[bytes, int, int, int, bytes, int]:
        read.append(at)
        return read_record(data, at)

    monkeypatch.setattr("ifdefault.dns.wire.read_record", counting)
    record = b"\0" + FIXED.pack(999, IN, 0, 0)
    secondary = SecondaryAccess(responder(), {CLIENT: [None]}, print)
    for answers in (responder(), secondary):
        got = dns.message.from_wire(
            answers.udp(counted(PLAIN + record * 100, 1, 0, 0, 100), CLIENT, "isp-a", 0.0) or b""
        )
        assert got.rcode() == FORMERR
    assert read == []


def test_options_that_nobody_knows() -> None:
    got = ask(responder(), asking("", use_edns=0, options=[option(65001, b"x"), option(12, b"00")]))
    assert (got.rcode(), texts(got.answer), got.options) == (NOERROR, [A4, B4], ())


def test_the_host_is_not_named() -> None:
    """RFC 5001; RFC 4892."""
    assert ask(responder(), asking("", use_edns=0, options=[option(NSID)])).options == ()
    for name in ("id.server", "hostname.bind", "version.server", "version.bind"):
        got = ask(responder(), query(name, "TXT", rdclass="CH"))
        assert (got.rcode(), got.answer, got.additional) == (REFUSED, [], [])


def test_who_asks_for_anything_gets_no_lever_by_options_either() -> None:
    server = responder()
    for name in (".", ZONE, f"no.{ZONE}"):
        for options in ([option(NSID)], [option(NSID), option(COOKIE, b"12345678")]):
            wire = query(name, "ANY", use_edns=0, options=options).to_wire()
            for _ in range(3):
                answer = server.udp(wire, CLIENT, "isp-a", 0.0)
                assert answer is not None
                assert len(answer) <= 1.5 * len(wire)


@pytest.mark.parametrize(("payload", "most"), [(None, 512), (0, 512), (512, 512), (65535, UDP_MAX)])
def test_what_is_too_large(payload: int | None, most: int) -> None:
    server = responder()
    asked = asking("long", "TXT", use_edns=payload is not None and 0, payload=payload or 0)
    wire = server.udp(asked.to_wire(), CLIENT, "isp-a", 0.0)
    assert wire is not None
    assert len(wire) <= most
    got = dns.message.from_wire(wire)
    assert (got.flags & dns.flags.TC, got.answer) == (dns.flags.TC, [])
    assert got.edns == (-1 if payload is None else 0)
    (over_tcp,) = server.tcp(asked.to_wire(), CLIENT, "isp-a", 0.0)
    assert len(texts(dns.message.from_wire(over_tcp).answer)) == 9


def test_addresses_that_were_not_asked_for_are_left_out_first() -> None:
    many = [AddressRecord("isp-a", f"2001:db8::{n}") for n in range(20)]
    server = responder(published("ns1", addresses=many))
    got = ask(server, asking("", "NS"))
    assert (texts(got.answer), got.additional, got.flags & dns.flags.TC) == (NS, [], 0)
    assert len(texts(ask(server, asking("", "NS", use_edns=0, payload=1232)).additional)) == 20


# --- cookies and limits -------------------------------------------------------------------


def learn(server: Responder, client: str = CLIENT, now: float = 0.0) -> bytes:
    """A complete cookie, as the server sends it to a client without one."""
    asked = asking("", use_edns=0, options=[option(COOKIE, b"12345678")])
    (got,) = ask(server, asked, client=client, now=now).options
    whole: bytes = got.to_wire()
    assert (got.otype, len(whole), whole[:8]) == (COOKIE, 24, b"12345678")
    return whole


def test_a_good_cookie_is_worth_an_answer_to_any() -> None:
    server = responder()
    cookie = learn(server)
    with_cookie = ask(server, asking("", "ANY", use_edns=0, options=[option(COOKIE, cookie)]))
    assert texts(with_cookie.answer) == ['"RFC8482" ""']


def test_a_cookie_is_given_and_taken() -> None:
    server = responder()
    server.epoch_offset_s = 1.6e9
    cookie = learn(server)
    asked = asking("", use_edns=0, options=[option(COOKIE, cookie)])
    for now in (0.0, 60.0, 1800.0):
        assert ask(server, asked, now=now).options[0].to_wire() == cookie
    assert ask(server, asked, now=1860.0).options[0].to_wire() != cookie


def test_a_cookie_without_a_question() -> None:
    asked = dns.message.Message(id=77)
    asked.use_edns(0, options=[option(COOKIE, b"12345678")])
    got = ask(responder(), asked.to_wire())
    assert (got.rcode(), got.id, got.question, len(got.options)) == (NOERROR, 77, [], 1)


def test_a_cookie_among_other_options() -> None:
    server = responder()
    for options in (
        [option(NSID), option(COOKIE, b"12345678")],
        [option(COOKIE, b"1" * 24), option(NSID)],
    ):
        got = ask(server, asking("", use_edns=0, options=options))
        assert [each.otype for each in got.options] == [COOKIE]
        assert texts(got.answer)


def test_of_two_cookies_the_first_counts() -> None:
    two = [option(COOKIE, b"12345678"), option(COOKIE, b"87654321")]
    (got,) = ask(responder(), asking("", use_edns=0, options=two)).options
    assert got.to_wire()[:8] == b"12345678"


def test_a_cookie_with_every_shape_of_answer() -> None:
    """Its bytes are in the length of the OPT record, and in the limit."""
    server = responder()
    for n in range(200):
        names = [published("", records=[("TXT", f'"{"x" * (180 + n)}"' if n < 75 else '"x"')])]
        server.table = Table.build([zone(*names)])
        asked = asking("", "TXT", use_edns=0, payload=512, options=[option(COOKIE, b"12345678")])
        wire = server.udp(asked.to_wire(), CLIENT, "", 0.0)
        assert wire is not None
        assert len(wire) <= 512
        assert len(dns.message.from_wire(wire).options) == 1


@pytest.mark.parametrize("cookie", [b"12345678", b"1" * 24])
def test_half_a_cookie_where_a_whole_one_was_known(cookie: bytes) -> None:
    server = responder()
    wire = asking("", use_edns=0, options=[option(COOKIE, cookie)]).to_wire()
    for _ in range(2):
        assert ask(server, wire).rcode() == NOERROR
    for broken in (wire[:-1], wire[:-8], wire + b"\0", wire + cookie):
        assert ask(server, broken).rcode() == FORMERR


def test_the_clock_may_jump() -> None:
    server = responder()
    cookie = learn(server)
    for offset_s in (-1e9, 0.0, 1e9, 4294967295.0, 1e12, -5.0):
        server.epoch_offset_s = offset_s
        got = ask(server, asking("", use_edns=0, options=[option(COOKIE, cookie)]))
        assert (texts(got.answer), len(got.options)) != ([], 0)


def test_the_limit_and_who_is_exempt() -> None:
    server = responder(limiter=Limiter(5))
    asked = asking("").to_wire()
    found = [server.udp(asked, CLIENT, "isp-a", 0.5) for _ in range(9)]
    kinds = ["-" if wire is None else "TC" if wire[2] & 2 else "whole" for wire in found]
    assert kinds == ["whole"] * 5 + ["TC"] * 4
    assert all(len(wire) == len(asked) for wire in found if wire is not None and wire[2] & 2)
    assert server.tcp(asked, CLIENT, "isp-a", 0.5)
    assert server.udp(asked, "192.0.3.7", "isp-a", 0.5)
    assert server.udp(asked, CLIENT, "isp-a", 1.5)
    cookie = learn(responder())
    with_cookie = asking("", use_edns=0, options=[option(COOKIE, cookie)])
    for _ in range(9):
        assert texts(ask(server, with_cookie, now=1.5).answer)
    forged = asking("", use_edns=0, options=[option(COOKIE, cookie[:-1] + b"\0")]).to_wire()
    limited = [server.udp(forged, CLIENT, "isp-a", 1.5) for _ in range(9)]
    assert [wire is not None and len(wire) <= len(forged) for wire in limited[-4:]] == [True] * 4


def test_beyond_the_limit_a_cookie_comes_only_in_place_of_one() -> None:
    """A whole one is replaced, and makes its client exempt; half a one would become longer."""
    server = responder(limiter=Limiter(1))
    ask(server, asking(""))
    for cookie, has_cookie in ((b"12345678", False), (b"1" * 24, True)):
        asked = asking("", use_edns=0, options=[option(COOKIE, cookie)])
        got = ask(server, asked)
        assert got.flags & dns.flags.TC
        assert (got.edns, len(got.options)) == (0, has_cookie)
        assert len(got.to_wire()) <= len(asked.to_wire())
    exempt = asking("", use_edns=0, options=[option(COOKIE, got.options[0].to_wire())])
    assert texts(ask(server, exempt).answer)


# --- what is remembered -------------------------------------------------------------------


def test_another_table_is_answered_by_at_once() -> None:
    server = responder()
    for _ in range(3):
        ask(server, asking("failover"))
    server.table = Table.build([zone(published("failover", records=[("TXT", '"x"')]), serial=8)])
    assert texts(ask(server, asking("failover")).answer) == []
    assert "8 300" in texts(ask(server, asking("", "SOA")).answer)[0]


def test_only_what_comes_again_to_the_byte_has_its_own_place() -> None:
    server = responder()
    for name in (ZONE, ZONE.upper(), f"once.{ZONE}"):
        for _ in range(1 if "once" in name else 3):
            ask(server, query(name))
    assert [wire[10:] for wire in server._memos["isp-a"].exact] == [query(ZONE).to_wire()[12:]]


def test_what_is_remembered_is_bounded() -> None:
    server = responder()
    least = room = server._free_bytes
    for n in range(6000):
        asked = query(f"{n}.{ZONE}").to_wire()
        server.udp(asked, CLIENT, f"uplink-{n % 20}", 0.0)
        least, room = min(least, server._free_bytes), server._free_bytes
        assert 0 <= room <= CACHE_BYTES_MAX
    assert least < 10_000
    for n in range(200):
        assert server.udp(asked, CLIENT, f"uplink-{n}", 0.0)
    assert len(server._memos) <= 64


# --- TCP ----------------------------------------------------------------------------------


def over_tcp(server: Responder, asked: dns.message.Message, **may: bool) -> dns.message.Message:
    first, *others = server.tcp(asked.to_wire(), CLIENT, "isp-a", 0.0, **may)
    assert not others
    return dns.message.from_wire(first, one_rr_per_rrset=True)


def differing(serial: int) -> dns.message.Message:
    asked = asking("", "IXFR", use_edns=0)
    soa = dns.rrset.from_text(f"{ZONE}.", 0, "IN", "SOA", f". . {serial} 1 1 1 1")
    asked.authority.append(soa)
    return asked


def test_transfers() -> None:
    server = responder()
    assert over_tcp(server, asking("", "AXFR")).rcode() == REFUSED
    assert over_tcp(server, differing(6)).rcode() == REFUSED
    assert over_tcp(server, asking("ns1", "AXFR"), may_transfer=True).rcode() == NOTAUTH
    assert over_tcp(server, query("example.com", "AXFR"), may_transfer=True).rcode() == NOTAUTH
    whole = over_tcp(server, asking("", "AXFR"), may_transfer=True).answer
    assert [rrset.rdtype for rrset in (whole[0], whole[-1])] == [6, 6]
    assert over_tcp(server, differing(6), may_transfer=True).answer == whole
    for current in (7, 8, 7 + (1 << 31) - 1):
        assert texts(over_tcp(server, differing(current), may_transfer=True).answer) == [SOA]
    assert over_tcp(server, asking("", "IXFR"), may_transfer=True).rcode() == FORMERR


def test_transfers_over_udp() -> None:
    server = responder()
    assert ask(server, asking("", "AXFR").to_wire()).rcode() == FORMERR
    assert texts(ask(server, differing(6).to_wire()).answer) == [SOA]
