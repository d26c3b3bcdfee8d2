"""Entering a network namespace: for a block, a function, or a process.

Rules: namespaces are those of `ip netns`, so that they can be inspected with the usual tools.
Namespaces belong to threads; Python 3.11 has no os.setns.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from ifdefault.kernel.ebpf import attach
from ifdefault.libc import checked, libc
from ifdefault.model.errors import HostError

T = TypeVar("T")

RUN = Path("/run/netns")
_CLONE_NEWNET = 0x40000000


def enter(netns: str) -> None:
    """Put the calling thread into a namespace, permanently."""
    with open(RUN / netns) as target:
        _setns(target.fileno())


@contextmanager
def entered(netns: str) -> Iterator[None]:
    """Put the calling thread into a namespace for a block; sockets made there stay there."""
    with open("/proc/thread-self/ns/net") as home:
        enter(netns)
        try:
            yield
        finally:
            _setns(home.fileno())


def call(netns: str, func: Callable[[], T]) -> T:
    """Call a function inside a namespace, in a new thread."""

    def inside() -> T:
        with entered(netns):
            return func()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(inside).result()


def argv(netns: str, command: Sequence[str]) -> list[str]:
    """The command line that runs another one inside a namespace, with the same process id."""
    return ["ip", "netns", "exec", netns, *command]


def delete(netns: str) -> None:
    """Remove a namespace, if it exists, and its host's eBPF programs, which would outlive it."""
    if (RUN / netns).exists():
        with suppress(OSError, HostError):  # no cgroup v2, or no right to it
            call(netns, attach.remove)
        subprocess.run(["ip", "netns", "del", netns], capture_output=True, check=False)


def _setns(fd: int) -> None:
    checked(libc.setns(fd, _CLONE_NEWNET), "setns")
