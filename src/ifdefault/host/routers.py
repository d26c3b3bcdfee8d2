"""MAC addresses of the routers on a LAN that several uplinks share, needed for planning, and of
those among which the kernel has several defaults.

Rules: the kernel resolves them by ARP and ND; it is asked to, and waited for, at most a second. The
daemon doesn't wait: it remembers them, so that a dead router can still be told from the others. Of
several defaults nothing is remembered: what counts is which router answers now.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Set
from dataclasses import replace

from ifdefault.kernel.netlink import Netlink
from ifdefault.kernel.perform import resolve_neighbour, verify_neighbour
from ifdefault.kernel.read import read_links, read_neighbours
from ifdefault.model.address import family_of
from ifdefault.model.config import Config
from ifdefault.model.kernel import Facts, Neighbour
from ifdefault.plan.kernel_default import alternatives

_WAIT_S = 1.0
_STEP_S = 0.02


class RoutersSeen:
    """The last known MAC addresses of the gateways of shared interfaces."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], Neighbour] = {}
        self._awaited: set[tuple[str, str]] = set()
        self._silent: Set[tuple[str, str]] = frozenset()  # alternatives, at the last look

    def completed(self, config: Config, facts: Facts) -> Facts:
        """Facts whose neighbours include these gateways, as currently or last known."""
        facts = self._with_alternatives(config, facts)
        gateways = _missing(config, facts, ())
        if not gateways:
            return facts  # no uplinks share an interface
        fresh = _missing(config, facts, facts.neighbours) - self.known.keys() - self._awaited
        if fresh:  # wait once for each: none is remembered yet
            self._awaited |= fresh
            facts = with_known_routers(config, facts)
        resolved = {(n.dev, n.address): n for n in facts.neighbours if n.mac}
        self.known |= {key: resolved[key] for key in gateways & resolved.keys()}
        missing = gateways - resolved.keys()
        _ask(resolve_neighbour, missing)
        remembered = tuple(self.known[key] for key in sorted(missing & self.known.keys()))
        return replace(facts, neighbours=(*facts.neighbours, *remembered))

    def _with_alternatives(self, config: Config, facts: Facts) -> Facts:
        """Facts in which routers of alternative defaults that don't answer are neighbours without
        MAC. One that was silent at the last look has to answer us: a packet from it, which tells
        its MAC, doesn't show that it receives ours. The kernel deletes silent neighbours."""
        routers = alternatives(facts, {u.interface for u in config.uplinks})
        known = {(n.dev, n.address): n for n in facts.neighbours}
        resolved = {key for key in routers & known.keys() if known[key].mac}
        doubtful = {key for key in resolved & self._silent if not known[key].confirmed}
        silent = routers - resolved | doubtful
        _ask(verify_neighbour, doubtful)
        _ask(resolve_neighbour, silent - doubtful)
        unresolved = {
            (dev, gateway): Neighbour(family_of(gateway), dev, gateway)
            for dev, gateway in sorted(self._silent & silent)
        }
        self._silent = silent
        if not unresolved:
            return facts
        return replace(facts, neighbours=tuple((known | unresolved).values()))


def with_known_routers(config: Config, facts: Facts) -> Facts:
    """Facts whose neighbours include the gateways of shared interfaces, where they answer."""
    missing = _missing(config, facts, facts.neighbours)
    if not missing:
        return facts
    _ask(resolve_neighbour, missing)
    neighbours = facts.neighbours
    deadline = time.monotonic() + _WAIT_S
    with Netlink() as netlink:
        names = {link.index: link.name for link in read_links(netlink)}
        while missing - {(n.dev, n.address) for n in neighbours if n.mac}:
            if time.monotonic() > deadline:
                break
            time.sleep(_STEP_S)  # the kernel resolves; there is nothing to wait on
            neighbours = read_neighbours(netlink, names)
    return replace(facts, neighbours=neighbours)


def _missing(config: Config, facts: Facts, known: tuple[Neighbour, ...]) -> set[tuple[str, str]]:
    """The gateways of shared interfaces, as (interface, address), without a known MAC address."""
    interfaces = [u.interface for u in config.uplinks]
    up = {link.name for link in facts.links if link.up}
    return {
        (u.interface, gateway)
        for u in config.uplinks
        if interfaces.count(u.interface) > 1 and u.interface in up
        for gateway in u.gateways
    } - {(n.dev, n.address) for n in known if n.mac}


def _ask(ask: Callable[[str, str], None], gateways: Set[tuple[str, str]]) -> None:
    for dev, gateway in sorted(gateways):
        try:
            ask(gateway, dev)
        except OSError:
            continue  # planning reports what is missing
