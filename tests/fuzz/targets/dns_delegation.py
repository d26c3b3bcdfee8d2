"""What other servers answer to `ifdefault dns check`, which follows them from the root down.

An input is several responses, each with its length in two bytes before it. The questions get them
in turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import dns.exception
import dns.message

from ifdefault.cli import dnscheck, resolver
from ifdefault.cli.dnscheck import CheckResult
from ifdefault.dns.delegation import ConfiguredZone
from ifdefault.dns.diagnose import LocalState, diagnose, diagnose_alias
from ifdefault.dns.exchange import Queries, QueryResult
from ifdefault.dns.survey import Survey
from ifdefault.model.dns import Endpoint, NameConfig
from tests.unit.dnszones import A4, A6, ZONE, asking, responder

KIND = "bytes"
T = TypeVar("T")
QUESTIONS_MIN = 500  # with one more for each byte that others answer: so many at most
_WANTED = ConfiguredZone(
    ZONE,
    (NameConfig(ZONE), NameConfig(f"weighted.{ZONE}")),
    embedded=True,
    nameservers=((f"ns1.{ZONE}", (A4, A6)), ("ns.example.org", ())),
    servers=(Endpoint("192.0.2.53"),),
)
_HERE = LocalState({A4: "isp-a", A6: "isp-a"}, {ZONE: frozenset({A4})})


def seeds() -> list[bytes]:
    texts = [
        f"{ZONE}. 3600 IN NS ns1.{ZONE}.\n{ZONE}. 3600 IN NS ns.example.org.",
        f"ns1.{ZONE}. 3600 IN A {A4}\nns1.{ZONE}. 3600 IN AAAA {A6}",
    ]
    referral = dns.message.from_text(
        "id 1\nopcode QUERY\nrcode NOERROR\nflags QR\n;QUESTION\n"
        f"{ZONE}. IN SOA\n;ANSWER\n;AUTHORITY\n{texts[0]}\n;ADDITIONAL\n{texts[1]}\n"
    )
    server = responder()
    kinds = ("SOA", "NS", "A", "AAAA", "CNAME", "TXT")
    answers = [
        answer
        for label in ("", "weighted", "alias", "nothing")
        for kind in kinds
        if (answer := server.udp(asking(label, kind).to_wire(), A4, "isp-a", 0.0))
    ]
    first = referral.to_wire()
    return [_joined(first, *answers[n : n + 4]) for n in range(0, len(answers), 3)]


def _joined(*messages: bytes) -> bytes:
    return b"".join(len(message).to_bytes(2, "big") + message for message in messages)


def one(data: bytes) -> None:
    results = [*_results(data)] or [QueryResult("no answer")]
    survey = Survey(
        (("a.root", "192.0.2.1"), ("b.root", "2001:db8::1")), {4: ("isp-a", "isp-b"), 6: ("isp-a",)}
    )
    zone = _drive(survey.zone(_WANTED), results, QUESTIONS_MIN + len(data))
    alias = _drive(survey.alias(f"www.other.{ZONE}x", [ZONE]), results, QUESTIONS_MIN + len(data))
    problems = (*diagnose(zone, _HERE), *diagnose_alias(alias, _HERE, [ZONE]))
    checked = CheckResult((zone,), (alias,), problems)
    dnscheck.to_json(checked)
    for line in (*dnscheck.lines(checked), *map(str, problems)):
        assert line.isprintable(), line


def _results(data: bytes) -> Iterator[QueryResult]:
    while len(data) > 2:
        size = int.from_bytes(data[:2], "big")
        try:
            yield resolver.read(dns.message.from_wire(data[2 : 2 + size]), 1.0)
        except dns.exception.DNSException as error:
            yield resolver.malformed(error)
        data = data[2 + size :]


def _drive(queries: Queries[T], results: list[QueryResult], most: int) -> T:
    asked = 0
    try:
        batch = next(queries)
        while True:
            replies = [results[(asked + n) % len(results)] for n in range(len(batch))]
            asked += len(batch)
            assert asked <= most, "no end of questions"
            batch = queries.send(tuple(replies))
    except StopIteration as end:
        result: T = end.value
        return result
