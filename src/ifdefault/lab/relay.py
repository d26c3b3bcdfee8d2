"""A longer way: `python -m ifdefault.lab.relay DEV MS`, which keeps packets for a while.

Rules: what the kernel routes into the tun device DEV comes out of it again MS milliseconds later,
in the same order, and is routed on. The device is there while this process runs: when it ends,
packets take the straight way again, and those that it kept are lost.
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
_BATCH = 64  # packets that are read before any that is due is written
_KEPT_MAX = 100_000  # more are lost, as in any buffer


def relay(fd: int, delay_s: float) -> None:
    kept: deque[tuple[float, bytes]] = deque()
    while True:
        patience_s = max(0.0, kept[0][0] - time.monotonic()) if kept else None
        if select.select([fd], [], [], patience_s)[0]:
            _read(fd, kept, delay_s)
        now = time.monotonic()
        while kept and kept[0][0] <= now:
            with contextlib.suppress(OSError):  # the device may be down for now
                os.write(fd, kept[0][1])
            kept.popleft()


def _read(fd: int, kept: deque[tuple[float, bytes]], delay_s: float) -> None:
    with contextlib.suppress(BlockingIOError):
        for _ in range(_BATCH):
            packet = os.read(fd, _MTU_MAX)
            if len(kept) < _KEPT_MAX:
                kept.append((time.monotonic() + delay_s, packet))


def main() -> None:
    dev, ms = sys.argv[1:]
    fd = attach_tun(dev)
    print("ready", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        relay(fd, int(ms) / 1000)


if __name__ == "__main__":
    main()
