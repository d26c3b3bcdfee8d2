"""A netlink socket: requests, acknowledgements and dumps (RFC 3549, linux/netlink.h).

Rules: knows the framing alone, and nothing of what the messages say. Errors are OSError with the
kernel's own words (extended acknowledgement) where it has any. Dumps that the kernel marks as
inconsistent are read again.
"""

from __future__ import annotations

import errno
import functools
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress

from ifdefault.kernel.uapi import netlink as nl
from ifdefault.kernel.uapi.netlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST

HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_RECEIVE_BYTES = 1 << 18
_DUMP_TRIES = 8
_CAST_MESSAGES = 100


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute (linux/netlink.h, struct nlattr), padded to four bytes."""
    head = _ATTRIBUTE.pack(len(payload) + 4, kind)
    return head + payload + bytes(-len(payload) % 4)


def nested(kind: int, *members: bytes) -> bytes:
    return attribute(kind | nl.NLA_F_NESTED, b"".join(members))


def attribute_u32(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(4, "little" if _LITTLE else "big"))


def attributes(message: bytes, start: int) -> dict[int, bytes]:
    """The attributes of a message from `start` on; of one that comes twice, the last."""
    found: dict[int, bytes] = {}
    while start + 4 <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, start)
        if length < 4:
            break
        found[kind & nl.NLA_TYPE_MASK] = message[start + 4 : start + length]
        start += (length + 3) & ~3
    return found


_LITTLE = struct.pack("=H", 1) == b"\x01\x00"


def u32(payload: bytes | None, default: int = 0) -> int:
    return default if payload is None else int(struct.unpack_from("=I", payload)[0])


class Netlink:
    """One socket of one protocol, in the network namespace of the thread that makes it."""

    def __init__(self, protocol: int = nl.NETLINK_ROUTE) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol
        )
        for option in (nl.NETLINK_CAP_ACK, nl.NETLINK_EXT_ACK, nl.NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(nl.SOL_NETLINK, option, 1)
        self._socket.bind((0, 0))  # else the first request would
        self._sequence = 0
        self._buffer = bytearray(_RECEIVE_BYTES)  # kept: a fresh one costs more than the call

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    @property
    def port(self) -> int:
        """Its port id, which notifications of what it changes bear (nlmsg_pid)."""
        pid, _groups = self._socket.getsockname()
        return int(pid)

    def change(self, kind: int, body: bytes, flags: int = 0) -> None:
        """Ask for a change and wait for the acknowledgement."""
        self._send(kind, NLM_F_REQUEST | NLM_F_ACK | flags, body)
        for _ in self._replies():
            pass

    def cast(self, kind: int, bodies: list[bytes]) -> None:
        """Ask for many changes at once. What the kernel refuses is passed over."""
        for first in range(0, len(bodies), _CAST_MESSAGES):
            batch = bodies[first : first + _CAST_MESSAGES]
            self._socket.send(b"".join(self._messages_of(kind, batch)))

    def change_many(self, kind: int, bodies: Sequence[bytes], flags: int = 0) -> int:
        """Ask for many changes at once and wait; how many of them the kernel has made."""
        answers = self._batch(kind, NLM_F_REQUEST | NLM_F_ACK | flags, bodies)
        return sum(not any(acknowledgement[:4]) for _, acknowledgement in answers)

    def ask_many(self, kind: int, bodies: Sequence[bytes]) -> list[bytes]:
        """Ask many questions at once; the answers in order, b"" for what was refused."""
        answers = self._batch(kind, NLM_F_REQUEST, bodies)
        return [b"" if told == nl.NLMSG_ERROR else answer for told, answer in answers]

    def ask(self, kind: int, body: bytes, flags: int = 0) -> bytes:
        """Ask a question that has one answer."""
        self._send(kind, NLM_F_REQUEST | NLM_F_ACK | flags, body)
        answer = b""
        for message in self._replies():
            answer = answer or message
        return answer

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """All objects of a kind, each without its netlink header."""
        for _ in range(_DUMP_TRIES):
            self._send(kind, NLM_F_REQUEST | NLM_F_DUMP, body)
            self._interrupted = False
            messages = list(self._replies())
            if not self._interrupted:
                return messages
        raise OSError(errno.EINTR, "the kernel's tables changed too fast to be read")

    def stream(self, kind: int, body: bytes) -> Iterator[bytes]:
        """As `dump`, one after the other as they come, for tables too large to be kept. What
        changes meanwhile may be missed. Who breaks off closes the socket."""
        self._send(kind, NLM_F_REQUEST | NLM_F_DUMP, body)
        return self._replies()

    def packets(self, kind: int, body: bytes) -> Iterator[bytes]:
        """As `stream`, in whole packets with all headers, for who looks for bytes in them."""
        self._send(kind, NLM_F_REQUEST | NLM_F_DUMP, body)
        while True:
            try:  # who takes a packet finds the next one there: the kernel makes it at once
                packet = self._receive(socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            told, flags, _, message = next(_messages(packet))
            if told in (nl.NLMSG_ERROR, nl.NLMSG_DONE):
                _raise_refusal(message, flags)
                return
            yield packet

    def _batch(self, kind: int, flags: int, bodies: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
        """The one message that answers each: type and body."""
        for first in range(0, len(bodies), _CAST_MESSAGES):  # the answers must find room, too
            batch = bodies[first : first + _CAST_MESSAGES]
            self._socket.send(b"".join(self._message(kind, flags, body) for body in batch))
            awaited = len(batch)
            while awaited:
                for told, _, _, answer in _messages(self._receive()):
                    awaited -= 1
                    yield told, answer

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._socket.send(self._message(kind, flags, body))

    def _message(self, kind: int, flags: int, body: bytes) -> bytes:
        self._sequence += 1
        header = HEADER.pack(HEADER.size + len(body), kind, flags, self._sequence, 0)
        return header + body + bytes(-len(body) % 4)

    def _messages_of(self, kind: int, bodies: list[bytes]) -> Iterator[bytes]:
        """Requests that nobody waits for an answer to; their headers differ in length alone."""
        self._sequence += 1
        sized = functools.cache(
            lambda size: HEADER.pack(HEADER.size + size, kind, NLM_F_REQUEST, self._sequence, 0)
        )
        for body in bodies:
            yield sized(len(body)) + body + bytes(-len(body) % 4)

    def _receive(self, flags: int = 0) -> bytes:
        with memoryview(self._buffer) as view:
            return bytes(view[: self._socket.recv_into(view, 0, flags)])

    def _replies(self) -> Iterator[bytes]:
        while True:
            for kind, flags, sequence, message in _messages(self._receive()):
                if sequence != self._sequence:
                    continue  # the rest of an answer that was given up
                if flags & nl.NLM_F_DUMP_INTR:
                    self._interrupted = True
                if kind in (nl.NLMSG_ERROR, nl.NLMSG_DONE):
                    _raise_refusal(message, flags)
                    return
                yield message


def open_ports(protocol: int) -> frozenset[int]:
    """The port ids of all netlink sockets that this process has open, a library's as well."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # no socket, or closed meanwhile
            sock = socket.socket(fileno=int(fd))
            try:
                if (sock.family, sock.proto) == (socket.AF_NETLINK, protocol):
                    found.add(sock.getsockname()[0])
            finally:
                sock.detach()  # it isn't ours to close
    return frozenset(found)


def _messages(packet: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Type, flags, sequence number and body of each message."""
    offset = 0
    while offset < len(packet):
        length, kind, flags, sequence, _ = HEADER.unpack_from(packet, offset)
        yield kind, flags, sequence, packet[offset + HEADER.size : offset + length]
        offset += (length + 3) & ~3


def _raise_refusal(message: bytes, flags: int) -> None:
    """Raise what an acknowledgement or the end of a dump says, unless it says 0."""
    number = -int(struct.unpack_from("=i", message)[0]) if len(message) >= 4 else 0
    if number <= 0:
        return
    words = os.strerror(number)
    if flags & nl.NLM_F_ACK_TLVS and len(message) > 20:
        told = attributes(message, 4 + HEADER.size).get(nl.NLMSGERR_ATTR_MSG)
        if told:
            words = told.rstrip(b"\0").decode(errors="replace").rstrip(".")
    raise OSError(number, words)
