"""Conflicts: what other programs have configured on this host that interferes with ifdefault.

Rules: pure. Foreign objects are reported, never touched. An error means that apply would do harm
or would be undone; a warning means that something won't work as expected, or describes what apply
does about it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from ifdefault.model.config import Config, Family, HostConfig
from ifdefault.model.errors import Problem
from ifdefault.model.kernel import (
    FORWARDING,
    PROTOCOL,
    TABLE_LOCAL,
    TABLE_MAIN,
    Facts,
    Rule,
    Uplink,
)
from ifdefault.model.packet_filter import WHOLE_MARK, ForeignMark
from ifdefault.plan import (
    conflicts_arp,
    conflicts_defaults,
    conflicts_forward,
    conflicts_input,
    conflicts_leftovers,
    conflicts_reverse_path,
    conflicts_tables,
    connmark,
    numbers,
    prefixes,
    tables,
    udp_wildcard,
)
from ifdefault.plan.describe import rule_text
from ifdefault.plan.own_addresses import own_addresses
from ifdefault.plan.resolve import ready
from ifdefault.plan.rule_block import (
    first_priority,
    foreign_catchers,
    local_precedes,
    possible_blocks,
)


def find_conflicts(config: Config, facts: Facts, uplinks: Sequence[Uplink]) -> tuple[Problem, ...]:
    """All errors and warnings, in a fixed order."""
    foreign = [rule for rule in facts.rules if rule.protocol != PROTOCOL and rule.priority]
    return (
        *_above_us(config, facts),
        *_local_table(config, facts),
        *_bypasses(foreign),
        *_in_our_block(foreign, first_priority(config, facts)),
        *_in_our_tables(foreign, facts, config.host),
        *_under_our_name(facts),
        *_on_our_marks(foreign, facts, config, uplinks),
        *_on_whole_marks(foreign, facts, uplinks),
        *_strict_filters(config, facts, uplinks),
        *_unready(config.host, facts, uplinks),
        *_missing_addresses(config, facts, uplinks),
        *_shared_budgets(config),
        *conflicts_defaults.find(config, facts, uplinks),
        *conflicts_arp.find(facts, uplinks),
        *conflicts_tables.find(facts, uplinks),
        *conflicts_forward.find(config, facts, uplinks),
        *conflicts_reverse_path.find(config, facts, uplinks),
        *conflicts_input.find(config, facts.filters, uplinks),
        *conflicts_leftovers.find(config, facts, uplinks),
    )


# --- foreign rules that take packets before ours -------------------------------------------


def _above_us(config: Config, facts: Facts) -> Iterator[Problem]:
    block = next(possible_blocks(config, facts), None)
    for rule in foreign_catchers(config, facts):
        if block is not None:
            if _own_block(facts, rule.family, block):
                continue  # apply has done it
            remedy = "apply adds the return-path rules before it"
            what = "takes replies before the return-path rules"
            yield Problem(_rule_name(rule), what, remedy, True)
        else:
            lowest = numbers.LOWEST_BLOCK + numbers.END
            what = "takes replies, and leaves no room for the return-path rules before it"
            yield Problem(_rule_name(rule), what, f"give it a priority greater than {lowest}")


def _local_table(config: Config, facts: Facts) -> Iterator[Problem]:
    first = first_priority(config, facts)
    for family in sorted({rule.family for rule in facts.rules}):
        done = any(r.table == TABLE_LOCAL for r in _own_block(facts, family, first))
        if not done and not local_precedes(facts, family, first):
            where = f"ip{' -6' if family == 6 else ''} rule"
            what = "the rule of table local doesn't precede the return-path rules"
            yield Problem(
                where,
                what,
                f"apply adds its own, pref {first + numbers.OWN_ADDRESSES}",
                warning=True,
            )


def _own_block(facts: Facts, family: Family, first: int) -> list[Rule]:
    """Our rules that are in a block already."""
    return [
        rule
        for rule in facts.rules
        if (rule.family, rule.protocol) == (family, PROTOCOL)
        and first + numbers.OWN_ADDRESSES <= rule.priority <= first + numbers.END
    ]


def _bypasses(foreign: Sequence[Rule]) -> Iterator[Problem]:
    for rule in foreign:
        if (
            rule.action == "lookup"
            and rule.table == TABLE_MAIN
            and rule.priority < numbers.OUTGOING
            and rule.suppress_prefixlength < 0
            and not rule.unfollowed
            and (rule.invert or prefixes.network(rule.dst)[1] <= 1)
        ):
            yield Problem(
                _rule_name(rule),
                "looks up main before the primary uplink's table",
                "packets that it selects always take main's default route, even if that is down",
                True,
            )


# --- our numbers ---------------------------------------------------------------------------


def _in_our_block(foreign: Sequence[Rule], first: int) -> Iterator[Problem]:
    taken = {rule.priority for rule in foreign}
    starts = range(first - first % numbers.BLOCK, 0, -numbers.BLOCK)
    free = (s for s in starts if taken.isdisjoint(range(s, s + numbers.END + 1)))
    remedy = f"set host.rule_priority = {next(free, numbers.BLOCK)}"
    for rule in foreign:
        if first <= rule.priority <= first + numbers.END:
            what = f"has a priority among ours, {first} to {first + numbers.END}"
            yield Problem(_rule_name(rule), what, f"change its priority, or {remedy}")


def _in_our_tables(foreign: Sequence[Rule], facts: Facts, host: HostConfig) -> Iterator[Problem]:
    own = numbers.own_tables(host)
    remedy = f"set host.table_base so that the {len(own)} tables from it are free"
    for rule in foreign:
        if rule.action == "lookup" and rule.table in own:
            yield Problem(_rule_name(rule), f"looks up table {rule.table}, which is ours", remedy)
    ours = (some for (_, table), some in tables.by_table(facts).items() if table in own)
    others = [route for some in ours for route in some if route.protocol != PROTOCOL]
    for table, count in sorted(Counter(route.table for route in others).items()):
        example = next(route for route in others if route.table == table)
        what = f"contains {count} foreign route{'s'[: count > 1]}, such as {example.dst}"
        yield Problem(f"table {table}", what, remedy)


def _under_our_name(facts: Facts) -> Iterator[Problem]:
    for name, table in facts.tables:
        if not table.digest:
            remedy = "rename it, or delete it if it isn't needed"
            yield Problem(f"nft table inet {name}", "has our name, but isn't ours", remedy)


def _on_our_marks(
    foreign: Sequence[Rule], facts: Facts, config: Config, uplinks: Sequence[Uplink]
) -> Iterator[Problem]:
    """Others' masks must not overlap ours. A whole mark may, unless it looks like one of ours: a
    comparison with it never finds our marks, and packets that leave with it get none of ours."""
    own = config.host.mark_mask
    free = free_mask(foreign, facts, {u.number for u in uplinks})
    remedy = f"set host.mark_mask = {free:#x}" if free else _NARROWER
    for rule in foreign:
        if rule.mask != WHOLE_MARK and rule.mask & own:
            yield Problem(_rule_name(rule), f"selects by bits of host.mark_mask {own:#x}", remedy)
    marks_used = connmark.tracks_forwarded(config, facts) or any(
        u.mechanism != "source" for u in uplinks
    )
    for mark in facts.foreign_marks:
        if mark.bits != WHOLE_MARK and mark.bits & own:
            what = f"uses bits {mark.bits & own:#x} of host.mark_mask {own:#x}"
            yield Problem(mark.where, what, remedy)
        elif mark.bits == WHOLE_MARK and mark.sets and marks_used:
            what = "overwrites the whole packet mark, including our bits"
            yield Problem(mark.where, what, f"make it leave the bits {own:#x} alone", True)
    owners = {mark: u.name for u in uplinks for mark in (u.arrival_mark, u.outgoing_mark)}
    unbound = numbers.outgoing_mark(config.host, 0)
    for value, where in _whole_marks(foreign, facts).items():
        if value & own in owners:
            what = f"mark {value:#x} would be taken for that of uplink.{owners[value & own]}"
            yield Problem(where, what, remedy)
        elif value & unbound:
            what = f"packets with mark {value:#x} take main's default, not the primary uplink"
            yield Problem(where, what, remedy, True)


# when every six adjacent bits are taken by masks
_NARROWER = "no six adjacent bits are free; give this rule a narrower mask, as in 0x1/0xff"


def _whole_marks(foreign: Sequence[Rule], facts: Facts) -> dict[int, str]:
    """The values of whole marks that are set or compared, and where."""
    rules = {r.mark: _rule_name(r) for r in reversed(foreign) if r.mask == WHOLE_MARK}
    marks = {m.value: m.where for m in facts.foreign_marks if m.value is not None}
    return marks | rules


def free_mask(foreign: Sequence[Rule], facts: Facts, ours: Collection[int]) -> int:
    """Six adjacent bits that no mask on this host uses, and in which no whole mark is like one of
    ours (numbers of uplinks); preferably those that whole marks leave zero, and the highest. 0 if
    there are none."""
    taken = 0
    for rule in foreign:
        taken |= 0 if rule.mask == WHOLE_MARK else rule.mask
    for mark in facts.foreign_marks:
        taken |= 0 if mark.bits == WHOLE_MARK else mark.bits
    whole = _whole_marks(foreign, facts)
    free: list[tuple[int, int]] = []  # how many whole marks have bits in it, and the mask
    for shift in range(26, -1, -1):
        inside = [value >> shift & 0x3F for value in whole]
        alike = any(bits & 0x20 or bits in ours for bits in inside)
        if not alike and not taken & 0x3F << shift:
            free.append((sum(map(bool, inside)), 0x3F << shift))
    return min(free, key=lambda entry: entry[0], default=(0, 0))[1]


def _on_whole_marks(
    foreign: Sequence[Rule], facts: Facts, uplinks: Sequence[Uplink]
) -> Iterator[Problem]:
    """tcp_fwmark_accept copies the whole mark to the accepted socket, not just our bits."""
    marked = [uplink for uplink in uplinks if uplink.mechanism == "mark"]
    for rule in foreign:
        if not marked or not rule.mark or rule.invert:
            continue
        setters = [mark.where for mark in facts.foreign_marks if _may_set(mark, rule)]
        if setters:
            yield Problem(
                _rule_name(rule),
                f"would take replies of connections that {setters[0]} marks, "
                f"since uplink.{marked[0].name} needs tcp_fwmark_accept",
                'give the uplinks different addresses, or set host.return_path = "conntrack"',
            )


def _may_set(mark: ForeignMark, rule: Rule) -> bool:
    """Whether packets may get a mark that a rule selects."""
    if mark.value is None:
        return mark.sets and bool(mark.bits & rule.mark)
    return mark.sets and (mark.value ^ rule.mark) & rule.mask == 0


# --- the host ------------------------------------------------------------------------------


def _strict_filters(config: Config, facts: Facts, uplinks: Sequence[Uplink]) -> Iterator[Problem]:
    """A strict reverse-path filter drops a packet whose reply would leave by another interface.

    Its lookup matches source rules, and marks only with src_valid_mark; forwarded packets match
    neither. The greater value of `all` and the interface applies (ip-sysctl.rst, rp_filter).
    """
    sysctls = dict(facts.sysctls)
    redirects = bool(udp_wildcard.ports(config, facts, 4)) and len(uplinks) > 1
    forwards = sysctls.get(FORWARDING[4]) == "1"
    everywhere = sysctls.get("net/ipv4/conf/all/rp_filter", "0")
    primary = next(ready(tuple(uplinks), 4), None)
    for uplink in uplinks:
        own = sysctls.get(f"net/ipv4/conf/{uplink.interface}/rp_filter", "0")
        if uplink.pending or max(own, everywhere) != "1":
            continue
        dev = uplink.interface if own == "1" else "all"
        where = f"sysctl net.ipv4.conf.{dev}.rp_filter"
        if connmark.tracks_forwarded(config, facts):
            what = f"strict, drops forwarded packets that arrive on {uplink.interface}"
            remedy = f"apply sets net.ipv4.conf.{uplink.interface}.rp_filter = 2 (loose)"
            yield Problem(where, what, remedy, True)
            continue
        marks_valid = sysctls.get(f"net/ipv4/conf/{uplink.interface}/src_valid_mark") == "1"
        if not marks_valid and (uplink.mechanism != "source" or redirects):
            what = f"strict, would drop marked packets that arrive on {uplink.interface}"
            remedy = f"apply sets net.ipv4.conf.{uplink.interface}.src_valid_mark = 1"
            yield Problem(where, what, remedy, True)
        if forwards and uplink != primary:
            what = f"strict, drops packets from {uplink.interface} that are to be forwarded"
            remedy = f"run `sysctl -w net.ipv4.conf.{uplink.interface}.rp_filter=2` (loose)"
            yield Problem(where, what, remedy, True)


def _unready(host: HostConfig, facts: Facts, uplinks: Sequence[Uplink]) -> Iterator[Problem]:
    groups = {link.name: link.group for link in facts.links}
    for uplink in uplinks:
        if uplink.pending:
            yield Problem(f"uplink.{uplink.name}", f"pending: {uplink.pending}", warning=True)
        if (group := groups.get(uplink.interface, 0)) not in (0, host.interface_group):
            what = f"{uplink.interface} is in link group {group}"
            remedy = f"apply moves it to group {host.interface_group}, and down moves it back"
            yield Problem(f"uplink.{uplink.name}", what, remedy, True)


def _missing_addresses(
    config: Config, facts: Facts, uplinks: Sequence[Uplink]
) -> Iterator[Problem]:
    usable = {uplink.name for uplink in uplinks if not uplink.pending}
    there = own_addresses(facts)
    for wanted in config.uplinks:
        missing = [address for address in wanted.addresses if address not in there]
        if missing and wanted.name in usable:
            what = f"not on this host: {', '.join(missing)}; using the others"
            yield Problem(f"uplink.{wanted.name}.addresses", what, warning=True)


def _shared_budgets(config: Config) -> Iterator[Problem]:
    for uplink in config.uplinks:
        of_interface = [u.name for u in config.uplinks if u.interface == uplink.interface]
        others = [name for name in of_interface if name != uplink.name]
        if uplink.budget_bytes and others:
            what = f"{uplink.interface} is counted, which carries {' and '.join(others)}, too"
            remedy = "let the budget be that of all of them"
            yield Problem(f"uplink.{uplink.name}.budget", what, remedy, True)


def _rule_name(rule: Rule) -> str:
    return f"ip{' -6' if rule.family == 6 else ''} rule {rule_text(rule)}"
