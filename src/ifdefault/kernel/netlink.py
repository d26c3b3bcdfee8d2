"""A netlink socket: requests, acknowledgements and dumps (RFC 3549, linux/netlink.h).

Rules: implements the framing only, not the contents of messages. Errors are OSError, with the
kernel's text (extended acknowledgement) if there is one. Dumps that the kernel marks as
inconsistent are repeated.
"""

from __future__ import annotations

import errno
import functools
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress

from ifdefault.kernel.decoding import decodes, undecodable
from ifdefault.kernel.uapi import netlink as nl
from ifdefault.kernel.uapi.netlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST

HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")  # struct nlmsgerr: the negative error number
_RECEIVE_BYTES = 1 << 18
_DUMP_TRIES = 8
_BATCH_MESSAGES = 100
PAYLOAD_MAX = (1 << 16) - 1 - _ATTRIBUTE.size  # of an attribute, whose length has 16 bits


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute (linux/netlink.h, struct nlattr), padded to four bytes. OSError if the payload
    is too long for one."""
    if len(payload) > PAYLOAD_MAX:
        what = f"a netlink attribute of {len(payload)} bytes is too long"
        raise OSError(errno.EMSGSIZE, what)
    head = _ATTRIBUTE.pack(len(payload) + 4, kind)
    return head + payload + bytes(-len(payload) % 4)


def nested(kind: int, *members: bytes) -> bytes:
    return attribute(kind | nl.NLA_F_NESTED, b"".join(members))


def attribute_u32(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(4, "little" if _LITTLE else "big"))


def attributes(message: bytes, start: int) -> dict[int, bytes]:
    """The attributes of a message from offset `start`, by kind; the last one of a kind counts."""
    found: dict[int, bytes] = {}
    while start + 4 <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, start)
        if length < 4:
            break
        found[kind & nl.NLA_TYPE_MASK] = message[start + 4 : start + length]
        start += (length + 3) & ~3
    return found


def attribute_list(payload: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes of a list, which repeats a kind, as (kind, payload)."""
    while len(payload) >= 4:
        length, kind = _ATTRIBUTE.unpack_from(payload)
        if length < 4:
            break
        yield kind & nl.NLA_TYPE_MASK, payload[4:length]
        payload = payload[(length + 3) & ~3 :]


_LITTLE = struct.pack("=H", 1) == b"\x01\x00"


@decodes
def u32(payload: bytes | None, default: int = 0) -> int:
    return default if payload is None else int(struct.unpack_from("=I", payload)[0])


class Netlink:
    """A netlink socket in the network namespace of the thread that creates it."""

    def __init__(self, protocol: int = nl.NETLINK_ROUTE) -> None:
        self._protocol = protocol
        self._open()
        self._sequence = 0
        self._buffer = bytearray(_RECEIVE_BYTES)  # reused: allocating one costs more than the call

    def _open(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, self._protocol
        )
        for option in (nl.NETLINK_CAP_ACK, nl.NETLINK_EXT_ACK, nl.NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(nl.SOL_NETLINK, option, 1)
        self._socket.bind((0, 0))  # otherwise the first request would

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    @property
    def port(self) -> int:
        """Its port id; notifications of its changes carry it (nlmsg_pid)."""
        pid, _groups = self._socket.getsockname()
        return int(pid)

    def change(self, kind: int, body: bytes, flags: int = 0) -> None:
        """Send a request and wait for the acknowledgement."""
        self._send(kind, NLM_F_REQUEST | NLM_F_ACK | flags, body)
        for _ in self._replies():
            pass

    def send_many(self, kind: int, bodies: list[bytes]) -> None:
        """Send many requests without waiting. Refused requests are ignored."""
        for first in range(0, len(bodies), _BATCH_MESSAGES):
            batch = bodies[first : first + _BATCH_MESSAGES]
            self._socket.send(b"".join(self._messages_of(kind, batch)))

    def change_many(self, kind: int, bodies: Sequence[bytes], flags: int = 0) -> int:
        """Send many requests and wait; return how many succeeded."""
        answers = self._batch(kind, NLM_F_REQUEST | NLM_F_ACK | flags, bodies)
        return sum(not any(acknowledgement[:4]) for _, acknowledgement in answers)

    def ask_many(self, kind: int, bodies: Sequence[bytes]) -> list[bytes]:
        """Send many queries; return the replies in order, b"" for a refused query."""
        return [reply for _, reply in self.answers(kind, bodies)]

    def answers(self, kind: int, bodies: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
        """Send many queries; the error number, or 0 and the reply, of each in order."""
        for reply_kind, reply in self._batch(kind, NLM_F_REQUEST, bodies):
            if reply_kind == nl.NLMSG_ERROR:
                yield -_error_number(reply), b""
            else:
                yield 0, reply

    def ask(self, kind: int, body: bytes, flags: int = 0) -> bytes:
        """Send a query that has one reply, and return it."""
        self._send(kind, NLM_F_REQUEST | NLM_F_ACK | flags, body)
        reply = b""
        for message in self._replies():
            reply = reply or message
        return reply

    def dump(self, kind: int, body: bytes, most: int | None = None) -> list[bytes]:
        """All objects of a kind, each without its netlink header; if there are more than `most`,
        the first `most` + 1. Raises OSError (EINTR) if the table keeps changing."""
        for _ in range(_DUMP_TRIES):
            self._send(kind, NLM_F_REQUEST | NLM_F_DUMP, body)
            self._interrupted = False
            found: list[bytes] = []
            for some in self._reply_packets():
                found += some
                if most is not None and len(found) > most:
                    self._socket.close()  # ends the dump
                    self._open()
                    return found[: most + 1]
            if not self._interrupted:
                return found
        raise OSError(errno.EINTR, "the kernel's tables change too fast to be read")

    def stream(self, kind: int, body: bytes) -> Iterator[bytes]:
        """As `dump`, but yields objects as they arrive, for tables too large to keep. Concurrent
        changes may be missed. The caller must close the socket if it stops early."""
        self._send(kind, NLM_F_REQUEST | NLM_F_DUMP, body)
        return self._replies()

    def packets(self, kind: int, body: bytes) -> Iterator[bytes]:
        """As `stream`, but yields complete packets with all headers, to search them for bytes."""
        self._send(kind, NLM_F_REQUEST | NLM_F_DUMP, body)
        while True:
            try:  # the next packet is ready: the kernel creates it while one is received
                packet = self._receive(socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            reply_kind, flags, _, _, message = messages(packet)[0]
            if reply_kind in (nl.NLMSG_ERROR, nl.NLMSG_DONE):
                _raise_error(message, flags)
                return
            yield packet

    def _batch(self, kind: int, flags: int, bodies: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
        """The one reply to each request: type and body."""
        for first in range(0, len(bodies), _BATCH_MESSAGES):  # replies must fit into the queue
            batch = bodies[first : first + _BATCH_MESSAGES]
            self._socket.send(b"".join(self._message(kind, flags, body) for body in batch))
            pending = len(batch)
            while pending:
                for reply_kind, _, _, _, reply in messages(self._receive()):
                    pending -= 1
                    yield reply_kind, reply

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._socket.send(self._message(kind, flags, body))

    def _message(self, kind: int, flags: int, body: bytes) -> bytes:
        self._sequence += 1
        header = HEADER.pack(HEADER.size + len(body), kind, flags, self._sequence, 0)
        return header + body + bytes(-len(body) % 4)

    def _messages_of(self, kind: int, bodies: list[bytes]) -> Iterator[bytes]:
        """Requests without acknowledgement; their headers differ only in length."""
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
        for some in self._reply_packets():
            yield from some

    def _reply_packets(self) -> Iterator[list[bytes]]:
        """The replies to the last request, packet by packet."""
        ended = False
        while not ended:
            replies = []
            for kind, flags, sequence, _, message in messages(self._receive()):
                if sequence != self._sequence:
                    continue  # the rest of a reply that wasn't read to the end
                if flags & nl.NLM_F_DUMP_INTR:
                    self._interrupted = True
                if kind in (nl.NLMSG_ERROR, nl.NLMSG_DONE):
                    _raise_error(message, flags)
                    ended = True
                    break
                replies.append(message)
            yield replies


def open_ports(protocol: int) -> frozenset[int]:
    """The port ids of all netlink sockets that this process has open, including libraries'."""
    ports = set()
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # no socket, or closed meanwhile
            sock = socket.socket(fileno=int(fd))
            try:
                if (sock.family, sock.proto) == (socket.AF_NETLINK, protocol):
                    ports.add(sock.getsockname()[0])
            finally:
                sock.detach()  # don't close it
    return frozenset(ports)


def messages(packet: bytes) -> list[tuple[int, int, int, int, bytes]]:
    """Type, flags, sequence number, port and body of each message of a packet."""
    found = []
    offset, end, head = 0, len(packet), HEADER.size
    while offset < end:
        if end - offset < head:
            raise undecodable("a truncated message")
        length, kind, flags, sequence, port = HEADER.unpack_from(packet, offset)
        if length < head:  # it would never end
            raise undecodable(f"a message of {length} bytes")
        found.append((kind, flags, sequence, port, packet[offset + head : offset + length]))
        offset += (length + 3) & ~3
    return found


def _error_number(message: bytes) -> int:
    """Negative; 0 at the end of a dump of older kernels, which has none."""
    return int(_ERROR.unpack_from(message)[0]) if len(message) >= _ERROR.size else 0


def _raise_error(message: bytes, flags: int) -> None:
    """Raise the error of an acknowledgement or of the end of a dump, unless it is 0."""
    number = -_error_number(message)
    if number <= 0:
        return
    text = os.strerror(number)
    if flags & nl.NLM_F_ACK_TLVS and len(message) > 20:
        extended = attributes(message, 4 + HEADER.size).get(nl.NLMSGERR_ATTR_MSG)
        if extended:
            text = extended.rstrip(b"\0").decode(errors="replace").rstrip(".")
    raise OSError(number, text)
