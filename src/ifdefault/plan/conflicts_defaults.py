"""Conflicts: default routes of the kernel that ifdefault doesn't do the same with.

Rules: as in `conflicts`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ifdefault.model.config import Config
from ifdefault.model.errors import Problem
from ifdefault.model.kernel import Facts, Uplink
from ifdefault.plan.kernel_default import KernelDefaults
from ifdefault.plan.resolve import ready


def find(config: Config, facts: Facts, uplinks: Sequence[Uplink]) -> Iterator[Problem]:
    defaults = KernelDefaults(config, facts)
    yield from _unbalanced(config, defaults, uplinks)
    for uplink in uplinks:
        if not uplink.pending:
            yield from _other_routers(defaults, uplink)


def _unbalanced(
    config: Config, defaults: KernelDefaults, uplinks: Sequence[Uplink]
) -> Iterator[Problem]:
    """The kernel balances by a multipath default, and ifdefault won't."""
    hops = {hop.dev for hop in defaults.balanced()}
    interfaces = sorted({u.interface for u in uplinks if not u.pending} & hops)
    primary = next(ready(tuple(uplinks)), None)
    if len(interfaces) > 1 and primary and config.outgoing.mode == "failover":
        what = f"is multipath over {', '.join(interfaces)}"
        remedy = (
            f"apply makes all new connections leave by {primary.name}; "
            'to balance them, set outgoing.mode = "balance"'
        )
        yield Problem("the default route", what, remedy, True)


def _other_routers(defaults: KernelDefaults, uplink: Uplink) -> Iterator[Problem]:
    """An uplink has one router, and the kernel has another one for some of its addresses."""
    for address in (a.address for a in uplink.addresses if a.family == 6):
        default = defaults.find(uplink.interface, 6, [address], uplink.table)
        if not default or default.hop.gateway == uplink.gateway(6) or uplink.gateway(6) is None:
            continue
        if prefix := default.route.from_prefix:
            what = f"the default from {prefix}, for {address}, is via {default.hop.gateway}"
            routers = f"each router of {uplink.interface}"
            remedy = f"configure an uplink for {routers}, with addresses and gateways"
            yield Problem(f"uplink.{uplink.name}", what, remedy, True)
