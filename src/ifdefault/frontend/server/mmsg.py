"""Datagrams in batches: recvmmsg(2) and sendmmsg(2), which Python doesn't have.

Rules: one system call receives the waiting datagrams, and one sends all answers. The kernel's
structures are built once; only what changes is written, by index, since ctypes attributes would
cost more than the batches save.
"""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Callable

from ifdefault.libc import libc

DatagramResponder = Callable[[bytes, str], bytes | None]  # query, client
_NAME_BYTES = {socket.AF_INET: 16, socket.AF_INET6: 28}  # struct sockaddr_in, sockaddr_in6
_ADDRESS = {socket.AF_INET: slice(4, 8), socket.AF_INET6: slice(8, 24)}  # in them
_MOST_NAME_BYTES = 28


class _Vector(ctypes.Structure):
    """struct iovec"""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr"""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("vector", ctypes.c_void_p),
        ("vectors", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _MmsgHdr(ctypes.Structure):
    """struct mmsghdr: a header, and the length of the datagram"""

    _fields_ = (("header", _Header), ("length", ctypes.c_uint))


_WORD, _LONG = ctypes.sizeof(ctypes.c_uint), ctypes.sizeof(ctypes.c_size_t)
_MESSAGE, _VECTOR = ctypes.sizeof(_MmsgHdr), ctypes.sizeof(_Vector)
# distances, in words or longs: from one structure to the next, and to the fields that change
_WORDS, _LONGS, _VECTOR_LONGS = _MESSAGE // _WORD, _MESSAGE // _LONG, _VECTOR // _LONG
_LENGTH = _MmsgHdr.length.offset // _WORD
_NAME_LENGTH = _Header.name_length.offset // _WORD
_NAME = _Header.name.offset // _LONG
_SIZE = _Vector.length.offset // _LONG


class _Side:
    """Buffers for datagrams in one direction; their senders, or receivers, are in `names`."""

    def __init__(self, most: int, size: int, names: bytearray) -> None:
        self.data = bytearray(most * size)
        self._messages, self._vectors = (_MmsgHdr * most)(), (_Vector * most)()
        first, first_name = _address(self.data), _address(names)
        for at in range(most):
            self._vectors[at] = _Vector(first + at * size, size)
            message = self._messages[at].header
            message.name, message.name_length = first_name + at * _MOST_NAME_BYTES, _MOST_NAME_BYTES
            message.vector, message.vectors = ctypes.addressof(self._vectors[at]), 1
        self.address = ctypes.addressof(self._messages)
        self.bytes = memoryview(self._messages).cast("B")
        self.words = self.bytes.cast("I")
        self.longs = self.bytes.cast("P")
        self.sizes = memoryview(self._vectors).cast("B").cast("P")


class Batch:
    """Buffers for `most` datagrams of at most `size` bytes, in each direction."""

    def __init__(self, most: int, size: int) -> None:
        self._most, self._size = most, size
        self._names = bytearray(most * _MOST_NAME_BYTES)
        self._first_name = _address(self._names)
        self._in, self._out = _Side(most, size, self._names), _Side(most, size, self._names)
        self._fresh = bytes(self._in.bytes)

    def exchange(self, sock: socket.socket, answer: DatagramResponder) -> tuple[int, int]:
        """Answer the waiting datagrams; return how many were received, and how many answers were
        sent. Answers that the kernel refuses are dropped."""
        number, size, family = sock.fileno(), self._size, sock.family
        queries, replies = self._in, self._out
        queries.bytes[:] = self._fresh  # the kernel overwrites the lengths of names
        flags = socket.MSG_DONTWAIT
        received = libc.recvmmsg(number, queries.address, self._most, flags, None)
        if received <= 0:  # none, or an error, which this call has cleared
            return 0, 0
        read, words, names = memoryview(queries.data), queries.words, self._names
        part, name_bytes = _ADDRESS[family], _NAME_BYTES[family]
        answers = 0
        for at in range(received):
            start, name = at * size, at * _MOST_NAME_BYTES
            query = read[start : start + words[at * _WORDS + _LENGTH]].tobytes()
            client = socket.inet_ntop(family, names[name + part.start : name + part.stop])
            response = answer(query, client)
            if response is None or len(response) > size:
                continue
            to = answers * size
            replies.data[to : to + len(response)] = response
            replies.sizes[answers * _VECTOR_LONGS + _SIZE] = len(response)
            replies.longs[answers * _LONGS + _NAME] = self._first_name + name
            replies.words[answers * _WORDS + _NAME_LENGTH] = name_bytes
            answers += 1
        return received, self._send(number, answers)

    def _send(self, number: int, answers: int) -> int:
        tried = sent = 0
        while tried < answers:
            first = self._out.address + tried * _MESSAGE
            done = libc.sendmmsg(number, first, answers - tried, socket.MSG_DONTWAIT)
            sent += max(done, 0)
            tried += done if done > 0 else 1  # the first was refused; the next may not be
        return sent


def _address(data: bytearray) -> int:
    """Its memory address; it must not be resized afterwards."""
    return ctypes.addressof((ctypes.c_char * len(data)).from_buffer(data))


libc.recvmmsg.argtypes = (
    *(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p),
)
libc.sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
