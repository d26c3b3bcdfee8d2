"""HTTP clients that ask for MPTCP or TCP, and compare every byte: `python -m bench.mptcp_clients`.

Reads a Plan as JSON from the first line of standard input, and prints "ready" once each download
has received, each upload has sent, and each idle connection has been answered. After each further
line the idle connections are used. Prints the Transfers as JSON when all have ended.

Rules: one connection for each transfer. A pause is the time between two arrivals, at the client for
a download and at the sink for an upload, or until the answer on a connection that was idle. Nobody
waits longer than PATIENCE_S; what then isn't whole has an error.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import socket
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

BLOCK = 4096
EVERY_S = 0.04  # from a block to the next
RATE = int(BLOCK / EVERY_S)
PATIENCE_S = 20.0
SEEN_S = 0.1  # shorter pauses aren't recorded
KINDS = ("download", "upload", "idle")
IDLE_PATH, DATA_PATH, SINK_PATH = "/idle", "/data", "/sink"
_MPTCP = 262  # IPPROTO_MPTCP; socket.IPPROTO_MPTCP is of Python 3.10, but not in typeshed


@dataclass(frozen=True, slots=True)
class Spec:
    """One connection to be made."""

    kind: str
    server: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Plan:
    protocol: str  # "mptcp" or "tcp"
    data: str  # the path of the file that is transferred
    uses: int  # of each idle connection, after the first
    specs: tuple[Spec, ...]


@dataclass(slots=True)
class Pauses:
    """The pauses of one stream: (begin, length), in monotonic seconds."""

    all: list[tuple[float, float]] = field(default_factory=list)
    last_s: float = field(default_factory=time.monotonic)

    def note(self) -> None:
        """Something has arrived."""
        now = time.monotonic()
        if now - self.last_s >= SEEN_S:
            self.all.append((self.last_s, now - self.last_s))
        self.last_s = now


@dataclass(slots=True)
class Transfer:
    """What became of one connection. Without an error it is whole."""

    spec: Spec
    bytes: int = 0
    ended_s: float = 0.0
    error: str = ""
    pauses: list[tuple[float, float]] = field(default_factory=list)


class Clients:
    def __init__(self, plan: Plan) -> None:
        self.plan, self.data = plan, mapped(plan.data)
        self.begun = [asyncio.Event() for _ in plan.specs]
        self.uses = [asyncio.Event() for _ in range(plan.uses)]

    async def transfer(self, index: int, spec: Spec) -> Transfer:
        result = Transfer(spec)
        try:
            reader, writer = await self._open(spec)
            await getattr(self, f"_{spec.kind}")(result, self.begun[index], reader, writer)
            writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
            result.error = str(error) or type(error).__name__
        result.ended_s = time.monotonic()
        self.begun[index].set()
        return result

    async def _open(self, spec: Spec) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        family = socket.AF_INET6 if ":" in spec.address else socket.AF_INET
        protocol = _MPTCP if self.plan.protocol == "mptcp" else socket.IPPROTO_TCP
        sock = socket.socket(family, socket.SOCK_STREAM, protocol)
        sock.settimeout(PATIENCE_S)
        # asyncio's sock_connect() would look the address up, for a protocol that libc doesn't know
        await asyncio.to_thread(sock.connect, (spec.address, spec.port))
        return await asyncio.open_connection(sock=sock)

    async def _download(
        self,
        result: Transfer,
        begun: asyncio.Event,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        writer.write(_request("GET", DATA_PATH))
        await _read_head(reader)
        pauses = Pauses(result.pauses)
        while result.bytes < len(self.data):
            async with asyncio.timeout(PATIENCE_S):
                chunk = await reader.read(1 << 16)
            pauses.note()
            if not chunk:
                raise ValueError("ended early")
            if chunk != self.data[result.bytes : result.bytes + len(chunk)]:
                raise ValueError("other bytes came")
            result.bytes += len(chunk)
            begun.set()

    async def _upload(
        self,
        result: Transfer,
        begun: asyncio.Event,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        writer.write(_request("PUT", SINK_PATH, f"Content-Length: {len(self.data)}"))
        next_s = time.monotonic()
        for offset in range(0, len(self.data), BLOCK):
            writer.write(self.data[offset : offset + BLOCK])
            async with asyncio.timeout(PATIENCE_S):
                await writer.drain()
            begun.set()
            next_s = max(next_s + EVERY_S, time.monotonic())
            await asyncio.sleep(next_s - time.monotonic())
        length = await _read_head(reader)
        async with asyncio.timeout(PATIENCE_S):
            answer = json.loads(await reader.readexactly(length))
        result.bytes, result.error = answer["bytes"], answer["error"]
        result.pauses = answer["pauses"]

    async def _idle(
        self,
        result: Transfer,
        begun: asyncio.Event,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        await self._use(result, reader, writer)
        begun.set()
        for use in self.uses:
            await use.wait()
            pauses = Pauses(result.pauses)
            await self._use(result, reader, writer)
            pauses.note()

    async def _use(
        self, result: Transfer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(_request("GET", IDLE_PATH))
        length = await _read_head(reader)
        async with asyncio.timeout(PATIENCE_S):
            answer = await reader.readexactly(length)
        if answer != self.data[:length]:
            raise ValueError("other bytes came")
        result.bytes += length


def _request(method: str, path: str, *more: str) -> bytes:
    lines = (f"{method} {path} HTTP/1.1", "Host: www.example", *more)
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


async def _read_head(reader: asyncio.StreamReader) -> int:
    """Return the length of the body."""
    async with asyncio.timeout(PATIENCE_S):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    if " 200 " not in head[0]:
        raise ValueError(head[0])
    fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    return int(fields["content-length"])


async def run(plan: Plan) -> list[Transfer]:
    clients = Clients(plan)
    transfers = [clients.transfer(index, spec) for index, spec in enumerate(plan.specs)]
    results = asyncio.gather(*transfers)
    await asyncio.gather(*(event.wait() for event in clients.begun))
    print("ready", flush=True)
    for use in clients.uses:
        await asyncio.to_thread(sys.stdin.readline)
        use.set()
    return list(await results)


def mapped(path: str) -> mmap.mmap:
    with Path(path).open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def main() -> None:
    row = json.loads(sys.stdin.readline())
    row["specs"] = tuple(Spec(**spec) for spec in row["specs"])
    print(json.dumps([asdict(transfer) for transfer in asyncio.run(run(Plan(**row)))]))


if __name__ == "__main__":
    main()
