"""The checks of `ifdefault doctor` that need packets, the kernel or the host, as they run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial

from ifdefault.host.doctor import from_host, host_state, links, public_address, source_filter
from ifdefault.host.doctor.from_host import Port
from ifdefault.host.doctor.lines import lines
from ifdefault.host.doctor.tasks import Check, Result
from ifdefault.host.doctor.ways import Line, Tried, measure_mtu, try_line
from ifdefault.host.status import is_applied
from ifdefault.kernel import filters, nft, sockdiag
from ifdefault.model.address import family_of, is_private
from ifdefault.model.config import FAMILIES, Config
from ifdefault.model.findings import APPLY, Finding, from_problem
from ifdefault.model.kernel import Facts, Uplink
from ifdefault.model.public_address import public_addresses
from ifdefault.plan.conflicts_input import closed_port
from ifdefault.plan.prepare import Prepared

_WEB_PORTS = (80, 443)
_TRIED_S = 7.0  # ssh, and what it runs


def host_checks(
    config: Config, prepared: Prepared, stun: tuple[str, int] | None, other_host: str
) -> Iterator[tuple[str, Check]]:
    """`other_host`: where ports are tried from, "" for nowhere."""
    facts, uplinks = prepared.facts, prepared.uplinks
    yield "conntrack", host_state.connections
    yield "clock", partial(host_state.clock, signs=_signs(config))
    yield "kernel", partial(_unapplied, prepared)
    yield "links", partial(links.down, config, facts)
    complete, lacking = lines(prepared)
    yield from _line_checks(config, prepared, complete, stun)
    for line in lacking:
        yield line.subject, partial(links.lost_default, line, facts)
    web = [port for port in _WEB_PORTS if _is_served(config, port)]
    if nft.has_rights():
        yield "firewall", partial(_closed, uplinks, web)
    if other_host:
        ports = list(_ports(config, uplinks, web))
        yield f"from {other_host}", partial(from_host.examine, other_host, ports, _TRIED_S)


def _line_checks(
    config: Config,
    prepared: Prepared,
    complete: Sequence[Line],
    stun: tuple[str, int] | None,
) -> Iterator[tuple[str, Check]]:
    results = {line: Result(partial(try_line, line)) for line in complete}
    public = {uplink.name: uplink.public for uplink in config.uplinks}
    for line in complete:
        way, about = line.way, line.subject
        yield about, partial(_tried, results[line])
        yield about, partial(_measured, results[line])
        yield about, partial(_misled, results[line], config, prepared.facts)
        services = config.dns.discover or _usual_service(line)
        known, names = public[way.uplink], bool(config.dns.names)
        ask = partial(public_address.examine, way, known, services, stun, names=names)
        yield about, ask
        if other := _other(line, complete):
            yield about, partial(_filtered, results[line], results[other])
        yield about, partial(links.conflicting_addresses, line, prepared.facts)


def _tried(result: Result[Tried]) -> list[Finding]:
    return result.wait().findings


def _measured(result: Result[Tried]) -> Iterator[Finding]:
    with suppress(OSError):  # the check of the line says so
        yield from measure_mtu(result.wait())


def _misled(result: Result[Tried], config: Config, facts: Facts) -> Iterator[Finding]:
    with suppress(OSError):
        yield from links.wrong_gateway(result.wait(), config, facts)


def _filtered(one: Result[Tried], other: Result[Tried]) -> list[Finding]:
    with suppress(OSError):
        finding = source_filter.examine(one.wait(), other.wait())
        return [finding] if finding else []
    return []


def _other(line: Line, complete: Sequence[Line]) -> Line | None:
    """The next uplink in the same family."""
    same = [each for each in complete if each.way.family == line.way.family]
    following = same[(same.index(line) + 1) % len(same)]
    return following if following is not line else None


def _usual_service(line: Line) -> tuple[str, ...]:
    """A resolver that is probed anyway, and answers with the address that it is asked from."""
    address, url = public_address.OPENDNS[line.way.family]
    return (url,) if address in line.targets else ()


def _signs(config: Config) -> bool:
    servers = [*config.dns.server.secondaries]
    servers += [server for update in config.dns.updates for server in update.servers]
    return any(server.key for server in servers)


def _unapplied(prepared: Prepared) -> Iterator[Finding]:
    if prepared.operations and not is_applied(prepared):
        yield Finding(
            "error",
            "kernel",
            f"the config isn't applied ({len(prepared.operations)} operations)",
            APPLY,
            "Replies of all uplinks leave by the default route of the kernel.",
        )
    elif not prepared.operations:
        yield Finding("fact", "kernel", "rules, routes and tables are as the config says")


# --- ports --------------------------------------------------------------------------------


def _is_served(config: Config, port: int) -> bool:
    """Whether this host listens on a TCP port, or forwards it."""
    forwarded = (ports for forward in config.forwards for ports in forward.listen)
    if any(ports.transport == "tcp" and ports.first <= port <= ports.last for ports in forwarded):
        return True
    return any((kind, number) == ("tcp", port) for kind, _, number in sockdiag.listening())


def _closed(uplinks: Sequence[Uplink], web: Sequence[int]) -> Iterator[Finding]:
    """Web ports that a packet filter of this host closes; of port 53, `check` says so."""
    chains = filters.read_input_chains()
    for port in web:
        yield from map(from_problem, closed_port(chains, uplinks, port, ("tcp",)))
    if not web:
        yield Finding("note", "ports", "nothing listens on TCP ports 80 and 443")


def _ports(config: Config, uplinks: Sequence[Uplink], web: Sequence[int]) -> Iterator[Port]:
    """Those that another host should reach, by the addresses that it knows."""
    public = {uplink.name: uplink.public for uplink in config.uplinks}
    for uplink in uplinks:
        addresses = public_addresses(uplink, public[uplink.name], {})
        for family in FAMILIES:
            own = uplink.source(family)
            address = addresses.get(family) or own
            if not address or uplink.pending or is_private(address):
                continue
            zones = config.dns.server.zones
            if zones and family_of(address) == family:
                number = config.dns.server.port
                yield Port("udp", address, number, zones[0])
                yield Port("tcp", address, number)
            for number in web:
                yield Port("tcp", address, number)
