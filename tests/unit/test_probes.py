"""Answers of servers, and the outcomes of probes; on the loopback device."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import subprocess
from collections.abc import Callable, Sequence

import pytest

from ifdefault import __version__
from ifdefault.dns import client
from ifdefault.frontend.probe import dns, http, tcp
from ifdefault.frontend.probe.outcome import ProbeError, ProbeOutcome

HERE = "127.0.0.1"


@pytest.fixture(autouse=True, scope="module")
def _loopback() -> None:
    """In a network namespace of our own nobody has switched it on yet."""
    with datagrams() as sock:
        if sock.connect_ex((HERE, 9)) == errno.ENETUNREACH:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def stream() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)


def datagrams() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)


# --- TCP ----------------------------------------------------------------------------------


def test_tcp() -> None:
    async def main() -> None:
        with socket.create_server((HERE, 0)) as server:
            port = server.getsockname()[1]
            with stream() as sock:
                answer = await tcp.probe(sock, HERE, port)
        assert (answer.verdict, answer.detail) == ("answered", "")
        assert answer.rtt_us >= 0
        with stream() as sock:
            assert (await tcp.probe(sock, HERE, port)).detail == "refused"

    asyncio.run(main())


@pytest.mark.parametrize("address", ["2001:db8::1", "255.255.255.255"])
def test_what_the_kernel_refuses_at_once_is_local(address: str) -> None:
    async def main() -> None:
        with stream() as sock, pytest.raises(ProbeError) as caught:
            await tcp.probe(sock, address, 80)
        assert caught.value.outcome.verdict == "local"

    asyncio.run(main())


# --- HTTP ---------------------------------------------------------------------------------


def get(
    pieces: Sequence[bytes], statuses: Sequence[int] = (), *, host: str = "example.net"
) -> tuple[ProbeOutcome, bytes, int]:
    """What comes of a GET that is answered by these pieces, the request, and the port."""
    asked = b""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked = await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    async def main() -> tuple[ProbeOutcome, int]:
        server = await asyncio.start_server(answer, HERE, 0)
        port = int(server.sockets[0].getsockname()[1])
        try:
            with stream() as sock:
                asking = http.probe(sock, HERE, port, host, "/a?b", statuses, secure=False)
                return await asyncio.wait_for(asking, 10), port
        except ProbeError as fault:
            return fault.outcome, port
        finally:
            server.close()
            await server.wait_closed()

    got, port = asyncio.run(main())
    return got, asked, port


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("pieces", "statuses", "found"),
    [
        ([OK], (), "answered: status 200"),
        ([OK + b"X: " + b"y" * 100_000], (), "answered: status 200"),
        ([b"HTTP/1.0 204\n"], (204,), "answered: status 204"),
        ([bytes([byte]) for byte in OK], (), "answered: status 200"),
        ([b"HTTP/1.1 302 Found\r\nLocation: http://login/\r\n\r\n"], (), "answered: status 302"),
        ([b"HTTP/1.1 302 Found\r\n"], (200,), "wrong: status 302, expected 200"),
        ([b"HTTP/1.1 399 \r\n"], (), "answered: status 399"),
        ([b"HTTP/1.1 400 Bad\r\n"], (), "wrong: status 400, expected one below 400"),
        ([OK], (503, 204), "wrong: status 200, expected 204 or 503"),
        ([b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", OK], (), "answered: status 200"),
        ([b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 Oh\r\n"], (), "wrong: status 500"),
        ([b"HTTP/1.1 103 Early Hints\r\n\r\n"], (), "wrong: connection closed"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n" * 1000] * 15, (), "wrong: more than 256 KiB"),
        ([], (), "wrong: connection closed without a response"),
        ([b"HTTP/1.1 200 OK"], (), "wrong: connection closed early"),
        ([b"SSH-2.0-OpenSSH\r\n"], (), "wrong: not HTTP"),
        ([b"HTTP/2 200\r\n"], (), "wrong: "),
        ([b"HTTP/1.1 2000 OK\r\n"], (), "wrong: "),
        ([b"HTTP/1.1 200 " + b"x" * 9000], (), "wrong: no status in 8192 bytes"),
    ],
)
def test_http(pieces: list[bytes], statuses: tuple[int, ...], found: str) -> None:
    answer, _, _ = get(pieces, statuses)
    assert f"{answer.verdict}: {answer.detail}".startswith(found)


@pytest.mark.parametrize(
    ("host", "name"), [("example.net", "example.net"), ("2001:db8::1", "[2001:db8::1]")]
)
def test_what_a_server_is_asked(host: str, name: str) -> None:
    _, asked, port = get([OK], host=host)
    assert asked.decode() == (
        f"GET /a?b HTTP/1.1\r\nHost: {name}:{port}\r\nUser-Agent: ifdefault/{__version__}\r\n"
        "Accept: */*\r\nConnection: close\r\n\r\n"
    )


def test_a_usual_port_isnt_named() -> None:
    assert b"Host: a\r\n" in http._request("a", 80, "/", "1.1", secure=False)
    assert b"Host: a\r\n" in http._request("a", 443, "/", "1.1", secure=True)
    assert b"Host: a:80\r\n" in http._request("a", 80, "/", "1.1", secure=True)


# --- DNS ----------------------------------------------------------------------------------

QUERY = dns.build(0x1234, "www.example.net")
QUESTION = QUERY[12:]


def response(
    number: int = 0x1234, flags: int = 0x8180, questions: int = 1, rest: bytes = QUESTION
) -> bytes:
    return struct.pack("!6H", number, flags, questions, 0, 0, 0) + rest


def test_what_is_asked_of_a_dns_server() -> None:
    assert QUERY.hex(" ") == (
        "12 34 01 00 00 01 00 00 00 00 00 00 "
        "03 77 77 77 07 65 78 61 6d 70 6c 65 03 6e 65 74 00 00 01 00 01"
    )
    assert dns.build(1, "")[12:].hex(" ") == "00 00 02 00 01"  # the root's servers
    assert dns.build(1, "a.") == dns.build(1, "a")
    with pytest.raises(ProbeError):
        dns.build(1, "a" * 64)


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        (response(), 0),
        (response(rest=QUESTION.upper() + b"\x00" * 50), 0),
        (response(flags=0x8183), 3),  # NXDOMAIN
        (response(flags=0x8182), 2),  # SERVFAIL
        (response(flags=0x8105, questions=0, rest=b""), 5),  # REFUSED, question left out
        (response(flags=0x8380), 0),  # truncated
        (response(number=0x1235), None),
        (response(flags=0x0100), None),  # a query
        (QUERY, None),
        (response(flags=0x9180), None),  # another opcode
        (response(questions=2), None),
        (response(questions=0, rest=b""), None),
        (response(rest=QUESTION[:-1]), None),
        (response(rest=QUESTION.replace(b"www", b"wwx")), None),
        (response()[:11], None),
        (b"", None),
    ],
)
def test_what_counts_as_a_response(packet: bytes, code: int | None) -> None:
    assert client.read_code(packet, QUERY) == code


def serve_dns(answers: Callable[[bytes], list[bytes]], name: str = "example.net") -> ProbeOutcome:
    """What comes of a query to a server that answers so."""

    async def main() -> ProbeOutcome:
        loop = asyncio.get_running_loop()
        with datagrams() as server, datagrams() as sock:
            server.bind((HERE, 0))
            server.setblocking(False)
            asking = asyncio.create_task(dns.probe(sock, HERE, server.getsockname()[1], name))
            query, where = await asyncio.wait_for(loop.sock_recvfrom(server, 512), 10)
            for packet in answers(query):
                await loop.sock_sendto(server, packet, where)
            return await asyncio.wait_for(asking, 10)

    return asyncio.run(main())


def test_dns() -> None:
    answer = serve_dns(lambda query: [query[:2] + b"\x81\x80" + query[4:]])
    assert (answer.verdict, answer.detail) == ("answered", "")
    # what is no response is passed over
    answer = serve_dns(
        lambda query: [b"", query, b"x" * 600, query[:2] + b"\x81\x82" + query[4:]], ""
    )
    assert (answer.verdict, answer.detail) == ("answered", "SERVFAIL")


def test_each_query_has_a_number_of_its_own() -> None:
    seen: set[bytes] = set()

    def note(query: bytes) -> list[bytes]:
        seen.add(query[:2])
        return [query[:2] + b"\x81\x80" + query[4:]]

    for _ in range(8):
        serve_dns(note)
    assert len(seen) > 4
