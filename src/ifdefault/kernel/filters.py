"""Read other programs' packet filters, as far as they decide what comes to this host or through it.

Rules: reads, never writes. Nothing is parsed where no chain is at such a hook. Elements of named
sets are read only where the chains use them, and only of ports, protocols and interfaces: those of
addresses may be many, and say only who is let in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from ifdefault.kernel import nft, nft_json
from ifdefault.kernel.filter_iptables import iptables_chains
from ifdefault.kernel.filter_nft import HOOKS, Elements, TableKey, nft_chains
from ifdefault.kernel.foreign import Saved, iptables_saved
from ifdefault.model.errors import IfdefaultError
from ifdefault.model.packet_filter import FilterChain, Path

_HOOK = {path: re.compile(f'"hook": ?"({"|".join(hooks)})"') for path, hooks in HOOKS.items()}
_SMALL = {"inet_service", "inet_proto", "ifname", "iface_index", "ct_state"}


def read_input_chains() -> tuple[FilterChain, ...]:
    ruleset = nft.ruleset_json()
    return filter_chains(ruleset, iptables_saved(ruleset))


def filter_chains(ruleset_json: str, saved: Saved, path: Path = "input") -> tuple[FilterChain, ...]:
    """`ruleset_json` is of `nft.ruleset_json`; `saved`, the output of the iptables programs."""
    chains: list[FilterChain] = []
    for program, text in saved:
        chains += reachable(iptables_chains(text, program, path))
    if _HOOK[path].search(ruleset_json):
        objects = nft_json.objects(ruleset_json)
        opaque = {
            (rule["family"], rule["table"])
            for entry in objects
            if (rule := entry.get("rule")) and any(_is_xt(each) for each in rule.get("expr") or ())
        }
        chains += nft_chains(objects, _elements(objects), opaque, path)
    return tuple(chains)


def reachable(chains: Iterable[FilterChain]) -> Iterator[FilterChain]:
    """The chains that packets may pass."""
    by_name = {(chain.table, chain.name): chain for chain in chains}
    pending = [key for key, chain in by_name.items() if chain.policy]
    seen: dict[tuple[str, str], None] = {}
    while pending:
        key = pending.pop()
        if key not in seen and key in by_name:
            seen[key] = None
            pending += [(key[0], rule.target) for rule in by_name[key].rules if rule.target]
    return (chain for key, chain in by_name.items() if key in seen)


def _elements(objects: list[dict[str, Any]]) -> Elements:
    """A function that reads the elements of a named set or map; None: they aren't known."""
    kinds: dict[tuple[TableKey, str], str] = {}
    for entry in objects:
        for kind in ("set", "map"):
            if (named := entry.get(kind)) and _is_small(named.get("type")):
                kinds[(named["family"], named["table"]), named["name"]] = kind

    @cache
    def elements(table: TableKey, name: str) -> list[Any] | None:
        if not (kind := kinds.get((table, name))):
            return None
        try:
            listing = nft_json.objects(nft.elements_json(kind, *table, name))
        except IfdefaultError:  # it was removed meanwhile
            return None
        found = next((e[kind].get("elem", []) for e in listing if kind in e), None)
        return found if isinstance(found, list) else None

    return elements


def _is_small(type_: Any) -> bool:
    types = type_ if isinstance(type_, list) else [type_]
    return all(isinstance(each, str) and each in _SMALL for each in types)


def _is_xt(statement: Any) -> bool:
    return isinstance(statement, dict) and "xt" in statement
