"""Resolvers of others, in the lab's core: unbound, PowerDNS Recursor, Knot Resolver, BIND; and a
client that asks them for many names.

Rules: each starts at the lab's root, validates nothing, and has the limits and timeouts of its own
defaults. Config and sockets are in the world's directory, and the world ends the resolvers.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from ifdefault.dns import client
from ifdefault.lab import dns, services
from ifdefault.lab.node import Node
from ifdefault.lab.world import World

ADDRESS = "198.18.0.73"  # of those that aren't the lab's own
_ROOT = f". 3600 NS root.lab.\nroot.lab. 3600 A {dns.ROOT[0]}\n"
AGAIN_S, TRIES = 2.0, 4  # of the client, as of a host's resolver


def unbound(world: World) -> str:
    """The lab's own, which runs with `lab.dns`."""
    return dns.RESOLVER[0]


def powerdns(world: World) -> str:
    core = _settle(world)
    home = services.home_of(core, "recursor")
    (home / "hints").write_text(_ROOT, encoding="utf-8")
    settings = {
        "local-address": ADDRESS,
        "allow-from": "0.0.0.0/0",
        "query-local-address": f"{ADDRESS}, {dns.RESOLVER[1]}",
        "hint-file": home / "hints",
        "socket-dir": home,
        "dnssec": "off",
        "dont-query": "",
        "security-poll-suffix": "",  # it would ask the Internet for news of itself
    }
    text = "".join(f"{key}={value}\n" for key, value in settings.items())
    (home / "recursor.conf").write_text(text, encoding="utf-8")
    return _start(core, "pdns_recursor", ["pdns_recursor", f"--config-dir={home}", "--daemon=no"])


def knot(world: World) -> str:
    core = _settle(world)
    home = services.home_of(core, "kresd")
    config = home / "kresd.conf"
    config.write_text(
        f"net.listen('{ADDRESS}', 53, {{ kind = 'dns' }})\n"
        "trust_anchors.remove('.')\n"
        "modules = { 'hints > iterate' }\n"
        f"hints.root({{ ['root.lab.'] = {{ '{dns.ROOT[0]}' }} }})\n"
        "cache.size = 16 * MB\n",
        encoding="utf-8",
    )
    return _start(core, "kresd", ["kresd", "-n", "-c", str(config), str(home)])


def bind(world: World) -> str:
    core = _settle(world)
    home = services.home_of(core, "resolver")
    (home / "hints").write_text(_ROOT, encoding="utf-8")
    config = home / "named.conf"
    config.write_text(
        f"""\
options {{
  directory "{home}";
  pid-file none;
  session-keyfile none;
  managed-keys-directory "{home}";
  listen-on {{ {ADDRESS}; }};
  listen-on-v6 {{ none; }};
  query-source address {ADDRESS};
  recursion yes;
  allow-recursion {{ any; }};
  dnssec-validation no;
  empty-zones-enable no;
}};
controls {{ }};
zone "." {{ type hint; file "hints"; }};
""",
        encoding="utf-8",
    )
    return _start(core, "resolver", ["named", "-g", "-c", str(config)])


RESOLVERS: dict[str, Callable[[World], str]] = {  # each returns its address
    "unbound": unbound,
    "PowerDNS Recursor": powerdns,
    "Knot Resolver": knot,
    "BIND": bind,
}


def _settle(world: World) -> Node:
    core = world["core"]
    core.ip(f"address replace {ADDRESS}/16 dev net0\n")
    return core


def _start(node: Node, name: str, command: list[str]) -> str:
    child = services.start(node, name, command)
    services.answering(node, name, child, socket.SOCK_DGRAM, 53, ADDRESS)
    return ADDRESS


# --- a client -----------------------------------------------------------------------------


@dataclass(slots=True)
class Lookups:
    """How many names a client asked for, and what became of them."""

    names: int = 0
    resolved: int = 0
    refused: int = 0  # SERVFAIL and the like
    silent: int = 0

    @property
    def failed(self) -> int:
        return self.refused + self.silent


@dataclass(slots=True)
class _Waiting:
    query: bytes
    sent_s: float
    tries: int = 1


def look_up(server: str, zone: str, rate: float, seconds: float) -> Lookups:
    """Ask a resolver for that many new names a second, by the wildcard of a zone, over UDP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.connect((server, 53))
        sock.setblocking(False)
        return _Burst(sock, zone).run(rate, seconds)


class _Burst:
    def __init__(self, sock: socket.socket, zone: str) -> None:
        self._sock, self._zone = sock, zone
        self._waiting: dict[int, _Waiting] = {}  # by ID, in the order of sending
        self._counts = Lookups()
        self._first = os.urandom(4).hex()  # no other run asks for the same names

    def run(self, rate: float, seconds: float) -> Lookups:
        start_s, most = time.monotonic(), int(rate * seconds)
        while self._counts.names < most or self._waiting:
            now = time.monotonic()
            while self._counts.names < min(most, int((now - start_s) * rate) + 1):
                self._ask(now)
            self._ask_again(now)
            self._read()
            time.sleep(0.0005)
        return self._counts

    def _ask(self, now: float) -> None:
        number = self._counts.names & 0xFFFF
        name = f"{self._first}-{self._counts.names}.{self._zone}"
        query = client.query(number, name, "A", recurse=True, edns=False)
        self._waiting[number] = _Waiting(query, now)
        self._counts.names += 1
        self._send(query)

    def _ask_again(self, now: float) -> None:
        for number, waiting in list(self._waiting.items()):
            if now < waiting.sent_s + AGAIN_S:
                break
            del self._waiting[number]
            if waiting.tries == TRIES:
                self._counts.silent += 1
                continue
            self._waiting[number] = _Waiting(waiting.query, now, waiting.tries + 1)
            self._send(waiting.query)

    def _send(self, query: bytes) -> None:
        with suppress(OSError):  # it is asked again
            self._sock.send(query)

    def _read(self) -> None:
        while True:
            try:
                message = self._sock.recv(4096)
            except OSError:
                return
            waiting = self._waiting.get(int.from_bytes(message[:2], "big"))
            if waiting is None or (answer := client.read_answer(message, waiting.query)) is None:
                continue
            del self._waiting[int.from_bytes(message[:2], "big")]
            if answer.texts:
                self._counts.resolved += 1
            else:
                self._counts.refused += 1
