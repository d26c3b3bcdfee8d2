"""The servers of `[[forward]]` services, as `status` and the daemon report them.

Rules: a server is identified by (address, port) of its check, as in
`model.health.Decision.servers_down`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from ifdefault.model.address import family_of
from ifdefault.model.config import Family, ForwardConfig, ForwardServer, Ports
from ifdefault.plan import forward_table

Server = tuple[str, int]


def checks(forwards: Iterable[ForwardConfig]) -> dict[Server, str]:
    """The check of each server: "tcp", or the path to GET, which takes precedence as the stricter
    one."""
    checked = sorted(
        forward_table.checked_servers(forwards), key=lambda c: c.check == "tcp", reverse=True
    )
    return {(c.address, c.port): c.check for c in checked}


def checked_addresses(forward: ForwardConfig) -> list[Server]:
    """(address, port) of the checks of a service's servers."""
    return [(c.address, c.port) for c in forward_table.checked_servers([forward])]


def pool(forward: ForwardConfig, ports: Ports, family: Family) -> dict[Server, ForwardServer]:
    """The servers of one family that get new connections."""
    weighted = (s for s in forward.to if s.weight and family_of(s.address) == family)
    return {(s.address, forward_table.checked_port(ports, s)): s for s in weighted}


def without_servers(
    forward: ForwardConfig, down: Collection[Server]
) -> Iterator[tuple[Ports, Family]]:
    """The ports and families of a service all of whose servers are down."""
    families = sorted({family_of(c.address) for c in forward.to})
    for ports in forward.listen:
        for family in families:
            servers = pool(forward, ports, family)
            if servers and all(server in down for server in servers):
                yield ports, family


def title(forward: ForwardConfig) -> str:
    """A service's name for display: "tcp:443, udp:443"."""
    return ", ".join(map(str, forward.listen))


def server_text(server: Server) -> str:
    address, port = server
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
