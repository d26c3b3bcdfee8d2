"""Access of secondaries: zone transfers and signed queries.

Rules: a secondary is identified by its address, and if it has a key by its signature as well. Its
transfers are reported once per serial. Queries of other clients go to the Responder, as do
responses, signed or not, since they get no response.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from ifdefault.dns import tsig, wire
from ifdefault.dns.answer import Responder
from ifdefault.dns.query import has_too_many_records, parse
from ifdefault.dns.reply import Sections
from ifdefault.dns.shape import UDP_MAX, UDP_MIN, Shape

_REPORTED = (wire.SOA, wire.AXFR, wire.IXFR)


@dataclass(slots=True)
class _SecondaryQuery:
    """A secondary's query. `signer` None: responses aren't signed."""

    plain: bytes
    refusal: bytes = b""
    signer: tsig.Signer | None = None
    may_transfer: bool = False


class SecondaryAccess:
    """The Responder with the rights of secondaries. `secondaries`: by address the accepted keys;
    None among them permits unsigned queries; empty if the key file can't be read. `report` is
    called with the log text of what a secondary did."""

    def __init__(
        self,
        responder: Responder,
        secondaries: Mapping[str, Collection[tsig.TsigKey | None]],
        report: Callable[[str], None],
    ) -> None:
        self._responder, self._secondaries, self._report = responder, secondaries, report
        self._reported: dict[tuple[str, str, str], int] = {}  # (client, action, zone): serial

    def udp(self, query: bytes, client: str, uplink: str, now: float) -> bytes | None:
        if client not in self._secondaries or wire.is_response(query):
            return self._responder.udp(query, client, uplink, now)
        request = self._verify(query, client, now)
        answer = request.refusal or self._responder.udp(request.plain, client, uplink, now)
        if answer is None:
            return None
        self._note(request.plain, answer, client)
        if request.signer is None:
            return answer
        return request.signer.sign(_fit(request, answer), self._unix_s(now))

    def tcp(self, query: bytes, client: str, uplink: str, now: float) -> tuple[bytes, ...]:
        if client not in self._secondaries or wire.is_response(query):
            return self._responder.tcp(query, client, uplink, now)
        request = self._verify(query, client, now)
        if request.refusal:
            return (request.refusal,)
        permitted = request.may_transfer
        answers = self._responder.tcp(request.plain, client, uplink, now, may_transfer=permitted)
        if answers:
            self._note(request.plain, answers[0], client)
        if request.signer is None:
            return answers
        return tuple(request.signer.sign(answer, self._unix_s(now)) for answer in answers)

    def _unix_s(self, now: float) -> float:
        return now + self._responder.epoch_offset_s

    def _verify(self, query: bytes, client: str, now: float) -> _SecondaryQuery:
        keys = self._secondaries[client]
        if has_too_many_records(query):  # the Responder rejects it
            return _SecondaryQuery(query)
        try:
            plain, signature = tsig.split(query)
        except wire.WireError:
            return _SecondaryQuery(query)
        if signature is None:
            return _SecondaryQuery(query, may_transfer=None in keys)
        key = next((key for key in keys if key and signature.names(key)), None)
        if key is None:
            return _SecondaryQuery(query)  # the Responder rejects it
        unix_s = self._unix_s(now)
        if error := tsig.verify(plain, signature, key, unix_s):
            answer = _bare(plain, Sections(wire.NOTAUTH))
            return _SecondaryQuery(plain, tsig.refuse(answer, signature, key, error, unix_s))
        return _SecondaryQuery(plain, b"", tsig.Signer(key, signature.mac), may_transfer=True)

    def _note(self, plain: bytes, answer: bytes, client: str) -> None:
        """Report a secondary's request for a zone, unless it was refused."""
        request = parse(plain)
        if request is None or answer[3] & 15 or request.type not in _REPORTED:
            return
        zone = wire.decode_name(request.name)[0]
        serial = self._responder.table.serial(zone)
        records = int.from_bytes(answer[6:8], "big")  # the response to IXFR may be the SOA only
        action = (client, "transferred" if records > 1 else "queried the SOA of", zone)
        if serial is not None and self._reported.get(action) != serial:
            self._reported[action] = serial
            self._report(f"secondary {client}: {action[1]} {zone}, serial {serial}")


def _fit(request: _SecondaryQuery, answer: bytes) -> bytes:
    """The response if it fits with its signature, otherwise a truncated one (RFC 8945, 5.3)."""
    query = parse(request.plain)
    size = query.edns.size if query and query.edns else UDP_MIN
    limit = max(UDP_MIN, min(size, UDP_MAX))
    if query is None or request.signer is None or len(answer) + request.signer.extra_bytes <= limit:
        return answer
    sections = Sections(answer[3] & 15, bool(answer[2] & wire.AA >> 8))
    return _bare(request.plain, sections, wire.TC)


def _bare(plain: bytes, sections: Sections, more: int = 0) -> bytes:
    """The response without records, before it is signed. `more`: further flags."""
    if (query := parse(plain)) is None:
        raise ValueError("not a query")
    shape = Shape(query, sections, "")
    head, rest = shape.bare(more)
    return plain[:2] + head + plain[wire.HEADER.size : shape.end] + rest
