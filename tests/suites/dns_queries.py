"""Queries of all kinds for the zone of test_dns_secondaries: bytes, as some are malformed."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dns.edns
import dns.message

from tests.net.dns_cases import ZONE


@dataclass(frozen=True, slots=True)
class Query:
    """`tcp`: whether it is sent by TCP too."""

    what: str
    wire: bytes
    tcp: bool = True


def queries() -> Iterator[Query]:
    yield from _names()
    yield from _random()
    yield from _types()
    yield from _edns()
    yield from _headers()
    yield from _malformed()


def _query(name: str, kind: str = "A", class_: str = "IN", **options: Any) -> bytes:
    """A query without flags; `options` are dnspython's."""
    options = {"use_edns": False, "flags": 0, "id": 0} | options
    return dns.message.make_query(name, kind, class_, **options).to_wire()


def _names() -> Iterator[Query]:
    labels = {
        "apex": "@",
        "a name": "mail",
        "mixed case": "mAiL",
        "no such name": "none",
        "no such name, deep": "a.b.c.none",
        "below a name": "x.mail",
        "an empty non-terminal": "ent",
        "the next empty non-terminal": "b.ent",
        "below empty non-terminals": "a.b.ent",
        "beside in an empty non-terminal": "x.ent",
        "by a wildcard": "any.wild",
        "by a wildcard, deep": "a.b.any.wild",
        "a wildcard's own name": "*.wild",
        "below a wildcard's own name": "x.*.wild",
        "above a wildcard": "wild",
        "a name beside a wildcard": "own.wild",
        "below a name beside a wildcard": "x.own.wild",
        "an asterisk where no wildcard is": "*",
        "an alias": "alias",
        "an alias of an alias": "chain",
        "an alias to elsewhere": "out",
        "an alias to an empty non-terminal": "void",
        "an alias to a wildcard's name": "towild",
        "an alias by a wildcard": "x.aliases",
        "below an alias": "x.alias",
        "a label of 63 bytes": "l" * 63,
        "a name of 255 bytes": ".".join(["n" * 63] * 3 + ["n" * (254 - 192 - len(ZONE) - 2)]),
        "a zero byte in a label": "\\000x",
        "a dot in a label": "a\\.wild",
        "a space in a label": "a\\032b",
        "a byte above 127": "\\200",
        "an underscore": "_sip._tcp",
    }
    for what, label in labels.items():
        name = ZONE if label == "@" else f"{label}.{ZONE}"
        for kind in ("A", "MX"):
            yield Query(f"{what}, {kind}", _query(name, kind))
    for name in ("www.example.net", "example", "com", "notwww.example", "xwww.example"):
        yield Query(f"another zone: {name}", _query(name))
    yield Query("the root", _query(".", "NS"))


_RANDOM = 600


def _random() -> Iterator[Query]:
    """Names of the zone's own labels, in any order and depth."""
    dice = random.Random(15)
    labels = "mail ent a b x * wild own aliases alias chain out towild none".split()
    for number in range(_RANDOM):
        name = ".".join([*dice.choices(labels, k=dice.randint(1, 5)), ZONE])
        kind = dice.choice(("A", "AAAA", "TXT", "CNAME", "MX", "SOA", "NS", "TYPE65280"))
        yield Query(f"random {number}: {name} {kind}", _query(name, kind), tcp=False)


def _types() -> Iterator[Query]:
    for kind in (
        *("AAAA", "NS", "SOA", "TXT", "CAA", "HTTPS", "SVCB", "MX", "SRV", "PTR", "DS", "DNSKEY"),
        *("RRSIG", "NSEC", "NSEC3PARAM", "CDS", "NAPTR", "HINFO", "SPF", "TYPE0", "TYPE1000"),
        *("TYPE65280", "TYPE65535", "ANY", "OPT", "TSIG", "TKEY", "MAILA", "MAILB", "TYPE128"),
    ):
        yield Query(f"type {kind}", _query(ZONE, kind))
    for kind in ("CNAME", "ANY", "TXT", "SOA", "NS", "DS"):
        yield Query(f"alias, type {kind}", _query(f"alias.{ZONE}", kind))
        yield Query(f"a name, type {kind}", _query(f"mail.{ZONE}", kind))
    for kind in ("ANY", "TXT", "CNAME", "AAAA"):
        yield Query(f"by a wildcard, type {kind}", _query(f"x.wild.{ZONE}", kind))
        yield Query(f"an empty non-terminal, type {kind}", _query(f"ent.{ZONE}", kind))
        yield Query(f"no such name, type {kind}", _query(f"none.{ZONE}", kind))
    yield Query("SRV of a service", _query(f"_sip._tcp.{ZONE}", "SRV"))
    yield Query("type 65280 as it is", _query(f"odd.{ZONE}", "TYPE65280"))
    for kind in ("AXFR", "IXFR"):
        yield Query(f"{kind} by UDP", _query(ZONE, kind), tcp=False)
    for class_ in ("CH", "HS", "NONE", "ANY", "CLASS77"):
        yield Query(f"class {class_}", _query(ZONE, "A", class_))
    yield Query("version.bind", _query("version.bind", "TXT", "CH"))
    yield Query("id.server", _query("id.server", "TXT", "CH"))


def _edns() -> Iterator[Query]:
    for size in (0, 512, 513, 1232, 1400, 4096, 65_535):
        for label in ("half", "long", "mail"):
            wire = _query(f"{label}.{ZONE}", "TXT", use_edns=0, payload=size)
            yield Query(f"size {size}: {label}", wire)
    for label in ("half", "long"):
        yield Query(f"without EDNS: {label}", _query(f"{label}.{ZONE}", "TXT"))

    def option(code: int, data: bytes) -> dns.edns.GenericOption:
        return dns.edns.GenericOption(dns.edns.OptionType.make(code), data)

    more = {
        "an unknown option": [option(65_001, b"abc")],
        "two unknown options": [option(65_001, b""), option(65_002, b"")],
        "a client's network": [dns.edns.ECSOption("192.0.2.0", 24)],
        "padding": [option(12, bytes(16))],
        "keepalive": [option(11, b"")],
        "expire": [option(9, b"")],
        "a cookie": [option(10, b"12345678")],
        "an unknown server's cookie": [option(10, b"12345678" + bytes(16))],
        "a cookie of 7 bytes": [option(10, b"1234567")],
        "a cookie of 12 bytes": [option(10, b"123456789012")],
        "a cookie of 41 bytes": [option(10, b"1" * 41)],
        "chain": [option(13, b"\0")],
        "key tag": [option(14, b"\0\1")],
        "an extended error": [option(15, b"\0\0")],
    }
    for what, options in more.items():
        yield Query(what, _query(ZONE, "SOA", use_edns=0, payload=1232, options=options))
    for what, flags in {"DO": 0x8000, "flag 0x4000": 0x4000, "all flags": 0xFFFF}.items():
        yield Query(what, _query(ZONE, "SOA", use_edns=0, payload=1232, ednsflags=flags))
    for version in (1, 255):
        wire = _query(ZONE, "SOA", use_edns=0, payload=1232, ednsflags=version << 16)
        yield Query(f"version {version}", wire)
    yield Query("version 1 and DO", _query(ZONE, "SOA", use_edns=0, payload=1232, ednsflags=98304))
    for name in (f"none.{ZONE}", f"mail.{ZONE}", f"x.wild.{ZONE}", "www.example.net"):
        wire = _query(name, "TXT", use_edns=0, payload=1232, ednsflags=0x8000)
        yield Query(f"DO: {name}", wire)


def _headers() -> Iterator[Query]:
    for name, bit in {"RD": 0x100, "CD": 0x10, "AD": 0x20, "Z": 0x40, "AA": 0x400}.items():
        yield Query(f"flag {name}", _query(ZONE, "SOA", flags=bit))
    for name, bit in {"TC": 0x200, "RA": 0x80, "rcode 15": 15}.items():
        yield Query(f"flag {name}", _query(ZONE, "SOA", flags=bit))
    yield Query("all flags but QR", _query(ZONE, "SOA", flags=0x7F0 & ~0x40))
    for opcode in (1, 2, 3, 6, 15):
        yield Query(f"opcode {opcode}", _query(ZONE, "SOA", flags=opcode << 11))
    edns = _query(ZONE, "SOA", flags=15 << 11, use_edns=0, payload=1232)
    yield Query("opcode 15 with EDNS", edns)
    yield Query("NOTIFY of a stranger", _query(ZONE, "SOA", flags=4 << 11), tcp=False)
    yield Query("UPDATE of a stranger", _query(ZONE, "SOA", flags=5 << 11), tcp=False)
    yield Query("a response", _query(ZONE, "SOA", flags=0x8000), tcp=False)
    yield Query("a response with an error", _query(ZONE, "SOA", flags=0x8002), tcp=False)


def _malformed() -> Iterator[Query]:
    good = _query(ZONE, "SOA")
    with_opt = _query(ZONE, "SOA", use_edns=0, payload=1232)
    opt = with_opt[len(good) :]

    def counted(*counts: int, body: bytes = good[12:]) -> bytes:
        return good[:4] + struct.pack("!4H", *counts) + body

    a_record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + b"\xc0\0\2\1"
    question = good[12:]
    yield from (
        Query(what, wire, tcp=False)
        for what, wire in {
            "a header alone": good[:12],
            "a header alone, no question": counted(0, 0, 0, 0, body=b""),
            "no question, with EDNS": counted(0, 0, 0, 1, body=opt),
            "11 bytes": good[:11],
            "half a header": good[:6],
            "cut in the name": good[:16],
            "cut in the type": good[:-3],
            "a trailing byte": good + b"\0",
            "trailing text": good + b"hello, world",
            "two questions": counted(2, 0, 0, 0, body=question * 2),
            "two questions, one there": counted(2, 0, 0, 0),
            "an answer in the query": counted(1, 1, 0, 0, body=question + a_record),
            "an authority in the query": counted(1, 0, 1, 0, body=question + a_record),
            "an additional record": counted(1, 0, 0, 1, body=question + a_record),
            "an additional record that isn't there": counted(1, 0, 0, 1),
            "two OPT": counted(1, 0, 0, 2, body=question + opt * 2),
            "OPT with an owner": counted(1, 0, 0, 1, body=question + b"\1x" + opt),
            "OPT in the answer": counted(1, 1, 0, 0, body=question + opt),
            "OPT cut": with_opt[:-2],
            "an option cut": counted(1, 0, 0, 1, body=question + opt[:-2] + b"\0\5\0\3\0\x10x"),
            "a pointer to itself": counted(1, 0, 0, 0, body=b"\xc0\x0c\0\6\0\1"),
            "a pointer forward": counted(1, 0, 0, 0, body=b"\xc0\x20\0\6\0\1"),
            "a label of type 01": counted(1, 0, 0, 0, body=b"\x41x\0\0\6\0\1"),
            "a name of 256 bytes": counted(
                1, 0, 0, 0, body=(b"\x3f" + b"x" * 63) * 3 + b"\x3e" + b"x" * 62 + b"\0\0\6\0\1"
            ),
            "a key that nobody knows": _signed(good),
        }.items()
    )


def _signed(wire: bytes) -> bytes:
    name = b"\6nobody\0"
    algorithm = b"\x0bhmac-sha256\0"
    now = int(time.time())
    rdata = (
        algorithm + struct.pack("!HIHH", 0, now, 300, 32) + bytes(32) + struct.pack("!3H", 0, 0, 0)
    )
    record = name + struct.pack("!HHIH", 250, 255, 0, len(rdata)) + rdata
    return wire[:10] + b"\0\1" + wire[12:] + record
