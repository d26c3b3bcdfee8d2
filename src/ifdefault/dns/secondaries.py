"""What secondaries may do that others may not: transfer zones, and sign.

Rules: a secondary is known by its address, and where it has a key by its signature as well. What
it did is told once a serial. All others are none of our business: the Responder answers them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from ifdefault.dns import tsig, wire
from ifdefault.dns.answer import Responder
from ifdefault.dns.query import parse
from ifdefault.dns.shape import LEAST_UDP, MOST_UDP

_TOLD = (wire.SOA, wire.AXFR, wire.IXFR)


@dataclass(slots=True)
class _SecondaryQuery:
    """A secondary's query. `signer` None: its answers aren't to be signed."""

    plain: bytes
    refusal: bytes = b""
    signer: tsig.Signer | None = None
    may_transfer: bool = False


class Guard:
    """The Responder, for those who may more. `secondaries`: by address the keys that it may sign
    with, None among them if it need not; none at all if there should be one and can't be read.
    `told` is called with what one did."""

    def __init__(
        self,
        responder: Responder,
        secondaries: Mapping[str, Collection[tsig.TsigKey | None]],
        told: Callable[[str], None],
    ) -> None:
        self._responder, self._secondaries, self._told = responder, secondaries, told
        self._did: dict[tuple[str, str, str], int] = {}  # who, what, of which zone: the serial

    def udp(self, query: bytes, client: str, uplink: str, now: float) -> bytes | None:
        if client not in self._secondaries:
            return self._responder.udp(query, client, uplink, now)
        asked = self._judge(query, client, now)
        answer = asked.refusal or self._responder.udp(asked.plain, client, uplink, now)
        if answer is None:
            return None
        self._note(asked.plain, answer, client)
        if asked.signer is None:
            return answer
        return asked.signer.sign(_fit(asked, answer), self._unix_s(now))

    def tcp(self, query: bytes, client: str, uplink: str, now: float) -> tuple[bytes, ...]:
        if client not in self._secondaries:
            return self._responder.tcp(query, client, uplink, now)
        asked = self._judge(query, client, now)
        if asked.refusal:
            return (asked.refusal,)
        may = asked.may_transfer
        answers = self._responder.tcp(asked.plain, client, uplink, now, may_transfer=may)
        if answers:
            self._note(asked.plain, answers[0], client)
        if asked.signer is None:
            return answers
        return tuple(asked.signer.sign(answer, self._unix_s(now)) for answer in answers)

    def _unix_s(self, now: float) -> float:
        return now + self._responder.epoch_offset_s

    def _judge(self, query: bytes, client: str, now: float) -> _SecondaryQuery:
        keys = self._secondaries[client]
        try:
            plain, signature = tsig.split(query)
        except wire.BadWire:
            return _SecondaryQuery(query)
        if signature is None:
            return _SecondaryQuery(query, may_transfer=None in keys)
        key = next((key for key in keys if key and signature.names(key)), None)
        if key is None:
            return _SecondaryQuery(query)  # which the Responder refuses
        unix_s = self._unix_s(now)
        if error := tsig.judge(plain, signature, key, unix_s):
            refusal = tsig.refuse(plain, signature, key, error, unix_s)
            return _SecondaryQuery(plain, refusal)
        return _SecondaryQuery(plain, b"", tsig.Signer(key, signature.mac), may_transfer=True)

    def _note(self, plain: bytes, answer: bytes, client: str) -> None:
        """Tell what a secondary did with a zone of ours, unless it was refused."""
        asked = parse(plain)
        if asked is None or answer[3] & 15 or asked.type not in _TOLD:
            return
        zone = wire.decode_name(asked.name)[0]
        serial = self._responder.table.serial(zone)
        records = int.from_bytes(answer[6:8], "big")  # an IXFR may be told the SOA alone
        deed = (client, "transferred" if records > 1 else "asked for the SOA of", zone)
        if serial is not None and self._did.get(deed) != serial:
            self._did[deed] = serial
            self._told(f"secondary {client}: {deed[1]} {zone}, serial {serial}")


def _fit(asked: _SecondaryQuery, answer: bytes) -> bytes:
    """The answer, if it fits with its signature; else that it doesn't (RFC 8945, 5.3)."""
    query = parse(asked.plain)
    size = query.edns.size if query and query.edns else LEAST_UDP
    most = max(LEAST_UDP, min(size, MOST_UDP))
    if query is None or asked.signer is None or len(answer) + asked.signer.extra_bytes <= most:
        return answer
    number, flags, *_ = wire.HEADER.unpack_from(answer)
    head = wire.HEADER.pack(number, flags | wire.TC, bool(query.question), 0, 0, 0)
    return head + query.question
