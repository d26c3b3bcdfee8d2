"""NOTIFY (RFC 1996): informs secondaries that a zone has changed, until they respond.

Rules: sent from the server's own sockets, each of which has its own address and uplink. Every retry
uses another one, at once after an error, since a secondary may know only some of our addresses. A
newer serial replaces an older one. Only failures are reported, since a transfer shows that the
secondary was informed. A response must be from the secondary's address and have the ID, which is
soon guessed; if there is a key, a response without an error must be signed as well.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from ifdefault.dns import tsig, wire
from ifdefault.dns.client import code_name
from ifdefault.dns.tsig_key import LoadedKey
from ifdefault.model.address import family_of
from ifdefault.model.config import Family

_WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)  # after each attempt without a response
_NOTIFY = 4 << 11  # the opcode, in a header's flags

Way = tuple[str, socket.socket]  # with its uplink
Ways = Callable[[Family], Iterable[Way]]


@dataclass(frozen=True, slots=True)
class Secondary:
    address: str
    port: int
    key: LoadedKey | None = None


@dataclass(frozen=True, slots=True)
class _Attempt:
    """`mac`: of the message; b"" if it wasn't signed."""

    way: Way
    mac: bytes


@dataclass(slots=True)
class _Notice:
    """For one secondary and one zone. `uplinks`: best first; `attempts`: by ID, how each was sent;
    `refused`: the ways that got an error."""

    secondary: Secondary
    zone: str
    serial: int
    uplinks: Sequence[str]
    attempts: dict[int, _Attempt] = field(default_factory=dict)
    refused: set[Way] = field(default_factory=set)
    silences: int = 0
    timer: asyncio.TimerHandle | None = None

    def __str__(self) -> str:
        return f"NOTIFY of {self.zone}, serial {self.serial}"


class NotifySender:
    """`ways`: the available sockets. `report` is called with failures."""

    def __init__(self, ways: Ways, report: Callable[[str], None]) -> None:
        self._ways, self._report = ways, report
        self._notices: dict[tuple[str, int, str], _Notice] = {}  # by address, port and zone

    def notify(self, secondary: Secondary, zone: str, serial: int, uplinks: Sequence[str]) -> None:
        """Inform a secondary of a zone's new serial. `uplinks`: those to try first."""
        key = (secondary.address, secondary.port, zone)
        self._forget(key)
        notice = self._notices[key] = _Notice(secondary, zone, serial, uplinks)
        self._send(notice)

    def receive(self, packet: bytes, client: str) -> None:
        """A packet that isn't a query; it may be the response to a NOTIFY."""
        if len(packet) < wire.HEADER.size:
            return
        number, flags, *_ = wire.HEADER.unpack_from(packet)
        if flags & (wire.QR | wire.OPCODE) != wire.QR | _NOTIFY:
            return
        for key, notice in self._notices.items():
            if notice.secondary.address == client and number in notice.attempts:
                attempt = notice.attempts[number]
                if code := flags & 15:
                    del notice.attempts[number]
                    self._refused(notice, attempt.way, code_name(code))
                elif _is_signed(packet, notice.secondary.key, attempt.mac):
                    self._forget(key)
                return

    def _refused(self, notice: _Notice, way: Way, code: str) -> None:
        """Continue from another address, unless there is none that wasn't refused."""
        secondary, (uplink, _) = notice.secondary, way
        self._report(f"secondary {secondary.address}: answered {code} to {notice}, over {uplink}")
        notice.refused.add(way)
        if notice.timer is not None:
            notice.timer.cancel()
        if any(way not in notice.refused for way in self._ways(family_of(secondary.address))):
            self._send(notice)
        else:
            self._forget((secondary.address, secondary.port, notice.zone))

    def close(self) -> None:
        for key in list(self._notices):
            self._forget(key)

    def _forget(self, key: tuple[str, int, str]) -> None:
        notice = self._notices.pop(key, None)
        if notice is not None and notice.timer is not None:
            notice.timer.cancel()

    def _send(self, notice: _Notice) -> None:
        secondary = notice.secondary
        if way := self._next_way(notice):
            number = int.from_bytes(os.urandom(2), "big")
            message, mac = _message(notice, number)
            notice.attempts[number] = _Attempt(way, mac)
            with suppress(OSError):  # the next attempt uses another uplink
                way[1].sendto(message, (secondary.address, secondary.port))
        loop = asyncio.get_running_loop()
        notice.timer = loop.call_later(_WAITS_S[notice.silences], self._silent, notice)

    def _silent(self, notice: _Notice) -> None:
        """The last attempt got no response."""
        secondary = notice.secondary
        notice.silences += 1
        if notice.silences < len(_WAITS_S):
            self._send(notice)
            return
        self._forget((secondary.address, secondary.port, notice.zone))
        self._report(f"secondary {secondary.address}: no answer to {notice}")

    def _next_way(self, notice: _Notice) -> Way | None:
        """The least used way, the best of several."""
        used = Counter(attempt.way for attempt in notice.attempts.values())
        family = family_of(notice.secondary.address)
        ways = [way for way in self._ways(family) if way not in notice.refused]
        return min(ways, key=lambda way: (used[way], _rank(notice, way)), default=None)


def _rank(notice: _Notice, way: Way) -> int:
    uplink, _ = way
    known = uplink in notice.uplinks
    return notice.uplinks.index(uplink) if known else len(notice.uplinks)


def _message(notice: _Notice, number: int) -> tuple[bytes, bytes]:
    """With its MAC, b"" if there is no key."""
    head = wire.HEADER.pack(number, _NOTIFY | wire.AA, 1, 0, 0, 0)
    message = head + wire.encode_name(notice.zone) + wire.TWO.pack(wire.SOA, wire.IN)
    if (key := notice.secondary.key) is None:
        return message, b""
    signer = tsig.Signer(key)
    return signer.sign(message, time.time()), signer.mac


def _is_signed(packet: bytes, key: LoadedKey | None, mac: bytes) -> bool:
    """Whether a response is signed as it must be."""
    if key is None:
        return True
    try:
        plain, signature = tsig.split(packet)
    except wire.WireError:
        return False
    return signature is not None and not tsig.verify(plain, signature, key, time.time(), mac)
