"""What keeps connections from going on over another uplink, if `[mptcp] announce` is on: servers
that don't speak MPTCP, and other programs that manage its endpoints.

Rules: reads only. A server of plain TCP works as ever, and what others manage is left alone:
nothing is wrong, so that these are hints.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress

from ifdefault.kernel import nft, sockdiag, socket_owners, sysctl
from ifdefault.model.address import family_of
from ifdefault.model.config import Config
from ifdefault.model.dns import DISCOVER
from ifdefault.model.errors import Problem
from ifdefault.model.mptcp import Endpoint, uplink_number
from ifdefault.plan.prepare import Prepared

_WHERE = "mptcp.announce"
_WILDCARDS = {4: "0.0.0.0", 6: "::"}
_UNIT = re.compile(rb"^0::.*/([^/]+)\.service$", re.MULTILINE)  # cgroups(7), /proc/PID/cgroup
_GO = b"\4\0\0\0Go\0\0"  # the type and the name of the note .note.go.buildid
_HEAD_BYTES = 4096  # the linker of Go puts it before the code
SYSTEMD = "systemd"  # it listens for services that have a unit of the kind socket
# How a server is told to speak it, by the name of its process.
_OPTIONS = {
    "nginx": "add multipath to its listen directives (since nginx 1.29.7)",
    "haproxy": "write mptcp@ before the addresses of its bind lines (since HAProxy 3.1)",
    SYSTEMD: "set SocketProtocol=mptcp in the unit of the socket (since systemd 257)",
}
_OPTION_OF_GO = "start it with GODEBUG=multipathtcp=1 in its environment (since Go 1.21)"
# Who else makes endpoints, by the name of its process, and how it is told not to.
_MANAGERS = {
    "mptcpd": "`systemctl disable --now mptcp`",
    "NetworkManager": "`nmcli connection modify NAME connection.mptcp-flags disabled`",
}


def find_problems(prepared: Prepared) -> Iterator[Problem]:
    """Nothing where the kernel has no MPTCP, or it is switched off: the plan says so."""
    mptcp, config = prepared.facts.mptcp, prepared.config
    if not config.mptcp.used or mptcp is None or not mptcp.enabled:
        return
    addresses = {a.address for uplink in prepared.uplinks for a in uplink.addresses}
    public = {address for uplink in config.uplinks for address in uplink.public}
    yield from _user_space()
    yield from _foreign(mptcp.endpoints, addresses | public)
    if not config.mptcp.announce:
        return
    yield from _private(prepared)
    if nft.has_rights():  # others don't see which listeners speak it
        yield from _plain_servers(addresses, _own_ports(config))


def _user_space() -> Iterator[Problem]:
    """A path manager in user space decides for each connection, and endpoints don't count."""
    if sysctl.read("net/mptcp/pm_type") == "1":
        what = "is 1, so that programs manage the addresses of MPTCP, and endpoints don't count"
        remedy = "`sysctl -w net.mptcp.pm_type=0`"
        yield Problem("sysctl net.mptcp.pm_type", what, remedy, warning=True)


def _private(prepared: Prepared) -> Iterator[Problem]:
    """Uplinks behind a NAT whose public address isn't known: nothing of theirs is announced."""
    endpoints = prepared.desired.endpoints
    announced = {(uplink_number(e.id), family_of(e.address)) for e in endpoints if e.signal}
    for uplink in prepared.uplinks:
        for endpoint in endpoints:
            way = uplink_number(endpoint.id), family_of(endpoint.address)
            if way[0] == uplink.number and way not in announced:
                what = f"{endpoint.address} is private, so that it isn't announced by MPTCP"
                remedy = f'set public to its public address, or to "{DISCOVER}"'
                yield Problem(f"uplink.{uplink.name}", what, remedy, warning=True)


# --- other managers -----------------------------------------------------------------------


def _foreign(endpoints: Iterable[Endpoint], addresses: Collection[str]) -> Iterator[Problem]:
    others = [e for e in endpoints if not e.ours and not e.implicit]
    if not others:
        return
    running = {name for name in map(socket_owners.command_name, _processes()) if name in _MANAGERS}
    by = " or ".join(sorted(running)) or "another program"
    ways = [_MANAGERS[name] for name in sorted(running)]
    for endpoint in others:
        where = f"mptcp endpoint {endpoint.id}"
        what = f"{endpoint.address} is managed by {by}"
        if endpoint.address in addresses:
            what += ", so that ifdefault doesn't announce it"
            remedy = ", ".join((*ways, f"`ip mptcp endpoint delete id {endpoint.id}`"))
            yield Problem(where, what, f"to have it announced: {remedy}", warning=True)
        else:
            yield Problem(where, what, "it stays as it is", warning=True, hint=True)


def _processes() -> Iterator[int]:
    return (int(entry.name) for entry in socket_owners.PROC.glob("[0-9]*"))


# --- servers ------------------------------------------------------------------------------


def _own_ports(config: Config) -> set[int]:
    """Those of our own servers, whose connections are short."""
    ports = {config.dns.server.port} if config.dns.server.zones else set()
    return ports if config.web.socket else ports | {config.web.address[1]}


def _plain_servers(addresses: Collection[str], own: Collection[int]) -> Iterator[Problem]:
    """One hint for each program."""
    reached = {*addresses, *(_WILDCARDS[family_of(address)] for address in addresses)}
    listeners = {
        listener.inode: listener
        for listener in sockdiag.plain_listeners()
        if listener.port not in own and reached.intersection(listener.addresses)
    }
    servers: dict[int, dict[str, int]] = defaultdict(dict)
    for inode, pid in socket_owners.owners(listeners):
        servers[inode].setdefault(socket_owners.command_name(pid), pid)
    ports: dict[tuple[str, str], set[int]] = defaultdict(set)
    for inode, named in servers.items():
        for name in {SYSTEMD} & named.keys() or named.keys() - {""}:
            ports[name, _remedy(name, named[name])].add(listeners[inode].port)
    for (name, remedy), found in sorted(ports.items()):
        plural = "s" if len(found) > 1 else ""
        what = (
            f"{name} doesn't speak MPTCP on TCP port{plural} {', '.join(map(str, sorted(found)))}"
        )
        what += ", so that its connections end with their uplink"
        yield Problem(_WHERE, what, remedy, warning=True, hint=True)


def _remedy(name: str, pid: int) -> str:
    option = _OPTIONS.get(name, "")
    if name == SYSTEMD:
        return option
    if not option and _is_go(pid):
        return _OPTION_OF_GO  # it doesn't use the C library, as mptcpize needs
    unit = _unit(pid)
    launched = f"`mptcpize enable {unit}`, then `systemctl restart {unit}`" if unit else ""
    launched = launched or "start it with `mptcpize run`"
    return f"{option}, or {launched}" if option else launched


def _unit(pid: int) -> str:
    """The service that a process belongs to, without its suffix; "" if it belongs to none."""
    with suppress(OSError):
        if found := _UNIT.search((socket_owners.PROC / str(pid) / "cgroup").read_bytes()):
            return found[1].decode("utf-8", "surrogateescape")
    return ""


def _is_go(pid: int) -> bool:
    with suppress(OSError), (socket_owners.PROC / str(pid) / "exe").open("rb") as file:
        return _GO in file.read(_HEAD_BYTES)
    return False
