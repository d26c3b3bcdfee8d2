"""What MPTCP (RFC 8684) does for the host's connections: the addresses that are announced to their
peers, and how many connections could go on over another uplink.

Rules: reads only; nothing is counted unless `[mptcp] announce` is on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ifdefault.kernel.mptcp_connections import MptcpCount, count_mptcp
from ifdefault.model.address import family_of
from ifdefault.model.config import Family
from ifdefault.model.mptcp import uplink_number
from ifdefault.plan.prepare import Prepared


@dataclass(frozen=True, slots=True)
class Announced:
    """An address that peers are told of. `backup`: they use it where no other works."""

    uplink: str
    family: Family
    address: str
    backup: bool = False


@dataclass(frozen=True, slots=True)
class MptcpStatus:
    """`count`: None if this process may not count."""

    announced: tuple[Announced, ...] = ()
    count: MptcpCount | None = None


def read_mptcp_status(
    prepared: Prepared, down: Collection[tuple[str, Family]], *, rights: bool
) -> MptcpStatus | None:
    """None if nothing is to be announced. `down`: uplinks that don't work in a family."""
    if not prepared.config.mptcp.announce:
        return None
    found = tuple(announced(prepared))
    if not rights:
        return MptcpStatus(found)
    addresses = [(u.name, a) for u in prepared.uplinks for a in u.addresses]
    owners = {a.address: name for name, a in addresses}
    idle = {a.address for name, a in addresses if (name, a.family) in down}
    return MptcpStatus(found, count_mptcp(owners, idle))


def announced(prepared: Prepared) -> Iterator[Announced]:
    """As it is in the kernel, in the order of the config."""
    mptcp = prepared.facts.mptcp
    if mptcp is None or not mptcp.enabled:
        return
    endpoints = sorted(
        (e for e in mptcp.endpoints if e.ours and e.signal), key=lambda e: family_of(e.address)
    )
    for uplink in prepared.uplinks:
        for e in endpoints:
            if uplink_number(e.id) == uplink.number:
                yield Announced(uplink.name, family_of(e.address), e.address, e.backup)


def announced_text(prepared: Prepared, address: str, family: Family) -> str:
    """What peers of a connection from or to an address are told; "" if nothing is announced."""
    owner = next((u for u in prepared.uplinks if address in {a.address for a in u.addresses}), None)
    if not prepared.config.mptcp.announce or owner is None:
        return ""
    for found in announced(prepared):
        if (found.uplink, found.family) == (owner.name, family):
            return f"{found.address} is announced{' as backup' if found.backup else ''}"
    return f"no IPv{family} address of {owner.name} is announced"
