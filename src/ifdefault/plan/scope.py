"""What has to be read of this host: see `model.kernel.Scope`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ifdefault.model.config import Config
from ifdefault.model.host import State
from ifdefault.model.kernel import Desired, Facts, Scope
from ifdefault.plan import numbers
from ifdefault.plan.originals import interface_of


def scope(config: Config, state: State, *, strays: bool = False) -> Scope:
    """What a plan for this config needs, and what earlier ones have changed."""
    before = of_state(state)
    return replace(
        before,
        tables=frozenset(numbers.own_tables(config.host)),
        interfaces=before.interfaces | {uplink.interface for uplink in config.uplinks},
        strays=strays,
    )


def tables_read(config: Config, facts: Facts) -> set[int]:
    """The tables whose routes decide something here."""
    own = Scope(frozenset(numbers.own_tables(config.host)))
    return {table for _, table in own.tables_read(facts.rules)}


def of_state(state: State) -> Scope:
    """What has to be read to remove everything of ours. An interface whose index isn't known, such
    as after a restart of the host, has the name that it had."""
    names = frozenset(map(interface_of, state.sysctls)) - state.links.keys() - {""}
    return Scope(interfaces=names, indexes=frozenset(state.links.values()), strays=True)


def of_return(state: State, target: Desired, links: Mapping[str, int]) -> Scope:
    """What has to be read to return to an earlier state of ours, in which interfaces had these
    indexes: they may be no uplinks any more."""
    scope = of_state(state)
    names = {interface_of(name) for name, _ in target.sysctls}
    return replace(scope, indexes=scope.indexes | {links[name] for name in names & links.keys()})
