"""NOTIFY (RFC 1996): informs secondaries that a zone has changed, until they respond.

Rules: sent from the server's own sockets, each of which uses its own uplink; every retry uses
another uplink. A newer serial replaces an older one. Only failures are reported, since a transfer
shows that the secondary was informed.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ifdefault.dns import tsig, wire
from ifdefault.dns.client import code_name
from ifdefault.frontend.client.tsig_key_file import LoadedKey
from ifdefault.model.address import family_of
from ifdefault.model.config import Family

_WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)  # after each attempt
_NOTIFY = 4 << 11  # the opcode, in a header's flags

Ways = Callable[[Family], Iterable[tuple[str, socket.socket]]]  # each with its uplink


@dataclass(frozen=True, slots=True)
class Secondary:
    address: str
    port: int
    key: LoadedKey | None = None


@dataclass(slots=True)
class _Notice:
    """For one secondary and one zone. `uplinks`: best first."""

    secondary: Secondary
    zone: str
    serial: int
    uplinks: Sequence[str]
    number: int
    tries: int = 0
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
        number = int.from_bytes(os.urandom(2), "big")
        notice = self._notices[key] = _Notice(secondary, zone, serial, uplinks, number)
        self._send(notice)

    def receive(self, packet: bytes, client: str) -> None:
        """A packet that isn't a query; it may be the response to a NOTIFY."""
        if len(packet) < wire.HEADER.size:
            return
        number, flags, *_ = wire.HEADER.unpack_from(packet)
        if flags & (wire.QR | wire.OPCODE) != wire.QR | _NOTIFY:
            return
        for key, notice in self._notices.items():
            if (notice.number, notice.secondary.address) == (number, client):
                if code := flags & 15:
                    self._report(f"secondary {client}: answered {code_name(code)} to {notice}")
                self._forget(key)
                return

    def close(self) -> None:
        for key in list(self._notices):
            self._forget(key)

    def _forget(self, key: tuple[str, int, str]) -> None:
        notice = self._notices.pop(key, None)
        if notice is not None and notice.timer is not None:
            notice.timer.cancel()

    def _send(self, notice: _Notice) -> None:
        secondary = notice.secondary
        if notice.tries == len(_WAITS_S):
            self._forget((secondary.address, secondary.port, notice.zone))
            self._report(f"secondary {secondary.address}: no answer to {notice}")
            return
        ways = sorted(self._ways(family_of(secondary.address)), key=lambda way: _rank(notice, way))
        if ways:
            _, sock = ways[notice.tries % len(ways)]
            with suppress(OSError):  # the next attempt uses another uplink
                sock.sendto(_message(notice), (secondary.address, secondary.port))
        loop = asyncio.get_running_loop()
        notice.timer = loop.call_later(_WAITS_S[notice.tries], self._send, notice)
        notice.tries += 1


def _rank(notice: _Notice, way: tuple[str, socket.socket]) -> int:
    uplink, _ = way
    known = uplink in notice.uplinks
    return notice.uplinks.index(uplink) if known else len(notice.uplinks)


def _message(notice: _Notice) -> bytes:
    head = wire.HEADER.pack(notice.number, _NOTIFY | wire.AA, 1, 0, 0, 0)
    message = head + wire.encode_name(notice.zone) + wire.TWO.pack(wire.SOA, wire.IN)
    key = notice.secondary.key
    return tsig.Signer(key).sign(message, time.time()) if key else message
