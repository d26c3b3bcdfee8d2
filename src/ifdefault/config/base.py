"""Value types and checks that the tables of the config file share.

Rules: each table has a file of its name, and a field for each key, with the description that the
JSON Schema shows. Defaults come from `model.config` and `model.dns`, the only place that states
them. Each key is checked alone; checks across tables are in `cross` and `cross_dns`. An error says
what is wrong and what would be right; `parse` adds where.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Annotated, Any, NoReturn

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from ifdefault.model.duration import seconds

LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")  # of a domain name
USER = r"[A-Za-z_][A-Za-z0-9_.-]{0,30}\$?"  # useradd(8)
_TIME = r"([01]?[0-9]|2[0-3]):([0-5][0-9])"
TIMES_OF_DAY = re.compile(f"{_TIME}-{_TIME}")
PORT_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


class Keys(BaseModel):
    """A table of the config; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


def reject(what: str, remedy: str) -> NoReturn:
    raise PydanticCustomError("ifdefault", "{what}", {"what": what, "remedy": remedy})


def toml(value: Any) -> str:
    """A value as it is written in TOML; a table, only roughly."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text.replace("\x7f", "\\u007f")  # the one control that JSON doesn't escape


def number(default: float, least: float, most: float, description: str) -> Any:
    return Field(
        default=default,
        strict=True,
        ge=least,
        le=most,
        allow_inf_nan=False,
        description=description,
    )


def duration(text: str, example: str) -> int:
    """Whole seconds of "90s", "2h" or "400d"."""
    value = seconds(text)
    if value is None:
        reject(f"{toml(text)} is not a time", f'write it like "{example}"')
    return value


def times_of_day(text: str, example: str, remedy: str) -> tuple[int, int] | None:
    """The two times of "22:00-07:00" in minutes after midnight; None for an empty text. `remedy`:
    where they are equal."""
    if not text:
        return None
    match = TIMES_OF_DAY.fullmatch(text)
    if match is None:
        reject(f"{toml(text)} is not a time of day", f'write it like "{example}", in local time')
    hours, minutes, end_hours, end_minutes = map(int, match.groups())
    begin, end = 60 * hours + minutes, 60 * end_hours + end_minutes
    if begin == end:
        reject(f"{toml(text)} ends when it begins", remedy)
    return begin, end


def shorthand_for(key: str) -> BeforeValidator:
    """A plain value is shorthand for a table with only this key."""
    return BeforeValidator(lambda value: value if isinstance(value, dict) else {key: value})


def not_empty(what: str, remedy: str) -> AfterValidator:
    """Reject an empty list."""
    return AfterValidator(lambda values: values or reject(what, remedy))


def distinct(
    remedy: str = "list it once", key: Callable[[Any], Any] = lambda value: (str(value),)
) -> AfterValidator:
    """Reject a list in which two items have the same key; its first part is shown to users."""

    def check(values: Any) -> Any:
        keys = [key(value) for value in values or ()]
        for n, item_key in enumerate(keys):
            if item_key in keys[:n]:
                reject(f"{toml(item_key[0])} is listed more than once", remedy)
        return values

    return AfterValidator(check)


def labels(name: str) -> list[str]:
    """The labels of a lower-case domain name; [] if it isn't one."""
    parts = name.split(".")
    return parts if len(name) <= 253 and all(map(LABEL.fullmatch, parts)) else []


def port_range(text: str, shown: str, example: str, most: int = 65535) -> tuple[int, int]:
    """The first and the last port of "443" or "8000-8099"."""
    match = PORT_RANGE.fullmatch(text)
    if not match:
        reject(f"{shown} is not a port", f'write it like "{example}"')
    first, last = int(match[1]), int(match[2] or match[1])
    for port in (first, last):
        if not 0 < port <= most:
            reject(f"{shown}: {port} is not a port", f"use 1 to {most}")
    if first > last:
        reject(f"{shown} ends before it begins", f'write "{last}-{first}"')
    return first, last


def ip(text: str, example: str, *, loopback: bool = False) -> IPv4Address | IPv6Address:
    """The address of one host."""
    bare, slash, _ = text.partition("/")
    bare, zone, _ = bare.partition("%")
    try:
        address = ip_address(bare)
    except ValueError:
        reject(f'"{text}" is not an IP address', f'write it like "{example}"')
    if slash:
        reject(f'"{text}" is a prefix', f'write "{bare}"')
    if zone:
        reject(f'"{text}" has a zone index', f'write "{bare}"')
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        reject(f'"{text}" is an IPv4-mapped IPv6 address', f'write "{address.ipv4_mapped}"')
    if address.is_multicast or address.is_unspecified or (address.is_loopback and not loopback):
        reject(f'"{text}" is not a usable host address', f'write it like "{example}"')
    return address


def prefix(text: str, example: str) -> str:
    """A prefix in canonical form; an address counts as a prefix."""
    bare = text.partition("/")[0]
    try:
        network, address = ip_network(text, strict=False), ip_address(bare)
    except ValueError:
        reject(f"{toml(text)} is not a prefix", f'write it like "{example}"')
    if network.network_address != address:
        reject(f"{toml(text)} has host bits set", f'write "{network}"')
    mapped = isinstance(address, IPv6Address) and address.ipv4_mapped
    if mapped or network.is_multicast or network.is_loopback or network.is_link_local:
        reject(f"{toml(text)} can't be reached through an uplink", f'write it like "{example}"')
    return str(network)


def _interface(name: str) -> str:
    # Linux: dev_valid_name() in net/core/dev.c
    if not 0 < len(name.encode()) <= 15 or name in (".", "..") or re.search(r"[/:\s]", name):
        remedy = "use a name that `ip link` shows, at most 15 characters"
        reject(f'"{name}" is not an interface name', remedy)
    return name


Interface = Annotated[str, AfterValidator(_interface), Field(min_length=1, max_length=15)]
Uplinks = Annotated[tuple[str, ...], not_empty("no uplink", "name one"), distinct()]


def absolute(path: str, example: str, *, required: bool = False) -> str:
    """An absolute path of a file; "" for none, unless it is required."""
    if (path or required) and not path.startswith("/"):
        reject(f"{toml(path)} is not an absolute path", f'write it like "{example}"')
    if not path.isprintable() or len(path) > 255 or path.endswith("/"):
        reject(f"{toml(path)} is not a file path", f'write it like "{example}"')
    return path
