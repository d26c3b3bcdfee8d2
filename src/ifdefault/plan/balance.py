"""Which of the host's own connections the eBPF programs on connect() balance or give an uplink.

Rules: connections are balanced over the usable uplinks of the lowest rank, in proportion to their
present weights (slots by Sainte-Laguë's method). The slots are used in turn, so that shares are
exact, but are shuffled, so that the order isn't that of whoever connects. When an uplink fails, its
slots go to the others, which keep theirs; when it recovers, it gets the same slots again. A line
that fills up gives away only as many as its present weight is less, but never the last one.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping

from ifdefault.model.config import FAMILIES, Config, Family
from ifdefault.model.health import Decision
from ifdefault.model.kernel import SLOTS, Hook, Uplink
from ifdefault.plan import numbers, outgoing_rules

# fixed, so that an uplink that returns gets the same slots again
_SHUFFLED = sorted(range(SLOTS), key=lambda slot: hashlib.sha256(bytes([slot])).digest())


def desired_hook(config: Config, uplinks: tuple[Uplink, ...], decision: Decision) -> Hook | None:
    """What the programs on connect() must do for this config; None if they aren't needed."""
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
            # all uplinks of the rank count, so that the members keep their slots when others fail
            weights = {u.name: u.weight for u in config.uplinks if u.rank == members[0].rank}
            present = {name: decision.weight(name, weights[name]) for name in marks}
            yield family, tuple(marks[name] for name in slots(weights, present))


def balanced(uplinks: tuple[Uplink, ...], decision: Decision, family: Family) -> tuple[Uplink, ...]:
    """The uplinks that share a family's new connections."""
    names = decision.usable_in(family)
    usable = [u for u in uplinks if u.name in names and u.gateway(family) is not None]
    rank = min((u.rank for u in usable), default=0)
    return tuple(u for u in usable if u.rank == rank)


def slots(weights: Mapping[str, int], present: Mapping[str, int]) -> tuple[str, ...]:
    """The owner of each of the SLOTS slots: those that `present` has weights of. It depends on the
    arguments alone, not on the order in which uplinks failed or lines filled up."""
    remaining = sorted(weights)
    owners = _reassign([""] * SLOTS, "", weights, remaining)
    for failed in sorted(set(weights) - set(present)):
        remaining.remove(failed)
        owners = _reassign(owners, failed, weights, remaining)
    owners = _reassign(_without_excess(owners, present), "", present, remaining)
    return tuple(owners[slot] for slot in _SHUFFLED)


def _without_excess(owners: list[str], present: Mapping[str, int]) -> list[str]:
    """With the slots freed that an uplink has beyond what its present weight is worth."""
    due = Counter(_reassign([""] * SLOTS, "", present, sorted(present)))
    counts = Counter[str]()
    kept = []
    for owner in owners:
        counts[owner] += 1
        kept.append(owner if counts[owner] <= max(due[owner], 1) else "")
    return kept


def _reassign(
    owners: list[str], free: str, weights: Mapping[str, int], members: list[str]
) -> list[str]:
    """Give the slots of `free` to the members, each to the one with the highest quotient."""
    counts = {name: owners.count(name) for name in members}
    reassigned = list(owners)
    for slot, owner in enumerate(owners):
        if owner == free:
            best = max(members, key=lambda name: (weights[name] / (2 * counts[name] + 1), name))
            counts[best] += 1
            reassigned[slot] = best
    return reassigned


# --- cgroups ------------------------------------------------------------------------------


def _cgroups(
    config: Config, uplinks: tuple[Uplink, ...], decision: Decision
) -> Iterator[tuple[str, int, int]]:
    """(path, IPv4 mark, IPv6 mark) of each cgroup; the first rule that names it counts. If none of
    the rule's uplinks has the family, the mark is that of uplink 0, whose packets a policy rule
    makes unreachable."""
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
    """The mark of the first uplink of `via` that works, otherwise of the last; 0 if none has the
    family."""
    marks = {u.name: u.outgoing_mark for u in uplinks if u.gateway(family) is not None}
    working = [name for name in via if name in decision.works_in(family)]
    return next((marks[name] for name in (*working, *reversed(via)) if name in marks), 0)
