"""A delay: `python -m ifdefault.lab.relay DEV MS`.

Rules: packets routed into the tun device DEV come out of it MS milliseconds later, in the same
order, and are routed on. The device exists while this process runs: when it ends, packets take the
direct route again, and those in the queue are lost.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections import deque

from ifdefault.lab.wire import attach_tun

_MTU_MAX = 65536
_BATCH = 64  # packets that are read before due ones are written
_QUEUE_MAX = 100_000  # more are dropped


def relay(fd: int, delay_s: float) -> None:
    queue: deque[tuple[float, bytes]] = deque()
    while True:
        patience_s = max(0.0, queue[0][0] - time.monotonic()) if queue else None
        if select.select([fd], [], [], patience_s)[0]:
            _read(fd, queue, delay_s)
        now = time.monotonic()
        while queue and queue[0][0] <= now:
            with contextlib.suppress(OSError):  # the device may be down
                os.write(fd, queue[0][1])
            queue.popleft()


def _read(fd: int, queue: deque[tuple[float, bytes]], delay_s: float) -> None:
    with contextlib.suppress(BlockingIOError):
        for _ in range(_BATCH):
            packet = os.read(fd, _MTU_MAX)
            if len(queue) < _QUEUE_MAX:
                queue.append((time.monotonic() + delay_s, packet))


def main() -> None:
    dev, ms = sys.argv[1:]
    fd = attach_tun(dev)
    print("ready", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        relay(fd, int(ms) / 1000)


if __name__ == "__main__":
    main()
