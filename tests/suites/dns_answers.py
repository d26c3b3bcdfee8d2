"""Name servers that have the same zone, asked the same: their answers side by side.

Rules: an answer is compared field by field: `Answer`. The order of records in a set counts for
nothing, that of sets does.
"""

from __future__ import annotations

import re
import selectors
import socket
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from functools import partial

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from tests.suites.dns_queries import Query

_BUFFER = 65_535
_HINT = re.compile('hint="([^"]*)"')
_QUIET_S = 1.0  # after which an answer isn't expected any more


@dataclass(frozen=True, slots=True)
class Answer:
    """What counts of an answer; `flags` without RD and CD's echo, `sets` in text."""

    rcode: str
    flags: str
    question: str
    answer: str
    authority: str
    additional: str
    edns: str  # version, flags
    options: str  # their codes


@dataclass(frozen=True, slots=True)
class Difference:
    """Ours against another's; `transport`: "udp" or "tcp"."""

    what: str
    transport: str
    server: str
    field: str
    ours: str
    theirs: str

    def __str__(self) -> str:
        head = f"{self.what} ({self.transport}), {self.field}:"
        return f"{head}\n  ours  {self.ours}\n  {self.server:<5} {self.theirs}"


@dataclass(frozen=True, slots=True)
class Allowed:
    """Differences that are right, and why. `what`: patterns of queries, separated by "; ";
    `servers` and `fields`: words."""

    what: str
    servers: str
    fields: str
    why: str

    def uses(self, differences: Iterable[Difference]) -> Iterator[Difference]:
        """Those that it allows; ValueError if there is none of a query, a server or a field."""
        unused = {*self.what.split("; "), *self.servers.split(), *self.fields.split()}
        for each in differences:
            names = (each.server, each.field)
            patterns = {it for it in self.what.split("; ") if fnmatchcase(each.what, it)}
            if patterns and names[0] in self.servers.split() and names[1] in self.fields.split():
                unused -= {*patterns, *names}
                yield each
        if unused:
            raise ValueError(f"needless in {self}: {', '.join(sorted(unused))}")


# --- the exchange ---------------------------------------------------------------------------


def exchange(
    asked: list[Query], servers: Mapping[str, str], transport: str
) -> dict[str, list[bytes | None]]:
    """What each server answered to each query, None for nothing. A datagram that got no answer is
    sent once more."""
    ask = partial(_ask_udp if transport == "udp" else _ask_tcp, asked)
    with ThreadPoolExecutor(len(servers)) as pool:  # its threads are in our network namespace
        return dict(zip(servers, pool.map(ask, servers.values()), strict=True))


def _ask_udp(asked: list[Query], address: str) -> list[bytes | None]:
    answers: dict[int, bytes] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((address, 53))
        for _ in range(2):
            for number, query in enumerate(asked):
                if number not in answers:
                    sock.send(_numbered(query.wire, number))
                    _receive(sock, answers, 0.001)
            _receive(sock, answers, _QUIET_S)
    return [answers.get(number) for number in range(len(asked))]


def _receive(sock: socket.socket, answers: dict[int, bytes], quiet_s: float) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        while selector.select(quiet_s):
            message = sock.recv(_BUFFER)
            answers[int.from_bytes(message[:2], "big")] = message


def _ask_tcp(asked: list[Query], address: str) -> list[bytes | None]:
    """All at once in one connection; they may be answered out of order (RFC 7766, 6.2.1.1)."""
    answers: dict[int, bytes] = {}
    with socket.create_connection((address, 53), timeout=20.0) as sock:
        sent = [_numbered(query.wire, number) for number, query in enumerate(asked)]
        sock.sendall(b"".join(len(wire).to_bytes(2, "big") + wire for wire in sent))
        with sock.makefile("rb") as stream:
            while len(answers) < len(asked) and (size := stream.read(2)):
                message = stream.read(int.from_bytes(size, "big"))
                answers[int.from_bytes(message[:2], "big")] = message
    return [answers.get(number) for number in range(len(asked))]


def _numbered(wire: bytes, number: int) -> bytes:
    return number.to_bytes(2, "big") + wire[2:]


# --- the comparison -------------------------------------------------------------------------


def differences(
    asked: list[Query], answers: Mapping[str, list[bytes | None]], ours: str, transport: str
) -> Iterator[Difference]:
    """All of ours that the others answered otherwise."""
    for number, query in enumerate(asked):
        mine = read(answers[ours][number])
        for server, theirs in answers.items():
            if server != ours:
                other = read(theirs[number])
                for field in fields(Answer):
                    pair = getattr(mine, field.name), getattr(other, field.name)
                    if pair[0] != pair[1]:
                        yield Difference(query.what, transport, server, field.name, *pair)


_NONE = Answer("no answer", "", "", "", "", "", "", "")


def read(wire: bytes | None) -> Answer:
    if wire is None:
        return _NONE
    try:
        message = dns.message.from_wire(wire, ignore_trailing=False)
    except dns.message.UnknownTSIGKey:  # it is the last record, and says what the code does
        others = int.from_bytes(wire[10:12], "big") - 1
        cut = wire[:10] + others.to_bytes(2, "big") + wire[12:]
        message = dns.message.from_wire(cut, ignore_trailing=True)
    except dns.exception.DNSException as error:
        return Answer(f"unreadable: {error}", wire.hex(), "", "", "", "", "", "")
    additional = sorted(message.additional, key=lambda rrset: (rrset.name, rrset.rdtype))
    edns = "none" if message.edns < 0 else f"{message.edns} {message.ednsflags & 0xFFFF:#x}"
    return Answer(
        dns.rcode.to_text(message.rcode()),
        dns.flags.to_text(message.flags),
        _sets(message.question),
        _sets(message.answer),
        _sets(message.authority),
        _sets(additional),
        edns,
        " ".join(str(int(option.otype)) for option in message.options),
    )


def _sets(section: Iterable[dns.rrset.RRset]) -> str:
    """Sets in their order, the records of each sorted, and the hints of HTTPS, which rotate."""
    return " | ".join(
        f"{rrset.name} {rrset.ttl} {dns.rdataclass.to_text(rrset.rdclass)}"
        f" {dns.rdatatype.to_text(rrset.rdtype)} {_rdatas(rrset)}".strip()
        for rrset in section
    )


def _rdatas(rrset: dns.rrset.RRset) -> str:
    return ", ".join(sorted(_HINT.sub(_sorted, str(rdata)) for rdata in rrset))


def _sorted(hint: re.Match[str]) -> str:
    return f'hint="{",".join(sorted(hint[1].split(",")))}"'
