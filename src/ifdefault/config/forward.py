"""The keys of [[forward]].

Rules: as in `config.base`. A plain string is shorthand for a table with only its main key, or for a
list of one item.
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
    not_empty,
    port_range,
    reject,
    shorthand_for,
    toml,
)
from ifdefault.model.config import ForwardConfig, ForwardServer, Ports, Transport

MOST_SERVERS = 64  # of one service
_FORWARD = ForwardConfig((), ())


def _listed(value: Any) -> Any:
    """A plain value is shorthand for a list of one item."""
    return value if isinstance(value, list | tuple) else (value,)


def _listen(text: str) -> Ports:
    transport, colon, ports = text.partition(":")
    transport = transport.lower()
    if not colon or transport not in ("tcp", "udp"):
        number = ports or transport
        shown = number if PORT_RANGE.fullmatch(number) else "443"
        reject(f"{toml(text)} has no transport", f'write "tcp:{shown}" or "udp:{shown}"')
    kind: Transport = "tcp" if transport == "tcp" else "udp"
    return Ports(kind, *port_range(ports, toml(text), f"{kind}:443"))


def _without_overlap(listen: tuple[Ports, ...]) -> tuple[Ports, ...]:
    for one, other in combinations(sorted(listen), 2):
        if one.transport == other.transport and one.last >= other.first:
            reject(f'"{one}" and "{other}" overlap', "list each port once")
    return listen


# --- servers ------------------------------------------------------------------------------


class ForwardServerKeys(Keys):
    """A server behind the host, and its weight."""

    address: str
    weight: int = Field(default=1, strict=True, ge=0, le=1000)


def _server(keys: ForwardServerKeys) -> ForwardServer:
    text = keys.address
    match = re.fullmatch(r"(\[[^]]*\]|[^:]*):([^:\]]*)", text)
    host, port = (match[1], match[2]) if match else (text, None)
    address = ip(host.removeprefix("[").removesuffix("]"), "10.0.0.10")
    if address.is_link_local:
        reject(f"{toml(text)} is link-local", "use an address that needs no interface")
    if port is None:
        return ForwardServer(str(address), 0, keys.weight)
    first, last = port_range(port, toml(text), "10.0.0.10:8080")
    if first != last:
        remedy = "leave it out: a range in listen keeps the client's port"
        reject(f"{toml(text)} has a port range", remedy)
    return ForwardServer(str(address), first, keys.weight)


def _weights(to: tuple[ForwardServer, ...]) -> tuple[ForwardServer, ...]:
    for family in (4, 6):
        weights = [s.weight for s in to if (":" in s.address) == (family == 6)]
        if weights and not any(weights):
            remedy = "give one of them a weight, or remove them"
            reject(f"every IPv{family} server has weight 0", remedy)
    return to


def _check(text: str) -> str:
    if text in ("tcp", "off"):
        return text
    if not text.startswith("/"):
        reject(f"{toml(text)} is not valid", 'use "tcp", "off", or a path to GET such as "/health"')
    if len(text) > 1000 or re.search(r"[^!-~]", text) or "#" in text:
        remedy = "use at most 1000 printable ASCII characters, others as %20, and no #"
        reject(f"{toml(text[:60])} is not a valid path", remedy)
    return text


_SERVER_SCHEMA = {
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
    not_empty("no port", 'name one, such as "tcp:443"'),
    AfterValidator(_without_overlap),
    _or_list(_LISTEN_ITEM),
]
_ServerItem = Annotated[ForwardServerKeys, shorthand_for("address"), AfterValidator(_server)]
Servers = Annotated[
    tuple[_ServerItem, ...],
    Field(max_length=MOST_SERVERS),
    BeforeValidator(_listed),
    not_empty("no server", 'name one, as in to = ["10.0.0.10"]'),
    distinct("list it once, with a weight", attrgetter("address", "port")),
    AfterValidator(_weights),
    _or_list(_SERVER_SCHEMA),
]


class ForwardKeys(Keys):
    """A service offered by servers behind the host."""

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
    """A service with UDP ports only can't be checked by TCP, so its default check is off."""
    config = ForwardConfig(**dict(keys))
    if config.check == "tcp" and all(ports.transport == "udp" for ports in config.listen):
        return ForwardConfig(**dict(keys) | {"check": "off"})
    return config
