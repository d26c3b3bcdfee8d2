"""The bytes of a reply, but for what differs from one asker to the next.

Rules: a Shape fits all queries that are alike but for their ID, the case of letters, and the bytes
of a cookie: between header and rest goes the question as it came, behind the rest the cookie. No
UDP answer is larger than its asker takes, nor than any path takes (1232 bytes): first what wasn't
asked for is left out, then all, and TC says so. Nor does a question for whatever there is give
anyone a lever: without a good cookie the answer is at most half as long again.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from ifdefault.dns import wire
from ifdefault.dns.cookies import OPTION_BYTES
from ifdefault.dns.order import Turn
from ifdefault.dns.query import NSID, ParsedQuery
from ifdefault.dns.reply import Owned, Sections
from ifdefault.dns.table import Set

LEAST_UDP, MOST_UDP, MOST_TCP = 512, 1232, 65_535  # bytes; 1232: DNS flag day 2020
LEVER = 1.5
_ANYTHING = (wire.ANY, wire.RRSIG, wire.SIG, wire.MAILA, wire.MAILB)
_HEAD = struct.Struct("!5H")  # a header without the ID
_OPT = struct.Struct("!BHHBBHH")
_DO = 0x8000

Parts = tuple[bytes, bytes]  # header without the ID, and what follows the question
_CONSTANT = Set(0, 0, ())


class Shape:
    """`turns` are shared with all who ask for the same; `parts` are what was said at a turn. `end`
    is where a query's question ends; `cookie_bytes` are those of its cookie, 0: none is added."""

    __slots__ = (
        *("_asked", "_flags", "_last", "_nsid", "_reply", "_take"),
        *("cookie_bytes", "end", "is_lever", "parts", "turns"),
    )

    def __init__(self, asked: ParsedQuery, reply: Sections, nsid: bytes, uplink: str) -> None:
        self._asked, self._reply, self._nsid = asked, reply, nsid
        self._last = reply.answer[-1][1] if reply.answer else _CONSTANT
        self.turns, self._take = self._last.turns(uplink)
        self.parts: dict[Turn, Parts] = {}
        self.end = wire.HEADER.size + len(asked.question)
        refused = bool(asked.refusal)  # it ends with its TSIG, so that no cookie can follow
        self.cookie_bytes = len(asked.edns.cookie) if asked.edns and not refused else 0
        self.is_lever = asked.type in _ANYTHING
        copied = asked.flags & (wire.OPCODE | wire.RD | wire.CD)
        said = wire.AA if reply.authoritative else 0
        self._flags = wire.QR | copied | said | reply.rcode & 15

    def udp(self, turn: Turn) -> Parts:
        """What to say at a turn, as much of it as fits."""
        most = min(self._asked.edns.size, MOST_UDP) if self._asked.edns else LEAST_UDP
        room = max(most, LEAST_UDP) - self._fixed_bytes
        for additional in (self._reply.additional, ()):
            head, rest = self.full(turn, additional)
            if len(rest) <= room:
                return head, rest
        return self.truncated()

    def tcp(self, turn: Turn) -> Parts:
        head, rest = self.full(turn, self._reply.additional)
        return (head, rest) if len(rest) + self._fixed_bytes <= MOST_TCP else self.truncated()

    @property
    def _fixed_bytes(self) -> int:
        cookie = OPTION_BYTES if self.cookie_bytes else 0
        return self.end + cookie

    def full(self, turn: Turn, additional: Sequence[Owned]) -> Parts:
        places = wire.places(self._asked.name or wire.ROOT)
        counts: list[int] = []
        records: list[bytes] = []
        for section in (self._reply.answer, self._reply.authority, additional):
            before = len(records)
            for owner, one in section:
                rdatas = self._take(turn) if one is self._last else one.all
                records += [wire.record(owner, one.kind, one.ttl, r, places) for r in rdatas]
            counts.append(len(records) - before)
        return self.around(b"".join(records), *counts)

    def around(
        self, records: bytes, answers: int, authorities: int = 0, others: int = 0, more: int = 0
    ) -> Parts:
        """These records with header, OPT and refusal; `more` are further flags."""
        extra = self._opt(more == 0) + self._asked.refusal
        others += bool(self._asked.edns) + bool(self._asked.refusal)
        questions = bool(self._asked.question)
        flags = self._flags | more
        return _HEAD.pack(flags, questions, answers, authorities, others), records + extra

    def truncated(self) -> Parts:
        return self.around(b"", 0, more=wire.TC)

    def _opt(self, with_nsid: bool) -> bytes:
        if not (edns := self._asked.edns):
            return b""
        options = b""
        if with_nsid and edns.wants_nsid and self._nsid:
            options = wire.TWO.pack(NSID, len(self._nsid)) + self._nsid
        size = len(options) + (OPTION_BYTES if self.cookie_bytes else 0)
        flags = _DO if edns.wants_dnssec else 0
        return _OPT.pack(0, wire.OPT, MOST_UDP, self._reply.rcode >> 4, 0, flags, size) + options
