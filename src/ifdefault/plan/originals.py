"""The host's own settings: what sysctls, link groups and MPTCP's limits were before
our first change.

Rules: pure. The original of a setting is its value before our first change, never one of ours. It
belongs to an interface, not to a name: it follows the interface when that is renamed, and is
dropped with it; another interface of the same name has originals of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from ifdefault.model.host import State
from ifdefault.model.kernel import Desired, Facts, Operation, SetGroup, SetSysctl
from ifdefault.model.mptcp import SetMptcpLimit
from ifdefault.plan.lookup import with_groups

T = TypeVar("T")


def indexes(facts: Facts) -> dict[str, int]:
    """The indexes of the interfaces, which stay when one is renamed."""
    return {link.name: link.index for link in facts.links}


def follow(state: State, facts: Facts) -> State:
    """The saved state with the present names of interfaces."""
    names = _Names(state.links, facts)
    if not names.differ:
        return state
    return replace(
        state,
        links={name: index for name, index in indexes(facts).items() if index in names.known},
        sysctls=names.of_sysctls(state.sysctls),
        groups=names.of_links(state.groups),
    )


def followed(target: Desired, links: Mapping[str, int], facts: Facts) -> Desired:
    """An earlier state of ours, in which interfaces had these indexes, with their present names."""
    names = _Names(links, facts)
    return replace(
        target,
        sysctls=tuple(names.of_sysctls(dict(target.sysctls)).items()),
        groups=tuple(names.of_links(dict(target.groups)).items()),
    )


class _Names:
    """The present names of interfaces that once had these names and indexes."""

    def __init__(self, links: Mapping[str, int], facts: Facts) -> None:
        present = {link.index: link.name for link in facts.links}
        self.known = frozenset(links.values())
        self._now = {name: present.get(index, "") for name, index in links.items()}
        self.differ = any(name != now for name, now in self._now.items())

    def of_links(self, settings: Mapping[str, T]) -> dict[str, T]:
        renamed = ((self._now.get(name, name), value) for name, value in settings.items())
        return {name: value for name, value in renamed if name}

    def of_sysctls(self, settings: Mapping[str, T]) -> dict[str, T]:
        renamed = ((self._of_sysctl(name), value) for name, value in settings.items())
        return {name: value for name, value in renamed if name}

    def _of_sysctl(self, name: str) -> str:
        interface = interface_of(name)
        now = self._now.get(interface, interface)
        return name if now == interface else now and name.replace(f"/{interface}/", f"/{now}/")


def interface_of(sysctl: str) -> str:
    """The interface of net/ipvN/conf/NAME/… or net/ipvN/neigh/NAME/…; "" if it has none."""
    parts = sysctl.split("/")
    return parts[3] if len(parts) == 5 else ""


def without_own_settings(state: State, facts: Facts) -> Facts:
    """The facts with the originals of sysctls and link groups that we set. The desired state
    depends on these: otherwise our own changes would change it, and a second plan be needed."""
    sysctls = tuple((n, _original(state.sysctls.get(n), value)) for n, value in facts.sysctls)
    groups = {link.name: _original(state.groups.get(link.name), link.group) for link in facts.links}
    return replace(facts, sysctls=sysctls, links=with_groups(facts.links, groups))


def _original(saved: tuple[T, ...] | None, now: T) -> T:
    """The original if the kernel has a value of ours, otherwise the current value."""
    return saved[0] if saved and now in saved[1:] else now


def with_originals(desired: Desired, state: State, facts: Facts) -> Desired:
    """Add the originals of settings that are no longer needed and still have our value."""
    now = {} if facts.sysctls_read_only else dict(facts.sysctls)
    groups = {link.name: link.group for link in facts.links}
    return replace(
        desired,
        sysctls=_with_saved(desired.sysctls, state.sysctls, now),
        groups=_with_saved(desired.groups, state.groups, groups),
        mptcp_limits=_with_saved(desired.mptcp_limits, state.limits, mptcp_limits(facts)),
    )


def _with_saved(
    wanted: Iterable[tuple[str, T]], saved: Mapping[str, tuple[T, ...]], now: Mapping[str, T]
) -> tuple[tuple[str, T], ...]:
    obsolete = {
        name: original for name, (original, *ours) in saved.items() if now.get(name) in ours
    }
    return tuple(sorted((obsolete | dict(wanted)).items()))


def mptcp_limits(facts: Facts) -> dict[str, int]:
    return dict(facts.mptcp.limits) if facts.mptcp else {}


def with_new_originals(state: State, operations: tuple[Operation, ...], facts: Facts) -> State:
    """Record the originals of the settings that the operations change. The oldest value remains the
    original; earlier values of ours are kept until the operation is done."""
    sysctls, groups, limits = dict(state.sysctls), dict(state.groups), dict(state.limits)
    for operation in operations:
        match operation:
            case SetSysctl(name, value, was):
                sysctls[name] = _with_ours(sysctls.get(name, (was,)), value)
            case SetGroup(dev, group, was_group):
                groups[dev] = _with_ours(groups.get(dev, (was_group,)), group)
            case SetMptcpLimit(name, limit, was_limit):
                limits[name] = _with_ours(limits.get(name, (was_limit,)), limit)
    return _with_links(replace(state, sysctls=sysctls, groups=groups, limits=limits), facts)


def _with_ours(saved: tuple[T, ...], value: T) -> tuple[T, ...]:
    return saved if value in saved[1:] else (*saved, value)


def settled(state: State, facts: Facts) -> State:
    """Drop settings that have their original value again, and earlier values of ours."""
    state = follow(state, facts)
    groups = {link.name: link.group for link in facts.links}
    settled = replace(
        state,
        sysctls=_settled(state.sysctls, dict(facts.sysctls)),
        groups=_settled(state.groups, groups),
        limits=_settled(state.limits, mptcp_limits(facts)),
    )
    return _with_links(settled, facts)


def _with_links(state: State, facts: Facts) -> State:
    """Record which interfaces the settings belong to."""
    known = indexes(facts)
    names = {*state.groups, *map(interface_of, state.sysctls)}
    return replace(state, links={name: known[name] for name in sorted(names & known.keys())})


def _settled(saved: Mapping[str, tuple[T, ...]], now: Mapping[str, T]) -> dict[str, tuple[T, ...]]:
    settled = {}
    for name, (original, *ours) in saved.items():
        value = now.get(name)
        if value != original:
            settled[name] = (original, value) if value in ours else (original, *ours)
    return settled
