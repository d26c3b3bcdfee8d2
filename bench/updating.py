"""`python -m bench.updating STATE_DIR`: the dynamic update publisher, with a frontend of its own.

Rules: the daemon's own code, without what decides. Each line on stdin is a JSON object, a `Saying`
in its fields; "settle" in its place is answered by "settled" when all places are current, or by
what each says when they aren't in time. Ends with stdin.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ifdefault.daemon.controller.effects import Publish
from ifdefault.daemon.dns.dynamic_update import Updates
from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.process.spawn import Frontend, start_frontend
from ifdefault.daemon.requests import Requests
from ifdefault.daemon.status import PublisherStatus
from ifdefault.host.store import Store
from ifdefault.ipc import privileges
from ifdefault.ipc.messages import Message, Reply
from ifdefault.model.config import Config
from ifdefault.model.dns import AddressRecord, DnsConfig, Endpoint, Published, UpdateConfig
from ifdefault.model.health import Way

SETTLE_S = 30.0
_POLL_S = 0.005


@dataclass(frozen=True, slots=True)
class Saying:
    """What is to be said where, and by which ways."""

    servers: Mapping[str, Sequence[Endpoint]]  # by zone
    names: Mapping[str, Sequence[str]]
    ways: Sequence[Way]
    ttl: int = 30

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Saying:
        servers = {z: [Endpoint(**each) for each in its] for z, its in told["servers"].items()}
        return cls(servers, told["names"], [Way(**way) for way in told["ways"]], told["ttl"])

    def to_line(self) -> str:
        return json.dumps(asdict(self)) + "\n"


class Publisher:
    """An Updates that runs, with what the engine has around it."""

    def __init__(self, state: Path) -> None:
        state.mkdir(parents=True, exist_ok=True)
        store = Store(state)
        self.event_log = EventLog(store)
        self.exchanges = Requests(self._post)
        self.updates = Updates(self.exchanges, store, self.event_log)
        self.frontend: Frontend | None = None

    def say(self, saying: Saying) -> None:
        updates = tuple(
            UpdateConfig(zone, tuple(servers)) for zone, servers in saying.servers.items()
        )
        published = tuple(
            Published(name, "rotate", saying.ttl, tuple(AddressRecord("isp", a) for a in addresses))
            for name, addresses in saying.names.items()
        )
        config = Config((), dns=DnsConfig(updates=updates))
        publish = Publish(config, (), (), published, tuple(saying.ways))
        self.updates.publish(time.monotonic(), publish)

    def standing(self, name: str = "", where: str = "") -> list[PublisherStatus]:
        return [
            each
            for each in self.updates.statuses()
            if name in ("", each.name) and where in ("", each.where)
        ]

    def events(self) -> list[str]:
        return [event.text for event in self.event_log.recent(500) if event.kind == "dns"]

    async def settled(self, patience_s: float = SETTLE_S) -> bool:
        """Wait until all places are current."""
        deadline_s = time.monotonic() + patience_s
        while {each.state for each in self.updates.statuses()} != {"current"}:
            if time.monotonic() > deadline_s:
                return False
            await asyncio.sleep(_POLL_S)
        return True

    async def start_frontend(self) -> None:
        uid, gid, _ = privileges.choose_user("nobody")
        self.frontend = await start_frontend((uid, gid), self._hear, self._frontend_ended)
        self.updates.frontend_started()

    async def close(self) -> None:
        await self.updates.close()
        if self.frontend is not None:
            self.frontend.close()
            await self.frontend.over()

    def _post(self, message: Message, fds: tuple[int, ...]) -> None:
        if self.frontend is not None:
            self.frontend.send(message, fds)

    def _hear(self, message: object) -> None:
        if isinstance(message, Reply):
            self.exchanges.receive(message)

    def _frontend_ended(self, _: str) -> None:
        self.frontend = None
        self.exchanges.fail_all()


@asynccontextmanager
async def running(state: Path) -> AsyncIterator[Publisher]:
    """One whose sockets are made in the namespace of the calling thread."""
    publisher = Publisher(state)
    try:
        await publisher.start_frontend()
        yield publisher
    finally:
        await publisher.close()


def as_text(statuses: Iterable[PublisherStatus]) -> str:
    return "; ".join(f"{s.name} at {s.where}: {s.state} ({s.detail}): {s.seen}" for s in statuses)


async def main(state: Path) -> None:
    reader = asyncio.StreamReader(limit=1 << 20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with running(state) as publisher:
        while line := await reader.readline():
            if line == b"settle\n":
                well = await publisher.settled()
                print("settled" if well else as_text(publisher.standing()), flush=True)
            else:
                publisher.say(Saying.from_json(json.loads(line)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
