"""Routers on a LAN that several uplinks share: their MACs must be known before we plan.

Rules: the kernel resolves, by its own ARP and ND; we ask it to and wait, at most a second. A
daemon doesn't wait: it remembers, so that a router that died is still told apart.
"""

from __future__ import annotations

import time
from dataclasses import replace

from ifdefault.kernel.netlink import Netlink
from ifdefault.kernel.perform import resolve_neighbour
from ifdefault.kernel.read import read_links, read_neighbours
from ifdefault.model.config import Config
from ifdefault.model.kernel import Facts, Neighbour

_WAIT_S = 1.0
_STEP_S = 0.02


class RoutersSeen:
    """The MACs that the gateways of shared interfaces had last."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], Neighbour] = {}
        self._awaited: set[tuple[str, str]] = set()

    def completed(self, config: Config, facts: Facts) -> Facts:
        """Facts whose neighbours include these gateways, as the kernel knows or knew them."""
        gateways = _missing(config, facts, ())
        if not gateways:
            return facts  # no uplinks share an interface
        fresh = _missing(config, facts, facts.neighbours) - self.known.keys() - self._awaited
        if fresh:  # once each: there is nothing to remember yet
            self._awaited |= fresh
            facts = with_known_routers(config, facts)
        told = {(n.dev, n.address): n for n in facts.neighbours if n.mac}
        self.known |= {key: told[key] for key in gateways & told.keys()}
        missing = gateways - told.keys()
        _resolve(missing)
        lost = tuple(self.known[key] for key in sorted(missing & self.known.keys()))
        return replace(facts, neighbours=(*facts.neighbours, *lost))


def with_known_routers(config: Config, facts: Facts) -> Facts:
    """Facts whose neighbours include the gateways of shared interfaces, where they answer."""
    missing = _missing(config, facts, facts.neighbours)
    if not missing:
        return facts
    _resolve(missing)
    neighbours = facts.neighbours
    deadline = time.monotonic() + _WAIT_S
    with Netlink() as netlink:
        names = {link.index: link.name for link in read_links(netlink)}
        while missing - {(n.dev, n.address) for n in neighbours if n.mac}:
            if time.monotonic() > deadline:
                break
            time.sleep(_STEP_S)  # resolution is the kernel's; there is nothing else to do
            neighbours = read_neighbours(netlink, names)
    return replace(facts, neighbours=neighbours)


def _missing(config: Config, facts: Facts, known: tuple[Neighbour, ...]) -> set[tuple[str, str]]:
    """The gateways of shared interfaces, as (interface, address), whose MAC isn't among these."""
    interfaces = [u.interface for u in config.uplinks]
    there = {link.name for link in facts.links if link.up}
    return {
        (u.interface, gateway)
        for u in config.uplinks
        if interfaces.count(u.interface) > 1 and u.interface in there
        for gateway in u.gateways
    } - {(n.dev, n.address) for n in known if n.mac}


def _resolve(gateways: set[tuple[str, str]]) -> None:
    for dev, gateway in sorted(gateways):
        try:
            resolve_neighbour(gateway, dev)
        except (OSError, KeyError):
            continue  # the plan says what it lacks; KeyError: the interface has just gone
