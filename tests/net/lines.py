"""Connections and flows that stay open while the host changes under them.

Rules: both ends are sockets of this process, in the namespaces that they belong to.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from ifdefault.lab.node import Node
from ifdefault.lab.waiting import PATIENCE_S
from tests.net.evidence import PORT, TCP


@dataclass(frozen=True, slots=True)
class Line:
    """A TCP connection or a UDP flow. `seen` is the client's address as the server sees it."""

    client: socket.socket
    server: socket.socket
    seen: str

    def works(self) -> bool:
        """Whether bytes pass both ways; each is sent once, or as often as TCP does."""
        for sender, hearer in ((self.client, self.server), (self.server, self.client)):
            nonce = os.urandom(16)
            try:
                sender.send(nonce)
                if hearer.recv(64) != nonce:
                    return False
            except OSError:  # TimeoutError is one
                return False
        return True


@contextmanager
def lines() -> Iterator[Opener]:
    with ExitStack() as stack:
        yield Opener(stack)


class Opener:
    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def __call__(
        self,
        client: Node,
        server: Node,
        asked: str,
        kind: socket.SocketKind = TCP,
        *,
        bound: str = "",
        port: int = PORT,
        listens: int = 0,
    ) -> Line:
        """Open one; the server is bound to `bound` and `listens`, unless told to what is asked."""
        listener = self._socket(server, asked, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((bound or asked, listens or port))
        if kind == TCP:
            listener.listen()
        caller = self._socket(client, asked, kind)
        caller.connect((asked, port))
        if kind == TCP:
            answerer, peer = listener.accept()
            self._stack.enter_context(answerer)
            listener.close()
        else:
            caller.send(b"hello")
            _, peer = listener.recvfrom(64)
            listener.connect(peer)
            answerer = listener
        answerer.settimeout(PATIENCE_S)
        return Line(caller, answerer, str(peer[0]))

    def _socket(self, node: Node, asked: str, kind: socket.SocketKind) -> socket.socket:
        family = socket.AF_INET6 if ":" in asked else socket.AF_INET
        with node.enter():
            sock = self._stack.enter_context(socket.socket(family, kind))
        sock.settimeout(PATIENCE_S)
        return sock
