"""Sockets that receive DNS queries: each is bound to one address of an uplink.

Rules: opened with the engine's rights, for the unprivileged frontend. A response has the address as
its source that the query was sent to, and so leaves by its uplink. Sockets are non-blocking. Raises
OSError if the port is in use or the address doesn't exist.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from ifdefault.kernel import netns
from ifdefault.kernel.rtnetlink import AF, packed
from ifdefault.kernel.sockdiag import MAPPED
from ifdefault.kernel.socket_owners import command_name, owners
from ifdefault.kernel.uapi import socket as so
from ifdefault.libc import SELECT_MAX
from ifdefault.model.address import family_of

DNS_SERVER = ("ifdefault.frontend.dns_main", "ifdefault-dns")  # in its command line
_BUFFER_BYTES = 1 << 20
_BACKLOG = 1024
_AT_ONCE = struct.pack("=ii", 1, 0)  # SO_LINGER
# responses fit the minimum MTU; forged ICMP must not cause fragmentation
_MTU_DISCOVER = {
    4: (socket.IPPROTO_IP, so.IP_MTU_DISCOVER, so.IP_PMTUDISC_OMIT),
    6: (socket.IPPROTO_IPV6, so.IPV6_MTU_DISCOVER, so.IPV6_PMTUDISC_OMIT),
}


def udp_listener(address: str, port: int) -> socket.socket:
    """A UDP socket; if several uplinks share the address, it needs `receive_marks`."""
    sock = _socket(address, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(*_MTU_DISCOVER[family_of(address)])
        with suppress(OSError):  # not permitted to exceed net.core.rmem_max
            sock.setsockopt(socket.SOL_SOCKET, so.SO_RCVBUFFORCE, _BUFFER_BYTES)
        sock.bind((address, port))
    except OSError:
        sock.close()
        raise
    return sock


def tcp_listener(address: str, port: int) -> socket.socket:
    sock = _socket(address, socket.SOCK_STREAM)
    try:
        # connections of a previous frontend may still exist
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def receive_marks(sock: socket.socket) -> None:
    """Have packets received with their mark (ancillary SO_MARK), which tells the uplink."""
    sock.setsockopt(socket.SOL_SOCKET, so.SO_RCVMARK, 1)


def listens(sock: socket.socket, transport: str, address: str) -> bool:
    """Whether a socket of another process may be one of those opened here."""
    if sock.family not in AF.values() or (transport == "udp") != (sock.type == socket.SOCK_DGRAM):
        return False
    if transport == "tcp" and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return False
    with suppress(OSError):  # before Linux 5.14 its network isn't known
        if netns.cookie(sock) != netns.cookie():
            return False
    return bool(sock.getsockname()[0] == address)


def discard(sock: socket.socket) -> None:
    """Close a socket of any kind at once: it may be set to linger, and has data that isn't ours."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    sock.close()


def set_aside(sock: socket.socket) -> socket.socket:
    """Give a socket a descriptor beyond those that select(2) takes: however many there are, the
    lower ones are left for libraries that use it, as libnftables does."""
    with suppress(OSError):  # so many aren't allowed
        fd = fcntl.fcntl(sock, fcntl.F_DUPFD_CLOEXEC, SELECT_MAX)
        with sock:
            sock = socket.socket(sock.family, sock.type, sock.proto, fd)
        sock.setblocking(False)
    return sock


def _socket(address: str, kind: int) -> socket.socket:
    family = family_of(address)
    sock = set_aside(socket.socket(AF[family], kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC))
    if family == 6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return sock


def holders(kind: str, addresses: Sequence[str], port: int) -> dict[str, str]:
    """The processes that use a port of these addresses, as "named (pid 123)", as far as they are
    found. `kind`: tcp, udp.

    Processes of other network namespaces, or whose files may not be read, aren't found."""
    sockets = dict(_inodes(kind, addresses, port)) if addresses else {}
    found: dict[str, str] = {}
    for inode, pid in owners(sockets):
        if name := "ifdefault" if is_dns_server(pid) else command_name(pid):
            found |= dict.fromkeys(sockets[inode], f"{name} (pid {pid})")
    return found


def is_dns_server(pid: int) -> bool:
    """Whether a process is a DNS server of ours, by its command line."""
    with suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace")
        return any(name in command for name in DNS_SERVER)
    return False


def _inodes(
    kind: str, addresses: Sequence[str], port: int
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The inodes of the sockets that are bound to the port and to some of these
    addresses or the wildcard address; proc(5), /proc/net/tcp."""
    by_packed = {packed(address): address for address in addresses}
    for family, table in ((4, kind), (6, f"{kind}6")):
        # a dual-stack socket on the wildcard address has both
        all_of = tuple(a for a in addresses if family == 6 or family_of(a) == family)
        with suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text("ascii", "replace").splitlines()[1:]:
                _, local, _, state, *_, inode = line.split()[:10]
                bound, _, bound_port = local.partition(":")
                listens = kind == "udp" or state == "0A"  # TCP_LISTEN
                if listens and int(bound_port, 16) == port:
                    raw = _bound_to(bound)
                    own = (by_packed[raw],) if raw in by_packed else ()
                    yield int(inode), own if any(raw) else all_of


def _bound_to(bound: str) -> bytes:
    """The packed address of a socket, which is hexadecimal, in words of the host's byte order."""
    data = bytes.fromhex(bound)
    words = [data[at : at + 4][::-1] for at in range(0, len(data), 4)]
    return b"".join(words).removeprefix(MAPPED)
