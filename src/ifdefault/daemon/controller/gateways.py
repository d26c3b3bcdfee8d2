"""The gateways of the uplinks: which they are, at which MAC address, and who is told of a change.

Rules: any host on an uplink's link can advertise itself as a router, or answer ARP for one, and can
do so many times a second. So each change is logged, but those of one uplink at most once a minute,
and neighbours that aren't routers of ours never lead to a plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from ifdefault.daemon.controller.effects import Effect, Log
from ifdefault.model.config import FAMILIES, Config, Family
from ifdefault.model.kernel import Facts, Uplink
from ifdefault.model.kernel_events import NeighbourChanged

AGAIN_S = 60.0


@dataclass(slots=True)
class _Gateway:
    """As logged last. `mac`: "" while it is unknown."""

    address: str
    mac: str = ""
    logged_s: float = -inf


class Gateways:
    def __init__(self, out: list[Effect]) -> None:
        self._out = out
        self._known: dict[tuple[str, Family], _Gateway] = {}
        self._routers: frozenset[tuple[str, str]] = frozenset()  # interface, address

    def update(self, now: float, config: Config, uplinks: Sequence[Uplink], facts: Facts) -> None:
        """Log what has changed."""
        configured = {(u.interface, g) for u in config.uplinks for g in u.gateways}
        found = {
            (u.interface, address)
            for u in uplinks
            for address in (*(g for _, g in u.gateways), *u.routers)
        }
        self._routers = frozenset(configured | found)
        macs = {(n.dev, n.address): n.mac for n in facts.neighbours if n.mac}
        names = {u.name for u in uplinks}
        self._known = {key: known for key, known in self._known.items() if key[0] in names}
        for uplink in uplinks:
            for family in FAMILIES:
                if address := uplink.gateway(family):
                    mac = macs.get((uplink.interface, address), "")
                    self._update(now, uplink.name, family, address, mac)

    def _update(self, now: float, uplink: str, family: Family, address: str, mac: str) -> None:
        known = self._known.setdefault((uplink, family), _Gateway(address, mac))
        if address == known.address and not known.mac:
            known.mac = mac
        moved = address != known.address
        if (not moved and mac in ("", known.mac)) or now < known.logged_s + AGAIN_S:
            return
        if moved:
            text = f"{uplink} IPv{family}: gateway {known.address} -> {address}"
        else:
            text = f"{uplink} IPv{family}: gateway {address} was at {known.mac}, is at {mac}"
        self._out.append(Log("gateway", text, uplink))
        self._known[uplink, family] = _Gateway(address, mac, now)

    def concern_plan(self, event: NeighbourChanged) -> bool:
        """Whether a plan may depend on it: a MAC may identify an uplink, and a gateway that failed
        may be replaced by another router."""
        changed = bool(event.mac) or event.reachable is False
        return changed and (event.dev, event.address) in self._routers
