"""Datagrams by the dozen: what came is answered, to whom it came from, and nothing else."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from ifdefault.frontend.server.mmsg import Batch

FAMILIES = {"127.0.0.1": socket.AF_INET, "::1": socket.AF_INET6}
_SIZE, _MOST = 64, 4


@pytest.fixture(params=FAMILIES)
def server(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    with socket.socket(FAMILIES[request.param], socket.SOCK_DGRAM) as sock:
        sock.bind((request.param, 0))
        sock.setblocking(False)
        yield sock


def client(server: socket.socket) -> socket.socket:
    sock = socket.socket(server.family, socket.SOCK_DGRAM)
    sock.connect(server.getsockname())
    sock.settimeout(60)
    return sock


def echo(query: bytes, who: str) -> bytes:
    return query + b" of " + who.encode()


def test_each_is_answered_by_itself(server: socket.socket) -> None:
    batch = Batch(_MOST, _SIZE)
    host = server.getsockname()[0].encode()
    with client(server) as one, client(server) as other:
        for number in range(3):
            one.send(b"one %d" % number)
            other.send(b"other %d" % number)
        assert batch.exchange(server, echo) == (4, 4)
        assert batch.exchange(server, echo) == (2, 2)
        assert batch.exchange(server, echo) == (0, 0)
        for name, sock in ((b"one", one), (b"other", other)):
            heard = [sock.recv(_SIZE) for _ in range(3)]
            assert heard == [b"%s %d of %s" % (name, number, host) for number in range(3)]


def test_what_is_not_answered_leaves_no_gap(server: socket.socket) -> None:
    batch = Batch(_MOST, _SIZE)
    with client(server) as one:
        for query in (b"no", b"yes", b"long", b"more"):
            one.send(query)
        said = {b"no": None, b"yes": b"yes", b"long": b"x" * (_SIZE + 1), b"more": b"more"}
        assert batch.exchange(server, lambda query, _: said[query]) == (4, 2)
        assert [one.recv(_SIZE), one.recv(_SIZE)] == [b"yes", b"more"]


def test_a_datagram_is_cut_and_an_empty_one_is_one(server: socket.socket) -> None:
    batch, heard = Batch(_MOST, _SIZE), list[bytes]()
    with client(server) as one:
        one.send(b"x" * (_SIZE + 9))
        one.send(b"")
        assert batch.exchange(server, lambda query, _: heard.append(query)) == (2, 0)
    assert heard == [b"x" * _SIZE, b""]


def test_whom_nothing_reaches_holds_up_no_other(server: socket.socket) -> None:
    """The kernel refuses what can't go in one piece."""
    large = 1 << 17
    batch = Batch(_MOST, large)
    with client(server) as one:
        for query in (b"a", b"too much", b"b"):
            one.send(query)
        said = {b"a": b"a", b"too much": b"x" * 70_000, b"b": b"b"}
        assert batch.exchange(server, lambda query, _: said[query]) == (3, 2)
        assert [one.recv(9), one.recv(9)] == [b"a", b"b"]


def test_an_error_of_the_network_is_passed_over(server: socket.socket) -> None:
    batch = Batch(_MOST, _SIZE)
    with client(server) as gone:
        gone.send(b"anybody?")
    assert batch.exchange(server, echo) == (1, 1)  # to nobody, who says so
    with client(server) as one:
        one.send(b"now")
        while batch.exchange(server, echo) == (0, 0):
            pass
        assert one.recv(_SIZE).startswith(b"now")
