"""What a network namespace is known by."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from ifdefault.kernel.uapi.socket import SO_NETNS_COOKIE

_BYTES = 8
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def cookie(sock: socket.socket | None = None) -> int:
    """The unique id of a socket's network namespace, by default of this thread's. OSError before
    Linux 5.14."""
    if sock is None:
        with socket.socket(socket.AF_UNIX) as ours:
            return cookie(ours)
    data = sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, _BYTES)
    return int.from_bytes(data, sys.byteorder)


def boot() -> str:
    """This boot and this thread's namespace, as a shell can tell them."""
    namespace = os.readlink("/proc/thread-self/ns/net")
    return f"{_BOOT_ID.read_text('ascii', 'replace').strip()} {namespace}"
