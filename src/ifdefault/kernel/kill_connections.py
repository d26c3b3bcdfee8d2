"""Lets go of what hangs on a dead uplink: its outgoing TCP sockets and tracked flows.

Rules: outgoing alone; inbound connections are left to return with the uplink. A socket whose local
port has a listener is inbound. What is another uplink's is never touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ifdefault.kernel import conntrack, sockdiag
from ifdefault.kernel.netlink import Netlink
from ifdefault.kernel.uapi import inet_diag as diag
from ifdefault.kernel.uapi.netlink import NETLINK_SOCK_DIAG

_PORTS_MAX = 500  # that the kernel is asked to look at; we look at all


@dataclass(frozen=True, slots=True)
class Freed:
    """How many went; `flows` as the table of tracked connections shrank meanwhile."""

    sockets: int = 0
    flows: int = 0


def free(
    addresses: Sequence[str],
    marks: Sequence[int] = (),
    mask: int = 0,
    spared: Sequence[str] = (),
    others: Sequence[str] = (),
) -> Freed:
    """Destroy the outgoing TCP sockets (their programs see ECONNABORTED) and delete the tracked
    flows that have one of these source addresses, or one of `marks` under `mask`.

    `spared`: prefixes that are reached without the uplink (the host's own addresses, its LANs);
    sockets connected to them stay. Link-local addresses are passed over, since the same one may be
    there on another link. `others`: addresses of other uplinks, that with the most flows first.
    """
    if any(not mark or mark & ~mask for mark in marks):
        raise ValueError("a mark of 0, or one with bits outside the mask, may be anybody's")
    addresses = [address for address in addresses if not address.startswith("fe80:")]
    if not addresses and not marks:
        return Freed()
    with ThreadPoolExecutor(1) as beside:
        flows = beside.submit(conntrack.forget_outgoing, addresses, marks, mask, others)
        return Freed(_destroy(addresses, marks, mask, spared), flows.result())


def _destroy(
    addresses: Sequence[str], marks: Sequence[int], mask: int, spared: Sequence[str]
) -> int:
    with Netlink(NETLINK_SOCK_DIAG) as netlink:
        listeners = {_end(message) for message in _dump(netlink, (diag.TCP_LISTEN,))}
        anywhere = sorted(port for port, source in listeners if source == sockdiag.ANYWHERE)
        program = sockdiag.program(
            [
                *(sockdiag.is_from(address) for address in addresses),
                *(sockdiag.is_marked(mark, mask) for mark in marks),
            ],
            [
                *(sockdiag.is_from_port(port) for port in anywhere[:_PORTS_MAX]),
                *(sockdiag.is_to(prefix) for prefix in spared),
            ],
        )
        doomed = []
        for message in _dump(netlink, sockdiag.CONNECTED, program):
            port, source = _end(message)
            if listeners.isdisjoint(((port, source), (port, sockdiag.ANYWHERE))):
                doomed.append(sockdiag.one(message))
        return netlink.change_many(diag.SOCK_DESTROY, doomed)


def _dump(netlink: Netlink, states: Sequence[int], program: bytes = b"") -> list[bytes]:
    return netlink.dump(diag.TCPDIAG_GETSOCK, sockdiag.query_both(states, program))


def _end(message: bytes) -> tuple[int, bytes]:
    return sockdiag.local_port(message), sockdiag.local_address(message)
