"""The state of services, LANs and balancing.

Rules: as in `status`. Only the daemon checks servers, and its decision says which are down.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ifdefault.host import explain_forward
from ifdefault.kernel import nft
from ifdefault.model.config import FAMILIES, ForwardConfig
from ifdefault.model.kernel import FORWARD_TABLE
from ifdefault.plan import forward_table, servers
from ifdefault.plan.prepare import Prepared
from ifdefault.plan.servers import Server


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """A server; `port` 0 is the port that the client connected to."""

    address: str
    port: int
    weight: int
    checked: tuple[Server, ...]  # the addresses and ports that are checked
    down: tuple[Server, ...]  # those of them that are down


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    listen: str
    uplinks: tuple[str, ...]  # that offer it, () for all
    servers: tuple[ServerStatus, ...]
    refused: int  # connections, since the last change of the services
    stranded: tuple[str, ...]  # "tcp:443 IPv4": listeners without a server that is up


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """A control group, and the uplink that its processes use in each family, "" for none."""

    cgroup: str
    uplinks: tuple[str, ...]
    by_exec: bool


@dataclass(frozen=True, slots=True)
class ForwardStatus:
    services: tuple[ServiceStatus, ...] = ()
    follows: bool = False  # replies to forwarded connections leave by their arrival uplink
    balance: dict[str, dict[str, int]] = field(default_factory=dict)  # percent, by family
    masquerade: tuple[str, ...] = ()
    kept: tuple[ControlGroup, ...] = ()


def read_forward_status(prepared: Prepared) -> ForwardStatus:
    facts, hook = prepared.facts, prepared.desired.hook
    counters = nft.read_counters(FORWARD_TABLE) if FORWARD_TABLE in dict(facts.tables) else {}
    names = {u.outgoing_mark: u.name for u in prepared.uplinks}
    return ForwardStatus(
        services=tuple(
            _service(forward, counters.get(forward_table.refusals(n), (0, 0))[0], prepared)
            for n, forward in enumerate(prepared.config.forwards)
        ),
        follows=explain_forward.tracks_flows(prepared),
        balance={
            f"IPv{family}": {uplink.name: percent for uplink, percent in shares}
            for family in FAMILIES
            if (shares := explain_forward.shares(prepared, family))
        },
        masquerade=prepared.config.outgoing.masquerade,
        kept=tuple(
            ControlGroup(
                path, tuple(names.get(mark, "") for mark in marks), path in prepared.state.runs
            )
            for path, *marks in (hook.cgroups if hook else ())
        ),
    )


def _service(forward: ForwardConfig, refused: int, prepared: Prepared) -> ServiceStatus:
    down = frozenset(prepared.decision.servers_down)
    all_checked = servers.checked_addresses(forward)
    statuses = []
    for server in forward.to:
        checked = tuple(
            c for c in all_checked if c[0] == server.address and server.port in (0, c[1])
        )
        failed = tuple(c for c in checked if c in down)
        statuses.append(ServerStatus(server.address, server.port, server.weight, checked, failed))
    return ServiceStatus(
        listen=servers.title(forward),
        uplinks=forward.uplinks,
        servers=tuple(statuses),
        refused=refused,
        stranded=tuple(f"{ports} IPv{f}" for ports, f in servers.without_servers(forward, down)),
    )
