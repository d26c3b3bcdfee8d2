"""What only several uplinks together can get wrong; for the DNS, see `config.crossdns`.

Rules: pure; sees uplinks whose own keys are sound. Where both uplinks are at fault the problem
stands at the later one and names the earlier.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from ifdefault.config.toml_lines import Path
from ifdefault.model.config import UplinkConfig

MOST_UPLINKS = 31  # numbers that fit five bits of the mark; 0 is none

Fault = tuple[Path, str, str]  # path in the config, what is wrong, what would be right


def faults(uplinks: Sequence[UplinkConfig]) -> Iterator[Fault]:
    if len(uplinks) > MOST_UPLINKS:
        what = f"{len(uplinks)} uplinks"
        yield ("uplink",), what, f"keep at most {MOST_UPLINKS}, that many fit the packet mark"
    for uplink in uplinks:
        for gateway in sorted(set(uplink.gateways) & set(uplink.addresses)):
            path = ("uplink", uplink.name, "gateways")
            yield path, f'"{gateway}" is the host\'s own', "name the provider's router"
    for first, second in combinations(uplinks, 2):
        yield from _alike(first, second)
        yield from _same_address(first, second)


def _alike(first: UplinkConfig, second: UplinkConfig) -> Iterator[Fault]:
    """Two uplinks that are one interface and nothing else can't be told apart."""
    if first.interface != second.interface:
        return
    blank = not any((first.addresses, first.gateways, second.addresses, second.gateways))
    if blank or _distinction(first) == _distinction(second):
        yield (
            ("uplink", second.name, "interface"),
            f'"{first.interface}" is the interface of uplink.{first.name} too',
            "give each gateways of its own, and addresses where they differ",
        )


def _distinction(uplink: UplinkConfig) -> tuple[frozenset[str], ...]:
    return tuple(map(frozenset, (uplink.addresses, uplink.gateways, uplink.router_macs)))


def _same_address(first: UplinkConfig, second: UplinkConfig) -> Iterator[Fault]:
    """Only the router's MAC address tells which uplink a packet for a shared address came by."""
    for address in sorted(set(first.addresses) & set(second.addresses)):
        mute = [u.name for u in (first, second) if not u.router_macs and not u.gateways]
        if mute:
            at = second.addresses.index(address)
            names = " and ".join(f"uplink.{name}" for name in mute)
            yield (
                ("uplink", second.name, "addresses", at),
                f'"{address}" is an address of uplink.{first.name} too',
                f"drop it from one, or give {names} gateways or router_macs to tell them apart",
            )
