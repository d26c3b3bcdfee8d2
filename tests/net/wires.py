"""TCP connections from and to the host of a world, both ends of them in this process.

Rules: every wait has an end; all is closed with the `Wires` that made it.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import dataclass, field

from ifdefault.lab.waiting import PATIENCE_S
from ifdefault.lab.world import World

PORT = 7901  # nobody else's in the lab
_SO_MARK = 36  # asm-generic/socket.h


@dataclass(slots=True)
class Pair:
    """Both ends of a connection: the host's, and its peer's."""

    ours: socket.socket
    theirs: socket.socket

    @property
    def alive(self) -> bool:
        try:
            self.ours.send(b"still there?")
            return self.theirs.recv(64) == b"still there?"
        except ConnectionError:
            return False


@dataclass(slots=True)
class Wires:
    """Makes connections from and to the host of a world."""

    world: World
    stack: ExitStack = field(default_factory=ExitStack)

    def listen(self, node: str, address: str, port: int = PORT) -> socket.socket:
        def make() -> socket.socket:
            sock = socket.socket(_family(address), socket.SOCK_STREAM)
            sock.settimeout(PATIENCE_S)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if address == "::":
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind((address, port))
            sock.listen()
            return sock

        return self.stack.enter_context(self.world[node].python(make))

    def connect(
        self, node: str, listener: socket.socket, target: str, **options: str | int
    ) -> Pair:
        """`options`: source, port, mark, family (6 for a mapped address)."""

        def make() -> socket.socket:
            mapped = "::ffff:" if options.get("family") == 6 and ":" not in target else ""
            sock = socket.socket(_family(mapped + target), socket.SOCK_STREAM)
            sock.settimeout(PATIENCE_S)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if "mark" in options:
                sock.setsockopt(socket.SOL_SOCKET, _SO_MARK, int(options["mark"]))
            if "source" in options:
                sock.bind((mapped + str(options["source"]), int(options.get("port", 0))))
            # a link-local address ("fe80::1%lan0") tells its interface by this alone
            found = socket.getaddrinfo(mapped + target, listener.getsockname()[1])
            sock.connect(found[0][4])
            return sock

        near = self.stack.enter_context(self.world[node].python(make))
        far = self.stack.enter_context(listener.accept()[0])
        far.settimeout(PATIENCE_S)
        return Pair(near, far) if node == "host" else Pair(far, near)

    def asking(self, node: str, target: str) -> socket.socket:
        """A socket that has begun to connect, and doesn't wait."""

        def make() -> socket.socket:
            sock = socket.socket(_family(target), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            sock.connect_ex((target, PORT))
            return sock

        return self.world[node].python(make)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
