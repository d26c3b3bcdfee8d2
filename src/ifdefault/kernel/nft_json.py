"""The objects in nft's JSON: libnftables-json(5).

Rules: pure. Kinds of objects that this program doesn't use, and objects without the members that it
uses, are left out.
"""

from __future__ import annotations

import json
from typing import Any

from ifdefault.model.errors import KernelError, Problem

# what parts of rules may raise that aren't as libnftables-json(5) has them: of later versions
NOT_UNDERSTOOD = (LookupError, TypeError, ValueError, AttributeError, RuntimeError)
_MEMBERS = {
    "table": ("family", "name"),
    "chain": ("family", "table", "name"),
    "rule": ("family", "table", "chain"),
    "set": ("family", "table", "name"),
    "map": ("family", "table", "name"),
}


def objects(listing: str) -> list[dict[str, Any]]:
    """The objects of a listing, each by its kind; KernelError if it isn't one."""
    try:
        listed = json.loads(listing)["nftables"]
        return [entry for entry in listed if isinstance(entry, dict) and _is_known(entry)]
    except NOT_UNDERSTOOD as error:
        what = f"what it lists isn't understood: {type(error).__name__}"
        raise KernelError(Problem("nft", what, "report it, with the version of nft")) from error


def _is_known(entry: dict[str, Any]) -> bool:
    """Whether it is one object with all members that are used without asking."""
    [(kind, value)] = entry.items() if len(entry) == 1 else (("", None),)
    members = _MEMBERS.get(kind)
    if members is None or not isinstance(value, dict):
        return False
    if kind == "rule" and not (type(value.get("handle")) is int and _is_list(value.get("expr"))):
        return False
    return all(isinstance(value.get(member), str) for member in members)


def _is_list(value: Any) -> bool:
    return value is None or isinstance(value, list)
