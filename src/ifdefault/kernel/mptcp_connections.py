"""The MPTCP connections (RFC 8684) among the established TCP connections of some addresses, and
which of them could go on over another uplink.

Rules: reads only, in one dump that the kernel filters. A subflow is a TCP socket that has the token
of its connection; a connection that fell back to TCP has none. Only root sees tokens. Of very many
sockets only some are read.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from itertools import islice

from ifdefault.kernel import sockdiag, socket_filter
from ifdefault.kernel.netlink import Netlink
from ifdefault.kernel.socket_filter import Prefixes
from ifdefault.kernel.uapi import inet_diag as diag
from ifdefault.kernel.uapi.netlink import NETLINK_SOCK_DIAG

MOST = 100_000  # sockets that are read


@dataclass(frozen=True, slots=True)
class MptcpCount:
    """`mptcp`: of the `connections`, those that use MPTCP; `redundant`: of them, those that have
    established subflows over several uplinks that work."""

    connections: int = 0
    mptcp: int = 0
    redundant: int = 0


def count_mptcp(
    owners: Mapping[str, str], down: Container[str] = (), most: int = MOST
) -> MptcpCount:
    """Count the connections of addresses, given with the uplink that owns each. `down`: addresses
    whose uplink doesn't work in their family, so that their subflows carry nothing."""
    own = Prefixes(owners)
    if not owners:
        return MptcpCount()
    program = socket_filter.program(own.sources(), ())
    # tokens come with INET_DIAG_INFO only (inet_sk_diag_fill())
    query = sockdiag.query_both((diag.TCP_ESTABLISHED,), program, diag.INET_DIAG_INFO)
    plain, over = 0, dict[bytes, set[bytes]]()
    with Netlink(NETLINK_SOCK_DIAG) as netlink:
        for message in islice(netlink.stream(diag.TCPDIAG_GETSOCK, query), most):
            address = sockdiag.local_address(message)
            if not own.few and address not in own:
                continue
            if token := sockdiag.mptcp_token(message):
                over.setdefault(token, set()).add(address)
            else:
                plain += 1
    redundant = sum(len(_uplinks(addresses, owners, down)) > 1 for addresses in over.values())
    return MptcpCount(plain + len(over), len(over), redundant)


def _uplinks(addresses: set[bytes], owners: Mapping[str, str], down: Container[str]) -> set[str]:
    texts = map(sockdiag.text, addresses)
    return {owners[text] for text in texts if text in owners and text not in down}
