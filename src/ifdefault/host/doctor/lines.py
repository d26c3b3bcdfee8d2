"""The lines that can be tried: each usable uplink in each family that it has an address of."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from threading import Thread

from ifdefault.host.doctor.links import macs
from ifdefault.host.doctor.ways import Line
from ifdefault.kernel import packet_sockets
from ifdefault.model.address import family_of, is_address
from ifdefault.model.config import FAMILIES, Config, Family
from ifdefault.model.health import Way
from ifdefault.model.kernel import Facts, Uplink
from ifdefault.plan.prepare import Prepared

_RESOLVE_S = 2.0
_RTAX_MTU = 2  # linux/rtnetlink.h
_LINK, _HOST = 253, 254  # scopes of addresses
_USUAL_MTU = 1500


def lines(prepared: Prepared) -> tuple[list[Line], list[Line]]:
    """Those with a default route; and those without one, though there are addresses."""
    config, facts = prepared.config, prepared.facts
    addresses = _resolved(config)
    complete: list[Line] = []
    lacking: list[Line] = []
    for uplink in prepared.uplinks:
        for family in FAMILIES:
            gateway, source = uplink.gateway(family), uplink.source(family)
            if gateway is not None and source:
                complete.append(_line(prepared, uplink, family, source, addresses))
            elif not uplink.pending and (own := _address(uplink, family)):
                lacking.append(_line(prepared, uplink, family, own, addresses))
    return complete, [line for line in lacking if line.mac and _has_link(facts, line.way.dev)]


def _line(
    prepared: Prepared,
    uplink: Uplink,
    family: Family,
    source: str,
    addresses: Mapping[str, Sequence[str]],
) -> Line:
    facts, dev = prepared.facts, uplink.interface
    mark = 0 if uplink.mechanism == "source" else uplink.arrival_mark
    found = [a for host in _hosts(prepared.config, uplink.name) for a in addresses[host]]
    return Line(
        Way(uplink.name, family, source, dev, mark),
        uplink.gateway(family) or "",
        macs(facts).get(dev, ""),
        next((a.address for a in facts.addresses if _is_link_local(a.dev, a.scope, dev)), ""),
        tuple(dict.fromkeys(a for a in found if family_of(a) == family)),
        _limit(prepared, uplink, family),
    )


def _is_link_local(on: str, scope: int, dev: str) -> bool:
    return on == dev and scope == _LINK


def _address(uplink: Uplink, family: Family) -> str:
    own = (a for a in uplink.addresses if a.family == family and not a.deprecated)
    return next((a.address for a in own if a.scope not in (_LINK, _HOST)), "")


def _has_link(facts: Facts, dev: str) -> bool:
    return any(link.name == dev and link.up and link.carrier for link in facts.links)


def _limit(prepared: Prepared, uplink: Uplink, family: Family) -> int:
    """The MTU of the interface, or of the route if that is less."""
    try:
        limit = packet_sockets.mtu(uplink.interface)
    except OSError:  # gone meanwhile
        limit = _USUAL_MTU
    for route in prepared.desired.routes:
        if (route.family, route.table, route.dst) == (family, uplink.table, "default"):
            limit = min(limit, dict(route.metrics).get(_RTAX_MTU) or limit)
    return limit


# --- targets ------------------------------------------------------------------------------


def _hosts(config: Config, name: str) -> list[str]:
    own = next(uplink.probes for uplink in config.uplinks if uplink.name == name)
    return [probe.host for probe in (config.health.probes if own is None else own)]


def _resolved(config: Config) -> dict[str, list[str]]:
    """The addresses of all targets; the system's resolver is given little time for names."""
    hosts = {host for uplink in config.uplinks for host in _hosts(config, uplink.name)}
    known: dict[str, list[str]] = {host: [host] if is_address(host) else [] for host in hosts}

    def ask(host: str) -> None:
        try:
            rows = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return
        known[host] = [str(address[0]) for *_, address in rows]

    _wait([Thread(target=ask, args=(host,), daemon=True) for host in hosts if not known[host]])
    return {host: list(addresses) for host, addresses in known.items()}


def _wait(threads: Iterable[Thread]) -> None:
    threads, deadline = list(threads), time.monotonic() + _RESOLVE_S
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
