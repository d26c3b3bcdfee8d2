"""The embedded DNS server: queries of anybody, by UDP and TCP, and of secondaries.

An input's first byte tells who asks, by what uplink, and whether the rest are one query or two, the
first with its length in two bytes.
"""

from __future__ import annotations

import dns.message

from bench.dns_fuzz import corpus
from ifdefault.dns import tsig, wire
from ifdefault.dns.answer import Responder
from ifdefault.dns.limiter import Limiter
from ifdefault.dns.query import ParsedQuery, parse
from ifdefault.dns.secondaries import SecondaryAccess
from ifdefault.dns.shape import AMPLIFICATION_MAX, UDP_MAX, UDP_MIN
from ifdefault.dns.table import Table
from ifdefault.dns.tsig_key import LoadedKey
from tests.unit.dnszones import NAMES, SECRET, ZONE, zone

KIND = "bytes"
KEY = LoadedKey("k.example", "hmac-sha256", b"s" * 32)
# with a key, by address alone, with a key that can't be read, anybody
CLIENTS = ("192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::9")
KEYS: dict[str, list[tsig.TsigKey | None]] = {
    CLIENTS[0]: [KEY],
    CLIENTS[1]: [None],
    CLIENTS[2]: [],
}
UPLINKS = ("isp-a", "isp-b", "isp-c", "")
_AMPLIFYING = (wire.ANY, wire.RRSIG, wire.SIG, wire.MAILA, wire.MAILB)
_TRANSFERS = (wire.AXFR, wire.IXFR)
_TABLE = Table.build([zone(*NAMES)])


def seeds() -> list[bytes]:
    queries = corpus()
    whole = parse(queries[0])
    assert whole is not None
    question = wire.encode_name(ZONE) + wire.TWO.pack(wire.AXFR, wire.IN)
    transfer = wire.HEADER.pack(0x1234, 0, 1, 0, 0, 0) + question
    signed = tsig.Signer(KEY).sign(transfer, 0.0)
    twice = [_two(one, other) for one, other in zip(queries[::9], queries[4::9], strict=False)]
    alone = [bytes((n % 16,)) + query for n, query in enumerate(queries)]
    return [*alone, *twice, *(bytes((n,)) + m for n in range(3) for m in (transfer, signed))]


def _two(one: bytes, other: bytes) -> bytes:
    return b"\x10" + len(one).to_bytes(2, "big") + one + other


def one(data: bytes) -> None:
    if not data:
        return
    client, uplink = CLIENTS[data[0] & 3], UPLINKS[data[0] >> 2 & 3]
    queries = [data[1:]]
    if data[0] & 16:
        size = int.from_bytes(data[1:3], "big")
        queries = [data[3 : 3 + size], data[3 + size :]]
    server = _server()
    for query in queries:
        _by_udp(server, query, client, uplink)
        _limited(query, client, uplink)
        _by_tcp(query, client, uplink)
        _by_secondary(query, client, uplink)
        _signed(query, uplink)


def _server(limiter: Limiter | None = None) -> Responder:
    return Responder(_TABLE, secrets=(SECRET,), limiter=limiter)


def _by_udp(server: Responder, query: bytes, client: str, uplink: str) -> None:
    """As new, by its shape, and by its bytes: but for the turn the answers are the same, and those
    of a server that was asked nothing before."""
    asked = parse(query)
    answers = [server.udp(query, client, uplink, 0.0) for _ in range(3)]
    answers.append(_server().udp(query, client, uplink, 0.0))
    assert [answer is None for answer in answers] == [asked is None] * 4
    for answer in answers:
        if answer is None or asked is None:
            continue
        _check(asked, query, answer, _most(asked))
        assert answers[0] is not None
        assert (answer[:12], len(answer)) == (answers[0][:12], len(answers[0])), "the cache differs"
        if asked.type in _AMPLIFYING:
            assert len(answer) <= AMPLIFICATION_MAX * len(query), "amplification"
        if asked.type in _TRANSFERS:
            assert int.from_bytes(answer[6:8], "big") <= 1, "a zone over UDP"


def _limited(query: bytes, client: str, uplink: str) -> None:
    """Beyond the rate limit nobody gets more than he sent."""
    server = _server(Limiter(1))
    for turn in range(3):
        answer = server.udp(query, client, uplink, 0.0)
        if answer is not None and turn:
            assert answer[:2] == query[:2]
            assert len(answer) <= len(query), "a limited answer that is longer than its query"


def _by_tcp(query: bytes, client: str, uplink: str) -> None:
    asked = parse(query)
    for may_transfer in (False, True):
        answers = _server().tcp(query, client, uplink, 0.0, may_transfer=may_transfer)
        assert bool(answers) == (asked is not None)
        for answer in answers:
            assert asked is not None
            _check(asked, query, answer, 65_535)
            if asked.type in _TRANSFERS and not may_transfer:
                assert not any(answer[6:8]), "a zone without leave"


def _by_secondary(query: bytes, client: str, uplink: str) -> None:
    """Its answers are those to its query, and its deeds are reported in printable words."""
    reports: list[str] = []
    access = SecondaryAccess(_server(), KEYS, reports.append)
    answers = (access.udp(query, client, uplink, 0.0), *access.tcp(query, client, uplink, 0.0))
    for answer in answers:
        if answer is not None:
            assert answer[:2] == query[:2], "another ID"
            assert wire.is_response(answer)
            tsig.split(answer)
    assert all(report.isprintable() for report in reports)


def _signed(query: bytes, uplink: str) -> None:
    """A secondary's signed query, whatever is in it, gets an answer that is signed and fits."""
    if len(query) < wire.HEADER.size or query[10:12] == b"\xff\xff":
        return
    signer = tsig.Signer(KEY)
    signed = signer.sign(query, 0.0)
    try:
        plain, own = tsig.split(signed)
    except wire.WireError:
        return
    if own is None or tsig.verify(plain, own, KEY, 0.0):  # the query isn't as long as it says
        return
    access = SecondaryAccess(_server(), KEYS, lambda report: None)
    answer, asked = access.udp(signed, CLIENTS[0], uplink, 0.0), parse(plain)
    assert (answer is None) == (asked is None)
    if answer is None or asked is None:
        return
    assert len(answer) <= _most(asked), f"{len(answer)} bytes, more than {_most(asked)}"
    unsigned, signature = tsig.split(answer)
    assert signature is not None
    assert tsig.verify(unsigned, signature, KEY, 0.0, signer.mac) == 0
    answers = access.tcp(signed, CLIENTS[0], uplink, 0.0)
    assert [tsig.split(each)[1] is not None for each in answers] == [True] * len(answers)


def _check(asked: ParsedQuery, query: bytes, answer: bytes, most: int) -> None:
    assert answer[:2] == query[:2], "another ID"
    assert wire.is_response(answer), "no response"
    assert not answer[3] & 0x80, "recursion"
    assert len(answer) <= most, f"{len(answer)} bytes, more than {most}"
    assert answer[12:].startswith(asked.question), "another question"
    read = dns.message.from_wire(answer, keyring=False)
    assert len(read.question) == bool(asked.question)


def _most(asked: ParsedQuery) -> int:
    return max(UDP_MIN, min(asked.edns.size, UDP_MAX)) if asked.edns else UDP_MIN
