"""The authoritative server without its sockets: a query's bytes in, a response's bytes out.

Rules: whatever comes in, no exception goes out. A query that came before, but for its ID, costs one
look into a dict; one that differs in the case of letters or in a cookie, a second. What is
remembered is bounded, and forgotten with the table. Never recursive.
"""

from __future__ import annotations

from collections.abc import Iterator

from ifdefault.dns import transfer, wire
from ifdefault.dns.cookies import Cookies
from ifdefault.dns.limiter import Limiter
from ifdefault.dns.order import Turn
from ifdefault.dns.query import ParsedQuery, parse
from ifdefault.dns.reply import reply
from ifdefault.dns.shape import LEVER, Parts, Shape
from ifdefault.dns.table import Table

_HEAD = wire.HEADER.size
MOST_MEMORY = 4 << 20  # bytes of what is remembered, roughly
_SHAPE_BYTES, _KNOWN_BYTES, _PARTS_BYTES = 1600, 400, 300  # what Python needs besides the bytes
_MOST_UPLINKS = 64
# from the end of the question's name to where the first option's value is, if an OPT is all that
# follows: root, type, class; root, type, size, TTL, length; the option's code and length
_EDGE = 5 + 11 + 4

CachedAnswers = tuple[Iterator[Turn], dict[Turn, bytes], Shape]


class _Memo:
    """What is remembered for one uplink: by bytes without the ID, and by all that a Shape fits."""

    __slots__ = ("exact", "shapes")

    def __init__(self) -> None:
        self.exact: dict[bytes, CachedAnswers] = {}
        self.shapes: dict[bytes, Shape] = {}


class Responder:
    """`epoch_offset_s`: what has to be added to `now`, which is monotonic, for Unix time; whoever
    knows a clock sets it. `limiter` None: no limit."""

    __slots__ = ("_cookies", "_limiter", "_memos", "_nsid", "_room", "_table", "epoch_offset_s")

    def __init__(
        self, table: Table, *, secret: bytes, nsid: bytes = b"", limiter: Limiter | None = None
    ) -> None:
        self.epoch_offset_s = 0.0
        self._cookies = Cookies(secret)
        self._limiter = limiter
        self._nsid = nsid
        self.table = table

    @property
    def table(self) -> Table:
        return self._table

    @table.setter
    def table(self, table: Table) -> None:
        self._table = table
        self._forget()

    def _forget(self) -> None:
        self._memos: dict[str, _Memo] = {}
        self._room = MOST_MEMORY

    # --- UDP ------------------------------------------------------------------------------

    def udp(self, query: bytes, client: str, uplink: str, now: float) -> bytes | None:
        """The response to a query that came in by an uplink; None is to say nothing."""
        memo = self._memos.get(uplink) or self._memo(uplink)
        known = memo.exact.get(query[2:])
        if known is None:
            return self._compare(query, client, uplink, now, memo)
        turns, wholes, shape = known
        if self._limiter and (verdict := self._limiter.decide(client, now)) != "answer":
            return _curtailed(query, shape) if verdict == "truncate" else None
        turn = next(turns)
        return query[:2] + (wholes.get(turn) or self._whole(query, known, turn))

    def _memo(self, uplink: str) -> _Memo:
        if len(self._memos) >= _MOST_UPLINKS:
            self._forget()
        return self._memos.setdefault(uplink, _Memo())

    def _compare(
        self, query: bytes, client: str, uplink: str, now: float, memo: _Memo
    ) -> bytes | None:
        """Answer what isn't known to the byte, but perhaps by its shape."""
        # where the name ends, or a label holds a zero: then less counts as its letters
        at = query.find(0, _HEAD)
        name = query[_HEAD:at]
        low = name.lower()
        edge = at + _EDGE
        key = query[2:_HEAD] + low + query[at:edge]
        cookie = query[edge:]
        shape = memo.shapes.get(key)
        if shape is None or len(cookie) != shape.cookie_bytes:
            return self._read(query, client, uplink, now, memo, key)
        if not cookie and name == low:  # it came twice, so it is worth its own place
            memo.exact[query[2:]] = shape.turns, {}, shape
            self._remembered(2 * len(query) + _KNOWN_BYTES)
        return self._say(query, cookie, shape, client, now)

    def _read(
        self, query: bytes, client: str, uplink: str, now: float, memo: _Memo, key: bytes
    ) -> bytes | None:
        """Answer what is new; remember its shape if `key` and a cookie are all that it consists
        of."""
        if (asked := parse(query)) is None:
            return None
        shape = Shape(asked, reply(asked, self._table), self._nsid, uplink)
        cookie = asked.edns.cookie if asked.edns and shape.cookie_bytes else b""
        if asked.question and not asked.fault and len(query) == 2 + len(key) + len(cookie):
            memo.shapes[key] = shape
            self._remembered(len(key) + _SHAPE_BYTES)
        return self._say(query, cookie, shape, client, now)

    def _say(
        self, query: bytes, cookie: bytes, shape: Shape, client: str, now: float
    ) -> bytes | None:
        good, option = False, b""
        if cookie:
            good, option = self._cookies.judge(cookie, client, now + self.epoch_offset_s)
        if not good and self._limiter:
            verdict = self._limiter.decide(client, now)
            if verdict != "answer":
                return _curtailed(query, shape, option) if verdict == "truncate" else None
        turn = next(shape.turns)
        head, rest = shape.parts.get(turn) or self._parts(shape, turn)
        response = query[:2] + head + query[_HEAD : shape.end] + rest + option
        if shape.is_lever and not good and len(response) > LEVER * len(query):
            return _curtailed(query, shape, option)
        return response

    # --- what is remembered ---------------------------------------------------------------

    def _parts(self, shape: Shape, turn: Turn) -> Parts:
        parts = shape.parts[turn] = shape.udp(turn)
        self._remembered(len(parts[1]) + _PARTS_BYTES)
        return parts

    def _whole(self, query: bytes, known: CachedAnswers, turn: Turn) -> bytes:
        """All behind the ID of the response to a query without a cookie."""
        _, wholes, shape = known
        head, rest = shape.parts.get(turn) or self._parts(shape, turn)
        whole = head + query[_HEAD : shape.end] + rest
        if shape.is_lever and 2 + len(whole) > LEVER * len(query):
            whole = _curtailed(query, shape)[2:]
        wholes[turn] = whole
        self._remembered(len(whole) + _PARTS_BYTES)
        return whole

    def _remembered(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            self._forget()

    # --- TCP ------------------------------------------------------------------------------

    def tcp(
        self, query: bytes, client: str, uplink: str, now: float, *, may_transfer: bool = False
    ) -> tuple[bytes, ...]:
        """The responses; () is to close the connection."""
        asked = parse(query)
        if asked is None:
            return ()
        said = reply(asked, self._table, may_transfer)
        shape = Shape(asked, said, self._nsid, uplink)
        cookie = asked.edns.cookie if asked.edns and shape.cookie_bytes else b""
        unix_s = now + self.epoch_offset_s
        option = self._cookies.judge(cookie, client, unix_s)[1] if cookie else b""
        if said.authoritative and self._wants_all(asked):
            return self._zone(query, asked, shape, option)
        head, rest = shape.tcp(next(shape.turns))
        return (query[:2] + head + query[_HEAD : shape.end] + rest + option,)

    def _wants_all(self, asked: ParsedQuery) -> bool:
        """Whether a transfer that is allowed is of more than the SOA."""
        if asked.type == wire.IXFR and asked.serial is not None:
            serial = self._table.nodes[asked.name].apex.serial
            return transfer.is_newer(serial, asked.serial)
        return asked.type == wire.AXFR

    def _zone(
        self, query: bytes, asked: ParsedQuery, shape: Shape, option: bytes
    ) -> tuple[bytes, ...]:
        zone = self._table.nodes[asked.name].apex.zone
        first, *others = transfer.portions(transfer.axfr(self._table, zone))
        head, rest = shape.around(b"".join(first), len(first))
        flags = wire.QR | wire.AA
        number = int.from_bytes(query[:2], "big")
        return (
            query[:2] + head + query[_HEAD : shape.end] + rest + option,
            *(
                wire.HEADER.pack(number, flags, 0, len(records), 0, 0) + b"".join(records)
                for records in others
            ),
        )


def _curtailed(query: bytes, shape: Shape, option: bytes = b"") -> bytes:
    """A response that says no more than to come over TCP."""
    head, rest = shape.truncated()
    return query[:2] + head + query[_HEAD : shape.end] + rest + option
