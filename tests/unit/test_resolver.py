"""The command line's lookups, against a server on loopback with a given behaviour."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.rrset
import pytest

from ifdefault.cli import resolver
from ifdefault.dns.exchange import QueryResult, Question, Rrset

Behaviour = Callable[[dns.message.Message, bool], bytes | None]  # query, whether it came by TCP


def answer(query: dns.message.Message, flags: int = dns.flags.AA) -> dns.message.Message:
    response = dns.message.make_response(query)
    response.flags |= flags
    return response


def well(query: dns.message.Message, tcp: bool) -> bytes:
    response = answer(query)
    assert not query.flags & dns.flags.RD
    response.answer = [
        dns.rrset.from_text("WWW.Example.", 30, "IN", "CNAME", "Host.Example."),
        dns.rrset.from_text("host.example.", 5, "IN", "A", "203.0.113.10", "198.51.100.10"),
    ]
    response.authority = [dns.rrset.from_text(".", 9, "IN", "NS", "A.Root.")]
    return response.to_wire()


@dataclass
class Server:
    behaviour: Behaviour = well
    heard: list[bool] = field(default_factory=list)  # whether by TCP
    port: int = 0

    def say(self, wire: bytes, tcp: bool) -> bytes | None:
        self.heard.append(tcp)
        return self.behaviour(dns.message.from_wire(wire), tcp)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        server.port = tcp.getsockname()[1]
        udp.bind(("127.0.0.1", server.port))

        def datagrams() -> None:
            while (wire_from := udp.recvfrom(4096))[0]:
                if said := server.say(wire_from[0], False):
                    udp.sendto(said, wire_from[1])

        def connections() -> None:
            while True:
                with tcp.accept()[0] as sock:
                    if not (head := sock.recv(2)):
                        return
                    if said := server.say(sock.recv(int.from_bytes(head)), True):
                        sock.sendall(len(said).to_bytes(2) + said)

        threads = [threading.Thread(target=run) for run in (datagrams, connections)]
        for thread in threads:
            thread.start()
        yield server
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"", ("127.0.0.1", server.port))
        socket.create_connection(("127.0.0.1", server.port)).close()
        for thread in threads:
            thread.join()


def plain(tcp: bool) -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)


def ask(server: Server, *, tcp: bool = False, make: resolver.Open = plain) -> QueryResult:
    question = Question("203.0.113.53", "www.example", "A", tcp=tcp)
    return resolver.ask(make, question, "127.0.0.1", server.port)


@pytest.mark.parametrize("tcp", [False, True])
def test_names_come_out_canonical(server: Server, tcp: bool) -> None:
    heard = ask(server, tcp=tcp)
    assert (heard.error, heard.code, heard.authoritative) == ("", "NOERROR", True)
    assert heard.answer == (
        Rrset("www.example", 30, "CNAME", ("host.example",)),
        Rrset("host.example", 5, "A", ("198.51.100.10", "203.0.113.10")),
    )
    assert heard.authority == (Rrset("", 9, "NS", ("a.root",)),)
    assert heard.additional == ()
    assert server.heard == [tcp]
    assert heard.took_ms > 0


def test_what_is_cut_off_is_asked_for_again_by_tcp(server: Server) -> None:
    def cut(query: dns.message.Message, tcp: bool) -> bytes:
        return well(query, tcp) if tcp else answer(query, dns.flags.TC).to_wire()

    server.behaviour = cut
    assert len(ask(server).answer) == 2
    assert server.heard == [False, True]


def test_a_lost_packet_is_no_no_response(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "TRY_S", 0.05)
    server.behaviour = lambda query, tcp: well(query, tcp) if len(server.heard) == 3 else None
    assert ask(server).error == ""
    assert server.heard == [False] * 3
    server.heard.clear()
    server.behaviour = lambda *_: None
    heard = ask(server)
    assert (heard.error, heard.is_local) == ("no answer", False)
    assert server.heard == [False] * resolver.TRIES


def test_a_refusal_and_a_closed_connection(server: Server) -> None:
    server.behaviour = lambda *_: None
    assert ask(server, tcp=True).error == "connection closed"
    with plain(tcp=True) as unused:
        unused.bind(("127.0.0.1", 0))
        closed = Server(port=unused.getsockname()[1])
        for tcp in (False, True):
            heard = ask(closed, tcp=tcp)
            assert (heard.error, heard.is_local) == ("connection refused", False)


def test_nonsense_is_told(server: Server) -> None:
    server.behaviour = lambda query, _: query.to_wire()[:13]
    assert ask(server, tcp=True).error.startswith("malformed response: ")


def test_a_fault_of_this_host_is_its_own(server: Server) -> None:
    def make(tcp: bool) -> socket.socket:
        raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")

    for tcp in (False, True):
        heard = ask(server, tcp=tcp, make=make)
        assert (heard.error, heard.is_local) == ("this host: cannot assign requested address", True)
    assert server.heard == []
