"""Routers on a LAN that several uplinks share: their MACs must be known before we plan.

Rules: the kernel resolves, by its own ARP and ND; we ask it to and wait, at most a second.
"""

from __future__ import annotations

import time
from dataclasses import replace

from ifdefault.kernel.netlink import Netlink
from ifdefault.kernel.perform import resolve_neighbour
from ifdefault.kernel.read import read_links, read_neighbours
from ifdefault.model import Config, Facts

_WAIT_S = 1.0
_STEP_S = 0.02


def with_known_routers(config: Config, facts: Facts) -> Facts:
    """Facts whose neighbours include the gateways of shared interfaces, where they answer."""
    interfaces = [u.interface for u in config.uplinks]
    there = {link.name for link in facts.links if link.up}
    missing = {
        (u.interface, gateway)
        for u in config.uplinks
        if interfaces.count(u.interface) > 1 and u.interface in there
        for gateway in u.gateways
    } - {(n.dev, n.address) for n in facts.neighbours if n.mac}
    if not missing:
        return facts
    for dev, gateway in sorted(missing):
        try:
            resolve_neighbour(gateway, dev)
        except OSError:
            continue  # the plan says what it lacks
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
