"""Sockets that hear DNS queries: each is bound to one address of an uplink.

Rules: made with the engine's rights, for a process that has none. An answer leaves from the address
that was asked, and so by its uplink. Non-blocking. OSError where the port is taken or the address
isn't there.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ifdefault.kernel.rtnetlink import AF
from ifdefault.kernel.sockdiag import MAPPED
from ifdefault.kernel.uapi import socket as so
from ifdefault.model.address import family_of

FRONTEND = "ifdefault.frontend.main"  # in the command line of whoever holds such sockets for us
_BUFFER_BYTES = 1 << 20
_BACKLOG = 1024
# answers fit, and nobody can talk us into fragments by forged ICMP
_MTU_DISCOVER = {
    4: (socket.IPPROTO_IP, so.IP_MTU_DISCOVER, so.IP_PMTUDISC_OMIT),
    6: (socket.IPPROTO_IPV6, so.IPV6_MTU_DISCOVER, so.IPV6_PMTUDISC_OMIT),
}


def udp_listener(address: str, port: int, *, tells_mark: bool = False) -> socket.socket:
    """With `tells_mark` each packet comes with its mark (ancillary SO_MARK): by which uplink it
    came in where several share the address."""
    sock = _socket(address, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(*_MTU_DISCOVER[family_of(address)])
        with suppress(OSError):  # without the right to go beyond the host's limit: as it is
            sock.setsockopt(socket.SOL_SOCKET, so.SO_RCVBUFFORCE, _BUFFER_BYTES)
        if tells_mark:
            sock.setsockopt(socket.SOL_SOCKET, so.SO_RCVMARK, 1)
        sock.bind((address, port))
    except OSError:
        sock.close()
        raise
    return sock


def tcp_listener(address: str, port: int) -> socket.socket:
    sock = _socket(address, socket.SOCK_STREAM)
    try:
        sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # connections of a former frontend
        sock.bind((address, port))
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _socket(address: str, kind: int) -> socket.socket:
    family = family_of(address)
    sock = socket.socket(AF[family], kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    if family == 6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return sock


def holder(kind: str, address: str, port: int) -> str:
    """Which process holds a port, as "named (pid 123)"; "" if none can be found. `kind`: tcp, udp.

    A process of another network namespace, or whose files may not be seen, isn't found."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(kind, address, port)}
    for entry in Path("/proc").glob("[0-9]*") if sockets else ():
        with suppress(OSError):
            if sockets.intersection(_open_files(entry)):
                ours = FRONTEND in (entry / "cmdline").read_text()
                name = "ifdefault" if ours else (entry / "comm").read_text().strip()
                return f"{name} (pid {entry.name})"
    return ""


def _open_files(entry: Path) -> Iterator[str]:
    for fd in (entry / "fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            yield os.readlink(fd)


def _inodes(kind: str, address: str, port: int) -> Iterator[str]:
    """The sockets bound to this address, or to any, and the port; proc(5), /proc/net/tcp."""
    family = family_of(address)
    tables = (kind, f"{kind}6") if family == 4 else (f"{kind}6",)  # dual-stack sockets hold both
    for table in tables:
        with suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state, *_, inode = line.split()[:10]
                held, _, held_port = local.partition(":")
                live = kind == "udp" or state == "0A"  # TCP_LISTEN
                if live and int(held_port, 16) == port and _covers(held, address):
                    yield inode


def _covers(held: str, address: str) -> bool:
    """`held` is an address as hexadecimal words in the host's byte order."""
    data = bytes.fromhex(held)
    words = [data[at : at + 4][::-1] for at in range(0, len(data), 4)]
    packed = socket.inet_pton(AF[family_of(address)], address)
    return not any(data) or b"".join(words).removeprefix(MAPPED) == packed
