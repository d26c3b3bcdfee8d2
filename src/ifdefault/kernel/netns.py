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


def boot_id() -> str:
    """Of this boot. A container manager may mount one of its own over it, which systemd 252 doesn't
    show to all units: for whether something is to be restored, it decides nothing."""
    return _BOOT_ID.read_text("ascii", "replace").strip()


def boot() -> str:
    """This boot and this thread's namespace, as a shell can tell them."""
    return f"{boot_id()} {os.readlink('/proc/thread-self/ns/net')}"


def network_id() -> str:
    """Identifies this network namespace among all since the machine was installed."""
    try:
        number = cookie()
    except OSError:  # Linux before 5.14
        number = 0
    return f"{boot_id()} {number}"
