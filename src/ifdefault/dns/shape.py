"""The bytes of a response, except for those that differ between clients.

Rules: a Shape fits all queries that are equal except for ID, letter case, and the bytes of a
cookie: a response consists of header, the query's question, the rest, and the cookie. UDP responses
aren't larger than the client accepts, nor than 1232 bytes (DNS flag day 2020): first the additional
section is left out, then everything, with TC set. To prevent amplification, the response to an
ANY-like query without a valid cookie is at most 1.5 times as long as the query.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from ifdefault.dns import wire
from ifdefault.dns.cookies import OPTION_BYTES
from ifdefault.dns.order import Turn
from ifdefault.dns.query import ParsedQuery
from ifdefault.dns.reply import Owned, Sections
from ifdefault.dns.table import RecordSet

UDP_MIN, UDP_MAX, TCP_MAX = 512, 1232, 65_535  # bytes; 1232: DNS flag day 2020
AMPLIFICATION_MAX = 1.5
_AMPLIFYING = (wire.ANY, wire.RRSIG, wire.SIG, wire.MAILA, wire.MAILB)
_HEAD = struct.Struct("!5H")  # a header without the ID
_OPT = struct.Struct("!BHHBBHH")
_DO = 0x8000

Parts = tuple[bytes, bytes]  # header without the ID, and what follows the question
_CONSTANT = RecordSet(0, 0, ())


class Shape:
    """The response to equal queries. `turns` are shared with other queries for the same records;
    `parts` cache the response of each turn. `end`: the offset where a query's question ends;
    `cookie_bytes`: the size of its cookie, 0: no cookie is added."""

    __slots__ = (
        *("_query", "_flags", "_last", "_reply", "_take"),
        *("cookie_bytes", "end", "can_amplify", "parts", "turns"),
    )

    def __init__(self, query: ParsedQuery, reply: Sections, uplink: str) -> None:
        self._query, self._reply = query, reply
        self._last = reply.answer[-1][1] if reply.answer else _CONSTANT
        self.turns, self._take = self._last.turns(uplink)
        self.parts: dict[Turn, Parts] = {}
        self.end = wire.HEADER.size + len(query.question)
        refused = bool(query.refusal)  # it ends with a TSIG, after which no cookie can follow
        self.cookie_bytes = len(query.edns.cookie) if query.edns and not refused else 0
        self.can_amplify = query.type in _AMPLIFYING
        copied = query.flags & (wire.OPCODE | wire.RD | wire.CD)
        authoritative = wire.AA if reply.authoritative else 0
        self._flags = wire.QR | copied | authoritative | reply.rcode & 15

    def udp(self, turn: Turn) -> Parts:
        """The response for a turn, as much of it as fits."""
        limit = min(self._query.edns.size, UDP_MAX) if self._query.edns else UDP_MIN
        free = max(limit, UDP_MIN) - self._fixed_bytes
        for additional in (self._reply.additional, ()):
            head, rest = self.full(turn, additional)
            if len(rest) <= free:
                return head, rest
        return self.truncated()

    def tcp(self, turn: Turn) -> Parts:
        head, rest = self.full(turn, self._reply.additional)
        return (head, rest) if len(rest) + self._fixed_bytes <= TCP_MAX else self.truncated()

    @property
    def _fixed_bytes(self) -> int:
        cookie = OPTION_BYTES if self.cookie_bytes else 0
        return self.end + cookie

    def full(self, turn: Turn, additional: Sequence[Owned]) -> Parts:
        offsets = wire.compression_offsets(self._query.name or wire.ROOT)
        counts: list[int] = []
        records: list[bytes] = []
        for section in (self._reply.answer, self._reply.authority, additional):
            before = len(records)
            for owner, rrset in section:
                rdatas = self._take(turn) if rrset is self._last else rrset.all
                records += [wire.record(owner, rrset.kind, rrset.ttl, r, offsets) for r in rdatas]
            counts.append(len(records) - before)
        return self.around(b"".join(records), *counts)

    def around(
        self, records: bytes, answers: int, authorities: int = 0, others: int = 0, more: int = 0
    ) -> Parts:
        """Records with header, OPT and TSIG refusal; `more` are additional flags."""
        extra = self._opt(self.cookie_bytes and OPTION_BYTES) + self._query.refusal
        others += bool(self._query.edns) + bool(self._query.refusal)
        questions = bool(self._query.question)
        flags = self._flags | more
        return _HEAD.pack(flags, questions, answers, authorities, others), records + extra

    def truncated(self) -> Parts:
        return self.around(b"", 0, more=wire.TC)

    def bare(self, more: int = 0) -> Parts:
        """Without any record but OPT, and without options. `more`: further flags."""
        question, edns = bool(self._query.question), bool(self._query.edns)
        return _HEAD.pack(self._flags | more, question, 0, 0, edns), self._opt(0)

    def _opt(self, cookie_bytes: int) -> bytes:
        """OPT with the length of the cookie that follows."""
        if not (edns := self._query.edns):
            return b""
        flags = _DO if edns.wants_dnssec else 0
        return _OPT.pack(0, wire.OPT, UDP_MAX, self._reply.rcode >> 4, 0, flags, cookie_bytes)
