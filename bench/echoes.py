"""Echo requests at a steady rate, and which of them were lost: `python -m bench.echoes`.

Prints "ready", sends to each ADDRESS until its standard input ends, waits for outstanding answers,
and prints as JSON, by address, how many were sent and when the lost ones were sent (monotonic
seconds).

Rules: one socket for each address; a late answer counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from ifdefault.lab.attempts import checksum
from ifdefault.lab.node import Node
from ifdefault.model.errors import HostError

_GRACE_S = 3.0
_IPV4_HEADER = 20


class Echoes:
    """Echo requests from a node, sent by their own process."""

    def __init__(self, node: Node, addresses: Sequence[str], *, every_s: float) -> None:
        command = [sys.executable, "-m", "bench.echoes", *addresses, f"--every={every_s}"]
        self._child = node.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._child.stdout is not None
        if self._child.stdout.readline() != "ready\n":
            raise HostError(f"{node.name}: the echo requests didn't start")

    def stop(self) -> dict[str, tuple[int, list[float]]]:
        """By address: how many were sent, and when the lost ones were sent."""
        output, _ = self._child.communicate(timeout=60)
        return {address: (row["sent"], row["lost"]) for address, row in json.loads(output).items()}


class Echo:
    """Sends to one address, and remembers what isn't answered yet."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.six = ":" in address
        self.sent = 0
        self.waiting: dict[int, float] = {}
        self.tag = os.urandom(8)
        family = socket.AF_INET6 if self.six else socket.AF_INET
        protocol = socket.IPPROTO_ICMPV6 if self.six else socket.IPPROTO_ICMP
        self.sock = socket.socket(family, socket.SOCK_RAW, protocol)
        self.sock.setblocking(False)
        self.sock.connect((address, 0))  # otherwise it receives all answers

    def send(self) -> None:
        self.sent += 1
        body = self.tag + struct.pack("!I", self.sent)
        head = struct.pack("!BBHHH", 128 if self.six else 8, 0, 0, 1, self.sent & 0xFFFF)
        message = head + body
        if not self.six:
            message = message[:2] + checksum(message).to_bytes(2) + message[4:]
        self.waiting[self.sent] = time.monotonic()
        with suppress(OSError):  # counts as lost
            self.sock.send(message)

    def receive(self) -> None:
        try:
            data = self.sock.recv(2048)[0 if self.six else _IPV4_HEADER :]
        except OSError:
            return  # an ICMP error about one of ours
        if data[0] == (129 if self.six else 0) and data[8:16] == self.tag:
            self.waiting.pop(struct.unpack_from("!I", data, 16)[0], None)


async def _send_all(addresses: list[str], every_s: float) -> list[Echo]:
    echoes = [Echo(address) for address in addresses]
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, stop.set)
    for echo in echoes:
        loop.add_reader(echo.sock, echo.receive)
    print("ready", flush=True)
    due_s = time.monotonic()
    while not stop.is_set():
        for echo in echoes:
            echo.send()
        due_s = max(due_s + every_s, time.monotonic())
        await asyncio.sleep(due_s - time.monotonic())
    await asyncio.sleep(_GRACE_S)
    return echoes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("addresses", nargs="+", metavar="ADDRESS")
    parser.add_argument("--every", type=float, default=0.01, metavar="SECONDS")
    options = parser.parse_args()
    echoes = asyncio.run(_send_all(options.addresses, options.every))
    rows = {e.address: {"sent": e.sent, "lost": sorted(e.waiting.values())} for e in echoes}
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
