"""The numbers that make what we own recognisable: uplink numbers, marks, tables, priorities.

Rules: every number that we put into the kernel comes from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ifdefault.model.config import HostConfig

UPLINKS_MAX = 31

# Offsets of the return-path block, from its first priority. What they are for: docs/architecture.md
FROM_UPLINK, VPN_ROUTES, LOCAL_ROUTES, NOWHERE, ARRIVAL_MARK = 0, 5, 10, 15, 20
SOURCE, ROUTED, SOURCE_END, DEVICE, END = 30, 32, 35, 40, 50
BLOCK = 100  # a block moves by this much when a foreign rule gets above it
LOWEST_BLOCK = 100

# The outgoing rules share the last priority before main: they must stand behind a full-tunnel
# VPN's rules, which may be there already (wg-quick: 32764 and 32765). The order of insertion
# keeps them apart.
OUTGOING = 32765

# Routes this short don't count as the LAN's or a VPN's own (LOCAL_ROUTES, VPN_ROUTES): they are a
# full tunnel's halves. OpenVPN's are 0/1 and 128/1; ::/3, 2000::/4 and 3000::/4. fc00::/7 is a
# legitimate route to a site.
SHORTEST_LOCAL = {4: 7, 6: 6}


def assign(names: Sequence[str], known: Mapping[str, int]) -> dict[str, int]:
    """A number for each uplink: the one it has, else a free one, else that of a retired uplink.

    The result holds the retired ones too, so that an uplink that returns gets its number back.
    """
    numbers = {name: n for name, n in known.items() if 1 <= n <= UPLINKS_MAX}
    for name in names:
        if name in numbers:
            continue
        free = set(range(1, UPLINKS_MAX + 1)) - set(numbers.values())
        if not free:
            retired = next(other for other in numbers if other not in names)
            free = {numbers.pop(retired)}
        numbers[name] = min(free)
    return numbers


def _shift(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


def arrival_mark(host: HostConfig, number: int) -> int:
    """The uplink that a connection came in on: the low five bits of the mask."""
    return number << _shift(host.mark_mask)


def outgoing_mark(host: HostConfig, number: int) -> int:
    """The uplink that was picked for an outgoing connection: the same with the mask's top bit."""
    return (number | 0x20) << _shift(host.mark_mask)


def table(host: HostConfig, number: int) -> int:
    return host.table_base + number


def own_tables(host: HostConfig) -> range:
    return range(host.table_base, host.table_base + UPLINKS_MAX + 1)
