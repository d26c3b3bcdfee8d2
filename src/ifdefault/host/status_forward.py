"""How what lies behind the host stands, and what goes out: services, LANs, the balance.

Rules: as in `status`. Whether a content server answers only a daemon knows, by whose decision some
are down.
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
    """A content server; `port` 0 is that which the client asked for."""

    address: str
    port: int
    weight: int
    checked: tuple[Server, ...]  # where it is asked whether it is there
    down: tuple[Server, ...]  # those of them that don't answer


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    listen: str
    uplinks: tuple[str, ...]  # that it is offered on, () for all
    servers: tuple[ServerStatus, ...]
    refused: int  # connections, since the services changed last
    stranded: tuple[str, ...]  # "tcp:443 IPv4": what no server is left for


@dataclass(frozen=True, slots=True)
class Kept:
    """A control group whose processes keep to an uplink in each family, "" for none."""

    cgroup: str
    uplinks: tuple[str, ...]
    by_exec: bool


@dataclass(frozen=True, slots=True)
class Behind:
    services: tuple[ServiceStatus, ...] = ()
    follows: bool = False  # answers to what is forwarded leave by the uplink that it came in over
    balance: dict[str, dict[str, int]] = field(default_factory=dict)  # percent, by family
    masquerade: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = ()


def read_behind(prepared: Prepared) -> Behind:
    facts, hook = prepared.facts, prepared.desired.hook
    counters = nft.read_counters(FORWARD_TABLE) if FORWARD_TABLE in dict(facts.tables) else {}
    names = {u.outgoing_mark: u.name for u in prepared.uplinks}
    return Behind(
        services=tuple(
            _service(forward, counters.get(forward_table.refusals(n), (0, 0))[0], prepared)
            for n, forward in enumerate(prepared.config.forwards)
        ),
        follows=explain_forward.follows(prepared),
        balance={
            f"IPv{family}": {uplink.name: percent for uplink, percent in shares}
            for family in FAMILIES
            if (shares := explain_forward.shares(prepared, family))
        },
        masquerade=prepared.config.outgoing.masquerade,
        kept=tuple(
            Kept(path, tuple(names.get(mark, "") for mark in marks), path in prepared.state.runs)
            for path, *marks in (hook.cgroups if hook else ())
        ),
    )


def _service(forward: ForwardConfig, refused: int, prepared: Prepared) -> ServiceStatus:
    down = frozenset(prepared.decision.servers_down)
    places = servers.checked_addresses(forward)
    shown = []
    for content in forward.to:
        checked = tuple(p for p in places if p[0] == content.address and content.port in (0, p[1]))
        lost = tuple(server for server in checked if server in down)
        shown.append(ServerStatus(content.address, content.port, content.weight, checked, lost))
    return ServiceStatus(
        listen=servers.title(forward),
        uplinks=forward.uplinks,
        servers=tuple(shown),
        refused=refused,
        stranded=tuple(f"{ports} IPv{f}" for ports, f in servers.without_servers(forward, down)),
    )
