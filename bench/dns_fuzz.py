"""`dns_fuzz`: the embedded DNS server under mutated queries, in process.

Rules: seed, corpus and count determine the queries. Every answer is checked: no exception, no more
bytes than the client accepts, ID and question unchanged, limited amplification. Every SAMPLE-th
answer is also parsed by dnspython.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import dns.exception
import dns.message

from bench.clock import log
from bench.results import Figure, Report, Table
from ifdefault.dns import table
from ifdefault.dns.answer import Responder
from ifdefault.dns.limiter import Limiter
from ifdefault.dns.query import ParsedQuery, parse
from ifdefault.dns.shape import AMPLIFICATION_MAX, TCP_MAX, UDP_MAX, UDP_MIN
from ifdefault.dns.wire import ANY, MAILA, MAILB, RRSIG, SIG
from tests.unit.dnszones import NAMES, SECRET, zone

CORPUS = Path(__file__).parents[1] / "tests" / "corpus"
COUNT, SEED, BATCH, SAMPLE = 1_000_000, 4, 2_000, 500
_ANY_LIKE = (ANY, RRSIG, SIG, MAILA, MAILB)
_CLIENTS = ("192.0.2.7", "198.51.100.99", "2001:db8:c::7", "fe80::1%wan0")
_UPLINKS = ("isp-a", "isp-b", "")
_SIGNIFICANT = (0, 1, 12, 41, 63, 64, 127, 128, 192, 250, 251, 252, 255)
_HOW = """\
Queries captured from dig, kdig and unbound (`tests/corpus/dns_captured.txt`), and written ones in
the style of theirs and BIND's (`dns_queries.txt`). Each is mutated one to four times: bits, bytes,
significant lengths and types, parts removed, doubled or taken from another query, header counts,
letter case, an OPT record with random options. Over UDP, with and without rate limit, and every
tenth over TCP as well. No client has a valid cookie. *Amplification* is the ratio of the answer's
bytes to the query's. *ANY-like* are the types ANY, RRSIG, SIG, MAILA and MAILB."""


def corpus() -> list[bytes]:
    files = sorted(CORPUS.glob("dns_*.txt"))
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    texts = (line.partition("#")[0].strip() for line in lines)
    return [bytes.fromhex(text) for text in texts if text]


# --- mutations ----------------------------------------------------------------------------


def _position(random: Random, query: bytes | bytearray) -> int:
    """Mostly after the header: with a bad header the rest isn't parsed."""
    size = len(query)
    return (
        random.randrange(12, size)
        if size > 12 and random.random() < 0.9
        else random.randrange(size)
    )


def _bit(random: Random, query: bytearray, _: list[bytes]) -> None:
    query[_position(random, query)] ^= 1 << random.randrange(8)


def _byte(random: Random, query: bytearray, _: list[bytes]) -> None:
    query[_position(random, query)] = random.choice(_SIGNIFICANT)


def _lose(random: Random, query: bytearray, _: list[bytes]) -> None:
    at = _position(random, query)
    del query[at : at + random.randrange(1, 20)]


def _end(random: Random, query: bytearray, _: list[bytes]) -> None:
    del query[_position(random, query) :]


def _double(random: Random, query: bytearray, _: list[bytes]) -> None:
    at = _position(random, query)
    query[at:at] = query[at : at + random.randrange(1, 40)]


def _splice(random: Random, query: bytearray, others: list[bytes]) -> None:
    other = random.choice(others)
    query[_position(random, query) :] = other[_position(random, other) :]


def _count(random: Random, query: bytearray, _: list[bytes]) -> None:
    if len(query) >= 12:
        query[random.choice((5, 7, 9, 11))] = random.choice((0, 1, 2, 255))


def _case(random: Random, query: bytearray, _: list[bytes]) -> None:
    query[12:] = bytes(
        b ^ 32 if 65 <= b & 223 <= 90 and random.random() < 0.5 else b for b in query[12:]
    )


def _opt(random: Random, query: bytearray, _: list[bytes]) -> None:
    """Replace what follows the question by an OPT record with random options."""
    options = bytearray()
    for _number in range(random.randrange(4)):
        code, value = (
            random.choice((3, 8, 10, 11, 12, 65001)),
            random.randbytes(random.choice((0, 8, 24, random.randrange(45)))),
        )
        options += code.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value
    size = random.choice((0, 100, 512, 1232, 4096, 65535)).to_bytes(2, "big")
    ttl = bytes((0, random.choice((0, 0, 0, 1)), random.choice((0, 128)), 0))
    end = query.find(0, 12) + 5
    query[end:] = b"\0\0\x29" + size + ttl + len(options).to_bytes(2, "big") + options
    query[10:12] = b"\0\1"


def _type(random: Random, query: bytearray, _: list[bytes]) -> None:
    """Replace the type after the first name."""
    if (at := query.find(0, 12)) > 0:
        query[at + 1 : at + 3] = random.choice((*_ANY_LIKE, random.randrange(65536))).to_bytes(
            2, "big"
        )


# the second half mostly leaves a query valid, so that it is answered and not refused early
_BREAKING = (_bit, _byte, _lose, _end, _double, _splice, _count)
_MUTATIONS = (*_BREAKING, *2 * (_case, _opt, _type))


def mutate(random: Random, queries: list[bytes]) -> bytes:
    query = bytearray(random.choice(queries))
    for _ in range(random.randrange(1, 5)):
        if query:
            random.choice(_MUTATIONS)(random, query, queries)
    return bytes(query)


# --- checking -----------------------------------------------------------------------------


@dataclass(slots=True)
class Result:
    """What is wrong, by kind, and what was counted."""

    wrong: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    amplification: float = 0.0  # the worst
    any_amplification: float = 0.0  # the worst of ANY-like queries
    read: int = 0
    busy_s: float = 0.0
    worst: bytes = b""  # the query with the worst amplification


def check(result: Result, query: bytes, answer: bytes | None, most: int = 0) -> None:
    """Check an answer; `most`: its largest size, 0 over UDP, where the query limits it."""
    asked = parse(query)
    if answer is None:
        result.codes["none"] += 1
        return
    result.codes[str(answer[3] & 15)] += 1
    if asked is None:
        result.wrong["answer to an invalid query"] += 1
        return
    problems = {
        "another ID": answer[:2] != query[:2],
        "no response": not answer[2] & 0x80,
        "another question": answer[12 : 12 + len(asked.question)] != asked.question,
        "too large": len(answer) > (most or _most(asked)),
        "recursion": bool(answer[3] & 0x80),
    }
    result.wrong.update(problem for problem, is_wrong in problems.items() if is_wrong)
    if most:
        return
    amplification = len(answer) / len(query)
    if amplification > result.amplification:
        result.amplification, result.worst = amplification, query
    if asked.type in _ANY_LIKE:
        result.any_amplification = max(result.any_amplification, amplification)


def _most(asked: ParsedQuery) -> int:
    return max(UDP_MIN, min(asked.edns.size, UDP_MAX)) if asked.edns else UDP_MIN


def read(result: Result, query: bytes, answer: bytes) -> None:
    """Parse an answer with dnspython."""
    result.read += 1
    try:
        dns.message.from_wire(answer, keyring=False)
    except dns.exception.DNSException as error:
        result.wrong[f"unreadable: {type(error).__name__}"] += 1


def fuzz(count: int, seed: int = SEED) -> Result:
    """Answer `count` mutated queries, and check the answers."""
    random, queries, result = Random(seed), corpus(), Result()
    zones = table.Table.build([zone(*NAMES)])
    unlimited = Responder(zones, secrets=[SECRET])
    limited = Responder(zones, secrets=[SECRET], limiter=Limiter(2000))
    for batch in _batches(count):
        mutated = [mutate(random, queries) for _ in batch]
        start_s = time.perf_counter()
        answers = [
            _answer(result, (unlimited, limited)[n % 2], query, n)
            for n, query in zip(batch, mutated, strict=True)
        ]
        result.busy_s += time.perf_counter() - start_s
        for n, query, answer in zip(batch, mutated, answers, strict=True):
            check(result, query, answer)
            if answer and n % SAMPLE == 0:
                read(result, query, answer)
            if n % 10 == 0:
                _over_tcp(result, unlimited, query, n)
    return result


def _batches(count: int) -> Iterator[range]:
    for start in range(0, count, BATCH):
        yield range(start, min(start + BATCH, count))


def _answer(result: Result, server: Responder, query: bytes, n: int) -> bytes | None:
    try:
        return server.udp(query, _CLIENTS[n % 4], _UPLINKS[n % 3], n / 10_000)
    except Exception as error:  # noqa: BLE001  # any exception is a defect
        result.wrong[f"exception: {type(error).__name__}: {query.hex()}"] += 1
        return None


def _over_tcp(result: Result, server: Responder, query: bytes, n: int) -> None:
    may = n % 20 == 0
    try:
        answers = server.tcp(query, _CLIENTS[n % 4], "isp-a", n / 10_000, may_transfer=may)
    except Exception as error:  # noqa: BLE001  # as above
        result.wrong[f"exception: {type(error).__name__}: {query.hex()}"] += 1
        return
    for answer in answers[:1]:
        check(result, query, answer, TCP_MAX)


# --- the bench ----------------------------------------------------------------------------


def run() -> Report:
    log(f"{COUNT:,} mutated queries")
    result = fuzz(COUNT)
    exceptions = sum(n for what, n in result.wrong.items() if what.startswith("exception"))
    large = result.wrong["too large"]
    others = result.wrong.total() - exceptions - large
    figures = (
        Figure("mutated queries", COUNT, "", 1_000_000, at_least=True),
        Figure("exceptions", exceptions, "", 0),
        Figure("answers above the limit", large, "", 0),
        Figure("other wrong answers", others, "", 0),
        Figure(
            "worst amplification, ANY-like queries", result.any_amplification, "", AMPLIFICATION_MAX
        ),
        Figure("worst amplification, all queries", result.amplification),
        Figure(f"answers parsed by dnspython, one in {SAMPLE}", result.read),
        Figure("queries per second, answering alone", COUNT / result.busy_s),
    )
    rows = tuple((code, f"{n:,}") for code, n in result.codes.most_common())
    samples = {
        "codes": dict(result.codes),
        "wrong": dict(result.wrong),
        "worst": result.worst.hex(),
    }
    return Report(
        "Mutated DNS queries",
        _HOW,
        figures,
        (Table("Answers by response code (none: no answer)", ("code", "answers"), rows),),
        samples,
    )
