"""Packet evidence: what a server saw of its client, and which interfaces the packets took.

Rules: both ends of an exchange are sockets of this process, made in the namespaces they belong
to, so that one thread plays client and server. What passed a node is heard by a packet socket
(packet(7)) that was there before: nobody's routing tables are asked.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address

from ifdefault.lab.node import Node
from ifdefault.lab.waiting import PATIENCE_S

PORT = 7900  # nobody else's in the lab
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
_ETH_P_ALL, _ETH_P_IP, _ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
_OUTGOING = 4  # linux/if_packet.h
_TALKING = (socket.IPPROTO_TCP, socket.IPPROTO_UDP)
_SO_MARK = 36  # asm-generic/socket.h


@dataclass(frozen=True, order=True, slots=True)
class Packet:
    """A packet that a node saw; `out` tells that it left by `dev`. `protocol` is IP's."""

    dev: str
    out: bool
    protocol: int
    src: str
    dst: str


@dataclass(slots=True)
class Tap:
    """Everything that passes a node's interfaces, from now on."""

    sock: socket.socket
    seen: list[Packet] = field(default_factory=list)

    def packets(self) -> list[Packet]:
        """What was heard so far, in order."""
        while self.sock.fileno() >= 0:
            try:
                data, where = self.sock.recvfrom(128)
            except BlockingIOError:
                break
            if found := _read(where[1], data):
                self.seen.append(Packet(where[0], where[2] == _OUTGOING, *found))
        return self.seen

    def left_by(self, *, src: str = "", dst: str = "") -> set[str]:
        """The interfaces by which packets from and to these addresses left."""
        return {
            p.dev for p in self.packets() if p.out and src in ("", p.src) and dst in ("", p.dst)
        }

    def came_by(self, *, src: str = "", dst: str = "") -> set[str]:
        return {
            p.dev for p in self.packets() if not p.out and src in ("", p.src) and dst in ("", p.dst)
        }


@contextmanager
def tapped(node: Node) -> Iterator[Tap]:
    """Listen to all interfaces of a node for a block."""
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK  # without the link's header

    def listen() -> socket.socket:
        return socket.socket(socket.AF_PACKET, kind, socket.htons(_ETH_P_ALL))

    with node.python(listen) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        tap = Tap(sock)
        yield tap
        tap.packets()


def _read(protocol: int, data: bytes) -> tuple[int, str, str] | None:
    if protocol == _ETH_P_IP and len(data) >= 20:
        return data[9], str(ip_address(data[12:16])), str(ip_address(data[16:20]))
    if protocol == _ETH_P_IPV6 and len(data) >= 40:
        return data[6], str(ip_address(data[8:24])), str(ip_address(data[24:40]))
    return None


@dataclass(frozen=True, slots=True)
class Talk:
    """A client that talks to a server: `asked` is the address that it asks, on `port`.

    The server is bound to `bound` (unless told, to what was asked) and `listens` where a
    translation leads to another port. The other fields are the options of the client's socket.
    """

    client: Node
    server: Node
    asked: str
    kind: socket.SocketKind = TCP
    source: str = ""
    device: str = ""
    mark: int = 0
    bound: str = ""
    port: int = PORT
    listens: int = 0
    wait_s: float = PATIENCE_S

    def __call__(self) -> str:
        """Exchange a few bytes; return the client's address as the server saw it.

        Raises TimeoutError if either waits in vain.
        """
        with ExitStack() as stack:
            server = stack.enter_context(self.server.python(self._server))
            client = stack.enter_context(self.client.python(self._client))
            return (self._stream if self.kind == TCP else self._datagram)(client, server, stack)

    @property
    def answered(self) -> bool:
        try:
            self()
        except OSError:  # TimeoutError is one
            return False
        return True

    def _socket(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.asked else socket.AF_INET
        sock = socket.socket(family, self.kind)
        sock.settimeout(self.wait_s)
        return sock

    def _server(self) -> socket.socket:
        sock = self._socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((self.bound or self.asked, self.listens or self.port))
        if self.kind == TCP:
            sock.listen()
        return sock

    def _client(self) -> socket.socket:
        with ExitStack() as unless_connected:
            sock = unless_connected.enter_context(self._socket())
            if self.device:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.device.encode())
            if self.mark:
                sock.setsockopt(socket.SOL_SOCKET, _SO_MARK, self.mark)
            if self.source:
                sock.bind((self.source, 0))
            sock.connect((self.asked, self.port))
            unless_connected.pop_all()
        return sock

    def _stream(self, client: socket.socket, server: socket.socket, stack: ExitStack) -> str:
        conn, peer = server.accept()
        stack.enter_context(conn)
        conn.settimeout(self.wait_s)
        nonce = os.urandom(16)
        for sender, hearer in ((client, conn), (conn, client)):
            sender.sendall(nonce)
            assert hearer.recv(64) == nonce
        return str(peer[0])

    def _datagram(self, client: socket.socket, server: socket.socket, _: ExitStack) -> str:
        nonce = os.urandom(16)
        client.send(nonce)
        data, peer = server.recvfrom(64)
        server.sendto(data, peer)
        assert client.recv(64) == nonce
        return str(peer[0])


Path = tuple[str, tuple[tuple[str, bool, str, str], ...]]


def path(node: Node, talk: Talk) -> Path:
    """Whom the server saw, and which interfaces of a node the packets of a talk took."""
    with tapped(node) as tap:
        peer = talk()
        hops = {(p.dev, p.out, p.src, p.dst) for p in tap.packets() if p.protocol in _TALKING}
        return peer, tuple(sorted(hops))
