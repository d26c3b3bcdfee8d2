"""The numbers that identify our objects in the kernel: uplink numbers, marks, tables, priorities.

Rules: every number that we install in the kernel comes from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ifdefault.model.config import HostConfig

UPLINKS_MAX = 31

# Priorities of the return-path rules, relative to the first; see docs/architecture.md
OWN_ADDRESSES, FROM_UPLINK, VPN_ROUTES, LOCAL_ROUTES, NOWHERE, ARRIVAL_MARK = -1, 0, 5, 10, 15, 20
SOURCE, ROUTED, SOURCE_END, DEVICE, END = 30, 32, 35, 40, 50
# where the block moves when a foreign rule precedes it: down by hundreds, at last by tens
BLOCK, LAST_BLOCK = 100, 10
LOWEST_BLOCK = 10

# All outgoing rules have the last priority before main: they must follow the rules of a full-tunnel
# VPN, which may exist already (wg-quick: 32764 and 32765). Rules of one priority are ordered by
# insertion.
OUTGOING, MAIN = 32765, 32766

# Routes up to this length are parts of a full tunnel's default rather than specific routes of a LAN
# or VPN (LOCAL_ROUTES, VPN_ROUTES). OpenVPN uses 0/1 and 128/1; ::/3, 2000::/4 and 3000::/4.
# fc00::/7 is a legitimate route to a site.
SHORTEST_LOCAL = {4: 7, 6: 6}
# Routes up to this length that refuse packets are last resorts; longer ones are bans (240.0.0.0/4).
PARTS_OF_DEFAULT = {4: 1, 6: 3}


def assign(names: Sequence[str], known: Mapping[str, int]) -> dict[str, int]:
    """A number for each uplink: its known one, otherwise a free one, otherwise one of an uplink
    that is no longer configured.

    The result includes uplinks that are no longer configured, so that they get their number again
    when they return.
    """
    numbers = {name: n for name, n in known.items() if 1 <= n <= UPLINKS_MAX}
    for name in names:
        if name in numbers:
            continue
        free = set(range(1, UPLINKS_MAX + 1)) - set(numbers.values())
        if not free:
            removed = next(other for other in numbers if other not in names)
            free = {numbers.pop(removed)}
        numbers[name] = min(free)
    return numbers


def _shift(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


def arrival_mark(host: HostConfig, number: int) -> int:
    """The mark of connections that came in on this uplink: its number in the mask's low five
    bits."""
    return number << _shift(host.mark_mask)


def outgoing_mark(host: HostConfig, number: int) -> int:
    """The mark of outgoing connections that use this uplink: its number with the mask's top bit
    set."""
    return (number | 0x20) << _shift(host.mark_mask)


def table(host: HostConfig, number: int) -> int:
    return host.table_base + number


def main_copy(host: HostConfig) -> int:
    """The table that replaces main while main has a last resort."""
    return host.table_base


def own_tables(host: HostConfig) -> range:
    return range(host.table_base, host.table_base + UPLINKS_MAX + 1)
