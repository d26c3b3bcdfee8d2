"""Write the uplinks that were found as a config that works as it is.

Rules: pure. What the kernel knows is written as comments, so that it isn't fixed in the config and
may change.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from ifdefault.host.discover import Candidate, Discovery, PassedOver, guess_router
from ifdefault.model.address import is_private
from ifdefault.model.config import Config

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


def name(index: int) -> str:
    """isp-a, isp-b, … isp-z, isp-27, …"""
    return f"isp-{chr(ord('a') + index)}" if index < 26 else f"isp-{index + 1}"


def render(discovery: Discovery) -> str:
    """The config for a host; "" if it has no uplinks."""
    uplinks, weights = discovery.uplinks, {hop.dev: hop.weight for hop in discovery.balanced}
    if not uplinks:
        return ""
    if len(set(weights.values())) == 1:
        weights = {}
    blocks = [
        "\n".join(_block(n, uplink, weights.get(uplink.interface, 0)))
        for n, uplink in enumerate(uplinks)
    ]
    if discovery.balanced:
        blocks.append(_BALANCE.format(name(0)))
    for n, passed in enumerate(discovery.passed_over, len(uplinks)):
        blocks.append("\n".join(f"# {line}" for line in _passed_over(n, passed)))
    return "\n".join([_HEAD, *(f"{block}\n" for block in blocks)]) + _HOST.format(_DEFAULTS.host)


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
    yield f"interface = {json.dumps(passed.interface)}"
    if passed.gateways:
        yield f"gateways = {json.dumps(passed.gateways)}  # a guess, ask the provider"


def _block(index: int, candidate: Candidate, weight: int) -> Iterator[str]:
    yield f"[uplink.{name(index)}]"
    yield f"interface = {json.dumps(candidate.interface)}"
    yield f"# addresses = {json.dumps([a.address for a in candidate.addresses])}"
    if candidate.shared:
        yield "# several prefixes: if routers of several providers are on this LAN, configure an"
        yield "# uplink for each, with its addresses and gateways"
    gateways = (gateway for _, gateway in candidate.gateways if gateway)
    known = list(dict.fromkeys((*gateways, *candidate.routers)))
    missing = " and ".join(f"IPv{family}" for family in candidate.unknown)
    if candidate.routers:
        yield "# a router advertises itself here without a default route, hence this line"
        yield f"gateways = {json.dumps(known)}"
    elif known and not missing:
        yield f"# gateways = {json.dumps(known)}"
    elif not missing:
        yield "# the link needs no gateway"
    if missing:
        lacks = f"the uplink has no {missing}" if known else "the uplink is pending"
        yield f"# no router for {missing} is known here; until it is in gateways, {lacks}"
        yield "# (the line below is a guess, ask the provider)"
        guesses = [guess_router(candidate.of(family)[0]) for family in candidate.unknown]
        yield f"# gateways = {json.dumps([*known, *guesses])}"
    if (own := candidate.of(4)) and all(is_private(each.address) for each in own):
        yield f"# public = []  # for names in the DNS: what {own[0].address} is translated to"
    if weight:
        yield f"weight = {weight}  # as in the kernel's multipath default"
    if not index:
        yield _RANK
