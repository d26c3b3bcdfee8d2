"""An uplink in one family, tried by packets: its gateway, what is beyond it, and its path MTU.

Rules: blocking, for one thread; bounded by the times of `echo` and `neighbours`. A failure is
blamed on the nearest part that doesn't work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ifdefault.host.doctor import neighbours, path_mtu
from ifdefault.host.doctor.echo import Echo, Neighbour, Replies, exchange
from ifdefault.model.config import Family
from ifdefault.model.findings import Finding, Level
from ifdefault.model.health import Way

_MIN_LINK = 1280  # below, Linux has no IPv6 on a link
_INTERNET_MTU = 1500
_WITHIN_S = 2.4  # a slow line may need 1.2 s for a round trip


@dataclass(frozen=True, slots=True)
class Line:
    """What is known of a way before it is tried. `gateway` "": the link needs none. `mac`: the
    interface's, "" if it has none. `limit`: the largest packet that the link and the route take."""

    way: Way
    gateway: str
    mac: str
    link_local: str
    targets: tuple[str, ...]
    limit: int

    @property
    def subject(self) -> str:
        return subject(self.way.uplink, self.way.family)


@dataclass(slots=True)
class Tried:
    """`router`: to hand packets to, None if it doesn't answer; `answering`: targets with their
    round trip time, the fastest first."""

    line: Line
    findings: list[Finding] = field(default_factory=list)
    router: Neighbour | None = None
    answering: dict[str, float] = field(default_factory=dict)


def subject(uplink: str, family: Family) -> str:
    return f"{uplink} IPv{family}"


def try_line(line: Line) -> Tried:
    """Raises OSError where this process may not send."""
    tried = Tried(line)
    macs = _gateway_macs(line)
    replies = Replies()
    if line.targets:
        replies = exchange(line.way, map(Echo, line.targets), within_s=_WITHIN_S)
    tried.answering = replies.targets()
    if macs or not line.mac or not line.gateway:
        mac = neighbours.mac_bytes(macs[0]) if macs else b""
        tried.router = Neighbour(line.way.dev, mac)
    tried.findings += _reach(line, macs, replies)
    return tried


def _gateway_macs(line: Line) -> tuple[str, ...]:
    if not line.mac or not line.gateway:
        return ()
    if ":" not in line.gateway:
        return neighbours.ask_arp(line.way.dev, line.mac, line.gateway, sender=line.way.address)
    if not line.link_local:
        return ()
    return neighbours.ask_nd(line.way.dev, line.mac, line.link_local, line.gateway)


def _reach(line: Line, macs: tuple[str, ...], replies: Replies) -> Iterator[Finding]:
    about, gateway = line.subject, line.gateway
    if len(macs) > 1:
        yield Finding(
            "warning",
            about,
            f"{len(macs)} hosts answer for the gateway {gateway}: {', '.join(macs)}",
            "find the one that isn't the router by its MAC, and give it another address",
            "Packets go to either of them, and only one forwards them.",
        )
    near = bool(macs) or not line.mac or not gateway
    if replies.rtt_s:
        first, rtt_s = next(iter(replies.targets().items()))
        rtt_ms = 1000 * rtt_s
        silent = len(line.targets) - len(replies.targets())
        more = f" ({silent} of {len(line.targets)} targets don't)" if silent else ""
        yield Finding("fact", about, f"{first} answers in {rtt_ms:.1f} ms{more}")
        if macs:
            yield Finding("fact", about, f"gateway {gateway} answers ({macs[0]})")
        elif not near:
            yield Finding(
                "note", about, f"gateway {gateway} forwards, but doesn't answer ARP or ND"
            )
    elif not line.targets:
        yield Finding("note", about, "no target to try; set health.probes")
    elif local := next((t for t in replies.refusals.values() if t.startswith("this host")), ""):
        yield Finding(
            "error",
            about,
            f"no packet leaves ({local})",
            "find the rule or route with `nft list ruleset` and `ip rule`",
            "The kernel or a packet filter of this host refuses to send.",
        )
    elif not near:
        yield Finding(
            "error",
            about,
            f"gateway {gateway} doesn't answer, nor does anything beyond it",
            "look at the cable, the modem and the router; compare address and gateway with the "
            "provider's",
            "The router is off or unreachable, or the address or gateway is wrong.",
        )
    else:
        says = "; ".join(dict.fromkeys(replies.refusals.values()))
        yield Finding(
            "error",
            about,
            f"{'the gateway answers, but ' if macs else ''}none of {len(line.targets)} targets "
            f"does{f' ({says})' if says else ''}",
            "report it to the provider; while the daemon runs, it uses the other uplinks",
            "The line to the router works. The provider has an outage, or drops these packets.",
        )


def measure_mtu(tried: Tried) -> Iterator[Finding]:
    """Raises OSError."""
    if not tried.answering:
        return
    line, way, about = tried.line, tried.line.way, tried.line.subject
    found = path_mtu.measure(way, tried.answering, line.limit)
    if found is None:
        yield Finding("note", about, "path MTU unknown; no target answers large requests")
    elif found.size == found.limit:
        yield Finding("fact", about, f"path MTU {found.size}, as on the interface")
    elif found.router:
        what = f"path MTU {found.size}, below the interface's {found.limit}"
        yield Finding("fact", about, f"{what}; {found.router} says so")
    else:
        what = f"packets of more than {found.size} bytes are lost, and no router says so"
        level: Level = "warning" if found.size >= _INTERNET_MTU else "error"
        means = (
            f"Connections are made, and hang with the first full packet ({found.limit} bytes), "
            "unless both sides detect it (RFC 4821)."
        )
        yield Finding(level, about, what, lower_mtu(way, found.size), means)


def lower_mtu(way: Way, size: int) -> str:
    """The remedy for a black hole."""
    if size >= _MIN_LINK:
        command = f"`ip link set dev {way.dev} mtu {size}`"
        return f"run {command}, and set it in the network configuration"
    mss = size - (40 if way.family == 4 else 60)
    chains = " ".join(
        f'chain {name} {{ type filter hook {hook} priority mangle; {match} "{way.dev}" '
        f"tcp flags syn tcp option maxseg size set {mss}; }};"
        for name, hook, match in (
            ("out", "postrouting", "oifname"),
            ("in", "prerouting", "iifname"),
        )
    )
    return f"limit the segments of TCP: `nft 'table inet mss_{way.dev} {{ {chains} }}'`"
