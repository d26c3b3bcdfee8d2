"""The hook on connect(): which of the host's own connections are given an uplink.

Rules: the members of the balance are the usable uplinks of the lowest rank among them, each with
slots by its weight (Sainte-Laguë's method). When a member leaves, its slots go to the others, which
keep theirs; when it returns it has them back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ifdefault.model.config import FAMILIES, Config, Family
from ifdefault.model.health import Decision
from ifdefault.model.kernel import SLOTS, Hook, Uplink
from ifdefault.plan import numbers, outgoing_rules


def wanted(config: Config, uplinks: tuple[Uplink, ...], decision: Decision) -> Hook | None:
    """The hook that this config needs, None if it needs none."""
    balance = config.outgoing.mode == "balance"
    marks = tuple(_marks(config, uplinks, decision)) if balance else ()
    cgroups = tuple(_cgroups(config, uplinks, decision))
    if not marks and not cgroups:
        return None
    return Hook(
        mask=config.host.mark_mask,
        marks=marks,
        sticky=bool(marks) and config.outgoing.sticky,
        udp=bool(marks) and config.outgoing.udp,
        spared=tuple(
            rule
            for family, _ in marks
            for rule in outgoing_rules.rules(config, uplinks, decision, family)
        ),
        cgroups=cgroups,
    )


# --- the balance --------------------------------------------------------------------------


def _marks(
    config: Config, uplinks: tuple[Uplink, ...], decision: Decision
) -> Iterator[tuple[Family, tuple[int, ...]]]:
    for family in FAMILIES:
        members = balanced(uplinks, decision, family)
        if members:
            marks = {u.name: u.outgoing_mark for u in members}
            # all that could be members, so that the slots of those that are keep their places
            weights = {u.name: u.weight for u in config.uplinks if u.rank == members[0].rank}
            yield family, tuple(marks[name] for name in slots(weights, marks))


def balanced(uplinks: tuple[Uplink, ...], decision: Decision, family: Family) -> tuple[Uplink, ...]:
    """The uplinks that share a family's new connections."""
    names = decision.usable_in(family)
    usable = [u for u in uplinks if u.name in names and u.gateway(family) is not None]
    rank = min((u.rank for u in usable), default=0)
    return tuple(u for u in usable if u.rank == rank)


def slots(weights: Mapping[str, int], there: Iterable[str]) -> tuple[str, ...]:
    """Whose each slot is, among those of `weights` that are there. What the places are depends on
    nothing else: not on who left before whom."""
    members = sorted(weights)
    owners = _awarded([""] * SLOTS, "", weights, members)
    for gone in sorted(set(weights) - set(there)):
        members.remove(gone)
        owners = _awarded(owners, gone, weights, members)
    return tuple(owners)


def _awarded(
    owners: list[str], free: str, weights: Mapping[str, int], members: list[str]
) -> list[str]:
    """Give the slots of `free` to the members, one by one to whom is owed most."""
    held = {name: owners.count(name) for name in members}
    given = list(owners)
    for place, owner in enumerate(owners):
        if owner == free:
            best = max(members, key=lambda name: (weights[name] / (2 * held[name] + 1), name))
            held[best] += 1
            given[place] = best
    return given


# --- cgroups ------------------------------------------------------------------------------


def _cgroups(
    config: Config, uplinks: tuple[Uplink, ...], decision: Decision
) -> Iterator[tuple[str, int, int]]:
    """Each once: the first rule that names a cgroup counts. The mark of no uplink where none of the
    rule's has the family: there is a rule that ends such packets."""
    nowhere = numbers.outgoing_mark(config.host, 0)
    seen: set[str] = set()
    for rule in config.outgoing.rules:
        for path in rule.cgroups:
            if path not in seen:
                seen.add(path)
                four, six = (_mark(rule.via, uplinks, decision, f) for f in FAMILIES)
                yield path, four or nowhere, six or nowhere


def _mark(
    via: tuple[str, ...], uplinks: tuple[Uplink, ...], decision: Decision, family: Family
) -> int:
    """That of the first of `via` that is usable, else of the last; 0 if none has the family."""
    marks = {u.name: u.outgoing_mark for u in uplinks if u.gateway(family) is not None}
    usable = [name for name in via if name in marks and name in decision.usable_in(family)]
    return next((marks[name] for name in (*usable, *reversed(via)) if name in marks), 0)
