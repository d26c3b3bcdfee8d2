"""The authoritative server without sockets: a query's bytes in, a response's bytes out.

Rules: no query raises an exception. A query that is identical to an earlier one except for its ID
costs one dict lookup; one that differs in the case of letters or in its cookie, two. The cache is
bounded, and cleared when the table changes. The server is never recursive.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ifdefault.dns import transfer, wire
from ifdefault.dns.cookies import Cookies
from ifdefault.dns.limiter import Limiter
from ifdefault.dns.order import Turn
from ifdefault.dns.query import ParsedQuery, parse
from ifdefault.dns.reply import reply
from ifdefault.dns.shape import AMPLIFICATION_MAX, Parts, Shape
from ifdefault.dns.table import Table

_HEAD = wire.HEADER.size
CACHE_BYTES_MAX = 4 << 20  # approximate size of the cache
_SHAPE_BYTES, _KNOWN_BYTES, _PARTS_BYTES = 1600, 400, 300  # overhead of Python objects
_UPLINKS_MAX = 64
# bytes from the end of the question's name to the value of the first option, if only OPT follows:
# root, type, class; root, type, size, TTL, length; the option's code and length
_EDGE = 5 + 11 + 4

CachedAnswers = tuple[Iterator[Turn], dict[Turn, bytes], Shape]


class _Memo:
    """The cache for one uplink: by the query without its ID, and by what a Shape depends on."""

    __slots__ = ("exact", "shapes")

    def __init__(self) -> None:
        self.exact: dict[bytes, CachedAnswers] = {}
        self.shapes: dict[bytes, Shape] = {}


class Responder:
    """Answers queries. `epoch_offset_s`, which the caller sets, is added to the monotonic `now` to
    get Unix time. `secrets`: of cookies, the current one first. `limiter` None: no rate limit."""

    __slots__ = (
        "_cookies",
        "_free_bytes",
        "_limiter",
        "_memos",
        "_table",
        "epoch_offset_s",
    )

    def __init__(
        self, table: Table, *, secrets: Sequence[bytes], limiter: Limiter | None = None
    ) -> None:
        self.epoch_offset_s = 0.0
        self._cookies = Cookies(*secrets)
        self._limiter = limiter
        self.table = table

    @property
    def table(self) -> Table:
        return self._table

    @table.setter
    def table(self, table: Table) -> None:
        self._table = table
        self._clear()

    def _clear(self) -> None:
        self._memos: dict[str, _Memo] = {}
        self._free_bytes = CACHE_BYTES_MAX

    # --- UDP ------------------------------------------------------------------------------

    def udp(self, query: bytes, client: str, uplink: str, now: float) -> bytes | None:
        """The response to a query received by an uplink; None: don't respond."""
        memo = self._memos.get(uplink) or self._memo(uplink)
        cached = memo.exact.get(query[2:])
        if cached is None:
            return self._by_shape(query, client, uplink, now, memo)
        turns, responses, shape = cached
        if self._limiter and not self._limiter.permits(client, now):
            return _limited(query, shape)
        turn = next(turns)
        return query[:2] + (responses.get(turn) or self._cached_response(query, cached, turn))

    def _memo(self, uplink: str) -> _Memo:
        if len(self._memos) >= _UPLINKS_MAX:
            self._clear()
        return self._memos.setdefault(uplink, _Memo())

    def _by_shape(
        self, query: bytes, client: str, uplink: str, now: float, memo: _Memo
    ) -> bytes | None:
        """Respond to a query that isn't in the cache, but its shape may be."""
        # the end of the name, or a zero byte in a label, after which case isn't ignored
        at = query.find(0, _HEAD)
        name = query[_HEAD:at]
        low = name.lower()
        edge = at + _EDGE
        key = query[2:_HEAD] + low + query[at:edge]
        cookie = query[edge:]
        shape = memo.shapes.get(key)
        if shape is None or len(cookie) != shape.cookie_bytes:
            return self._parse(query, client, uplink, now, memo, key)
        if not cookie and name == low:  # the second such query: cache it by its bytes
            memo.exact[query[2:]] = shape.turns, {}, shape
            self._account(2 * len(query) + _KNOWN_BYTES)
        return self._respond(query, cookie, shape, client, now)

    def _parse(
        self, query: bytes, client: str, uplink: str, now: float, memo: _Memo, key: bytes
    ) -> bytes | None:
        """Respond to a new query; cache its shape if it consists only of `key` and a cookie."""
        if (parsed := parse(query)) is None:
            return None
        shape = Shape(parsed, reply(parsed, self._table), uplink)
        cookie = parsed.edns.cookie if parsed.edns and shape.cookie_bytes else b""
        if parsed.question and not parsed.fault and len(query) == 2 + len(key) + len(cookie):
            memo.shapes[key] = shape
            self._account(len(key) + _SHAPE_BYTES)
        return self._respond(query, cookie, shape, client, now)

    def _respond(
        self, query: bytes, cookie: bytes, shape: Shape, client: str, now: float
    ) -> bytes | None:
        good, option = False, b""
        if cookie:
            good, option = self._cookies.check(cookie, client, now + self.epoch_offset_s)
        if not good and self._limiter and not self._limiter.permits(client, now):
            return _limited(query, shape, option)
        turn = next(shape.turns)
        head, rest = shape.parts.get(turn) or self._parts(shape, turn)
        response = query[:2] + head + query[_HEAD : shape.end] + rest + option
        if shape.can_amplify and not good and len(response) > AMPLIFICATION_MAX * len(query):
            return _truncated(query, shape, option)
        return response

    # --- cache ----------------------------------------------------------------------------

    def _parts(self, shape: Shape, turn: Turn) -> Parts:
        parts = shape.parts[turn] = shape.udp(turn)
        self._account(len(parts[1]) + _PARTS_BYTES)
        return parts

    def _cached_response(self, query: bytes, cached: CachedAnswers, turn: Turn) -> bytes:
        """The response without its ID to a query without a cookie; it is added to the cache."""
        _, responses, shape = cached
        head, rest = shape.parts.get(turn) or self._parts(shape, turn)
        response = head + query[_HEAD : shape.end] + rest
        if shape.can_amplify and 2 + len(response) > AMPLIFICATION_MAX * len(query):
            response = _truncated(query, shape)[2:]
        responses[turn] = response
        self._account(len(response) + _PARTS_BYTES)
        return response

    def _account(self, size: int) -> None:
        self._free_bytes -= size
        if self._free_bytes < 0:
            self._clear()

    # --- TCP ------------------------------------------------------------------------------

    def tcp(
        self, query: bytes, client: str, uplink: str, now: float, *, may_transfer: bool = False
    ) -> tuple[bytes, ...]:
        """The response messages; (): close the connection."""
        parsed = parse(query)
        if parsed is None:
            return ()
        sections = reply(parsed, self._table, may_transfer)
        shape = Shape(parsed, sections, uplink)
        cookie = parsed.edns.cookie if parsed.edns and shape.cookie_bytes else b""
        unix_s = now + self.epoch_offset_s
        option = self._cookies.check(cookie, client, unix_s)[1] if cookie else b""
        if sections.authoritative and self._is_full_transfer(parsed):
            return self._transfer(query, parsed, shape, option)
        head, rest = shape.tcp(next(shape.turns))
        return (query[:2] + head + query[_HEAD : shape.end] + rest + option,)

    def _is_full_transfer(self, parsed: ParsedQuery) -> bool:
        """Whether a permitted transfer needs the whole zone rather than only the SOA."""
        if parsed.type == wire.IXFR and parsed.serial is not None:
            serial = self._table.nodes[parsed.name].apex.serial
            return transfer.is_newer(serial, parsed.serial)
        return parsed.type == wire.AXFR

    def _transfer(
        self, query: bytes, parsed: ParsedQuery, shape: Shape, option: bytes
    ) -> tuple[bytes, ...]:
        zone = self._table.nodes[parsed.name].apex.zone
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


def _truncated(query: bytes, shape: Shape, option: bytes = b"") -> bytes:
    """An empty response with TC, so that the client retries over TCP."""
    head, rest = shape.truncated()
    return query[:2] + head + query[_HEAD : shape.end] + rest + option


def _limited(query: bytes, shape: Shape, option: bytes = b"") -> bytes:
    """A truncated response that is no longer than the query: without a cookie, which the client
    gets over TCP, and without the reason for rejecting a signature, if either is too long."""
    response = _truncated(query, shape, option)
    if len(response) <= len(query):
        return response
    head, rest = shape.bare(wire.TC)
    return query[:2] + head + query[_HEAD : shape.end] + rest
