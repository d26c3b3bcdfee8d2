"""Rules in the order of the kernel, indexed by a selector: of thousands, a packet matches few."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from ifdefault.model.address import BITS
from ifdefault.model.config import Family
from ifdefault.model.flow import Flow
from ifdefault.model.kernel import Rule
from ifdefault.model.many import Many
from ifdefault.model.prefix_set import first_of
from ifdefault.plan import prefixes

_Shape = tuple[str, int]  # a selector, and the length of its prefix or the mask of its mark
_Key = tuple[str, int, int | str]  # the same with its value


class RuleIndex:
    def __init__(self, rules: Many[Rule]) -> None:
        self.rules = rules
        self.priorities = {(rule.family, rule.priority) for rule in rules}
        self._by_key: dict[Family, dict[_Key, list[int]]] = {4: {}, 6: {}}
        self._shapes: dict[Family, set[_Shape]] = {4: set(), 6: set()}
        for position, rule in enumerate(rules):
            key = _key(rule)
            self._by_key[rule.family].setdefault(key, []).append(position)
            self._shapes[rule.family].add(key[:2])

    def candidates(self, flow: Flow) -> Iterator[Rule]:
        """The rules of the flow's family in order, without some that don't match."""
        by_key = self._by_key[flow.family]
        found: list[int] = []
        for shape in self._shapes[flow.family]:
            found += by_key.get((*shape, _value(flow, *shape)), ())
        return (self.rules[position] for position in sorted(found))


@functools.lru_cache(maxsize=8)
def rule_index(rules: Many[Rule]) -> RuleIndex:
    return RuleIndex(rules)


def _key(rule: Rule) -> _Key:
    if not rule.invert:
        for name, prefix in (("src", rule.src), ("dst", rule.dst)):
            if prefix:
                first, length = prefixes.network(prefix)
                return name, length, first
        for name, interface in (("iif", rule.iif), ("oif", rule.oif)):
            if interface:
                return name, 0, interface
        if rule.mask:
            return "mark", rule.mask, rule.mark & rule.mask
    return "any", 0, 0


def _value(flow: Flow, selector: str, size: int) -> int | str:
    """What the selector of a rule has to be for a packet to match it."""
    match selector:
        case "src" | "dst":
            address = flow.src if selector == "src" else flow.dst
            if not address:
                return -1
            return first_of(prefixes.number(address), size, BITS[flow.family])
        case "iif":
            return flow.iif or "lo"
        case "oif":
            return flow.oif
        case "mark":
            return flow.mark & size
        case _:
            return 0
