"""Has WireGuard reach its peers by the uplinks that the rules select now.

Rules: WireGuard keeps the address from which it last reached a peer: for 15 s without an answer,
and as long as there are answers. Which address that is can't be read, so each peer that is reached
by an uplink is set anew; where several uplinks work, only those that this host seems to dial
(`Peer.is_dialled`): others are answered from the address that they dialled. Tunnels that a mark or
a rule binds to an uplink find the same one again.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ifdefault.daemon.controller.effects import MoveTunnels
from ifdefault.kernel import wireguard
from ifdefault.kernel.netlink import Netlink
from ifdefault.kernel.read import read_links
from ifdefault.kernel.route_get import route_get_many
from ifdefault.kernel.wireguard import Peer
from ifdefault.model.address import family_of
from ifdefault.model.errors import reason
from ifdefault.model.flow import Flow
from ifdefault.model.kernel import Link

_SESSION_S = 180  # how long its keys are valid: REJECT_AFTER_TIME of WireGuard's paper, 6.1


@dataclass(frozen=True, slots=True)
class Moved:
    """How many peers of a tunnel an uplink reaches now, or why wg failed."""

    tunnel: str
    uplink: str = ""
    peers: int = 0
    error: str = ""


def move(effect: MoveTunnels) -> Iterator[Moved]:
    with Netlink() as netlink:
        links = read_links(netlink)
    if wireguard.program() is None:
        return
    for tunnel in wireguard.tunnels(links):
        try:
            yield from _move(tunnel, effect, links)
        except OSError as error:
            yield Moved(tunnel, error=reason(error))


def _move(tunnel: str, effect: MoveTunnels, links: Sequence[Link]) -> Iterator[Moved]:
    uplinks = dict(to_move(effect, wireguard.peers(tunnel), links))
    now_s = time.time()
    # without a session a keepalive would begin one: with clients that have long been gone, too
    greeted = {p for p in uplinks if p.keepalive_s or now_s - p.handshake_s < _SESSION_S}
    wireguard.change(tunnel, [wireguard.set_anew(p, greet=p in greeted) for p in uplinks])
    for uplink, count in sorted(Counter(uplinks.values()).items()):
        yield Moved(tunnel, uplink, count)


def to_move(
    effect: MoveTunnels, peers: Sequence[Peer], links: Sequence[Link]
) -> Iterator[tuple[Peer, str]]:
    """Peers, and the uplinks that they are reached by."""
    peers = [peer for peer in peers if "%" not in peer.address]
    flows = [
        Flow(
            family_of(peer.address),
            peer.address,
            mark=peer.mark,
            ip_proto=socket.IPPROTO_UDP,
            sport=peer.own_port,
            dport=peer.port,
        )
        for peer in peers
    ]
    uplinks = dict(reversed(effect.uplinks))
    for peer, flow, reply in zip(peers, flows, route_get_many(flows, links), strict=True):
        uplink = uplinks.get(reply.dev)
        # a tunnel may be an uplink itself, but never its own
        if not uplink or reply.dev == peer.tunnel:
            continue
        if peer.is_dialled or flow.family in effect.alone:
            yield peer, uplink
