"""Observing a failover from outside, with time stamps.

`python -m bench.observer route ADDRESS…` prints by which interface this host reaches each address,
`python -m bench.observer dns SERVER PORT NAME [SECONDS]` the addresses of a name, queried so often,
and `python -m bench.observer rules` each rule that is added, by family, and its table. All print
"ready", and then a line `[monotonic seconds, key, value]` for each change.

Rules: only the kernel and DNS servers are queried, never the program under measurement. The kernel
is queried at its notifications and at intervals.
"""

from __future__ import annotations

import errno
import json
import os
import random
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ifdefault.kernel import rule_messages
from ifdefault.kernel.netlink import HEADER, Netlink, attributes, u32
from ifdefault.kernel.route_get import query
from ifdefault.kernel.uapi import rtnetlink as rt
from ifdefault.lab.node import Node
from ifdefault.model.address import family_of
from ifdefault.model.errors import HostError
from ifdefault.model.flow import Flow

# multicast groups that trigger a query
_GROUPS = (1, 7, 8, 11, 19)  # rtnetlink's: link, IPv4 route, IPv4 rule, IPv6 route, IPv6 rule
_RULE_GROUPS = (8, 19)
_LOOK_S = 0.02
_QUERY_S = 0.01
_PATIENCE_S = 0.25  # for an answer of a server on the same machine
_RTM_BODY = 12


@dataclass(frozen=True, order=True, slots=True)
class Observation:
    """A value, and since when."""

    at_s: float
    value: str


class Watch:
    """An observer that runs in a node, and its observations."""

    def __init__(self, node: Node, *arguments: str) -> None:
        command = [sys.executable, "-m", "bench.observer", *arguments]
        self._seen: dict[str, list[Observation]] = {}
        self._changed = threading.Condition()
        self._child = node.popen(command, stdout=subprocess.PIPE)
        assert self._child.stdout is not None
        if self._child.stdout.readline() != "ready\n":
            raise HostError(f"{node.name}: the observer didn't start")
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._child.stdout is not None
        with suppress(ValueError):  # closed, as the world goes down
            for line in self._child.stdout:
                at_s, key, value = json.loads(line)
                with self._changed:
                    self._seen.setdefault(key, []).append(Observation(at_s, value))
                    self._changed.notify_all()

    def close(self) -> None:
        self._child.terminate()
        self._child.wait(10)

    def seen(self, key: str) -> list[Observation]:
        with self._changed:
            return list(self._seen.get(key, []))

    def value(self, key: str) -> str:
        seen = self.seen(key)
        return seen[-1].value if seen else ""

    def seen_after(self, key: str, since_s: float, timeout_s: float) -> float | None:
        """The first observation after `since_s`; None after the timeout."""

        def first() -> float | None:
            return next((s.at_s for s in self._seen.get(key, []) if s.at_s > since_s), None)

        with self._changed:
            self._changed.wait_for(lambda: first() is not None, timeout_s)
            return first()

    def when(
        self, key: str, wanted: Callable[[str], bool], since_s: float, timeout_s: float
    ) -> float | None:
        """When the value first satisfied `wanted`, at or after `since_s`; None after the
        timeout."""

        def first() -> Observation | None:
            seen = self._seen.get(key, [])
            current = [sight for sight in seen if sight.at_s <= since_s][-1:]
            later = [observation for observation in seen if observation.at_s > since_s]
            return next((sight for sight in current + later if wanted(sight.value)), None)

        with self._changed:
            self._changed.wait_for(lambda: first() is not None, timeout_s)
            found = first()
        return None if found is None else max(found.at_s, since_s)


# --- the observer's own process --------------------------------------------------------------


def _print(key: str, value: str) -> None:
    print(json.dumps([time.monotonic(), key, value]), flush=True)


def _print_changes(values: Iterator[dict[str, str]]) -> None:
    known: dict[str, str] = {}
    for found in values:
        for key, value in found.items():
            if known.get(key) != value:
                known[key] = value
                _print(key, value)


def routes(addresses: Sequence[str]) -> Iterator[dict[str, str]]:
    """By which interface this host reaches each address, whenever that may have changed."""
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    events.bind((0, sum(1 << (group - 1) for group in _GROUPS)))
    events.setblocking(False)
    questions = {address: query(Flow(family_of(address), address)) for address in addresses}
    with Netlink() as netlink:
        while True:
            yield {address: _interface(netlink, body) for address, body in questions.items()}
            select.select([events], [], [], _LOOK_S)
            with suppress(BlockingIOError):
                while True:
                    _drain(events)


def _drain(events: socket.socket) -> None:
    try:
        events.recv(1 << 16)
    except OSError as error:
        if error.errno != errno.ENOBUFS:  # some were dropped: we query anyway
            raise


def _interface(netlink: Netlink, question: bytes) -> str:
    try:
        answer = netlink.ask(rt.RTM_GETROUTE, question)
        return socket.if_indextoname(u32(attributes(answer, _RTM_BODY).get(rt.RTA_OIF)))
    except OSError:
        return ""


def print_rules() -> None:
    """Each rule that the kernel reports as added, with its table."""
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    events.bind((0, sum(1 << (group - 1) for group in _RULE_GROUPS)))
    with suppress(OSError):  # scheduled at once
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    while True:
        message = events.recv(1 << 16)
        at_s = time.monotonic()
        _, kind, *_ = HEADER.unpack_from(message)
        rule = rule_messages.decode_rule(message[HEADER.size :]) if kind == rt.RTM_NEWRULE else None
        if rule is not None:
            print(json.dumps([at_s, f"IPv{rule.family}", str(rule.table)]), flush=True)


def names(server: str, port: int, name: str, every_s: float) -> Iterator[dict[str, str]]:
    """Which IPv4 addresses a name has, every few milliseconds."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect((server, port))
    sock.settimeout(_PATIENCE_S)
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    while True:
        number = random.randrange(1 << 16)
        start = time.monotonic()
        with suppress(OSError):
            head = struct.pack("!HHHHHH", number, 0, 1, 0, 0, 0)
            sock.send(head + labels + b"\0" + struct.pack("!HH", 1, 1))
            answer = sock.recv(4096)
            while answer[:2] != number.to_bytes(2):
                answer = sock.recv(4096)
            yield {name: " ".join(sorted(_addresses(answer)))}
        time.sleep(max(0.0, start + every_s - time.monotonic()))


def _addresses(answer: bytes) -> Iterator[str]:
    """The A records of an answer to one question."""
    _, flags, _, count, _, _ = struct.unpack_from("!HHHHHH", answer)
    if flags & 15:
        return
    offset = _after_name(answer, 12) + 4
    for _ in range(count):
        offset = _after_name(answer, offset)
        kind, _, _, length = struct.unpack_from("!HHIH", answer, offset)
        offset += 10
        if kind == 1:
            yield socket.inet_ntoa(answer[offset : offset + 4])
        offset += length


def _after_name(message: bytes, offset: int) -> int:
    while message[offset]:
        if message[offset] >= 0xC0:
            return offset + 2
        offset += message[offset] + 1
    return offset + 1


def main() -> None:
    kind, *arguments = sys.argv[1:]
    print("ready", flush=True)
    if kind == "rules":
        print_rules()
    elif kind == "route":
        _print_changes(routes(arguments))
    else:
        server, port, name, *every_s = arguments
        _print_changes(names(server, int(port), name, float(every_s[0]) if every_s else _QUERY_S))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, BrokenPipeError):
        main()
