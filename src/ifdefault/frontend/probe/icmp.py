"""ICMP echo probes, on a raw socket that the engine opened.

Rules: a raw socket receives every echo reply that the host does, and outsiders may send more. A
classic BPF filter drops all packets that don't contain our token, so that a flood neither wakes
this process nor displaces a reply. A reply must come from the target and contain the random number
of this probe. A probe is lost only after the socket was read once more, so that a stall of this
process isn't taken for loss. A reply within LATE_S after that is reported as answered.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from ifdefault.frontend.probe.outcome import ProbeOutcome, local
from ifdefault.libc import (
    BPF_DROP,
    BPF_IF_EQUAL,
    BPF_KEEP,
    BPF_LOAD_WORD,
    BPF_LOAD_WORD_AT_X,
    BPF_LOAD_X_IP_HEADER,
    BpfStep,
    attach_filter,
)
from ifdefault.model.config import Family

LATE_S = 3.0
_REQUEST, _REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
_ICMP = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence (RFC 792, 4443)
_BODY = struct.Struct("!8s8sIQ")  # token, random number, path, seq
_PACKET_BYTES = _ICMP.size + _BODY.size
_RECEIVE_BYTES = 256  # an IPv4 header with options, and the packet
_TURN, _DRAIN = 64, 4096  # packets read at one wake-up; before a probe is reported as lost


@dataclass(slots=True)
class _SentEcho:
    seq: int
    address: bytes
    number: bytes
    sent_ns: int
    lost: bool = False
    timer: asyncio.TimerHandle | None = None


class Echo:
    """The probes of one path. Calls `report(seq, outcome)`; owns the socket."""

    def __init__(
        self,
        sock: socket.socket,
        family: Family,
        path: int,
        report: Callable[[int, ProbeOutcome], None],
    ) -> None:
        self._sock, self._family, self._path, self._report = sock, family, path, report
        self._af = socket.AF_INET if family == 4 else socket.AF_INET6
        self._token = os.urandom(8)
        self._identifier = int.from_bytes(os.urandom(2), "big")
        self._sent: dict[int, _SentEcho] = {}  # by the sequence number on the wire
        self._loop = asyncio.get_running_loop()
        sock.setblocking(False)
        with suppress(OSError):  # then `_receive` has to filter all packets
            attach_filter(sock, _filter(family, self._token))
        self._loop.add_reader(sock, self._read, _TURN)

    def close(self) -> tuple[int, ...]:
        """Close the socket; return the seqs of probes that weren't reported."""
        self._loop.remove_reader(self._sock)
        self._sock.close()
        unreported = tuple(sent.seq for sent in self._sent.values() if not sent.lost)
        for on_wire in [*self._sent]:
            self._forget(on_wire)
        return unreported

    def send(self, seq: int, address: str, timeout_s: float) -> None:
        """Send one probe; its outcome is reported once, and again if the reply is late."""
        on_wire = seq & 0xFFFF
        if on_wire in self._sent:  # from 65,536 probes ago
            self._forget(on_wire)
        number = os.urandom(8)
        packet = self._packet(on_wire, _BODY.pack(self._token, number, self._path, seq))
        sent_ns = time.monotonic_ns()
        try:
            target = socket.inet_pton(self._af, address)
            self._sock.sendto(packet, (address, 0))
        except OSError as error:
            self._report(seq, local(error))
            return
        sent = self._sent[on_wire] = _SentEcho(seq, target, number, sent_ns)
        sent.timer = self._loop.call_later(timeout_s, self._on_timeout, on_wire)

    def _packet(self, on_wire: int, body: bytes) -> bytes:
        kind, checksum = _REQUEST[self._family], 0
        if self._family == 4:  # for ICMPv6 the kernel computes the checksum
            head = _ICMP.pack(kind, 0, 0, self._identifier, on_wire)
            total = sum(struct.unpack(f"!{_PACKET_BYTES // 2}H", head + body))
            total = (total & 0xFFFF) + (total >> 16)
            checksum = ~(total + (total >> 16)) & 0xFFFF
        return _ICMP.pack(kind, 0, checksum, self._identifier, on_wire) + body

    def _on_timeout(self, on_wire: int) -> None:
        self._read(_DRAIN)
        sent = self._sent.get(on_wire)
        if sent is not None:
            sent.lost = True
            sent.timer = self._loop.call_later(LATE_S, self._forget, on_wire)
            self._report(sent.seq, ProbeOutcome("lost", 0, "no answer"))

    def _forget(self, on_wire: int) -> None:
        sent = self._sent.pop(on_wire, None)
        if sent is not None and sent.timer:
            sent.timer.cancel()

    def _read(self, most: int) -> None:
        for _ in range(most):
            try:
                data, sender = self._sock.recvfrom(_RECEIVE_BYTES)
            except OSError:  # nothing more, or an error of the device, cleared by reading it
                return
            if self._family == 4:
                self._receive(data[12:16], data[(data[0] & 15) * 4 :] if data else b"")
            else:
                self._receive(socket.inet_pton(self._af, sender[0].partition("%")[0]), data)

    def _receive(self, sender: bytes, packet: bytes) -> None:
        """Process one packet, which may come from anybody."""
        if len(packet) < _PACKET_BYTES:
            return
        kind, _, _, identifier, on_wire = _ICMP.unpack_from(packet)
        token, number, _, _ = _BODY.unpack_from(packet, _ICMP.size)
        sent = self._sent.get(on_wire)
        if (
            sent is not None
            and (kind, identifier) == (_REPLY[self._family], self._identifier)
            and (token, number) == (self._token, sent.number)
            and sender == sent.address
        ):
            rtt_us = (time.monotonic_ns() - sent.sent_ns) // 1000
            self._forget(on_wire)
            self._report(sent.seq, ProbeOutcome("answered", rtt_us, "late" if sent.lost else ""))


def _filter(family: Family, token: bytes) -> list[BpfStep]:
    """A program that keeps ICMP packets whose body begins with the token.

    It sees IPv4 from the IP header on, ICMPv6 from the ICMP header on.
    """
    first, second = struct.unpack("!II", token)
    at = _ICMP.size
    load = BPF_LOAD_WORD_AT_X if family == 4 else BPF_LOAD_WORD
    program = [
        (BPF_LOAD_X_IP_HEADER, 0, 0, 0),
        (load, 0, 0, at),
        (BPF_IF_EQUAL, 0, 3, first),  # or skip 3
        (load, 0, 0, at + 4),
        (BPF_IF_EQUAL, 0, 1, second),
        BPF_KEEP,
        BPF_DROP,
    ]
    return program[family == 6 :]
