"""Connections that last, and are opened anew when they break: `python -m bench.flows`.

    serve PORT                    says the client's address, then echoes
    hold PORT COUNT ADDRESS…      so many connections to these addresses in turn

Rules: hold prints "ready" when all are open, runs until standard input ends, and prints as JSON
what became of each connection. One that gets no answer for _SILENT_S is given up. Times are of the
monotonic clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass

from ifdefault.lab import services
from ifdefault.lab.node import Node

_MESSAGE = bytes(1000)
_EVERY_S = 0.5
_AGAIN_S = 0.2
_CONNECT_S = 3.0
_SILENT_S = 5.0


@dataclass(frozen=True, slots=True)
class Held:
    """A connection, from and until when, and the times of answers; `seen`: the client's address as
    the server sees it."""

    from_s: float
    until_s: float
    seen: str
    end: str  # "lasted", "broke", "silent"
    answers: tuple[float, ...]

    def answered(self, from_s: float, until_s: float) -> bool:
        return any(from_s < at_s <= until_s for at_s in self.answers)


def serve(node: Node, port: int) -> None:
    command = [sys.executable, "-m", "bench.flows", "serve", str(port)]
    child = services.start(node, "flows", command)
    services.answering(node, "flows", child, socket.SOCK_STREAM, port)


class Flows:
    """A process in a node that holds connections, until it is stopped."""

    def __init__(
        self, node: Node, port: int, count: int, of: Sequence[str], prefix: Sequence[str] = ()
    ) -> None:
        command = [sys.executable, "-m", "bench.flows", "hold", str(port), str(count), *of]
        pipe = subprocess.PIPE
        self._child = node.popen([*prefix, *command], stdin=pipe, stdout=pipe)

    def await_open(self) -> None:
        assert self._child.stdout is not None
        self._child.stdout.readline()

    def stop(self) -> list[Held]:
        output, _ = self._child.communicate(timeout=60)
        return [Held(*row) for row in json.loads(output)]


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        writer.write(f"{writer.get_extra_info('peername')[0]}\n".encode())
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def _serve(port: int) -> None:
    for address in ("0.0.0.0", "::"):
        await asyncio.start_server(_echo, address, port, backlog=1024)
    await asyncio.Event().wait()


async def _hold(address: str, port: int, held: list[Held], opened: asyncio.Event) -> None:
    while True:
        from_s, answers = time.monotonic(), list[float]()
        seen, end, writer = "", "broke", None
        try:
            async with asyncio.timeout(_CONNECT_S):
                reader, writer = await asyncio.open_connection(address, port)
                line = await reader.readline()
            seen, from_s = line.decode().strip(), time.monotonic()
            opened.set()
            while True:
                writer.write(_MESSAGE)
                async with asyncio.timeout(_SILENT_S):
                    await reader.readexactly(len(_MESSAGE))
                answers.append(time.monotonic())
                await asyncio.sleep(_EVERY_S)
        except asyncio.CancelledError:
            end = "lasted"
            raise
        except TimeoutError:
            end = "silent"
        except (OSError, asyncio.IncompleteReadError):
            end = "broke"
        finally:
            if seen:
                held.append(Held(from_s, time.monotonic(), seen, end, tuple(answers)))
            if writer is not None:
                writer.transport.abort()
        await asyncio.sleep(_AGAIN_S)


async def _hold_all(port: int, count: int, addresses: Sequence[str]) -> list[Held]:
    stop, held = asyncio.Event(), list[Held]()
    asyncio.get_running_loop().add_reader(sys.stdin, stop.set)
    opened = [asyncio.Event() for _ in range(count)]
    tasks = [
        asyncio.create_task(_hold(addresses[n % len(addresses)], port, held, opened[n]))
        for n in range(count)
    ]
    await asyncio.gather(*(event.wait() for event in opened))
    print("ready", flush=True)
    await stop.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("serve", "hold"))
    parser.add_argument("port", type=int)
    parser.add_argument("count", type=int, nargs="?", default=1)
    parser.add_argument("of", nargs="*")
    options = parser.parse_args()
    if options.kind == "serve":
        asyncio.run(_serve(options.port))
    else:
        held = asyncio.run(_hold_all(options.port, options.count, options.of))
        print(json.dumps([astuple(row) for row in held]))


if __name__ == "__main__":
    main()
