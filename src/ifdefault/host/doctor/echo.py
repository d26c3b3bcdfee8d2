"""Echo requests of chosen sizes from a way's address, and what comes back: replies and errors.

Rules: blocking, for one thread. A request is repeated until it is answered or the time is over. A
reply counts only with the request's random identifier and token; it may be shorter than the request
(some anycast resolvers cut it). Sizes are of whole IP packets.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from ifdefault.kernel import packet_sockets
from ifdefault.kernel.rtnetlink import packed
from ifdefault.kernel.uapi import socket as so
from ifdefault.model.address import family_of
from ifdefault.model.errors import reason
from ifdefault.model.health import Way

_PROTOCOL = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
_HEADER = {4: 20, 6: 40}  # of IP, without options
_REQUEST = {4: 8, 6: 128}  # RFC 792, RFC 4443
_REPLY = {4: so.ICMP_ECHOREPLY, 6: so.ICMPV6_ECHO_REPLY}
_UNREACHABLE = {4: so.ICMP_DEST_UNREACH, 6: so.ICMPV6_DEST_UNREACH}
_FRAGMENTATION_NEEDED = 4  # a code of "unreachable" (RFC 1191)
_ICMP = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence
_TOKEN = 8
SMALL = 84  # as ping(8) sends it
_LEAST_S, _MOST_S = 0.15, 0.5  # from one try to the next
_TRIES = 3
_RECEIVE = 65535
_WORDS = {
    4: {0: "no route to the network", 1: "host unreachable", 13: "prohibited"},
    6: {0: "no route", 1: "prohibited", 3: "address unreachable"},
}  # by the code of "unreachable"; RFC 1122, 3.2.2.1, RFC 1812, 5.2.7.1, RFC 4443, 3.1


@dataclass(frozen=True, slots=True)
class Echo:
    target: str
    size: int = SMALL


@dataclass(slots=True)
class Replies:
    """`rtt_s`: of each request that was answered; `too_big`: the MTU that a router told, and which;
    `refusals`: the reasons that routers, or this host, gave for not sending to a target."""

    rtt_s: dict[Echo, float] = field(default_factory=dict)
    too_big: dict[Echo, tuple[int, str]] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)

    def targets(self) -> dict[str, float]:
        """Those that answered, with their round trip time, the fastest first."""
        by_target = {echo.target: rtt for echo, rtt in self.rtt_s.items()}
        return dict(sorted(by_target.items(), key=lambda entry: entry[1]))


def request(way: Way, echo: Echo, sequence: int, key: bytes) -> bytes:
    """An ICMP echo request with its checksum. `key`: identifier and token."""
    family = way.family
    body = key[2:] + bytes(echo.size - _HEADER[family] - _ICMP.size - _TOKEN)
    identifier = int.from_bytes(key[:2], "big")
    head = _ICMP.pack(_REQUEST[family], 0, 0, identifier, sequence)
    pseudo = b""
    if family == 6:  # RFC 8200, 8.1
        pseudo = (
            packed(way.address) + packed(echo.target) + struct.pack("!II", len(head + body), 58)
        )
    checksum = internet_checksum(pseudo + head + body)
    return _ICMP.pack(_REQUEST[family], 0, checksum, identifier, sequence) + body


def internet_checksum(data: bytes) -> int:
    """RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def new_key() -> bytes:
    return os.urandom(2 + _TOKEN)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A router to send to, whatever the routes say. `mac` is empty on a link without addresses."""

    dev: str
    mac: bytes


def patience_s(rtt_s: float) -> float:
    """How long to wait for three tries, at a known round trip time."""
    return _TRIES * max(_LEAST_S, min(_MOST_S, 4 * rtt_s)) + rtt_s


def exchange(
    way: Way, echoes: Iterable[Echo], *, within_s: float, through: Neighbour | None = None
) -> Replies:
    """Send all of them at once, again until they are answered, three times at most. `through`: they
    are handed to this router, and the replies still come back by the way. Raises OSError."""
    with packet_sockets.error_socket(way.family, way.address, way.dev, way.mark) as sock:
        return _Exchange(sock, way, tuple(echoes), through).run(within_s)


class _Exchange:
    def __init__(
        self, sock: socket.socket, way: Way, echoes: tuple[Echo, ...], through: Neighbour | None
    ) -> None:
        self._sock, self._way, self._echoes, self._through = sock, way, echoes, through
        self._key = new_key()
        self._sent: dict[int, float] = {}
        self._replies = Replies()

    def run(self, within_s: float) -> Replies:
        deadline = time.monotonic() + within_s
        for left in reversed(range(_TRIES)):
            for number in self._pending():
                self._send(number)
            now = time.monotonic()
            self._receive(min(deadline, now + within_s / _TRIES) if left else deadline)
        return self._replies

    def _pending(self) -> list[int]:
        settled = self._replies.rtt_s.keys() | self._replies.too_big.keys()
        return [number for number, echo in enumerate(self._echoes) if echo not in settled]

    def _send(self, number: int) -> None:
        echo, way = self._echoes[number], self._way
        packet = request(way, echo, number, self._key)
        self._sent.setdefault(number, time.monotonic())
        try:
            if not self._through:
                self._sock.sendto(packet, (echo.target, 0))
                return
            whole = ip_packet(way.address, echo.target, packet, _PROTOCOL[way.family])
            packet_sockets.send_packet(self._through.dev, way.family, self._through.mac, whole)
        except OSError as error:
            self._replies.refusals[echo.target] = f"this host: {reason(error)}"

    def _receive(self, until: float) -> None:
        while (left := until - time.monotonic()) > 0 and self._pending():
            if select.select([self._sock], [], [], left)[0]:
                try:
                    data, (sender, *_) = self._sock.recvfrom(_RECEIVE)
                except OSError:  # an error of the device, cleared by reading it
                    continue
                self._read(data, sender.partition("%")[0])

    def _read(self, data: bytes, sender: str) -> None:
        family = self._way.family
        if family == 4:  # with its IP header
            data = data[(data[0] & 15) * 4 :] if data else b""
        if len(data) < _ICMP.size:
            return
        kind, code, _, identifier, number = _ICMP.unpack_from(data)
        if kind == _REPLY[family]:
            token = data[_ICMP.size :][:_TOKEN]
            if self._is_ours(identifier, number) and token == self._key[2:]:
                echo = self._echoes[number]
                if sender == echo.target:
                    self._replies.rtt_s.setdefault(echo, time.monotonic() - self._sent[number])
            return
        quoted = data[_ICMP.size :]
        at = (quoted[0] & 15) * 4 if family == 4 and quoted else _HEADER[family]
        if len(quoted) < at + _ICMP.size:
            return
        kind_sent, _, _, identifier, on_wire = _ICMP.unpack_from(quoted, at)
        if kind_sent != _REQUEST[family] or not self._is_ours(identifier, on_wire):
            return
        echo = self._echoes[on_wire]
        too_big = (
            kind == so.ICMPV6_PKT_TOOBIG
            if family == 6
            else (kind, code) == (so.ICMP_DEST_UNREACH, _FRAGMENTATION_NEEDED)
        )
        if too_big:
            mtu = number if family == 4 else int.from_bytes(data[4:8], "big")
            self._replies.too_big.setdefault(echo, (mtu, sender))
        elif kind == _UNREACHABLE[family]:
            words = _WORDS[family].get(code, f"unreachable, code {code}")
            self._replies.refusals[echo.target] = f"{sender} says {words}"

    def _is_ours(self, identifier: int, number: int) -> bool:
        return identifier == int.from_bytes(self._key[:2], "big") and number in self._sent


def ip_packet(source: str, target: str, payload: bytes, protocol: int) -> bytes:
    """An IP packet with any source; the packet sockets' kernel computes nothing in it."""
    if family_of(source) == 6:
        head = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64)
        return head + packed(source) + packed(target) + payload
    addresses = packed(source) + packed(target)
    length, number = 20 + len(payload), int.from_bytes(os.urandom(2), "big")
    plain = struct.pack("!BBHHHBBH", 0x45, 0, length, number, 0, 64, protocol, 0) + addresses
    checksum = internet_checksum(plain)
    return plain[:10] + checksum.to_bytes(2, "big") + plain[12:] + payload
