"""For any query: one response, to its sender, well-formed, and not too large; for any response:
none."""

from __future__ import annotations

from collections import Counter
from random import Random

import dns.message
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import dns_fuzz
from ifdefault.dns import tsig
from ifdefault.dns.answer import Responder
from ifdefault.dns.limiter import Limiter
from ifdefault.dns.query import parse
from ifdefault.dns.secondaries import SecondaryAccess
from ifdefault.dns.shape import UDP_MAX, UDP_MIN
from ifdefault.dns.table import Table
from ifdefault.dns.tsig_key import LoadedKey
from ifdefault.model.dns import AddressRecord, Policy
from tests.unit.dnszones import (
    CLIENT,
    COOKIE,
    NAMES,
    NSID,
    SECRET,
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

CORPUS = dns_fuzz.corpus()
LABELS = [name.name.removesuffix(ZONE).rstrip(".").replace("*", "q") for name in NAMES]
KINDS = st.sampled_from("A AAAA NS SOA TXT CAA HTTPS SVCB CNAME ANY MX PTR".split())
UPLINKS = st.sampled_from(["isp-a", "isp-b", "isp-c", ""])
SERVER = responder()


def check(server: Responder, wire: bytes, uplink: str = "isp-a") -> None:
    answer = server.udp(wire, CLIENT, uplink, 0.0)
    asked = parse(wire)
    assert (answer is None) == (asked is None)
    if answer is None or asked is None:
        return
    size = asked.edns.size if asked.edns else UDP_MIN
    assert len(answer) <= max(UDP_MIN, min(size, UDP_MAX))
    assert answer[:2] == wire[:2]
    assert answer[12:].startswith(asked.question)
    read = dns.message.from_wire(answer, keyring=False)
    assert len(read.question) == bool(asked.question)
    for message in server.tcp(wire, CLIENT, uplink, 0.0, may_transfer=True):
        dns.message.from_wire(message, keyring=False)


@given(st.binary(max_size=100))
def test_any_bytes(wire: bytes) -> None:
    check(SERVER, wire)


@given(st.sampled_from(CORPUS), st.binary(max_size=40), st.integers(0, 100), st.integers(0, 40))
def test_any_bytes_in_a_query(wire: bytes, put: bytes, at: int, over: int) -> None:
    check(SERVER, wire[:at] + put + wire[at + over :])


@pytest.mark.parametrize("wire", CORPUS, ids=lambda wire: wire.hex()[:24])
def test_the_corpus(wire: bytes) -> None:
    for _ in range(3):  # as new, by its shape, to the byte
        check(SERVER, wire)


@given(
    st.sampled_from(LABELS),
    KINDS,
    UPLINKS,
    st.none() | st.integers(0, 65535),
    st.booleans(),
    st.sampled_from([b"", b"12345678", b"1" * 24]),
    st.lists(st.sampled_from([NSID, 8, 65001]), max_size=2),
    st.randoms(use_true_random=False),
)
def test_what_is_remembered_is_what_would_be_said_anew(
    label: str,
    kind: str,
    uplink: str,
    payload: int | None,
    wants_dnssec: bool,
    cookie: bytes,
    codes: list[int],
    random: object,
) -> None:
    """Except for the turn, which is the same after a complete cycle."""
    options = [option(code) for code in codes] + ([option(COOKIE, cookie)] if cookie else [])
    edns = {"use_edns": 0, "payload": payload, "options": options} if payload is not None else {}
    asked = asking(label, kind, want_dnssec=wants_dnssec and payload is not None, **edns)
    wire = asked.to_wire()
    new = responder()
    found = Counter(says(new, wire, uplink) for _ in range(4))
    again = responder()
    expected: Counter[bytes | None] = Counter()
    for _ in range(4):  # each turn by a memory that is empty
        again._clear()
        expected[says(again, wire, uplink)] += 1
    assert found == expected
    mixed = wire[:12] + wire[12:].replace(b"example", b"eXamPLe")
    check(new, mixed, uplink)


KEY = LoadedKey("k.example", "hmac-sha256", b"secret")
SECONDARY = "192.0.2.53"


@given(
    st.sampled_from(CORPUS) | st.binary(min_size=12, max_size=100),
    st.integers(0, 15),
    st.sampled_from(["", "signed", "with a wrong signature"]),
    st.sampled_from([SECONDARY, CLIENT]),
)
def test_a_response_is_never_answered(wire: bytes, opcode: int, how: str, client: str) -> None:
    """Whatever its opcode, and signed or not: so no two servers can keep answering each other."""
    message = wire[:2] + bytes([0x80 | opcode << 3 | wire[2] & 7]) + wire[3:]
    if how:
        message = tsig.Signer(KEY, b"mac of a NOTIFY").sign(message, 0.0)
    if how == "with a wrong signature":
        message = message[:-12] + bytes(12)
    told: list[str] = []
    keys: dict[str, list[tsig.TsigKey | None]] = {SECONDARY: [KEY, None]}
    for server in (SERVER, SecondaryAccess(SERVER, keys, told.append)):
        for _ in range(3):
            assert server.udp(message, client, "isp-a", 0.0) is None
        assert server.tcp(message, client, "isp-a", 0.0) == ()
    assert not told


@given(st.sampled_from(CORPUS), st.randoms(use_true_random=False))
def test_beyond_the_limit_every_answer_is_truncated_and_no_longer_than_its_query(
    wire: bytes, random: Random
) -> None:
    server = responder(limiter=Limiter(1))
    assert server.udp(asking("").to_wire(), CLIENT, "isp-a", 0.0)
    for asked in (wire, dns_fuzz.mutate(random, CORPUS), dns_fuzz.mutate(random, CORPUS)):
        for _ in range(3):
            answer = server.udp(asked, CLIENT, "isp-a", 0.0)
            assert (answer is None) == (parse(asked) is None)
            if answer is not None:
                assert answer[2] & 2
                assert len(answer) <= len(asked)
                dns.message.from_wire(answer, keyring=False)


@given(st.sampled_from(CORPUS), st.sampled_from([0, 1, 5, 15]), st.booleans(), st.binary())
def test_an_error_has_edns_where_the_query_did(
    wire: bytes, opcode: int, over_tcp: bool, junk: bytes
) -> None:
    """RFC 6891, 6.1.1: here a query that is valid but for its opcode, or what follows it."""
    asked = parse(wire)
    assert asked is not None
    message = wire[:2] + bytes([opcode << 3 | wire[2] & 7]) + wire[3:] + junk
    (answer,) = (
        SERVER.tcp(message, CLIENT, "isp-a", 0.0)
        if over_tcp
        else (SERVER.udp(message, CLIENT, "isp-a", 0.0),)
    )
    assert answer is not None
    read = dns.message.from_wire(answer, keyring=False)
    assert (read.edns >= 0) == (asked.edns is not None)


def says(server: Responder, wire: bytes, uplink: str) -> bytes | None:
    return server.udp(wire, CLIENT, uplink, 0.0)


@given(
    st.sampled_from(["rotate", "weighted", "failover", "arrival", "arrival-only"]),
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9)), min_size=1, max_size=5),
    st.sampled_from("abcd"),
    st.sampled_from(["A", "AAAA"]),
)
def test_policies_over_a_cycle(
    policy: Policy, drawn: list[tuple[str, int]], uplink: str, kind: str
) -> None:
    form = "192.0.2.{}" if kind == "A" else "2001:db8::{}"
    handed = [AddressRecord(up, form.format(n), weight) for n, (up, weight) in enumerate(drawn, 1)]
    everything = [each.address for each in handed]
    theirs = {each.address for each in handed if each.uplink == uplink}
    server = Responder(Table.build([zone(published("", policy, handed))]), secrets=[SECRET])
    by_weight = policy in ("weighted", "rotate")
    turns = sum(w for _, w in drawn) if by_weight else 60  # 1…5 divide it
    found = [texts(ask(server, asking("", kind), uplink).answer) for _ in range(turns)]
    firsts = Counter(said[0] for said in found)
    match policy:
        case "rotate":
            assert firsts == {each.address: each.weight for each in handed}
            assert all(sorted(said) == sorted(everything) for said in found)
        case "weighted":
            assert firsts == {each.address: each.weight for each in handed}
            assert all(len(said) == 1 for said in found)
        case "failover":
            assert found == [everything] * turns
        case "arrival":
            first = theirs or set(everything)
            assert set(firsts) == first
            assert len(set(firsts.values())) == 1
            assert all(set(said[: len(theirs)]) == theirs for said in found)
            assert all(sorted(said) == sorted(everything) for said in found)
        case "arrival-only":
            assert all(set(said) == (theirs or set(everything)) for said in found)


def test_mutated_queries() -> None:
    """A short version of the bench."""
    found = dns_fuzz.fuzz(4000, seed=1)
    assert found.wrong == {}
    assert found.any_amplification <= 1.5
    assert found.read >= 6
    assert {"0", "1", "3", "4", "5", "none"} <= set(found.codes)


def test_the_check_of_answers_finds_what_is_wrong() -> None:
    asked = query(ZONE).to_wire()
    good = SERVER.udp(asked, CLIENT, "", 0.0)
    assert good is not None
    found = dns_fuzz.Result()
    dns_fuzz.check(found, asked, good)
    dns_fuzz.check(found, asked, None)
    assert found.wrong == {}
    dns_fuzz.check(found, asked, b"??" + good[2:])
    dns_fuzz.check(found, asked, asked)
    dns_fuzz.check(found, asked, good[:13] + b"?" + good[14:])
    dns_fuzz.check(found, asked, good + bytes(512))
    dns_fuzz.check(found, good, good)
    assert sorted(found.wrong) == [
        "another ID",
        "another question",
        "answer to an invalid query",
        "no response",
        "too large",
    ]
    dns_fuzz.read(found, asked, good[:-1])
    assert found.wrong["unreadable: TrailingJunk"] + found.wrong.total() > 5
