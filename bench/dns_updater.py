"""`python -m bench.dns_updater STATE_DIR`: the daemon's dynamic updates, with their own frontend.

Rules: the daemon's code without the controller. Each line on stdin is a `Publication` as JSON. The
line "settle" is answered by "settled" when all servers are current, or by their states if they
aren't in time. Ends with stdin.
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
from ifdefault.daemon.process.frontend_connection import Frontend, start_frontend
from ifdefault.daemon.requests import Requests
from ifdefault.host.store import Store
from ifdefault.ipc import privileges
from ifdefault.ipc.messages import Message, Reply
from ifdefault.model.config import Config
from ifdefault.model.dns import AddressRecord, DnsConfig, Endpoint, Published, UpdateConfig
from ifdefault.model.health import Way
from ifdefault.model.report import PublisherStatus

SETTLE_S = 30.0
_POLL_S = 0.005


@dataclass(frozen=True, slots=True)
class Publication:
    """Which addresses each name has, which servers to update, and over which uplinks."""

    servers: Mapping[str, Sequence[Endpoint]]  # by zone
    names: Mapping[str, Sequence[str]]
    ways: Sequence[Way]
    ttl: int = 30

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Publication:
        servers = {
            zone: [Endpoint(**endpoint) for endpoint in endpoints]
            for zone, endpoints in row["servers"].items()
        }
        return cls(servers, row["names"], [Way(**way) for way in row["ways"]], row["ttl"])

    def to_line(self) -> str:
        return json.dumps(asdict(self)) + "\n"


class Publisher:
    """A running Updates, and what it needs of the engine."""

    def __init__(self, state: Path) -> None:
        state.mkdir(parents=True, exist_ok=True)
        store = Store(state)
        self.event_log = EventLog(store)
        self.requests = Requests(self._post)
        self.updates = Updates(self.requests, store, self.event_log)
        self.frontend: Frontend | None = None

    def publish(self, publication: Publication) -> None:
        updates = tuple(
            UpdateConfig(zone, tuple(servers)) for zone, servers in publication.servers.items()
        )
        published = tuple(
            Published(
                name, "rotate", publication.ttl, tuple(AddressRecord("isp", a) for a in addresses)
            )
            for name, addresses in publication.names.items()
        )
        config = Config((), dns=DnsConfig(updates=updates))
        publish = Publish(config, (), (), published, tuple(publication.ways))
        self.updates.publish(time.monotonic(), publish)

    def statuses(self, name: str = "", where: str = "") -> list[PublisherStatus]:
        return [
            status
            for status in self.updates.statuses()
            if name in ("", status.name) and where in ("", status.where)
        ]

    def events(self) -> list[str]:
        return [event.text for event in self.event_log.recent(500) if event.kind == "dns"]

    async def settled(self, patience_s: float = SETTLE_S) -> bool:
        """Wait until all servers are current."""
        deadline_s = time.monotonic() + patience_s
        while {status.state for status in self.updates.statuses()} != {"current"}:
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
            self.requests.receive(message)

    def _frontend_ended(self, _: str) -> None:
        self.frontend = None
        self.requests.fail_all()


@asynccontextmanager
async def running(state: Path) -> AsyncIterator[Publisher]:
    """A publisher whose sockets are made in the namespace of the calling thread."""
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
                print("settled" if well else as_text(publisher.statuses()), flush=True)
            else:
                publisher.publish(Publication.from_json(json.loads(line)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
