"""A real DNS server in a lab's host, told by us what the engine would tell it.

Rules: its sockets are made in the host's namespace, by the engine's own functions.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from ifdefault.daemon.process.dns_connection import Connection, start
from ifdefault.ipc import privileges
from ifdefault.ipc.messages import (
    Leave,
    Listen,
    Message,
    Ping,
    Pong,
    Served,
    Transport,
    Unlisten,
    ZoneEnd,
    ZoneHead,
    ZoneName,
)
from ifdefault.kernel import open_dns_sockets
from ifdefault.lab.waiting import PATIENCE_S
from ifdefault.lab.world import World
from ifdefault.model.dns import Endpoint, Zone
from tests.net.dns_cases import ADDRESSES

_PORT = 53
Arrivals = tuple[tuple[int, str], ...]


@dataclass
class Server:
    world: World
    heard: list[Message] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    connection: Connection = field(init=False)
    _numbers: count[int] = field(default_factory=lambda: count(1))

    def listen(
        self, transport: Transport, address: str, arrivals: Arrivals, port: int = _PORT
    ) -> int:
        """Have it listen, and return the socket's number."""
        with self.world["host"].enter():
            if transport == "udp":
                marks = len(arrivals) > 1
                sock = open_dns_sockets.udp_listener(address, port)
                if marks:
                    open_dns_sockets.receive_marks(sock)
            else:
                sock = open_dns_sockets.tcp_listener(address, port)
        number = next(self._numbers)
        with sock:
            self.connection.send(Listen(number, transport, address, arrivals), [sock.fileno()])
        return number

    def unlisten(self, number: int) -> None:
        self.connection.send(Unlisten(number))

    def publish(
        self, *zones: Zone, secondaries: Sequence[Endpoint] = (), rate_limit: int = 0
    ) -> None:
        for zone in zones:
            self.connection.send(ZoneHead(zone.zone, zone.serial, zone.contact, zone.nameservers))
            for each in zone.names:
                addresses = tuple((h.uplink, h.address, h.weight) for h in each.addresses)
                records = tuple((record.type, record.rdata.hex()) for record in each.records)
                self.connection.send(ZoneName(each.name, each.policy, each.ttl, addresses, records))
        told = tuple((each.address, each.port, each.key) for each in secondaries)
        self.connection.send(ZoneEnd(told, rate_limit, ("00" * 16,)))

    async def settled(self) -> None:
        """All that was told so far has been taken in."""
        token = next(self._numbers)
        self.connection.send(Ping(token))
        await until(lambda: Pong(token) in self.heard, "a pong")

    @property
    def queries(self) -> Counter[tuple[str, int]]:
        """By uplink and response code."""
        found: Counter[tuple[str, int]] = Counter()
        for message in self.heard:
            if isinstance(message, Served):
                found.update({(uplink, code): n for uplink, code, n in message.queries})
        return found

    @property
    def events(self) -> list[str]:
        return [text for m in self.heard if isinstance(m, Served) for text in m.events]

    async def event(self, text: str) -> None:
        await until(lambda: any(text in event for event in self.events), text, self.told)

    def told(self) -> str:
        return "\n".join(self.events)

    async def ask(self, *command: str, node: str = "client") -> str:
        """What a command prints on a node."""
        argv = [word for words in command for word in words.split()]
        done = await asyncio.to_thread(self.world[node].run, argv, check=False)
        return done.stdout + done.stderr

    async def short(self, *command: str, node: str = "client") -> list[str]:
        """What dig tells of records, a line each."""
        return (await self.ask("dig +short +tries=1 +timeout=20", *command, node=node)).splitlines()


@asynccontextmanager
async def serving(world: World, *, listen: bool = True) -> AsyncIterator[Server]:
    """A server on both uplinks' addresses of the world `two`, which answer by their uplinks."""
    world.ifdefault("apply", "--quiet", check=True)
    server = Server(world)
    user = privileges.possible(*privileges.choose_user("nobody")[:2])
    status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    with TemporaryDirectory() as directory:
        server.connection = await start(
            Path(directory) / "dns.sock",
            user,
            lambda _, message: server.heard.append(message),
            lambda _, cause: server.ends.append(cause or "it ended"),
            status.set_result,
        )
        try:
            for address in ADDRESSES if listen else ():
                uplink = "isp-a" if address.startswith(("203", "2001:db8:a")) else "isp-b"
                server.listen("udp", address, ((0, uplink),))
                server.listen("tcp", address, ((0, uplink),))
            yield server
            if not server.ends:
                await server.settled()  # it lives
                server.connection.send(Leave(0))
                assert await status == 0
        finally:
            server.connection.kill()
            server.connection.close()
            await status


async def until(
    condition: Callable[[], object], what: str, told: Callable[[], str] = lambda: ""
) -> None:
    """As `lab.waiting.eventually`, on the loop."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_S
    while not condition():
        assert loop.time() < deadline, f"{what}\n{told()}"
        await asyncio.sleep(0.01)


async def until_told(
    ask: Callable[[], Awaitable[object]],
    wanted: object,
    what: str,
    told: Callable[[], str] = lambda: "",
) -> None:
    """Ask again and again until the answer is the right one."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_S
    while (answer := await ask()) != wanted:
        assert loop.time() < deadline, f"{what}: {answer!r}\n{told()}"
        await asyncio.sleep(0.05)
