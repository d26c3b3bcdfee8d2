"""What a new config changes in the DNS, for the operator: names, records, zones, servers.

Rules: pure. A line for each table that differs, by its key in the config; of lists what was added
(+) and removed (-).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from ifdefault.model.dns import DnsConfig, Endpoint, Record

_KEYS = {  # of DnsConfig's lists of tables: the table, and what identifies an entry
    "names": ("dns.name", ("name",)),
    "updates": ("dns.update", ("zone",)),
    "providers": ("dns.provider", ("zone",)),
    "execs": ("dns.exec", ("program", "zone")),
}


def config_changes(before: DnsConfig, after: DnsConfig) -> tuple[str, ...]:
    return tuple(_changes(before, after))


def _changes(before: DnsConfig, after: DnsConfig) -> Iterator[str]:
    if text := _listed("discover", before.discover, after.discover):
        yield f"dns: {text}"
    if text := _table(before.server, after.server):
        yield f"dns.server: {text}"
    for attribute, (table, keys) in _KEYS.items():
        old, new = (
            {tuple(getattr(entry, key) for key in keys): entry for entry in getattr(c, attribute)}
            for c in (before, after)
        )
        for key in dict.fromkeys((*old, *new)):
            where = f"{table} {' '.join(part for part in key if part)}"
            if key not in old:
                yield f"{where}: added"
            elif key not in new:
                yield f"{where}: removed"
            elif text := _table(old[key], new[key]):
                yield f"{where}: {text}"


def _table(before: Any, after: Any) -> str:
    """The keys of a table that differ."""
    parts = []
    for each in fields(before):
        old, new = getattr(before, each.name), getattr(after, each.name)
        if isinstance(old, tuple) and isinstance(new, tuple):
            parts.append(_listed(each.name, old, new))
        elif old != new:
            parts.append(f"{each.name} {_text(old)} -> {_text(new)}")
    return ", ".join(filter(None, parts))


def _listed(key: str, before: tuple[Any, ...], after: tuple[Any, ...]) -> str:
    """The entries of a list that differ."""
    if before == after:
        return ""
    parts = [f"+{_text(entry)}" for entry in after if entry not in before]
    parts += [f"-{_text(entry)}" for entry in before if entry not in after]
    return f"{key} {' '.join(parts) or 'in another order'}"


def _text(value: Any) -> str:
    match value:
        case None:
            return "all"
        case tuple():
            return " ".join(map(_text, value)) or "none"
        case Record():
            return f"({value.text})"
        case Endpoint(address, port, key):
            more = [f"port {port}"] * (port != 53) + [f"key {key}"] * bool(key)
            return f"{address} ({', '.join(more)})" if more else address
    return str(value) or '""'
