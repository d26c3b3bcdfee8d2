"""Which addresses MPTCP announces, from the decision.

Rules: pure. An uplink that works has an endpoint for each family, one that is down has none: its
peers are told, and go on by another. Whatever comes second is `backup`. Behind a NAT peers are told
the public address; the endpoint of the address that the host itself has makes the kernel end and
mark the subflows there. Others' endpoints are left alone, and have precedence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ifdefault.model.address import is_private
from ifdefault.model.config import FAMILIES, Config, Family, MptcpConfig
from ifdefault.model.errors import Problem
from ifdefault.model.health import Decision
from ifdefault.model.kernel import Facts, Uplink
from ifdefault.model.mptcp import (
    ACCEPTED,
    ENDPOINTS_MAX,
    SUBFLOWS,
    Endpoint,
    MptcpLimits,
    MptcpState,
    endpoint_id,
)
from ifdefault.model.public_address import public_addresses

Discovered = tuple[tuple[str, Family, str], ...]  # (uplink, family, public address)


def limits(config: Config, facts: Facts) -> MptcpLimits:
    """As many subflows as there can be endpoints: of connections to the host, whose clients open
    them, and of its own, which may go to all addresses that a server announces."""
    if _state(config, facts) is None:
        return ()
    return ((ACCEPTED, ENDPOINTS_MAX), (SUBFLOWS, ENDPOINTS_MAX))


def endpoints(
    config: Config,
    facts: Facts,
    uplinks: Sequence[Uplink],
    decision: Decision,
    discovered: Discovered = (),
) -> tuple[Endpoint, ...]:
    """As many as the kernel takes: those that it has, as deleting one ends subflows that work; then
    the best."""
    if (state := _state(config, facts)) is None:
        return ()
    foreign = [e for e in state.endpoints if not e.ours and not e.implicit]
    taken = {endpoint.address for endpoint in foreign if not endpoint.port}
    wanted: list[Endpoint] = []
    for endpoint in _of_all(config, discovered, uplinks, decision):
        if endpoint.address not in taken:
            taken.add(endpoint.address)  # uplinks may share an address
            wanted.append(endpoint)
    present = {endpoint.id for endpoint in state.endpoints if endpoint.ours}
    wanted.sort(key=lambda endpoint: endpoint.id not in present)
    others = [
        e for e in state.endpoints if not e.ours and e not in foreign and e.address not in taken
    ]
    return tuple(wanted[: max(0, ENDPOINTS_MAX - len(foreign) - len(others))])


def lacks(config: Config, facts: Facts) -> Iterator[Problem]:
    """A warning where MPTCP isn't possible; everything else works."""
    if not config.mptcp.used:
        return
    where = "mptcp.announce" if config.mptcp.announce else "mptcp.outgoing"
    if facts.mptcp is None:
        what = "the kernel has no MPTCP; connections end with their uplink"
        yield Problem(where, what, "use a kernel with CONFIG_MPTCP", warning=True)
    elif not facts.mptcp.enabled:
        what = "MPTCP is switched off (net.mptcp.enabled=0); connections end with their uplink"
        yield Problem(where, what, "sysctl -w net.mptcp.enabled=1", warning=True)


def _state(config: Config, facts: Facts) -> MptcpState | None:
    """The kernel's, if MPTCP is to be used and it can."""
    state = facts.mptcp
    return state if config.mptcp.used and state is not None and state.enabled else None


def _of_all(
    config: Config,
    discovered: Discovered,
    uplinks: Sequence[Uplink],
    decision: Decision,
) -> list[Endpoint]:
    """Of every uplink that works, the best first."""
    found: list[tuple[bool, int, Endpoint]] = []
    by_name = {uplink.name: uplink for uplink in uplinks if not uplink.pending}
    public = {uplink.name: uplink.public for uplink in config.uplinks}
    seen = {
        name: public_addresses(
            uplink, public[name], {f: text for n, f, text in discovered if n == name}
        )
        for name, uplink in by_name.items()
    }
    for family in FAMILIES:
        usable, second = decision.usable_in(family), decision.backup_in(family)
        ranks = [by_name[n].rank for n in usable if n in by_name and n not in second]
        for place, name in enumerate(decision.ranking(family)):
            uplink = by_name.get(name)
            own = uplink and uplink.source(family)
            if uplink is None or not own or name not in (*usable, *second):
                continue
            backup = name in second or (bool(ranks) and uplink.rank > min(ranks))
            some = _of_uplink(config.mptcp, uplink.number, family, own, seen[name][family])
            found += [(backup, place, replace(endpoint, backup=backup)) for endpoint in some]
    found.sort(key=lambda row: row[:2])
    return [endpoint for _, _, endpoint in found]


def _of_uplink(
    config: MptcpConfig, number: int, family: Family, own: str, seen: str
) -> Iterator[Endpoint]:
    announced = config.announce and bool(seen) and not is_private(seen)
    signal = announced and seen == own
    yield Endpoint(endpoint_id(number, family), own, signal=signal, subflow=config.outgoing)
    if announced and seen != own:
        yield Endpoint(endpoint_id(number, family, public=True), seen, signal=True)
