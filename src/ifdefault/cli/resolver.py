"""Send one DNS query and wait for the response: for the command line.

Rules: the caller opens the socket, so that the query leaves by the right uplink; an error before
anything was sent is a local one. Recursion is never desired. Import this only where it is needed:
dnspython takes long to load.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset

from ifdefault.dns.exchange import NO_ANSWER, QueryResult, Question, Rrset
from ifdefault.model.errors import reason

Open = Callable[[bool], socket.socket]  # True: TCP

TRIES, TRY_S = 3, 1.0  # a packet may be lost
_TCP_S = 3.0
_PAYLOAD = 1232  # never fragmented: DNS flag day 2020
_NAMES = {dns.rdatatype.NS, dns.rdatatype.CNAME}


class _LocalError(Exception):
    """The query couldn't be sent."""


def ask(make: Open, question: Question, address: str, port: int) -> QueryResult:
    """`address` and `port` are those at which this host reaches the server of the question."""
    name, kind = f"{question.name}.", question.type
    query = dns.message.make_query(name, kind, use_edns=0, payload=_PAYLOAD, flags=0)
    try:
        if not question.tcp:
            response = _by_udp(make, query, address, port)
        if question.tcp or response.flags & dns.flags.TC:
            response = _by_tcp(make, query, address, port)
    except _LocalError as error:
        return QueryResult(f"this host: {error}", is_local=True)
    except (dns.exception.Timeout, TimeoutError):
        return QueryResult(NO_ANSWER)
    except EOFError:
        return QueryResult("connection closed")
    except OSError as error:
        return QueryResult(reason(error))
    except dns.exception.DNSException as error:
        return malformed(error)
    return read(response, 1000 * response.time)


def malformed(error: dns.exception.DNSException) -> QueryResult:
    return QueryResult(f"malformed response: {' '.join(str(error).split())}")  # of several lines


def read(response: dns.message.Message, took_ms: float) -> QueryResult:
    return QueryResult(
        code=dns.rcode.to_text(response.rcode()),
        authoritative=bool(response.flags & dns.flags.AA),
        answer=tuple(map(_rrset, response.answer)),
        authority=tuple(map(_rrset, response.authority)),
        additional=tuple(map(_rrset, response.additional)),
        took_ms=took_ms,
    )


def _by_udp(make: Open, query: dns.message.Message, address: str, port: int) -> dns.message.Message:
    with _made(make, tcp=False) as sock:
        try:
            sock.connect((address, port))  # to receive ICMP errors; sends nothing yet
        except OSError as error:
            raise _LocalError(reason(error)) from None
        for turn in range(TRIES):
            try:
                return dns.query.udp(query, address, TRY_S, port, sock=sock, ignore_errors=True)
            except dns.exception.Timeout:
                if turn == TRIES - 1:
                    raise
    raise AssertionError


def _by_tcp(make: Open, query: dns.message.Message, address: str, port: int) -> dns.message.Message:
    with _made(make, tcp=True) as sock:
        sock.settimeout(_TCP_S)
        sock.connect((address, port))
        sock.setblocking(False)
        return dns.query.tcp(query, address, _TCP_S, port, sock=sock)


def _made(make: Open, *, tcp: bool) -> socket.socket:
    try:
        sock = make(tcp)
    except OSError as error:
        raise _LocalError(reason(error)) from None
    sock.setblocking(False)
    return sock


def _rrset(rrset: dns.rrset.RRset) -> Rrset:
    """As canonical text; EDNS pseudo-records don't occur here."""
    owner = rrset.name.to_text(omit_final_dot=True).lower().removesuffix(".")
    names = rrset.rdtype in _NAMES
    values = (
        rdata.target.to_text().lower().removesuffix(".") if names else rdata.to_text()
        for rdata in rrset
    )
    return Rrset(owner, rrset.ttl, dns.rdatatype.to_text(rrset.rdtype), tuple(sorted(values)))
