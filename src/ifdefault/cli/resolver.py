"""Ask a DNS server one question and wait for what it says: for the command line.

Rules: the socket is made by whoever asks, so that a question leaves where it is to; what goes wrong
with it before anything was sent is this host's own fault. Recursion is never desired. Import this
only where it is needed: dnspython takes longer than all else.
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

from ifdefault.dns.survey import QueryResult, Question, Rrset
from ifdefault.model.errors import reason

Open = Callable[[bool], socket.socket]  # for TCP or not

TRIES, TRY_S = 3, 1.0  # a packet may be lost
_TCP_S = 3.0
_PAYLOAD = 1232  # what goes through unfragmented: DNS flag day 2020
_NAMES = {dns.rdatatype.NS, dns.rdatatype.CNAME}


class _Local(Exception):
    """Nothing could be sent."""


def ask(make: Open, question: Question, address: str, port: int) -> QueryResult:
    """`address` and `port` are where this host reaches the server of the question."""
    name, kind = f"{question.name}.", question.type
    query = dns.message.make_query(name, kind, use_edns=0, payload=_PAYLOAD, flags=0)
    try:
        if not question.tcp:
            response = _by_udp(make, query, address, port)
        if question.tcp or response.flags & dns.flags.TC:
            response = _by_tcp(make, query, address, port)
    except _Local as error:
        return QueryResult(f"this host: {error}", is_local=True)
    except (dns.exception.Timeout, TimeoutError):
        return QueryResult("no answer")
    except EOFError:
        return QueryResult("it closed the connection")
    except OSError as error:
        return QueryResult(reason(error))
    except dns.exception.DNSException as error:
        return QueryResult(f"its response makes no sense: {error}")
    return QueryResult(
        code=dns.rcode.to_text(response.rcode()),
        authoritative=bool(response.flags & dns.flags.AA),
        answer=tuple(map(_rrset, response.answer)),
        authority=tuple(map(_rrset, response.authority)),
        additional=tuple(map(_rrset, response.additional)),
        took_ms=1000 * response.time,
    )


def _by_udp(make: Open, query: dns.message.Message, address: str, port: int) -> dns.message.Message:
    with _made(make, tcp=False) as sock:
        try:
            sock.connect((address, port))  # so that we hear of refusals; sends nothing yet
        except OSError as error:
            raise _Local(reason(error)) from None
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
        raise _Local(reason(error)) from None
    sock.setblocking(False)
    return sock


def _rrset(rrset: dns.rrset.RRset) -> Rrset:
    """As canonical text; an EDNS pseudo-record never is among these."""
    owner = rrset.name.to_text(omit_final_dot=True).lower().removesuffix(".")
    names = rrset.rdtype in _NAMES
    values = (
        each.target.to_text().lower().removesuffix(".") if names else each.to_text()
        for each in rrset
    )
    return Rrset(owner, rrset.ttl, dns.rdatatype.to_text(rrset.rdtype), tuple(sorted(values)))
