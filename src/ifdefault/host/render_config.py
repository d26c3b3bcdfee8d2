"""Write the uplinks that were found as a config that works as it is.

Rules: pure. What the kernel knows is written as comments, so that it isn't fixed in the config and
may change.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from ifdefault.config.base import toml
from ifdefault.host import render_takeover
from ifdefault.host.discover import (
    Candidate,
    Discovery,
    PassedOver,
    guess_router,
    name,
    named,
)
from ifdefault.host.takeover import Takeover
from ifdefault.model.address import is_private
from ifdefault.model.config import Config, HostConfig, OutgoingRule
from ifdefault.model.text import escaped

_DEFAULTS = Config(())
_HEAD = """\
# ifdefault: every connection is answered through the uplink it came in on.
# Written by `ifdefault init`; all keys are in ifdefault.toml(5). Lines that are commented out show
# what the kernel has now, or the default; leave them so, and ifdefault follows changes.
"""
_RANK = """\
# rank = 0  # the lowest rank is primary: new outgoing connections use it
# weight = 1  # share when balancing; of equal rank, the greatest weight is primary"""
_HOST = """
# [host]
# mark_mask = "{0.mark_mask:#x}"  # six adjacent bits of marks that no other program uses
# table_base = {0.table_base}  # first of 32 routing tables
# rule_priority = {0.rule_priority}  # first of 51 priorities of policy rules
# source_check = "{0.source_check}"  # packets leaving by a wrong uplink; or "drop", "count", "off"
# udp_wildcard = "{0.udp_wildcard}"  # UDP servers bound to the wildcard address; or "off", [443]
"""
_FIXED = "the kernel may not know it without the rules that go"
_ZONE = """
[[dns.name]]
name = "{0}"

[dns.server]
zones = ["{0}"]
"""
_BALANCE = """\
[outgoing]
mode = "balance"  # as the kernel's multipath default does; otherwise all would leave by {}
sticky = true  # one uplink for each destination address, as the kernel's default"""


def render(discovery: Discovery, takeover: Takeover | None = None) -> str:
    """The config for a host; "" if it has no uplinks."""
    takeover = takeover or Takeover(discovery)
    uplinks = named(takeover.discovery.uplinks)
    weights = {hop.dev: hop.weight for hop in discovery.balanced}
    unbalanced = {c.interface for c in uplinks} - set(weights) if weights else set()
    if not uplinks:
        return ""
    if len(set(weights.values())) == 1:
        weights = {}
    blocks = [
        "\n".join(_block(n, uplink, weights.get(uplink.interface, 0), unbalanced))
        for n, uplink in enumerate(uplinks)
    ]
    if discovery.balanced:
        blocks.append(_BALANCE.format(uplinks[0].name))
    blocks += ["\n".join(_outgoing(rule, was)) for rule, was in takeover.outgoing]
    for n, passed in enumerate(discovery.passed_over, len(uplinks)):
        blocks.append(_commented(_passed_over(n, passed)))
    blocks.append(_commented(render_takeover.lines(takeover)))
    shown = [f"{block}\n" for block in blocks if block]
    return "\n".join([_HEAD, *shown]) + _host(takeover.host)


def _host(host: HostConfig) -> str:
    """The keys that have to differ from the defaults are spoken."""
    text = _HOST.format(host)
    if host == _DEFAULTS.host:
        return text
    keys = ("mark_mask", "table_base", "rule_priority")
    for key in keys:
        if getattr(host, key) != getattr(_DEFAULTS.host, key):
            text = text.replace(f"# {key} = ", f"{key} = ")
    return text.replace("# [host]", "[host]")


def _outgoing(rule: OutgoingRule, was: str) -> Iterator[str]:
    yield _commented([was])
    yield "[[outgoing.rule]]"
    yield f"via = {toml(rule.via)}  # add uplinks that are to take over when it is down"
    if rule.to:
        yield f"to = {toml(rule.to)}"
    if rule.transport:
        yield f"transport = {toml(rule.transport)}"
    if rule.ports:
        ports = [first if first == last else f"{first}-{last}" for first, last in rule.ports]
        yield f"ports = {toml(ports)}"
    if rule.users:
        yield f"users = {toml(rule.users)}"


def _commented(lines: Iterable[str]) -> str:
    """As comments, in which TOML allows no control characters."""
    return "\n".join(f"# {escaped(line)}" for line in lines)


def zone(name: str) -> str:
    """The lines that serve a zone whose own name leads to the uplinks."""
    return _ZONE.format(name)


def _passed_over(index: int, passed: PassedOver) -> Iterator[str]:
    yield f"{passed.interface} {passed.why}"
    if passed.gateways is not None:
        yield "If it leads to a provider:"
        yield from lines_to_write(index, passed)


def lines_to_write(index: int, passed: PassedOver) -> Iterator[str]:
    """The lines that make it an uplink."""
    yield f"[uplink.{name(index)}]"
    yield f"interface = {toml(passed.interface)}"
    if passed.gateways:
        yield f"gateways = {toml(passed.gateways)}  # a guess, ask the provider"


def _block(
    index: int, candidate: Candidate, weight: int, unbalanced: Collection[str]
) -> Iterator[str]:
    yield f"[uplink.{candidate.name}]"
    yield f"interface = {toml(candidate.interface)}"
    if candidate.fixed_addresses:
        yield f"addresses = {toml(candidate.fixed_addresses)}"
    else:
        yield f"# addresses = {toml([a.address for a in candidate.addresses])}"
    if candidate.shared and not candidate.fixed_addresses:
        yield "# several prefixes: if routers of several providers are on this LAN, configure an"
        yield "# uplink for each, with its addresses and gateways"
    if candidate.routed:
        yield f"routed = {toml(candidate.routed)}"
    yield from _gateways(candidate)
    if weight:
        yield f"weight = {weight}  # as in the kernel's multipath default"
    if candidate.interface in unbalanced:
        yield "rank = 1  # not in the kernel's multipath default"
    if not index:
        yield _RANK


def _gateways(candidate: Candidate) -> Iterator[str]:
    gateways = (gateway for _, gateway in candidate.gateways if gateway)
    known = list(dict.fromkeys((*gateways, *candidate.routers)))
    missing = " and ".join(f"IPv{family}" for family in candidate.unknown)
    if candidate.routers:
        yield "# a router advertises itself here without a default route, hence this line"
        yield f"gateways = {toml(known)}"
    elif candidate.fixed_gateways:
        yield f"gateways = {toml(candidate.fixed_gateways)}  # {_FIXED}"
    elif known and not missing:
        yield f"# gateways = {toml(known)}"
    elif not missing:
        yield "# the link needs no gateway"
    if missing:
        lacks = f"the uplink has no {missing}" if known else "the uplink is pending"
        yield f"# no router for {missing} is known here; until it is in gateways, {lacks}"
        yield "# (the line below is a guess, ask the provider)"
        guesses = [guess_router(candidate.of(family)[0]) for family in candidate.unknown]
        yield f"# gateways = {toml([*known, *guesses])}"
    if (own := candidate.of(4)) and all(is_private(each.address) for each in own):
        yield f"# public = []  # for names in the DNS: what {own[0].address} is translated to"
