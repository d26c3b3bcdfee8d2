"""Kills the outgoing connections of a dead uplink: TCP and connected UDP sockets, tracked flows.

Rules: outgoing connections only; inbound ones continue when the uplink recovers. A socket whose
local port has a listener is inbound; of UDP, where an unconnected socket has that port, as a QUIC
server's has. UDP sockets that aren't connected get their source with each packet, and need nothing.
Connections of other uplinks are never touched: the kernel's filter leaves out most sockets, and
those that it lists are compared with everything.
"""

from __future__ import annotations

import socket
from collections.abc import Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ifdefault.kernel import conntrack, sockdiag, socket_filter, sysctl
from ifdefault.kernel.netlink import Netlink
from ifdefault.kernel.socket_filter import Prefixes
from ifdefault.kernel.uapi import inet_diag as diag
from ifdefault.kernel.uapi.netlink import NETLINK_SOCK_DIAG

End = tuple[int, bytes]  # local port and address
Socket = tuple[int, bytes]  # protocol, and its message of sock_diag
_EPHEMERAL = "net/ipv4/ip_local_port_range"  # IPv6's too
_PORTS_MAX = 500  # listening ports in the kernel's filter


@dataclass(frozen=True, slots=True)
class Killed:
    """How many were killed; `flows` is by how many entries the conntrack table shrank meanwhile."""

    sockets: int = 0  # of TCP
    flows: int = 0
    udp_sockets: int = 0


def kill(
    addresses: Sequence[str],
    marks: Sequence[int] = (),
    mask: int = 0,
    spared: Sequence[str] = (),
    others: Sequence[str] = (),
) -> Killed:
    """Destroy the outgoing sockets and delete the tracked flows that have one of these source
    addresses, or one of `marks` under `mask`. Programs get ECONNABORTED; those that send over a
    UDP socket before they receive get EDESTADDRREQ.

    `spared`: prefixes that are reached without the uplink (the host's own addresses, its LANs);
    sockets connected to them are kept. Link-local addresses are ignored, since another link may
    have the same one. `others`: addresses of other uplinks, the one with the most flows first.
    Raises ValueError if a mark is 0 or has bits outside `mask`.
    """
    if any(not mark or mark & ~mask for mark in marks):
        raise ValueError("a mark is 0, or has bits outside the mask")
    addresses = [address for address in addresses if not address.startswith("fe80:")]
    if not addresses and not marks:
        return Killed()
    with ThreadPoolExecutor(1) as executor:
        flows = executor.submit(conntrack.delete_outgoing, addresses, marks, mask, others)
        with Netlink(NETLINK_SOCK_DIAG) as netlink:
            sockets = outgoing_sockets(netlink, addresses, marks, mask, spared)
            tcp, udp = destroy(netlink, sockets)
        return Killed(tcp, flows.result(), udp)


def outgoing_sockets(
    netlink: Netlink,
    addresses: Sequence[str],
    marks: Sequence[int],
    mask: int,
    spared: Sequence[str] = (),
) -> list[Socket]:
    """The sockets that `kill` destroys."""
    own, kept = Prefixes(addresses), Prefixes(spared)

    def program(servers: set[End]) -> bytes:
        wildcard = sorted(port for port, source in servers if source == sockdiag.WILDCARD)
        return socket_filter.program(
            [*own.sources(), *(socket_filter.is_marked(mark, mask) for mark in marks)],
            [
                *(socket_filter.is_from_port(port) for port in wildcard[:_PORTS_MAX]),
                *kept.destinations(),
            ],
        )

    def is_outgoing(message: bytes, servers: set[End]) -> bool:
        port, source = _end(message)
        return (
            servers.isdisjoint(((port, source), (port, sockdiag.WILDCARD)))
            and (source in own or sockdiag.mark(message) & mask in marks)
            and sockdiag.remote_address(message) not in kept
        )

    servers = {_end(message) for message in _tcp(netlink, (diag.TCP_LISTEN,))}
    connected = _tcp(netlink, sockdiag.CONNECTED, program(servers))
    tcp = [(socket.IPPROTO_TCP, m) for m in connected if is_outgoing(m, servers)]
    servers = {_end(message) for message in _udp(netlink, diag.TCP_CLOSE)}
    connected = _udp(netlink, diag.TCP_ESTABLISHED, program(servers))
    ports = _ephemeral_ports()
    udp = [m for m in connected if is_outgoing(m, servers) and _may_move(m, ports)]
    return tcp + [(socket.IPPROTO_UDP, m) for m in udp]


def destroy(netlink: Netlink, sockets: Sequence[Socket]) -> tuple[int, int]:
    """How many TCP and UDP sockets were destroyed."""
    tcp, udp = (
        netlink.change_many(
            diag.SOCK_DESTROY,
            [sockdiag.query_one(m, protocol=protocol) for kind, m in sockets if kind == protocol],
        )
        for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP)
    )
    return tcp, udp


def _tcp(netlink: Netlink, states: Sequence[int], program: bytes = b"") -> list[bytes]:
    return netlink.dump(diag.TCPDIAG_GETSOCK, sockdiag.query_both(states, program))


def _udp(netlink: Netlink, state: int, program: bytes = b"") -> list[bytes]:
    return [*sockdiag.listed(netlink, socket.IPPROTO_UDP, state, program)]


def _ephemeral_ports() -> range:
    """The ports that the kernel chooses."""
    first, _, last = (sysctl.read(_EPHEMERAL) or "0 65535").partition(" ")
    return range(int(first), int(last) + 1)


def _may_move(message: bytes, ephemeral: Container[int]) -> bool:
    """Whether a UDP socket is neither bound to an interface nor to a port of its program's choice:
    DHCP clients and tunnels of the kernel (L2TP, FOU) are, and keep to their address."""
    is_bound = sockdiag.is_bound_to_interface(message)
    return not is_bound and sockdiag.local_port(message) in ephemeral


def _end(message: bytes) -> End:
    return sockdiag.local_port(message), sockdiag.local_address(message)
