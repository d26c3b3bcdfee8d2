"""Take over what other programs' policy rules do: the config that says the same, what it can't say,
and what to remove, where and in which order.

Rules: pure. The kernel says what works now, the files say who laid it. Removing what is listed, in
its order, takes no route from a connection: our rules precede all others from the first step on.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from ifdefault.host.discover import Candidate, Discovery, named
from ifdefault.host.foreign_files import ForeignFiles
from ifdefault.host.foreign_syntax import Statement
from ifdefault.host.foreign_uplinks import as_routed
from ifdefault.model.config import FAMILIES, Family, HostConfig, OutgoingRule
from ifdefault.model.kernel import (
    PROTOCOL,
    TABLE_DEFAULT,
    TABLE_MAIN,
    Facts,
    Hop,
    Route,
    Rule,
)
from ifdefault.model.packet_filter import WHOLE_MARK
from ifdefault.plan import conflicts, foreign_rules, numbers, prefixes, tables
from ifdefault.plan.describe import route_text, rule_text, table_name
from ifdefault.plan.foreign_rules import ForeignRule

_HOST = HostConfig()
_TEXT_MAX = 60
_NOTES_MAX = 20
Reason = tuple[str, str]  # what, and why


@dataclass(frozen=True, slots=True)
class Takeover:
    """`outgoing`: each rule, and what it was. `left`: what the config can't say, which may stay.
    `notes`: what was seen besides. `statements`: lines of files to remove. `commands`: what to
    delete from the kernel. `unknown`: rules that no file lays. `devices`: to which
    NetworkManager's lead. `first`: what to do before anything else."""

    discovery: Discovery
    outgoing: tuple[tuple[OutgoingRule, str], ...] = ()
    left: tuple[Reason, ...] = ()
    notes: tuple[Reason, ...] = ()
    statements: tuple[Statement, ...] = ()
    commands: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    host: HostConfig = _HOST
    devices: tuple[str, ...] = ()
    first: tuple[str, ...] = ()

    @property
    def programs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(s.program for s in self.statements))


def take_over(discovery: Discovery, facts: Facts, files: ForeignFiles) -> Takeover:
    """What is to be done about others' rules on a host with these uplinks."""
    interfaces = {candidate.interface for candidate in discovery.uplinks}
    found = foreign_rules.find(facts, interfaces)
    joined = _Joined(facts, files, found, interfaces)
    names = {number: name for name, number in files.names.items()}
    names = {s.table: s.name for s in files.statements if s.name and s.table} | names
    uplinks = named(as_routed(discovery.uplinks, facts, found, names))
    left = list(joined.left(uplinks))
    outgoing = tuple(joined.outgoing(uplinks))
    uplinks = tuple(replace(c, routed=joined.routed(c)) for c in uplinks)
    return Takeover(
        replace(discovery, uplinks=uplinks),
        outgoing,
        tuple(dict.fromkeys(left)),
        _first_notes(tuple(joined.notes())),
        joined.to_remove(),
        tuple(joined.commands()),
        tuple(joined.unknown()),
        free_numbers(facts, len(uplinks)),
        joined.devices(),
    )


def free_numbers(facts: Facts, uplinks: int) -> HostConfig:
    """The defaults, or tables, priorities and bits of marks that no other program uses."""
    host = HostConfig()
    foreign = [rule for rule in facts.rules if rule.protocol != PROTOCOL]
    used = {rule.table for rule in foreign}
    used |= {route.table for route in facts.routes if route.protocol != PROTOCOL}
    bases = (replace(host, table_base=base) for base in range(host.table_base, 1 << 20, 1000))
    host = next(h for h in bases if used.isdisjoint(numbers.own_tables(h)))
    taken = {rule.priority for rule in foreign}
    firsts = range(host.rule_priority, 0, -numbers.BLOCK)
    free = (n for n in firsts if taken.isdisjoint(range(n - 1, n + numbers.END + 1)))
    masks = {rule.mask for rule in foreign} | {mark.bits for mark in facts.foreign_marks}
    mask = host.mark_mask
    if any(other & mask for other in masks - {WHOLE_MARK}):
        mask = conflicts.free_mask(foreign, facts, range(1, uplinks + 1)) or mask
    return replace(host, rule_priority=next(free, host.rule_priority), mark_mask=mask)


class _Joined:
    """The rules of the kernel and the statements of files, together."""

    def __init__(
        self,
        facts: Facts,
        files: ForeignFiles,
        found: Sequence[ForeignRule],
        interfaces: Collection[str],
    ) -> None:
        self._facts, self._files, self._found = facts, files, found
        self._interfaces = interfaces
        self._laid = {f.rule: self._statement(f.rule) for f in found}
        ruled = {rule.table for rule in facts.rules}
        self._unruled = {
            table: routes
            for (_, table), routes in tables.by_table(facts).items()
            if table not in ruled
            and any(r.dst == "default" and self._leads_out(r) for r in routes)
            and all(r.protocol != PROTOCOL for r in routes)
        }
        self._marks = [s for s in files.statements if s.kind == "mark" and self._is_set(s)]

    def _leads_out(self, route: Route) -> bool:
        return bool(route.hops) and all(hop.dev in self._interfaces for hop in route.hops)

    def _statement(self, rule: Rule) -> Statement | None:
        """The one that says most of those that may have laid a rule."""
        laying = [s for s in self._files.statements if s.lays(rule)]
        return max(laying, key=lambda s: len(s.known), default=None)

    def _is_set(self, mark: Statement) -> bool:
        return any(f.kind == "mark" and ("mark", f.rule.mark) in mark.known for f in self._found)

    def origin(self, rule: Rule) -> str:
        """A rule, and where it comes from."""
        statement = self._laid.get(rule)
        six = " -6" if rule.family == 6 else ""
        where = f" ({statement.program}, {statement.where})" if statement else ""
        return f"ip{six} rule {rule_text(rule)}{where}"

    # --- what the config says ------------------------------------------------------------------

    def outgoing(self, uplinks: Sequence[Candidate]) -> Iterator[tuple[OutgoingRule, str]]:
        for f in self._found:
            if f.outgoing and (via := _via(f.hops, uplinks)):
                yield replace(f.outgoing, via=via), self.origin(f.rule)
        for mark in self._marks:
            via = next((_via(f.hops, uplinks) for f in self._marked(mark)), ())
            if isinstance(mark.marks, OutgoingRule) and via:
                what = f"{mark.program}, {mark.where}: {mark.text}"
                yield replace(mark.marks, via=via), what

    def _marked(self, mark: Statement) -> list[ForeignRule]:
        return [f for f in self._found if f.kind == "mark" and ("mark", f.rule.mark) in mark.known]

    def routed(self, candidate: Candidate) -> tuple[str, ...]:
        return tuple(
            f.rule.src for f in self._found if f.kind == "routed" and _via(f.hops, [candidate])
        )

    def left(self, uplinks: Sequence[Candidate]) -> Iterator[Reason]:
        for f in self._found:
            goes = self._is_shorewalls(f.rule)
            fate = "it goes with the providers" if goes else "it may stay"
            names = " or ".join(_via(f.hops, uplinks))
            if f.kind == "other":
                yield self.origin(f.rule), f"{f.why}, to leave by {names}; {fate}"
            elif f.kind == "mark" and not goes:
                what = f"selects mark {f.rule.mark:#x}{self._setter(f.rule)}, to leave by {names}"
                yield self.origin(f.rule), f"{what}; replies need no mark; {fate}"
        for mark in self._marks:
            if isinstance(mark.marks, str):
                yield f"{mark.program}, {mark.where}: {mark.text}", mark.marks

    def _setter(self, rule: Rule) -> str:
        """Where a packet filter sets the mark that a rule selects."""
        for mark in self._facts.foreign_marks:
            if mark.sets and mark.value is not None and not (mark.value ^ rule.mark) & rule.mask:
                return f", set by {mark.where}"
        return ""

    def _is_shorewalls(self, rule: Rule) -> bool:
        statement = self._laid[rule]
        return statement is not None and statement.program == "Shorewall"

    # --- what is to be removed -------------------------------------------------------------------

    def _removed(self) -> list[ForeignRule]:
        return [
            f
            for f in self._found
            if not f.standard and (f.kind not in ("other", "mark") or self._is_shorewalls(f.rule))
        ]

    def to_remove(self) -> tuple[Statement, ...]:
        """Lines of files, each once, in their order."""
        removed = self._removed()
        going = {f.rule.table for f in removed} - {
            f.rule.table for f in self._found if f not in removed
        } | set(self._unruled)
        going -= {TABLE_MAIN, TABLE_DEFAULT}
        laid = {id(s) for f in removed if (s := self._laid[f.rule])}
        lines = {
            (s.path, s.line): s
            for s in self._files.statements
            if id(s) in laid or s.table in going or s in self._marks
        }
        return tuple(lines.values())

    def devices(self) -> tuple[str, ...]:
        laid = ((s, f) for f in self._found if (s := self._laid[f.rule]))
        managed = (f for s, f in laid if s.program.endswith("NetworkManager"))
        return tuple(dict.fromkeys(hop.dev for f in managed for hop in f.hops))

    def commands(self) -> Iterator[str]:
        """Rules first: a rule without routes is passed over, routes without a rule are nothing."""
        removed = self._removed()
        kept = {f.rule.table for f in self._found if f not in removed and not f.standard}
        for family in FAMILIES:
            ip = f"ip{' -6' if family == 6 else ''}"
            rules = [f.rule for f in removed if f.rule.family == family]
            there = {
                r.priority for r in self._facts.rules if (r.family, r.table) == (family, TABLE_MAIN)
            }
            moved = any(r.table == TABLE_MAIN and r.suppress_prefixlength < 0 for r in rules)
            if moved and numbers.MAIN not in there:
                yield f"{ip} rule add pref {numbers.MAIN} from all lookup main"
            for rule in rules:
                yield f"{ip} rule del {rule_text(rule)}"
            at = {r.table for r in rules} | set(self._unruled)
            at |= {f.rule.table for f in self._found if f.standard and f.rule.family == family}
            for table in sorted(at - kept - {TABLE_MAIN}):
                if tables.of(self._facts, family, table):
                    yield f"{ip} route flush table {table_name(table)}"
            if any(s.program == "Shorewall" for s in self._laid.values() if s):
                for route in self._host_routes(family):
                    yield f"{ip} route del {route_text(route)}"

    def _host_routes(self, family: Family) -> Iterator[Route]:
        """Shorewall's to the gateways, in main, where the link's own route leads there too."""
        gateways = {hop.gateway for f in self._found for hop in f.hops}
        for route in tables.of(self._facts, family, TABLE_MAIN):
            address, _, length = route.dst.partition("/")
            if address not in gateways or length not in ("32", "128") or len(route.hops) != 1:
                continue
            linked = tables.on_link(self._facts, route.family, route.hops[0].dev, TABLE_MAIN)
            wider = (r for r in linked if r.dst != route.dst)
            if not route.hops[0].gateway and any(
                prefixes.contains(route.family, r.dst, address) for r in wider
            ):
                yield route

    # --- what else was seen --------------------------------------------------------------------

    def unknown(self) -> Iterator[str]:
        for f in self._removed():
            if self._laid[f.rule] is None:
                yield self.origin(f.rule)

    def notes(self) -> Iterator[Reason]:
        yield from self._files.unread
        for f in self._found:
            if f.kind == "empty":
                yield self.origin(f.rule), "has no effect, since its table has no routes"
        for table in sorted(self._unruled):
            yield f"table {table}", "has a default route by an uplink, but no rule looks it up"
        rules = [r for r in self._facts.rules if r.protocol != PROTOCOL]
        seen = set()
        for s in self._files.statements:
            if s.where in seen:
                continue
            seen.add(s.where)
            if not s.known:
                yield s.where, f"isn't understood: {shorten(s.text)}"
            elif s.kind == "rule" and not any(s.lays(r) for r in rules) and not _deletes(s):
                yield s.where, f"lays a rule that isn't in the kernel now: {shorten(s.text)}"


def _first_notes(notes: tuple[Reason, ...]) -> tuple[Reason, ...]:
    """A script that lays thousands of rules mustn't hide what is to be done."""
    more = len(notes) - _NOTES_MAX
    return notes if more <= 0 else (*notes[:_NOTES_MAX], (f"and {more} more", ""))


def shorten(text: str) -> str:
    """A line of a file, so that it is recognised."""
    return text if len(text) <= _TEXT_MAX else f"{text[: _TEXT_MAX - 1]}…"


def _deletes(statement: Statement) -> bool:
    return re.search(r"\b(del|delete|flush)\b", statement.text) is not None


def _via(hops: Sequence[Hop], uplinks: Sequence[Candidate]) -> tuple[str, ...]:
    """The names of the uplinks that hops lead to."""
    found = []
    for hop in hops:
        on = [c for c in uplinks if c.interface == hop.dev]
        exact = [c for c in on if hop.gateway in {gateway for _, gateway in c.gateways}]
        found += [c.name for c in (exact or on)[:1]]
    return tuple(dict.fromkeys(found))
