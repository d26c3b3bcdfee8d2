"""The DNS server: answers queries in an unprivileged process of its own, which outlives its engine.

`python -m ifdefault.frontend.dns_main FD UID GID`, started by the engine (`process.dns_server`), or
`ifdefault-dns`, started by systemd (ifdefault-dns.socket). FD is a socket that listens for engines.

    engine ──> connection: Listen, Zone… ──> DnsServer ──> answers
    its successor <── Listen for each socket, Ready

Rules: there is one connection, the newest. What the server has stays when a connection ends, so
that it answers by its last zones until another engine comes, of this version or another. It ends
when an engine says so (Leave), by SIGTERM, or when its path is gone, so that no engine can come.
Connections over TCP are completed before it ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from typing import NoReturn

from ifdefault.frontend.dns_server import DnsServer
from ifdefault.ipc import log, privileges, sandbox, tasks
from ifdefault.ipc.channel import Channel
from ifdefault.ipc.listen_fds import passed_socket
from ifdefault.ipc.messages import (
    DNS_VERSION,
    TO_DNS_SERVER,
    Leave,
    Listen,
    Ping,
    Pong,
    Ready,
    Served,
    ToDnsServer,
)

_LOOK_S = 2.0  # between looks at the path, while there is no engine
_COMPLETE_S, _IDLE_S = 4.0, 0.5  # for connections over TCP, at the end
_BACKLOG = 4
_NO_FILES_S = 1.0  # how long to wait for a descriptor to become free

_logger = logging.getLogger("ifdefault")


class DnsServerLoop:
    """Serves one engine after another, which connect to `listener`. `over` is done at the end."""

    def __init__(self, listener: socket.socket, path: int) -> None:
        """`path`: a descriptor of the listener's path (O_PATH)."""
        self._loop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = self._loop.create_future()
        self._listener = listener
        self._path = path
        self._dns = DnsServer(self._report)
        self._channel: Channel[ToDnsServer] | None = None
        self._leave: asyncio.TimerHandle | None = None
        self._leaving = False
        self._handing_over: Iterator[tuple[Listen, socket.socket]] = iter(())
        self._is_ready = self._is_used = False  # for, and by, the newest engine
        listener.setblocking(False)
        self._loop.add_reader(listener, self._accept)
        self._look()

    def _accept(self) -> None:
        """Serve this engine from now on, and no other."""
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # it is gone already
            return
        except OSError:  # out of descriptors: it stays readable
            self._loop.remove_reader(self._listener)
            self._loop.call_later(_NO_FILES_S, self._accept_again)
            return
        if self._channel is not None:
            self._channel.close()
        if self._leave is not None:
            self._leave.cancel()
        self._dns.forget_pending()
        self._is_ready = self._is_used = False
        self._handing_over = iter(self._dns.listening())
        self._channel = Channel(
            sock,
            TO_DNS_SERVER,
            self._receive,
            self._ended,
            sockets=True,
            drained=self._hand_over,
        )
        self._hand_over()

    def _hand_over(self) -> None:
        """Send the new engine our sockets, as fast as it reads, and then Ready."""
        while self._channel is not None and not self._channel.waits and not self._leaving:
            if (following := next(self._handing_over, None)) is None:
                if not self._is_ready:
                    self._is_ready = True
                    self._channel.send(Ready(os.getpid(), DNS_VERSION))
                return
            listen, held = following
            self._channel.send(listen, [held.fileno()])

    def _accept_again(self) -> None:
        if not self._leaving:
            self._loop.add_reader(self._listener, self._accept)

    def _ended(self, cause: str) -> None:
        self._channel = None
        if cause:
            _logger.error("the channel to the engine failed: %s", cause)

    def _receive(self, message: ToDnsServer, sock: socket.socket | None) -> None:
        match message:
            case Leave(0):
                self.leave()
            case Leave(linger_s):
                self._leave = self._loop.call_later(linger_s, self.leave)
            case Ping():
                self._is_used = True
                if self._channel is not None:
                    self._channel.send(Pong(message.token))
            case _:
                self._is_used = True
                self._dns.receive(message, sock)

    def _report(self, served: Served) -> None:
        """To an engine that uses this server. One of another version doesn't, nor knows all."""
        if self._channel is not None and self._is_used:
            self._channel.send(served)

    def _look(self) -> None:
        if self._channel is None and not os.fstat(self._path).st_nlink:
            self.leave()
        self._loop.call_later(_LOOK_S, self._look)

    def end(self) -> None:
        """End for another reason than an engine's: one that is connected has to know at once."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self.leave()

    def leave(self) -> None:
        """Take no more queries, complete what is under way, and end."""
        if self._leaving:
            return
        self._leaving = True
        self._loop.remove_reader(self._listener)
        self._listener.close()
        self._dns.stop_listening()
        end_s = self._loop.time() + _COMPLETE_S

        def look() -> None:
            if self.over.done():
                return
            self._dns.end_idle(_IDLE_S)
            if self._dns.is_idle or self._loop.time() > end_s:
                self.over.set_result(None)
            else:
                self._loop.call_later(0.05, look)

        look()


async def _run(listener: socket.socket, path: int) -> int:
    server = DnsServerLoop(listener, path)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.end)
    await server.over
    return 0


def serve(fd: int, uid: int, gid: int) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the engine
    log.set_up()
    listener = socket.socket(fileno=fd)
    listener.listen(_BACKLOG)  # again: engines that connect are told our credentials (SO_PEERCRED)
    path = os.open(listener.getsockname(), os.O_PATH | os.O_CLOEXEC)  # that user may not see it
    for missing in sandbox.enter(sandbox.DNS_SERVER, uid, gid):
        _logger.warning("the DNS server runs without %s", missing)
    os._exit(tasks.run(_run(listener, path)))


def main() -> NoReturn:
    """`ifdefault-dns`: as a unit of systemd, which has chosen the user."""
    serve(passed_socket("ifdefault-dns"), privileges.KEEP, privileges.KEEP)


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:4]))
