"""How long the daemon's loop takes to answer: `python -m bench.round_trips SOCKET`.

Prints "ready", asks every 10 ms until its standard input ends, and prints as JSON how often it was
answered, the median, and each round trip above 5 ms.

Rules: a round trip bounds a pause of the loop from above. While other work occupies the machine,
the engine also waits for a processor, which is no pause of its loop: the kernel counts that time
(/proc/PID/schedstat: on a processor, waiting for one), and it is given besides. What asks has
real-time priority, so that it doesn't wait itself.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from ifdefault.ipc.control.client import credentials
from ifdefault.ipc.control.protocol import Events, encode_request
from ifdefault.lab.node import Node
from ifdefault.model.errors import HostError

_EVERY_S = 0.01
_LONG_S = 0.005
_PATIENCE_S = 60.0
_CHEAP = encode_request(Events(1))  # little work for the engine


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """`waited_s`: how long the engine waited for a processor meanwhile."""

    at_s: float
    took_s: float
    waited_s: float

    @property
    def pause_s(self) -> float:
        return max(0.0, self.took_s - self.waited_s)


@dataclass(frozen=True, slots=True)
class RoundTrips:
    """Of a span of time; only those above 5 ms are given one by one."""

    count: int
    median_s: float
    long: tuple[RoundTrip, ...]


class Asking:
    """The process that asks the engine of a world, from the start to `stop`."""

    def __init__(self, node: Node) -> None:
        path = str(node.world.run_dir / "control.sock")
        command = [sys.executable, "-m", "bench.round_trips", path]
        self._child = node.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._child.stdout is not None
        if self._child.stdout.readline() != "ready\n":
            raise HostError(f"{node.name}: asking the daemon didn't start")

    def stop(self) -> RoundTrips:
        output, _ = self._child.communicate(timeout=2 * _PATIENCE_S)
        count, median_s, long = json.loads(output)
        return RoundTrips(count, median_s, tuple(RoundTrip(*row) for row in long))


def _waited_s(pid: int) -> float:
    """How long the engine's main thread has waited for a processor."""
    _, waited_ns, _ = Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()
    return int(waited_ns) / 1e9


def _ask(path: str, stop: threading.Event, found: list[RoundTrip]) -> None:
    """Over one connection, until it breaks."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_PATIENCE_S)
        sock.connect(path)
        pid = credentials(sock).pid
        with sock.makefile("rb") as replies:
            while not stop.is_set():
                waited_s, at_s = _waited_s(pid), time.monotonic()
                sock.sendall(_CHEAP)
                if not replies.readline():
                    return
                took_s = time.monotonic() - at_s
                found.append(RoundTrip(at_s, took_s, _waited_s(pid) - waited_s))
                time.sleep(max(0.0, _EVERY_S - took_s))


def _rows(found: Sequence[RoundTrip]) -> list[object]:
    long = [[it.at_s, it.took_s, it.waited_s] for it in found if it.took_s > _LONG_S]
    return [len(found), median(it.took_s for it in found) if found else 0.0, long]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("socket")
    path: str = parser.parse_args().socket
    with suppress(OSError):  # not permitted
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    stop, found = threading.Event(), list[RoundTrip]()

    def await_end() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=await_end, daemon=True).start()
    print("ready", flush=True)
    while not stop.is_set():
        with suppress(OSError, ValueError):  # the engine isn't there
            _ask(path, stop, found)
        stop.wait(_EVERY_S)
    print(json.dumps(_rows(found)))


if __name__ == "__main__":
    main()
