"""Kills the outgoing connections of a dead uplink: TCP sockets and tracked flows.

Rules: outgoing connections only; inbound ones continue when the uplink recovers. A socket whose
local port has a listener is inbound. Connections of other uplinks are never touched: the kernel's
filter leaves out most sockets, and those that it lists are compared with everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ifdefault.kernel import conntrack, sockdiag, socket_filter
from ifdefault.kernel.netlink import Netlink
from ifdefault.kernel.socket_filter import Prefixes
from ifdefault.kernel.uapi import inet_diag as diag
from ifdefault.kernel.uapi.netlink import NETLINK_SOCK_DIAG

_PORTS_MAX = 500  # listening ports in the kernel's filter


@dataclass(frozen=True, slots=True)
class Killed:
    """How many were killed; `flows` is by how many entries the conntrack table shrank meanwhile."""

    sockets: int = 0
    flows: int = 0


def kill(
    addresses: Sequence[str],
    marks: Sequence[int] = (),
    mask: int = 0,
    spared: Sequence[str] = (),
    others: Sequence[str] = (),
) -> Killed:
    """Destroy the outgoing TCP sockets (their programs get ECONNABORTED) and delete the tracked
    flows that have one of these source addresses, or one of `marks` under `mask`.

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
        return Killed(_destroy(addresses, marks, mask, spared), flows.result())


def _destroy(
    addresses: Sequence[str], marks: Sequence[int], mask: int, spared: Sequence[str]
) -> int:
    own, kept = Prefixes(addresses), Prefixes(spared)
    with Netlink(NETLINK_SOCK_DIAG) as netlink:
        listeners = {_end(message) for message in _dump(netlink, (diag.TCP_LISTEN,))}
        wildcard = sorted(port for port, source in listeners if source == sockdiag.WILDCARD)
        program = socket_filter.program(
            [*own.sources(), *(socket_filter.is_marked(mark, mask) for mark in marks)],
            [
                *(socket_filter.is_from_port(port) for port in wildcard[:_PORTS_MAX]),
                *kept.destinations(),
            ],
        )
        outgoing = []
        for message in _dump(netlink, sockdiag.CONNECTED, program):
            port, source = _end(message)
            if (
                listeners.isdisjoint(((port, source), (port, sockdiag.WILDCARD)))
                and (source in own or sockdiag.mark(message) & mask in marks)
                and sockdiag.remote_address(message) not in kept
            ):
                outgoing.append(sockdiag.query_one(message))
        return netlink.change_many(diag.SOCK_DESTROY, outgoing)


def _dump(netlink: Netlink, states: Sequence[int], program: bytes = b"") -> list[bytes]:
    return netlink.dump(diag.TCPDIAG_GETSOCK, sockdiag.query_both(states, program))


def _end(message: bytes) -> tuple[int, bytes]:
    return sockdiag.local_port(message), sockdiag.local_address(message)
