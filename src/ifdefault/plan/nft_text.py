"""The building blocks of a ruleset's text.

Rules: one statement a line, so that a person can read a diff of two rulesets.
"""

from __future__ import annotations

from collections.abc import Iterable

from ifdefault.model.config import Family

IP: dict[Family, str] = {4: "ip", 6: "ip6"}
SET_SIZE = 128  # elements that packets may add: outsiders must not fill memory


def table(name: str, body: Iterable[str]) -> str:
    return "\n".join([f"table inet {name} {{", *(f"\t{line}" for line in body), "}", ""])


def chain(name: str, lines: Iterable[str], hook: str = "") -> list[str]:
    """A chain; `hook` as in "filter hook forward priority mangle" makes it a base chain."""
    head = [f"\ttype {hook}; policy accept;"] if hook else []
    return [f"chain {name} {{", *head, *(f"\t{line}" for line in lines), "}"]


def values(members: Iterable[object]) -> str:
    """An anonymous set, or the elements of a named one."""
    return "{ " + ", ".join(map(str, members)) + " }"


def names(interfaces: Iterable[str]) -> str:
    """A set of interface names."""
    return values(f'"{name}"' for name in sorted(set(interfaces)))


def packet_set(name: str, kind: str) -> list[str]:
    """A set that packets fill, with a counter an element."""
    return named_set(name, f"type {kind}", f"size {SET_SIZE}", "flags dynamic", "counter")


def named_set(name: str, *body: str, kind: str = "set") -> list[str]:
    """A set, or with `kind` "map" a map."""
    return [f"{kind} {name} {{", *(f"\t{line}" for line in body), "}"]
