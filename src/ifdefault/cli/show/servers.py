"""Services and their servers, balancing and LANs, as `status` shows them.

Rules: as in `paths`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ifdefault.cli.show.style import Line
from ifdefault.cli.show.table import table
from ifdefault.host.status_forward import ControlGroup, ForwardStatus, ServerStatus, ServiceStatus
from ifdefault.model.report_text import age
from ifdefault.plan.servers import Server, server_text

if TYPE_CHECKING:
    from ifdefault.model.report import CheckedServer, DaemonStatus

_MOST = 10  # services that are shown
_HEADS = ("Forwards", "To", "Weight", "State", "Since", "Cause")


def lines(forward: ForwardStatus, status: DaemonStatus | None) -> list[str]:
    """The services, then a line each for balancing, LANs and control groups."""
    return [*_services(forward, status), *_outgoing(forward)]


def has_problem(forward: ForwardStatus) -> bool:
    """Whether a service has no server that is up."""
    return any(service.stranded for service in forward.services)


def _services(forward: ForwardStatus, status: DaemonStatus | None) -> Iterator[str]:
    if not forward.services:
        return
    known = {(c.address, c.port): c for c in status.servers} if status else {}
    worst_first = sorted(forward.services, key=_severity)
    shown = worst_first[:_MOST] if len(worst_first) > _MOST else forward.services
    rows = [row for service in shown for row in _rows(service, known, status)]
    yield from table(_HEADS, rows)
    if (rest := len(forward.services) - len(shown)) > 0:
        yield f"and {rest} more services"
    for service in shown:
        yield from _remarks(service)


def _remarks(service: ServiceStatus) -> Iterator[str]:
    if service.uplinks:
        yield f"{service.listen}: offered on {', '.join(service.uplinks)} only"
    if service.refused:
        yield f"{service.listen}: {service.refused} connections refused"
    if service.stranded:
        yield Line(f"{', '.join(service.stranded)}: no server is up", "bad")


def _severity(service: ServiceStatus) -> int:
    if service.stranded:
        return 0
    return 2 - any(server.down for server in service.servers)


def _rows(
    service: ServiceStatus, known: Mapping[Server, CheckedServer], status: DaemonStatus | None
) -> Iterator[Sequence[str]]:
    for server in service.servers:
        for target in server.checked or ((server.address, server.port),):
            checked = known.get(target) if server.checked else None
            yield (
                service.listen,
                server_text(target) if target[1] else target[0],
                str(server.weight) if server.weight else "drains",
                _state(server, target, checked),
                age(status.now_s - checked.since_s) if checked and status else "",
                checked.cause if checked else "",
            )


def _state(server: ServerStatus, target: Server, checked: CheckedServer | None) -> str:
    if checked:
        return checked.state
    if target in server.down:
        return "down"
    return "-" if server.checked else "unchecked"


def _outgoing(forward: ForwardStatus) -> Iterator[str]:
    for family, shares in forward.balance.items():
        percentages = ", ".join(f"{uplink} {percent} %" for uplink, percent in shares.items())
        yield f"balance {family}: {percentages}"
    if forward.masquerade:
        yield f"masqueraded: {', '.join(forward.masquerade)}"
    for group in forward.kept:
        by_exec = ", ifdefault exec" * group.by_exec
        yield f"cgroup {group.cgroup}: {_by_family(group)}{by_exec}"
    if forward.follows:
        yield "forwarded: replies leave by the uplink that the connection came in on"


def _by_family(group: ControlGroup) -> str:
    four, six = group.uplinks
    return four if four == six else f"IPv4 {four or 'any'}, IPv6 {six or 'any'}"
