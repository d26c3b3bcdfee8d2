"""What has to be read of this host: see `model.kernel.Scope`."""

from __future__ import annotations

from dataclasses import replace

from ifdefault.model.config import Config
from ifdefault.model.host import State
from ifdefault.model.kernel import TABLE_MAIN, Facts, Scope, looked_up
from ifdefault.plan import numbers


def scope(config: Config, state: State, *, strays: bool = False) -> Scope:
    """What a plan for this config needs, and what earlier ones have changed."""
    return replace(
        of_state(state),
        tables=frozenset(numbers.own_tables(config.host)),
        interfaces=frozenset(uplink.interface for uplink in config.uplinks),
        strays=strays,
    )


def tables_read(config: Config, facts: Facts) -> set[int]:
    """The tables whose routes decide something here."""
    of_rules = (table for _, table in looked_up(facts.rules))
    return {TABLE_MAIN, *of_rules, *numbers.own_tables(config.host)}


def of_state(state: State) -> Scope:
    """What has to be read to remove everything of ours."""
    return Scope(indexes=frozenset(state.links.values()), strays=True)
