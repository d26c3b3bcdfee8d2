"""The sink of uploads: `python -m bench.mptcp_sink PORT FILE`.

An HTTP server on 127.0.0.1 that compares each byte of a body with the file, and answers with a
JSON: the bytes, the pauses between two arrivals, and an error, which is empty if all are right.
Prints "ready" once it listens.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import re
import sys
from contextlib import suppress

from bench.mptcp_clients import PATIENCE_S, Pauses, mapped


async def serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: mmap.mmap
) -> None:
    with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            match = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
            answer = json.dumps(await _receive(reader, int(match[1]) if match else 0, data))
            writer.write(
                f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\n\r\n{answer}".encode()
            )
            await writer.drain()
    writer.close()


async def _receive(reader: asyncio.StreamReader, length: int, data: mmap.mmap) -> dict[str, object]:
    pauses, received, error = Pauses(), 0, ""
    while received < length and not error:
        async with asyncio.timeout(PATIENCE_S):
            chunk = await reader.read(1 << 16)
        pauses.note()
        if not chunk:
            error = "ended early"
        elif chunk != data[received : received + len(chunk)]:
            error = "other bytes came"
        received += len(chunk)
    return {"bytes": received, "error": error, "pauses": pauses.all}


async def main(port: int, path: str) -> None:
    data = mapped(path)
    server = await asyncio.start_server(
        lambda reader, writer: serve(reader, writer, data), "127.0.0.1", port, backlog=1024
    )
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
