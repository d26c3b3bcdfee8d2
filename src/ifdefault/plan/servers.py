"""Which content servers a service has, as `status` and the daemon tell of them.

Rules: a server is known by (address, port), as in `model.health.Decision.servers_down`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from ifdefault.model.address import family_of
from ifdefault.model.config import Family, ForwardConfig, ForwardServer, Ports
from ifdefault.plan import forward_table

Server = tuple[str, int]


def checks(forwards: Iterable[ForwardConfig]) -> dict[Server, str]:
    """What is to be checked, and how: "tcp", or the path to GET, which asks for more and so goes
    before it."""
    told = sorted(
        forward_table.checked_servers(forwards), key=lambda c: c.check == "tcp", reverse=True
    )
    return {(c.address, c.port): c.check for c in told}


def places(forward: ForwardConfig) -> list[Server]:
    """Where the servers of a service are checked."""
    return [(c.address, c.port) for c in forward_table.checked_servers([forward])]


def pool(forward: ForwardConfig, ports: Ports, family: Family) -> dict[Server, ForwardServer]:
    """Who has a share of the new connections in one family, by where it is checked."""
    mine = (c for c in forward.to if c.weight and family_of(c.address) == family)
    return {(c.address, forward_table.checked_port(ports, c)): c for c in mine}


def stranded(forward: ForwardConfig, down: Collection[Server]) -> Iterator[tuple[Ports, Family]]:
    """What of a service has servers, and none that is left."""
    families = sorted({family_of(c.address) for c in forward.to})
    for ports in forward.listen:
        for family in families:
            servers = pool(forward, ports, family)
            if servers and all(server in down for server in servers):
                yield ports, family


def title(forward: ForwardConfig) -> str:
    """What people call a service: "tcp:443, udp:443"."""
    return ", ".join(map(str, forward.listen))


def server_text(server: Server) -> str:
    address, port = server
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
