"""What a path's probes are sent to, and from where, or why they can't be."""

from __future__ import annotations

from ifdefault.daemon.controller.effects import ProbeSource
from ifdefault.model.address import is_address
from ifdefault.model.config import Config, Family, Probe
from ifdefault.model.kernel import Link, Uplink
from ifdefault.model.kernel_events import LinkChanged


def probe_targets(config: Config, name: str, family: Family) -> tuple[Probe, ...]:
    """The uplink's own targets, or those of [health]: names, and addresses of this family."""
    own = next((u.probes for u in config.uplinks if u.name == name), None)
    probes = config.health.probes if own is None else own
    return tuple(p for p in probes if not is_address(p.host) or (":" in p.host) == (family == 6))


def probe_source(uplink: Uplink, family: Family, link: Link | None) -> ProbeSource | None:
    address, gateway = uplink.source(family), uplink.gateway(family)
    if uplink.pending or address is None or gateway is None or link is None:
        return None
    # there are rules for this mark only where addresses don't identify the uplink
    mark = 0 if uplink.mechanism == "source" else uplink.arrival_mark
    return ProbeSource(address, uplink.interface, link.index, mark, gateway)


def source_fault(uplink: Uplink, family: Family) -> str:
    """Why an uplink has no source for its probes."""
    if uplink.pending:
        return uplink.pending
    what = "default route" if any(a.family == family for a in uplink.addresses) else "address"
    return f"no IPv{family} {what} on {uplink.interface}"


def link_fault(name: str, link: Link | LinkChanged | None) -> str:
    """Why a link carries no packets, "" if it does."""
    if link is None:
        return f"interface {name} is gone"
    if not link.up:
        return f"interface {name} is down"
    return "" if link.carrier else "carrier lost"
