"""Queries and updates over sockets, with wrong answers from servers and others."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dns.message
import pytest

from ifdefault.dns import client, tsig, wire
from ifdefault.frontend import requests
from ifdefault.frontend.client import query, tsig_key_file, update
from ifdefault.frontend.client.no_reply import NoReply
from ifdefault.frontend.client.query import Answer
from ifdefault.frontend.requests import RequestRunner
from ifdefault.ipc.messages import Query, Reply, Update

HOME = "127.0.0.1"
KEY = 'key "host" { algorithm hmac-sha256; secret "c2VjcmV0"; };'
Answers = Callable[[bytes], list[bytes]]


def replied(message: bytes, code: int = 0) -> bytes:
    """The header and question of a response to a message."""
    plain, _ = tsig.split(message)
    end = wire.read_name(plain, wire.HEADER.size)[1] + wire.TWO.size
    flags = int.from_bytes(plain[2:4], "big") | wire.QR | wire.AA | code
    head = wire.HEADER.pack(int.from_bytes(plain[:2], "big"), flags, 1, 0, 0, 0)
    return head + plain[wire.HEADER.size : end]


def stream() -> socket.socket:
    sock = socket.socket(type=socket.SOCK_STREAM)
    sock.setblocking(False)
    return sock


# --- an UPDATE ----------------------------------------------------------------------------


async def updated(answer: Answers, key_path: str = "") -> None:
    """Send an update to a server that responds with these bytes, and closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2), "big")
        for part in answer(await reader.readexactly(size)):
            writer.write(part)
        writer.close()

    server = await asyncio.start_server(serve, HOME, 0)
    port = server.sockets[0].getsockname()[1]
    where = (HOME, port, key_path, "example.net", "www.example.net", 30)
    try:
        with stream() as sock:
            await update.send(sock, *where, ["192.0.2.1"], [])
    finally:
        server.close()


def framed(message: bytes) -> list[bytes]:
    return [bytes((byte,)) for byte in len(message).to_bytes(2, "big") + message]  # one by one


@pytest.fixture
def key(tmp_path: Path) -> str:
    path = tmp_path / "key"
    path.write_text(KEY)
    return str(path)


def signed(message: bytes, path: str, now: float, error: int = 0) -> bytes:
    _, signature = tsig.split(message)
    assert signature
    return tsig.Signer(tsig_key_file.read(path), signature.mac).sign(replied(message), now, error)


def faulty(message: bytes, error: int) -> bytes:
    """The unsigned response to a signature with an error."""
    plain, signature = tsig.split(message)
    assert signature
    return tsig.append(replied(plain, wire.NOTAUTH), replace(signature, error=error), b"")


def test_it_is_done() -> None:
    asyncio.run(updated(lambda message: framed(replied(message))))


def test_it_is_done_and_signed(key: str) -> None:
    asyncio.run(updated(lambda message: framed(signed(message, key, time.time())), key))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda m: [], "127.0.0.1: it closed the connection without a response"),
        (lambda m: [b"\0\x20half"], "127.0.0.1: it closed the connection without a response"),
        (
            lambda m: framed(b"\0\0" + replied(m)[2:]),
            "127.0.0.1: the response doesn't match the request",
        ),
        (lambda m: framed(m), "127.0.0.1: the response doesn't match the request"),
        (lambda m: framed(replied(m)[:14]), "127.0.0.1: unterminated name"),
        (lambda m: framed(replied(m, 5)), "127.0.0.1 refuses: REFUSED"),
        (lambda m: framed(replied(m, 2)), "127.0.0.1 refuses: SERVFAIL"),
        (lambda m: framed(replied(m, 7)), "www.example.net is a CNAME at 127.0.0.1"),
    ],
)
def test_it_is_not_done(answer: Answers, said: str) -> None:
    with pytest.raises(NoReply) as told:
        asyncio.run(updated(answer))
    assert str(told.value) == said


def test_an_answer_that_is_not_signed_rightly(key: str) -> None:
    wrong: dict[str, Answers] = {
        "127.0.0.1: the response isn't signed": lambda m: framed(replied(m)),
        "127.0.0.1 refuses: NOTAUTH (BADKEY)": lambda m: framed(faulty(m, tsig.BADKEY)),
        "127.0.0.1: invalid signature of the response (BADSIG)": lambda m: framed(
            signed(m, key, time.time())[:-30] + bytes(30)
        ),
        "127.0.0.1: invalid signature of the response (BADTIME)": lambda m: framed(
            signed(m, key, time.time() - 900)
        ),
    }
    for said, answer in wrong.items():
        with pytest.raises(NoReply) as told:
            asyncio.run(updated(answer, key))
        assert str(told.value) == said


def test_a_key_that_is_not_there() -> None:
    with pytest.raises(NoReply, match="this host: /nowhere/key: no such file"):
        asyncio.run(updated(lambda m: [], "/nowhere/key"))


# --- a query ------------------------------------------------------------------------------


async def asked(
    answer: Answers, *, wanted: str = "A", recurse: bool = False, key_path: str = ""
) -> Answer:
    """Ask a server that answers each packet with these."""

    class Server(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
            for packet in answer(data):
                self.transport.sendto(packet, peer)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Server, (HOME, 0))
    port = transport.get_extra_info("sockname")[1]
    try:
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            where = (sock, HOME, port, "www.example.net", wanted)
            return await query.ask(*where, recurse=recurse, key_path=key_path)
    finally:
        transport.close()


def addressed(message: bytes) -> bytes:
    record = b"\xc0\x0c" + wire.FIXED.pack(wire.A, wire.IN, 30, 4) + bytes((192, 0, 2, 1))
    return replied(message)[:7] + b"\1" + replied(message)[8:] + record


def test_only_the_answer_counts() -> None:
    noise = [b"", b"\0" * 12, bytes(600)]

    def answer(m: bytes) -> list[bytes]:
        other_id, other_case = b"\0\0" + addressed(m)[2:], m[:12] + addressed(m)[12:].swapcase()
        return [*noise, m, other_id, addressed(m)[:12] + other_case[12:], addressed(m)]

    told = asyncio.run(asked(answer))
    assert told == Answer(("192.0.2.1",), 30)


def test_it_is_asked_again() -> None:
    packets: list[bytes] = []

    def third(message: bytes) -> list[bytes]:
        packets.append(message)
        return [replied(message)] if len(packets) == 3 else []

    assert asyncio.run(asked(third)) == Answer((), 0)
    assert len(set(packets)) == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda m: [], "127.0.0.1: no answer in 0.2 s"),
        (lambda m: [replied(m, 5)], "127.0.0.1 refuses: REFUSED"),
        (lambda m: [addressed(m)[:-1]], "127.0.0.1: malformed response: truncated record"),
        (
            lambda m: [m[:2] + b"\x86" + replied(m)[3:]],
            "127.0.0.1: truncated response",
        ),
        (
            lambda m: [m[:2] + b"\x80" + replied(m)[3:]],
            "127.0.0.1 refuses: it is not authoritative",
        ),
    ],
)
def test_no_reply(monkeypatch: pytest.MonkeyPatch, answer: Answers, said: str) -> None:
    monkeypatch.setattr(query, "WITHIN_S", 0.2)
    with pytest.raises(NoReply) as told:
        asyncio.run(asked(answer))
    assert str(told.value).startswith(said)


def test_no_such_name_and_a_resolver_that_isn_t_authoritative() -> None:
    assert asyncio.run(asked(lambda m: [replied(m, 3)])) == Answer((), 0)
    own = asyncio.run(asked(lambda m: [m[:2] + b"\x80" + replied(m)[3:]], recurse=True))
    assert own == Answer((), 0)


def test_a_signed_query_and_its_answer(key: str) -> None:
    seen: list[bytes] = []

    def answer(message: bytes) -> list[bytes]:
        seen.append(message)
        plain, signature = tsig.split(message)
        assert signature
        assert tsig.verify(plain, signature, tsig_key_file.read(key), time.time()) == 0
        signer = tsig.Signer(tsig_key_file.read(key), signature.mac)
        return [signer.sign(addressed(message), time.time())]

    assert asyncio.run(asked(answer, key_path=key)) == Answer(("192.0.2.1",), 30)
    assert len(seen) == 1


def test_an_answer_to_a_signed_query_that_isn_t_signed_rightly(key: str) -> None:
    wrong: dict[str, Answers] = {
        "127.0.0.1: the response isn't signed": lambda m: [addressed(m)],
        "127.0.0.1: invalid signature of the response (BADSIG)": lambda m: [
            signed(m, key, time.time())[:-30] + bytes(30)
        ],
        "127.0.0.1: invalid signature of the response (BADTIME)": lambda m: [
            signed(m, key, time.time() - 900)
        ],
        "127.0.0.1 refuses: NOTAUTH (BADSIG)": lambda m: [faulty(m, tsig.BADSIG)],
        "127.0.0.1 refuses: REFUSED": lambda m: [replied(m, wire.REFUSED)],
    }
    for said, answer in wrong.items():
        with pytest.raises(NoReply) as told:
            asyncio.run(asked(answer, key_path=key))
        assert str(told.value) == said


def test_a_closed_port() -> None:
    async def main() -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as held, socket.socket(type=2) as sock:
            held.bind((HOME, 0))
            port = held.getsockname()[1]
            held.close()
            sock.setblocking(False)
            await query.ask(sock, HOME, port, "www.example.net", "A", recurse=False)

    with pytest.raises(NoReply, match=r"127\.0\.0\.1: connection refused"):
        asyncio.run(main())


# --- errands ------------------------------------------------------------------------------


def test_the_later_update_of_a_name_ends_the_earlier() -> None:
    """Its connection is closed before the later one is sent; that of another name continues."""
    told: list[Reply] = []
    heard: list[tuple[str, bool]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2), "big")
        message = await reader.readexactly(size)
        (address,) = (str(r) for rrset in dns.message.from_wire(message).sections[2] for r in rrset)
        heard.append((address, True))
        if address == "192.0.2.1":
            try:
                await reader.read(1)
            except ConnectionResetError:
                heard.append((address, False))
        else:
            writer.writelines(framed(replied(message)))
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, HOME, 0)
        port = server.sockets[0].getsockname()[1]
        its = RequestRunner(told.append)

        def order(number: int, name: str, address: str) -> Update:
            return Update(number, HOME, port, "", "example.net", name, 30, (address,), ())

        its.start(order(1, "www.example.net", "192.0.2.1"), stream())
        while not heard:
            await asyncio.sleep(0)
        for number in range(2, 5):  # of these only the last gets as far as that
            its.start(order(number, "www.example.net", f"192.0.2.{number}"), stream())
        its.start(order(5, "ftp.example.net", "192.0.2.5"), stream())
        while len(told) < 5 or len(heard) < 4:
            await asyncio.sleep(0)
        server.close()

    asyncio.run(asyncio.wait_for(main(), 20))
    assert [row for row in heard if row[0] != "192.0.2.5"] == [
        ("192.0.2.1", True), ("192.0.2.1", False), ("192.0.2.4", True),
    ]  # fmt: skip
    by_number = {reply.number: reply.error for reply in told}
    given_up = "this host: superseded by a later update"
    assert by_number == {1: given_up, 2: given_up, 3: given_up, 4: "", 5: ""}


def test_what_is_too_much_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "_MOST", 0)
    told: list[Reply] = []
    sock = stream()
    for each in (sock, None):
        RequestRunner(told.append).start(Query(3, HOME, 53, "", "example.net", "A", False), each)
    assert told == [Reply(3, "this host: too many requests at once")] * 2
    assert sock.fileno() == -1


def test_the_codes_are_those_of_the_wire() -> None:
    names = ("NOERROR", "FORMERR", "NXDOMAIN", "NOTIMP", "REFUSED", "NOTAUTH")
    assert all(client.code_name(getattr(wire, name)) == name for name in names)
