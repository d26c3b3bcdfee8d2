"""What a lost state file held, as far as the kernel shows it.

Rules: pure. Only if nothing at all is known: what is known is never doubted. What the kernel
doesn't show is lost: forced states, and the original values of sysctls.
"""

from __future__ import annotations

from dataclasses import replace

from ifdefault.model.config import Config, UplinkConfig
from ifdefault.model.host import State
from ifdefault.model.kernel import Facts
from ifdefault.model.mptcp import ACCEPTED, SUBFLOWS
from ifdefault.plan import numbers
from ifdefault.plan.diff import own_endpoints, own_routes, own_rules
from ifdefault.plan.originals import mptcp_limits

_ORIGINAL_GROUP = 0  # the kernel's
_ORIGINAL_LIMITS = {SUBFLOWS: 2, ACCEPTED: 0}  # net/mptcp/pm_kernel.c, pm_nl_init_net


def recover(state: State, facts: Facts, config: Config | None = None) -> State:
    """The saved state; if it is empty though the kernel has rules of ours, what they tell. Without
    a config, what `down` needs."""
    rules = own_rules(facts)
    if replace(state, limits={}) != State() or not rules:  # those have a file of their own
        return state
    ours = {rule.suppress_ifgroup for rule in rules} - {-1, _ORIGINAL_GROUP}
    groups: dict[str, tuple[int, ...]] = {
        link.name: (_ORIGINAL_GROUP, link.group) for link in facts.links if link.group in ours
    }
    state = replace(state, groups=groups, limits=state.limits or _limits(facts))
    if config is None:
        return state
    return replace(state, numbers=_numbers(config, facts), runs=_runs(config, facts))


def _limits(facts: Facts) -> dict[str, tuple[int, ...]]:
    if not own_endpoints(facts):
        return {}
    now = mptcp_limits(facts)
    originals = _ORIGINAL_LIMITS.items()
    return {name: (was, now[name]) for name, was in originals if now.get(name, was) != was}


def _numbers(config: Config, facts: Facts) -> dict[str, int]:
    """By the table that leads over an uplink's interface, and to its gateway if it shares that."""
    base, shown = config.host.table_base, numbers.own_tables(config.host)[1:]
    found: dict[str, int] = {}
    for uplink in config.uplinks:
        tables = {
            route.table
            for route in own_routes(facts)
            if route.table in shown
            and any(_is_over(uplink, hop.dev, hop.gateway, config) for hop in route.hops)
        }
        if len(tables) == 1 and (number := tables.pop() - base) not in found.values():
            found[uplink.name] = number
    return found


def _is_over(uplink: UplinkConfig, dev: str, gateway: str, config: Config) -> bool:
    shares = sum(other.interface == uplink.interface for other in config.uplinks) > 1
    return dev == uplink.interface and (not shares or gateway in uplink.gateways)


def _runs(config: Config, facts: Facts) -> dict[str, str]:
    """The control groups of commands, which are named after their uplinks."""
    names = {f"ifdefault-{uplink.name}": uplink.name for uplink in config.uplinks}
    paths = [path for path, *_ in facts.hook.cgroups] if facts.hook else []
    configured = {path for rule in config.outgoing.rules for path in rule.cgroups}
    runs = ((path, path.rpartition("/")[2]) for path in paths if path not in configured)
    return {path: names[last] for path, last in runs if last in names}
