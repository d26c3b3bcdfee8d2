"""What lies behind the host, and what goes out, as `status` shows it.

Rules: as in `paths`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ifdefault.cli.show.paths import age
from ifdefault.cli.show.table import table
from ifdefault.host.status_forward import Behind, Kept, ServerStatus, ServiceStatus
from ifdefault.plan.servers import Server, server_text

if TYPE_CHECKING:
    from ifdefault.daemon.status import CheckedServer, DaemonStatus

_MOST = 10  # services that are shown
_HEADS = ("Forwards", "To", "Weight", "State", "Since", "Refused", "Cause")


def lines(behind: Behind, standing: DaemonStatus | None) -> list[str]:
    """The services, those that want for a server first; then, a line each, what else there is."""
    return [*_services(behind, standing), *_outgoing(behind)]


def ails(behind: Behind) -> bool:
    """Whether somebody asks in vain."""
    return any(service.stranded for service in behind.services)


def _services(behind: Behind, standing: DaemonStatus | None) -> Iterator[str]:
    if not behind.services:
        return
    known = {(c.address, c.port): c for c in standing.servers} if standing else {}
    ailing = sorted(behind.services, key=_soundness)
    shown = ailing[:_MOST] if len(ailing) > _MOST else behind.services
    rows = [row for service in shown for row in _rows(service, known, standing)]
    yield from table(_HEADS, rows)
    if (rest := len(behind.services) - len(shown)) > 0:
        yield f"and {rest} more services"
    for stranded in (", ".join(service.stranded) for service in shown):
        if stranded:
            yield f"{stranded}: no content server is left"


def _soundness(service: ServiceStatus) -> int:
    if service.stranded:
        return 0
    return 2 - any(server.down for server in service.servers)


def _rows(
    service: ServiceStatus, known: Mapping[Server, CheckedServer], standing: DaemonStatus | None
) -> Iterator[Sequence[str]]:
    offered = f" on {', '.join(service.uplinks)}" if service.uplinks else ""
    title, refused = service.listen + offered, f"{service.refused} p" if service.refused else ""
    for server in service.servers:
        for place in server.checked or ((server.address, server.port),):
            told = known.get(place) if server.checked else None
            yield (
                title,
                server_text(place) if place[1] else place[0],
                str(server.weight) if server.weight else "drains",
                _state(server, place, told),
                age(standing.now_s - told.since_s) if told and standing else "",
                refused,
                told.cause if told else "",
            )
            title = refused = ""


def _state(server: ServerStatus, place: Server, told: CheckedServer | None) -> str:
    if told:
        return told.state
    if place in server.down:
        return "down"
    return "-" if server.checked else "unchecked"


def _outgoing(behind: Behind) -> Iterator[str]:
    for family, shares in behind.balance.items():
        told = ", ".join(f"{uplink} {percent} %" for uplink, percent in shares.items())
        yield f"balance {family}: {told}"
    if behind.masquerade:
        yield f"masqueraded: {', '.join(behind.masquerade)}"
    for kept in behind.kept:
        yield f"cgroup {kept.cgroup}: {_by_family(kept)}{', ifdefault exec' * kept.by_exec}"
    if behind.follows:
        yield "forwarded: answers leave by the uplink that the question came in on"


def _by_family(kept: Kept) -> str:
    four, six = kept.uplinks
    return four if four == six else f"IPv4 {four or 'any'}, IPv6 {six or 'any'}"
