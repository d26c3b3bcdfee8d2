"""Building blocks of nftables text.

Rules: one statement per line, so that rulesets can be compared line by line.
"""

from __future__ import annotations

from collections.abc import Iterable

from ifdefault.model.config import Family

IP: dict[Family, str] = {4: "ip", 6: "ip6"}
SET_SIZE = 128  # of sets that packets add to: outsiders must not fill memory


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
    """A set that packets add elements to, each with a counter."""
    return named_set(name, f"type {kind}", f"size {SET_SIZE}", "flags dynamic", "counter")


def named_set(name: str, *body: str, kind: str = "set") -> list[str]:
    """A named set, or a map if `kind` is "map"."""
    return [f"{kind} {name} {{", *(f"\t{line}" for line in body), "}"]
