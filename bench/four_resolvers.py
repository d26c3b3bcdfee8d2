"""Four recursive resolvers in the core, each with its defaults, and look-ups of new names by them.

    client ──> unbound, Knot Resolver, PowerDNS Recursor, BIND ──> root, parent, host

Rules: they start at the lab's root (`lab.dns`, which must run), and validate nothing, as nothing is
signed. Each is in a /24 and a /56 of its own, in which a rate limit counts it alone. A look-up asks
for a name that nobody has asked for, so that no cache answers it; it asks once, and has failed if
the answer isn't an address, or doesn't come within LOOKUP_S.
"""

from __future__ import annotations

import secrets
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ifdefault.dns import client, wire
from ifdefault.lab import dns, lookup, services
from ifdefault.lab.clients_by_name import LOOKUP_S
from ifdefault.lab.node import Node
from ifdefault.lab.waiting import PATIENCE_S, eventually
from ifdefault.lab.world import World

_UNBOUND, _BIND = "unbound-of-four", "named-of-four"  # beside those of lab.dns
_BUFFER = 4096
_POLL_S = 0.05  # at most, until a stop is noticed


# --- the resolvers --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Resolver:
    """`start` gets a node, and the resolver's addresses in both families."""

    name: str
    addresses: tuple[str, str]
    start: Callable[[Node, tuple[str, str]], None]


def _unbound(node: Node, addresses: tuple[str, str]) -> None:
    lines = "".join(f"  outgoing-interface: {address}\n" for address in addresses)
    lines += f'  root-hints: "{_hints(node)}"\n'
    services.resolver(node, addresses[:1], lines, name=_UNBOUND)


def _knot_resolver(node: Node, addresses: tuple[str, str]) -> None:
    home = services.home_of(node, "kresd")
    v4, v6 = addresses
    servers = ", ".join(f"'{address}'" for address in dns.ROOT)
    (home / "kresd.conf").write_text(
        f"""\
net.listen('{v4}', 53, {{ kind = 'dns' }})
net.outgoing_v4('{v4}')
net.outgoing_v6('{v6}')
cache.size = 100 * MB
trust_anchors.remove('.')
modules = {{ 'hints > iterate' }}
hints.root({{ ['root.lab.'] = {{ {servers} }} }})
""",
        encoding="utf-8",
    )
    _start(node, ["kresd", "-n", "-c", str(home / "kresd.conf"), str(home)], v4)


def _powerdns(node: Node, addresses: tuple[str, str]) -> None:
    home = services.home_of(node, "pdns_recursor")
    settings = {
        "local-address": addresses[0],
        "query-local-address": ", ".join(addresses),
        "allow-from": "0.0.0.0/0",
        "dont-query": "",  # by default no documentation addresses
        "hint-file": _hints(node),
        "dnssec": "off",
        "security-poll-suffix": "",  # otherwise it queries the Internet for security news
        "socket-dir": home,
        "daemon": "no",
    }
    text = "".join(f"{key}={value}\n" for key, value in settings.items())
    (home / "recursor.conf").write_text(text, encoding="utf-8")
    _start(node, ["pdns_recursor", f"--config-dir={home}"], addresses[0])


def _named(node: Node, addresses: tuple[str, str]) -> None:
    home = services.home_of(node, _BIND)
    v4, v6 = addresses
    (home / "named.conf").write_text(
        f"""\
options {{
  directory "{home}";
  pid-file none;
  session-keyfile "{home}/session.key";
  listen-on {{ {v4}; }};
  listen-on-v6 {{ none; }};
  query-source address {v4};
  query-source-v6 address {v6};
  allow-query {{ any; }};
  allow-recursion {{ any; }};
  dnssec-validation no;
}};
controls {{ }};
zone "." {{ type hint; file "{_hints(node)}"; }};
""",
        encoding="utf-8",
    )
    _start(node, ["named", "-g", "-n", "1", "-c", str(home / "named.conf")], v4, _BIND)


def _hints(node: Node) -> Path:
    path = node.world.dir / "four.hints"
    path.write_text(dns.HINTS, encoding="utf-8")
    return path


def _start(node: Node, command: list[str], address: str, name: str = "") -> None:
    name = name or command[0]
    child = services.start(node, name, command)
    services.answering(node, name, child, socket.SOCK_DGRAM, 53, address)


def _resolver(name: str, number: int, start: Callable[[Node, tuple[str, str]], None]) -> Resolver:
    return Resolver(name, (f"198.18.{number}.53", f"2001:db8:f:{number}00::53"), start)


RESOLVERS = (
    _resolver("unbound", 81, _unbound),
    _resolver("Knot Resolver", 82, _knot_resolver),
    _resolver("PowerDNS Recursor", 83, _powerdns),
    _resolver("BIND", 84, _named),
)


class FourResolvers:
    """The resolvers, which run as long as the world."""

    def __init__(self, world: World, node: str = "core") -> None:
        self._world = world
        self.addresses = {each.name: each.addresses[0] for each in RESOLVERS}
        core = world[node]
        for each in RESOLVERS:
            v4, v6 = each.addresses
            core.ip(f"address replace {v4}/16 dev net0\naddress replace {v6}/48 dev net0 nodad\n")
            each.start(core, each.addresses)

    def await_resolved(self, name: str, *, node: str = "client") -> None:
        """Return when each of them has resolved a name, which is in its cache then."""
        for which, address in self.addresses.items():
            ask = partial(lookup.resolve_both, address, name, timeout_s=LOOKUP_S)
            eventually(partial(self._world[node].python, ask), what=f"{which} resolves {name}")

    def look_up(self, parent: str, *, per_s: float = 20.0, node: str = "client") -> Lookups:
        """Start to look up new names below `parent`, which must have a wildcard; `per_s`: by each
        resolver."""
        return Lookups(self._world[node], self.addresses, parent, per_s=per_s)

    def run(
        self, parent: str, for_s: float, *, per_s: float = 20.0, node: str = "client"
    ) -> dict[str, Outcome]:
        """Look up new names for a time."""
        lookups = self.look_up(parent, per_s=per_s, node=node)
        time.sleep(for_s)
        return lookups.stop()


# --- the look-ups ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Failure:
    """`at_s`: when it was asked, on the monotonic clock. `why`: a response code, "NODATA", or
    "timeout"."""

    at_s: float
    name: str
    why: str


@dataclass(slots=True)
class Outcome:
    """What the clients of one resolver got."""

    lookups: int = 0
    slowest_s: float = 0.0  # of those that were answered
    failures: list[Failure] = field(default_factory=list)

    @property
    def failed(self) -> int:
        return len(self.failures)

    def __str__(self) -> str:
        reasons = Counter(failure.why for failure in self.failures)
        why = "".join(f", {count} {reason}" for reason, count in sorted(reasons.items()))
        return f"{self.failed} of {self.lookups} failed{why}, slowest {self.slowest_s:.2f} s"


@dataclass(frozen=True, slots=True)
class _Asked:
    at_s: float
    name: str
    query: bytes


@dataclass(slots=True)
class _Client:
    """One resolver's client: what it has asked, by ID, the oldest first."""

    sock: socket.socket
    outcome: Outcome = field(default_factory=Outcome)
    asked: dict[int, _Asked] = field(default_factory=dict)

    def ask(self, number: int, name: str, now: float) -> None:
        query = client.query(number, name, "A", recurse=True, edns=False)
        self.outcome.lookups += 1
        self.asked[number] = _Asked(now, name, query)
        try:
            self.sock.send(query)
        except OSError as error:  # the resolver's port is closed
            self._fail(number, error.strerror or str(error))

    def receive(self, now: float) -> None:
        while True:
            try:
                message = self.sock.recv(_BUFFER)
            except OSError:  # no more, or a closed port, which times out
                return
            number = int.from_bytes(message[:2], "big")
            asked = self.asked.get(number)
            if asked is None or (why := _fault(message, asked.query)) is None:
                continue
            if why:
                self._fail(number, why)
            else:
                del self.asked[number]
                self.outcome.slowest_s = max(self.outcome.slowest_s, now - asked.at_s)

    def expire(self, now: float) -> None:
        for number, asked in [*self.asked.items()]:
            if asked.at_s + LOOKUP_S > now:
                return
            self._fail(number, "timeout")

    def _fail(self, number: int, why: str) -> None:
        asked = self.asked.pop(number)
        self.outcome.failures.append(Failure(asked.at_s, asked.name, why))


def _fault(message: bytes, query: bytes) -> str | None:
    """What is wrong with an answer, "" if nothing; None if it answers something else."""
    try:
        answer = client.read_answer(message, query)
    except wire.WireError:
        return "malformed"
    if answer is None:
        return None
    return client.code_name(answer.code) if answer.code else "" if answer.texts else "NODATA"


class Lookups:
    """Look-ups of new names at a steady rate by each of some resolvers, in a thread."""

    def __init__(
        self, node: Node, resolvers: Mapping[str, str], parent: str, *, per_s: float
    ) -> None:
        with node.enter():
            self._clients = {name: _Client(_connect(at)) for name, at in resolvers.items()}
        self._parent, self._period_s = parent, 1 / per_s
        self._token = secrets.token_hex(3)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, Outcome]:
        """Wait for what is under way; the outcome by resolver."""
        self._stopped.set()
        self._thread.join(LOOKUP_S + PATIENCE_S)
        for each in self._clients.values():
            each.sock.close()
        return {name: each.outcome for name, each in self._clients.items()}

    def _run(self) -> None:
        count, due_s = 0, time.monotonic()
        with selectors.DefaultSelector() as selector:
            for each in self._clients.values():
                selector.register(each.sock, selectors.EVENT_READ, each)
            while not self._stopped.is_set() or any(c.asked for c in self._clients.values()):
                now = time.monotonic()
                while due_s <= now and not self._stopped.is_set():
                    self._ask_all(count, now)
                    count, due_s = count + 1, due_s + self._period_s
                for each in self._clients.values():
                    each.expire(now)
                for key, _ in selector.select(min(max(0.0, due_s - now), _POLL_S)):
                    key.data.receive(time.monotonic())

    def _ask_all(self, count: int, now: float) -> None:
        name = f"{self._token}-{count}.{self._parent}"
        for each in self._clients.values():
            each.ask(count & 0xFFFF, name, now)


def _connect(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.connect((address, 53))
    return sock
