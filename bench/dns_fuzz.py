"""`dns_fuzz`: the embedded DNS server under mutated queries, in process.

Rules: the seed, the corpus and the count make the run: the same queries each time. What is judged
is every answer: no exception, no more bytes than its asker takes, the ID and the question as they
were, no lever for who asks for anything. Each SAMPLE-th answer is also read by dnspython.
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

from bench.clock import say
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
_ANYTHING = (ANY, RRSIG, SIG, MAILA, MAILB)
_CLIENTS = ("192.0.2.7", "198.51.100.99", "2001:db8:c::7", "fe80::1%wan0")
_UPLINKS = ("isp-a", "isp-b", "")
_TELLING = (0, 1, 12, 41, 63, 64, 127, 128, 192, 250, 251, 252, 255)
_HOW = """\
Queries that dig, kdig and unbound were heard to send (`tests/corpus/dns_captured.txt`), and more in
the form of theirs and BIND's (`dns_queries.txt`), each mutated by one to four of: bits, bytes,
lengths and types that mean something, pieces lost, doubled, or from another query, counts in the
header, letters' case, an OPT record of random options. Over UDP, with and without a limit on
clients, and each tenth over TCP as well. No client has a good cookie. *Amplification* is the
answer's bytes to the query's; *for anything* are the types ANY, RRSIG, SIG, MAILA and MAILB."""


def corpus() -> list[bytes]:
    files = sorted(CORPUS.glob("dns_*.txt"))
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    texts = (line.partition("#")[0].strip() for line in lines)
    return [bytes.fromhex(text) for text in texts if text]


# --- mutations ----------------------------------------------------------------------------


def _place(random: Random, query: bytes | bytearray) -> int:
    """Anywhere, but mostly behind the header: without a good one nothing else is looked at."""
    size = len(query)
    return (
        random.randrange(12, size)
        if size > 12 and random.random() < 0.9
        else random.randrange(size)
    )


def _bit(random: Random, query: bytearray, _: list[bytes]) -> None:
    query[_place(random, query)] ^= 1 << random.randrange(8)


def _byte(random: Random, query: bytearray, _: list[bytes]) -> None:
    query[_place(random, query)] = random.choice(_TELLING)


def _lose(random: Random, query: bytearray, _: list[bytes]) -> None:
    at = _place(random, query)
    del query[at : at + random.randrange(1, 20)]


def _end(random: Random, query: bytearray, _: list[bytes]) -> None:
    del query[_place(random, query) :]


def _double(random: Random, query: bytearray, _: list[bytes]) -> None:
    at = _place(random, query)
    query[at:at] = query[at : at + random.randrange(1, 40)]


def _splice(random: Random, query: bytearray, others: list[bytes]) -> None:
    other = random.choice(others)
    query[_place(random, query) :] = other[_place(random, other) :]


def _count(random: Random, query: bytearray, _: list[bytes]) -> None:
    if len(query) >= 12:
        query[random.choice((5, 7, 9, 11))] = random.choice((0, 1, 2, 255))


def _case(random: Random, query: bytearray, _: list[bytes]) -> None:
    query[12:] = bytes(
        b ^ 32 if 65 <= b & 223 <= 90 and random.random() < 0.5 else b for b in query[12:]
    )


def _opt(random: Random, query: bytearray, _: list[bytes]) -> None:
    """An OPT record of random options behind the question, in place of what is there."""
    options = bytearray()
    for _each in range(random.randrange(4)):
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
    """Another type, where the end of the first name is."""
    if (at := query.find(0, 12)) > 0:
        query[at + 1 : at + 3] = random.choice((*_ANYTHING, random.randrange(65536))).to_bytes(
            2, "big"
        )


# the second half mostly leaves a query whole, so that it is answered, not refused at the first look
_BREAKING = (_bit, _byte, _lose, _end, _double, _splice, _count)
_MUTATIONS = (*_BREAKING, *2 * (_case, _opt, _type))


def mutate(random: Random, queries: list[bytes]) -> bytes:
    query = bytearray(random.choice(queries))
    for _ in range(random.randrange(1, 5)):
        if query:
            random.choice(_MUTATIONS)(random, query, queries)
    return bytes(query)


# --- judging ------------------------------------------------------------------------------


@dataclass(slots=True)
class Found:
    """What is wrong, by kind, and what was seen."""

    wrong: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    lever: float = 0.0  # the worst amplification
    anything: float = 0.0  # … of questions for anything
    read: int = 0
    busy_s: float = 0.0
    worst: bytes = b""  # the query that was answered with the most


def judge(found: Found, query: bytes, answer: bytes | None, most: int = 0) -> None:
    """Hold an answer against its query; `most` 0: over UDP, so that the query tells."""
    asked = parse(query)
    if answer is None:
        found.codes["none"] += 1
        return
    found.codes[str(answer[3] & 15)] += 1
    if asked is None:
        found.wrong["an answer to what is no query"] += 1
        return
    problems = {
        "another ID": answer[:2] != query[:2],
        "no response": not answer[2] & 0x80,
        "another question": answer[12 : 12 + len(asked.question)] != asked.question,
        "too large": len(answer) > (most or _most(asked)),
        "recursion": bool(answer[3] & 0x80),
    }
    found.wrong.update(problem for problem, there in problems.items() if there)
    if most:
        return
    lever = len(answer) / len(query)
    if lever > found.lever:
        found.lever, found.worst = lever, query
    if asked.type in _ANYTHING:
        found.anything = max(found.anything, lever)


def _most(asked: ParsedQuery) -> int:
    return max(UDP_MIN, min(asked.edns.size, UDP_MAX)) if asked.edns else UDP_MIN


def read(found: Found, query: bytes, answer: bytes) -> None:
    """Another's eye on an answer."""
    found.read += 1
    try:
        dns.message.from_wire(answer, keyring=False)
    except dns.exception.DNSException as error:
        found.wrong[f"unreadable: {type(error).__name__}"] += 1


def fuzz(count: int, seed: int = SEED) -> Found:
    """Answer and judge `count` mutated queries."""
    random, queries, found = Random(seed), corpus(), Found()
    told = table.Table.build([zone(*NAMES)])
    free = Responder(told, secret=SECRET, nsid=b"fuzzed.example.net")
    limited = Responder(told, secret=SECRET, limiter=Limiter(2000))
    for batch in _batches(count):
        mutated = [mutate(random, queries) for _ in batch]
        start_s = time.perf_counter()
        answers = [
            _answer(found, (free, limited)[n % 2], query, n)
            for n, query in zip(batch, mutated, strict=True)
        ]
        found.busy_s += time.perf_counter() - start_s
        for n, query, answer in zip(batch, mutated, answers, strict=True):
            judge(found, query, answer)
            if answer and n % SAMPLE == 0:
                read(found, query, answer)
            if n % 10 == 0:
                _over_tcp(found, free, query, n)
    return found


def _batches(count: int) -> Iterator[range]:
    for start in range(0, count, BATCH):
        yield range(start, min(start + BATCH, count))


def _answer(found: Found, server: Responder, query: bytes, n: int) -> bytes | None:
    try:
        return server.udp(query, _CLIENTS[n % 4], _UPLINKS[n % 3], n / 10_000)
    except Exception as error:  # noqa: BLE001  # that there is any is what is looked for
        found.wrong[f"exception: {type(error).__name__}: {query.hex()}"] += 1
        return None


def _over_tcp(found: Found, server: Responder, query: bytes, n: int) -> None:
    may = n % 20 == 0
    try:
        answers = server.tcp(query, _CLIENTS[n % 4], "isp-a", n / 10_000, may_transfer=may)
    except Exception as error:  # noqa: BLE001  # as above
        found.wrong[f"exception: {type(error).__name__}: {query.hex()}"] += 1
        return
    for answer in answers[:1]:
        judge(found, query, answer, TCP_MAX)


# --- the bench ----------------------------------------------------------------------------


def run() -> Report:
    say(f"{COUNT:,} mutated queries")
    found = fuzz(COUNT)
    exceptions = sum(n for what, n in found.wrong.items() if what.startswith("exception"))
    large = found.wrong["too large"]
    others = found.wrong.total() - exceptions - large
    figures = (
        Figure("mutated queries", COUNT, "", 1_000_000, at_least=True),
        Figure("exceptions", exceptions, "", 0),
        Figure("answers above the limit", large, "", 0),
        Figure("answers that are wrong otherwise", others, "", 0),
        Figure("worst amplification, asked for anything", found.anything, "", AMPLIFICATION_MAX),
        Figure("worst amplification of any query", found.lever),
        Figure(f"answers read by dnspython, one in {SAMPLE}", found.read),
        Figure("queries per second of the answering alone", COUNT / found.busy_s),
    )
    rows = tuple((code, f"{n:,}") for code, n in found.codes.most_common())
    samples = {"codes": dict(found.codes), "wrong": dict(found.wrong), "worst": found.worst.hex()}
    return Report(
        "Mutated DNS queries",
        _HOW,
        figures,
        (Table("Answers by response code (none: nothing was said):", ("code", "answers"), rows),),
        samples,
    )
