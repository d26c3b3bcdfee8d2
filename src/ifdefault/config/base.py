"""What the tables of the config file share: kinds of values, and how one is refused and shown.

Rules: of every table there is a file of its name. One field per key, with the description that the
JSON Schema shows; defaults come from `model.config` and `model.dns`, where they are stated once.
Each key is judged alone; what only several tables together can get wrong is in `cross` and
`cross_dns`. A refusal names what is wrong and what would be right; `parse` adds where.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Annotated, Any, NoReturn

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")  # of a domain name
USER = r"[A-Za-z_][A-Za-z0-9_.-]{0,30}\$?"  # useradd(8)
PORT_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


class Keys(BaseModel):
    """A table of the config; what it doesn't know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


def reject(what: str, remedy: str) -> NoReturn:
    raise PydanticCustomError("ifdefault", "{what}", {"what": what, "remedy": remedy})


def toml(value: Any) -> str:
    """A value as its writer wrote it, more or less."""
    return json.dumps(value, ensure_ascii=False, default=str)


def number(default: float, least: float, most: float, description: str) -> Any:
    return Field(
        default=default,
        strict=True,
        ge=least,
        le=most,
        allow_inf_nan=False,
        description=description,
    )


def short_for(key: str) -> BeforeValidator:
    """A value alone is short for a table with nothing but this key."""
    return BeforeValidator(lambda value: value if isinstance(value, dict) else {key: value})


def some(what: str, remedy: str) -> AfterValidator:
    """Refuse an empty list."""
    return AfterValidator(lambda values: values or reject(what, remedy))


def distinct(
    remedy: str = "name it once", key: Callable[[Any], Any] = lambda value: (str(value),)
) -> AfterValidator:
    """Refuse a list in which two have the same key, whose first part is what people see."""

    def check(values: Any) -> Any:
        keys = [key(value) for value in values or ()]
        for n, each in enumerate(keys):
            if each in keys[:n]:
                reject(f"{toml(each[0])} is named more than once", remedy)
        return values

    return AfterValidator(check)


def labels(name: str) -> list[str]:
    """The labels of a domain name in lower case; none if it isn't one."""
    found = name.split(".")
    return found if len(name) <= 253 and all(map(LABEL.fullmatch, found)) else []


def port_range(text: str, shown: str, example: str, most: int = 65535) -> tuple[int, int]:
    """The first and the last port of "443" or "8000-8099"."""
    found = PORT_RANGE.fullmatch(text)
    if not found:
        reject(f"{shown} is no port", f'write it like "{example}"')
    first, last = int(found[1]), int(found[2] or found[1])
    for port in (first, last):
        if not 0 < port <= most:
            reject(f"{shown}: {port} is no port", f"use 1 to {most}")
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
        reject(f'"{text}" is a prefix', f'drop the length: "{bare}"')
    if zone:
        reject(f'"{text}" has a zone', f'drop it: "{bare}", the interface is known')
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        reject(f'"{text}" is an IPv4 address in IPv6', f'write "{address.ipv4_mapped}"')
    if address.is_multicast or address.is_unspecified or (address.is_loopback and not loopback):
        reject(f'"{text}" is no host on a link', f'write it like "{example}"')
    return address


def prefix(text: str, example: str) -> str:
    """A prefix in its canonical form; an address is one as well."""
    bare = text.partition("/")[0]
    try:
        network, address = ip_network(text, strict=False), ip_address(bare)
    except ValueError:
        reject(f"{toml(text)} is no prefix", f'write it like "{example}"')
    if network.network_address != address:
        reject(f"{toml(text)} has bits behind its length", f'write "{network}"')
    mapped = isinstance(address, IPv6Address) and address.ipv4_mapped
    if mapped or network.is_multicast or network.is_loopback or network.is_link_local:
        reject(f"{toml(text)} isn't beyond an uplink", f'write it like "{example}"')
    return str(network)


def _interface(name: str) -> str:
    # Linux: dev_valid_name() in net/core/dev.c
    if not 0 < len(name.encode()) <= 15 or name in (".", "..") or re.search(r"[/:\s]", name):
        reject(
            f'"{name}" can\'t be an interface', "use its name in `ip link`, at most 15 characters"
        )
    return name


Interface = Annotated[str, AfterValidator(_interface), Field(min_length=1, max_length=15)]
Uplinks = Annotated[tuple[str, ...], some("no uplink", "name one"), distinct()]


def absolute(path: str, example: str, *, required: bool = False) -> str:
    """The path of a file; "" is none."""
    if (path or required) and not path.startswith("/"):
        reject(f"{toml(path)} is no absolute path", f'write it like "{example}"')
    if not path.isprintable() or len(path) > 255 or path.endswith("/"):
        reject(f"{toml(path)} is no file", f'write it like "{example}"')
    return path
