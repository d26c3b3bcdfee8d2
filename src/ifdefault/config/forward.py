"""The keys of [[forward]].

Rules: as in `config.base`. A text that stands for a table, or for a list, with nothing else in it
is the same as that.
"""

from __future__ import annotations

import re
from itertools import combinations
from operator import attrgetter
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from ifdefault.config.base import (
    PORT_RANGE,
    Keys,
    Uplinks,
    distinct,
    ip,
    port_range,
    reject,
    short_for,
    some,
    toml,
)
from ifdefault.model.config import ForwardConfig, ForwardServer, Ports, Transport

MOST_SERVERS = 64  # of one service
_FORWARD = ForwardConfig((), ())


def _listed(value: Any) -> Any:
    """A value alone is short for a list with nothing else in it."""
    return value if isinstance(value, list | tuple) else (value,)


def _listen(text: str) -> Ports:
    transport, colon, ports = text.partition(":")
    transport = transport.lower()
    if not colon or transport not in ("tcp", "udp"):
        number = ports or transport
        shown = number if PORT_RANGE.fullmatch(number) else "443"
        reject(f"{toml(text)} names no transport", f'write "tcp:{shown}" or "udp:{shown}"')
    kind: Transport = "tcp" if transport == "tcp" else "udp"
    return Ports(kind, *port_range(ports, toml(text), f"{kind}:443"))


def _apart(listen: tuple[Ports, ...]) -> tuple[Ports, ...]:
    for one, other in combinations(sorted(listen), 2):
        if one.transport == other.transport and one.last >= other.first:
            reject(f'"{one}" and "{other}" overlap', "name each port once")
    return listen


# --- content servers ----------------------------------------------------------------------


class ContentKeys(Keys):
    """A content server, by its address, and its share."""

    address: str
    weight: int = Field(default=1, strict=True, ge=0, le=1000)


def _content(keys: ContentKeys) -> ForwardServer:
    text = keys.address
    found = re.fullmatch(r"(\[[^]]*\]|[^:]*):([^:\]]*)", text)
    host, port = (found[1], found[2]) if found else (text, None)
    address = ip(host.removeprefix("[").removesuffix("]"), "10.0.0.10")
    if address.is_link_local:
        reject(f"{toml(text)} is link-local", "name an address that needs no interface")
    if port is None:
        return ForwardServer(str(address), 0, keys.weight)
    first, last = port_range(port, toml(text), "10.0.0.10:8080")
    if first != last:
        reject(f"{toml(text)} is a range", "drop it: a range keeps the ports that were asked for")
    return ForwardServer(str(address), first, keys.weight)


def _weights(to: tuple[ForwardServer, ...]) -> tuple[ForwardServer, ...]:
    for family in (4, 6):
        there = [each.weight for each in to if (":" in each.address) == (family == 6)]
        if there and not any(there):
            remedy = "leave one that gets connections, or drop those that are to get none"
            reject(f"every IPv{family} server has weight 0", remedy)
    return to


def _check(text: str) -> str:
    if text in ("tcp", "off"):
        return text
    if not text.startswith("/"):
        reject(f"{toml(text)} is no choice", 'use "tcp", "off", or a path to GET such as "/health"')
    if len(text) > 1000 or re.search(r"[^!-~]", text) or "#" in text:
        reject(f"{toml(text[:60])} has foreign letters, a # or is too long", "write them as %20")
    return text


_CONTENT_SCHEMA = {
    "anyOf": [
        {"type": "string", "examples": ["10.0.0.10", "10.0.0.10:8080", "[fd00::10]:8443"]},
        {
            "type": "object",
            "required": ["address"],
            "additionalProperties": False,
            "properties": {
                "address": {"type": "string"},
                "weight": {"type": "integer", "minimum": 0, "maximum": 1000, "default": 1},
            },
        },
    ]
}
_LISTEN_ITEM = {"type": "string", "pattern": "^([tT][cC]|[uU][dD])[pP]:[0-9]+(-[0-9]+)?$"}


def _or_list(item: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]})


_ListenPorts = Annotated[
    tuple[Annotated[str, AfterValidator(_listen)], ...],
    BeforeValidator(_listed),
    some("no port", 'name one, such as "tcp:443"'),
    AfterValidator(_apart),
    _or_list(_LISTEN_ITEM),
]
_ServerItem = Annotated[ContentKeys, short_for("address"), AfterValidator(_content)]
Servers = Annotated[
    tuple[_ServerItem, ...],
    Field(max_length=MOST_SERVERS),
    BeforeValidator(_listed),
    some("no server", 'name one, as in to = ["10.0.0.10"]'),
    distinct("name it once, with a weight", attrgetter("address", "port")),
    AfterValidator(_weights),
    _or_list(_CONTENT_SCHEMA),
]


class ForwardKeys(Keys):
    """A service that content servers behind the host offer."""

    listen: _ListenPorts = Field(description='ports that clients connect to, such as "tcp:443"')
    to: Servers = Field(description="servers, with a port if it differs from the one in listen")
    uplinks: Uplinks = Field(default=(), description="uplinks that offer the service; default: all")
    check: Annotated[str, AfterValidator(_check)] = Field(
        default=_FORWARD.check,
        description='how servers are checked: "tcp", "off", or a path to GET',
        json_schema_extra={"pattern": "^(tcp|off|/.*)$"},
    )
    on_down: Literal["next", "reset"] = Field(
        default=_FORWARD.on_down, description="what happens to the share of a server that is down"
    )


def forward_config(keys: ForwardKeys) -> ForwardConfig:
    """Of a service that is UDP alone nothing can be asked by TCP."""
    config = ForwardConfig(**dict(keys))
    if config.check == "tcp" and all(ports.transport == "udp" for ports in config.listen):
        return ForwardConfig(**dict(keys) | {"check": "off"})
    return config
