"""The keys of what lies behind the host, and of what goes out: [[forward]] and [outgoing].

Rules: as in `config.keys`. A text that stands for a table, or for a list, with nothing else in it
is the same as that. Users are uids here, or names that somebody else must resolve. What several
tables can only get wrong together is in `config.crossbehind`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import combinations
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema

from ifdefault.config.base import Interface, Keys, ip, prefix, reject, toml
from ifdefault.model.config import (
    ForwardConfig,
    ForwardServer,
    OutgoingConfig,
    OutgoingRule,
    Ports,
    Transport,
)

MOST_SERVERS = 64  # of one service
_OUTGOING = OutgoingConfig()
_FORWARD = ForwardConfig((), ())
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,30}\$?")  # useradd(8)
_LAST_IN_RULE = 65534  # a policy rule takes no port 65535 (fib_rule_port_range_valid())
_LAST_UID = (1 << 32) - 2  # the one behind is no user's (setresuid(2))


def _listed(value: Any) -> Any:
    """A value alone is short for a list with nothing else in it."""
    return value if isinstance(value, list | tuple) else (value,)


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if names.count(name) > 1:
            reject(f"{toml(name)} is named more than once", "name it once")
    return names


def _uplinks(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        reject("no uplink", "name one")
    return _distinct(names)


Uplinks = Annotated[tuple[str, ...], AfterValidator(_uplinks)]


# --- ports and prefixes -------------------------------------------------------------------


def _range(text: str, shown: str, example: str, most: int = 65535) -> tuple[int, int]:
    """The first and the last port of "443" or "8000-8099"."""
    found = _RANGE.fullmatch(text)
    if not found:
        reject(f"{shown} is no port", f'write it like "{example}"')
    first, last = int(found[1]), int(found[2] or found[1])
    for port in (first, last):
        if not 0 < port <= most:
            reject(f"{shown}: {port} is no port", f"use 1 to {most}")
    if first > last:
        reject(f"{shown} ends before it begins", f'write "{last}-{first}"')
    return first, last


def _listen(text: str) -> Ports:
    transport, colon, ports = text.partition(":")
    transport = transport.lower()
    if not colon or transport not in ("tcp", "udp"):
        number = ports or transport
        shown = number if _RANGE.fullmatch(number) else "443"
        reject(f"{toml(text)} names no transport", f'write "tcp:{shown}" or "udp:{shown}"')
    kind: Transport = "tcp" if transport == "tcp" else "udp"
    return Ports(kind, *_range(ports, toml(text), f"{kind}:443"))


def _apart(listen: tuple[Ports, ...]) -> tuple[Ports, ...]:
    if not listen:
        reject("no port", 'name one, such as "tcp:443"')
    for one, other in combinations(sorted(listen), 2):
        if one.transport == other.transport and one.last >= other.first:
            reject(f'"{one}" and "{other}" overlap', "name each port once")
    return listen


def _ports(value: Any) -> tuple[int, int]:
    if type(value) is int:
        value = str(value)
    if not isinstance(value, str):
        reject(f"{toml(value)} is no port", 'write it like 25 or "8000-8099"')
    return _range(value, toml(value), "8000-8099", _LAST_IN_RULE)


def _merged(ports: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """In order, and without overlaps: each of them costs a policy rule."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ports):
        if found and first <= found[-1][1] + 1:
            first, before = found.pop()
            last = max(last, before)
        found.append((first, last))
    return tuple(found)


# --- content servers ----------------------------------------------------------------------


class ContentKeys(Keys):
    """A content server, by its address, and its share."""

    address: str
    weight: int = Field(default=1, strict=True, ge=0, le=1000)


def _spelled(value: Any) -> Any:
    """A bare address is short for a table with nothing else in it."""
    return value if isinstance(value, dict) else {"address": value}


def _content(keys: ContentKeys) -> ForwardServer:
    text = keys.address
    found = re.fullmatch(r"(\[[^]]*\]|[^:]*):([^:\]]*)", text)
    host, port = (found[1], found[2]) if found else (text, None)
    address = ip(host.removeprefix("[").removesuffix("]"), "10.0.0.10")
    if address.is_link_local:
        reject(f"{toml(text)} is link-local", "name an address that needs no interface")
    if port is None:
        return ForwardServer(str(address), 0, keys.weight)
    first, last = _range(port, toml(text), "10.0.0.10:8080")
    if first != last:
        reject(f"{toml(text)} is a range", "drop it: a range keeps the ports that were asked for")
    return ForwardServer(str(address), first, keys.weight)


def _servers(to: tuple[ForwardServer, ...]) -> tuple[ForwardServer, ...]:
    if not to:
        reject("no server", 'name one, as in to = ["10.0.0.10"]')
    at = [(each.address, each.port) for each in to]
    for n, where in enumerate(at):
        if where in at[:n]:
            reject(f'"{where[0]}" is named more than once', "name it once, with a weight")
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


Listen = Annotated[
    tuple[Annotated[str, AfterValidator(_listen)], ...],
    BeforeValidator(_listed),
    AfterValidator(_apart),
    _or_list(_LISTEN_ITEM),
]
_Server = Annotated[ContentKeys, BeforeValidator(_spelled), AfterValidator(_content)]
Servers = Annotated[
    tuple[_Server, ...],
    Field(max_length=MOST_SERVERS),
    BeforeValidator(_listed),
    AfterValidator(_servers),
    _or_list(_CONTENT_SCHEMA),
]


class ForwardKeys(Keys):
    """A service that content servers behind the host offer."""

    listen: Listen = Field(description='ports that clients ask for, such as "tcp:443"')
    to: Servers = Field(description="the content servers, with or without a port of their own")
    uplinks: Uplinks = Field(
        default=(), description="the uplinks that it is offered on; all, if not said"
    )
    check: Annotated[str, AfterValidator(_check)] = Field(
        default=_FORWARD.check,
        description='how a server shows that it works: "tcp", "off", or a path to GET',
        json_schema_extra={"pattern": "^(tcp|off|/.*)$"},
    )
    gone: Literal["next", "reset"] = Field(
        default=_FORWARD.gone, description="what becomes of the share of a server that is gone"
    )


# --- outgoing -----------------------------------------------------------------------------


def _user(value: Any) -> int | str:
    uid = type(value) is int and 0 <= value <= _LAST_UID
    if not uid and not (isinstance(value, str) and _USER.fullmatch(value)):
        reject(f"{toml(value)} is no user", "use a uid such as 1000, or a name")
    return value  # type: ignore[no-any-return]


def _cgroup(path: str) -> str:
    parts = path.split("/")
    if parts[0] or len(parts) < 2 or not all(parts[1:]) or {".", ".."} & set(parts):
        remedy = 'write it from the root, like "/system.slice/backup.service"'
        reject(f"{toml(path)} is no control group", remedy)
    if len(path) > 1000 or not path.isprintable():
        reject(f"{toml(path[:60])} is no path", "use printable letters, at most 1000")
    return path


_PORT_ITEM: dict[str, Any] = {
    "anyOf": [
        {"type": "integer", "minimum": 1, "maximum": _LAST_IN_RULE},
        {"type": "string", "pattern": "^[0-9]+(-[0-9]+)?$"},
    ]
}
_USER_ITEM: dict[str, Any] = {
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": _LAST_UID},
        {"type": "string", "pattern": f"^{_USER.pattern}$"},
    ]
}


class RuleKeys(Keys):
    """What leaves by an uplink of its own."""

    via: Uplinks = Field(description="the uplinks that it leaves by, in the order of preference")
    to: tuple[Annotated[str, AfterValidator(lambda text: prefix(text, "192.0.2.0/24"))], ...] = (
        Field(default=(), description="destinations, as prefixes or addresses")
    )
    transport: Literal["tcp", "udp"] | None = Field(
        default=None, description="the protocol; any, if not said"
    )
    ports: Annotated[
        tuple[Annotated[Any, PlainValidator(_ports), WithJsonSchema(_PORT_ITEM)], ...],
        AfterValidator(_merged),
    ] = Field(default=(), description='destination ports, such as 25 or "8000-8099"')
    users: tuple[Annotated[Any, PlainValidator(_user), WithJsonSchema(_USER_ITEM)], ...] = Field(
        default=(), description="users of this host, by uid or name"
    )
    cgroups: Annotated[
        tuple[Annotated[str, AfterValidator(_cgroup)], ...], AfterValidator(_distinct)
    ] = Field(default=(), description="control groups of this host, by path")


class OutgoingKeys(Keys):
    """By which uplink connections leave that this host or its LANs open."""

    mode: Literal["failover", "balance"] = Field(
        default=_OUTGOING.mode, description="all by the best uplink, or each by one drawn by weight"
    )
    sticky: bool = Field(
        default=_OUTGOING.sticky, strict=True, description="balance: one uplink a destination"
    )
    udp: bool = Field(default=_OUTGOING.udp, strict=True, description="balance UDP flows as well")
    masquerade: Annotated[tuple[Interface, ...], AfterValidator(_distinct)] = Field(
        default=(), description="interfaces of LANs that go out with an uplink's address"
    )
    rule: tuple[RuleKeys, ...] = Field(default=(), description="what leaves by uplinks of its own")


# --- to the nouns -------------------------------------------------------------------------


def forward(keys: ForwardKeys) -> ForwardConfig:
    """Of a service that is UDP alone nothing can be asked by TCP."""
    config = ForwardConfig(**dict(keys))
    if config.check == "tcp" and all(ports.transport == "udp" for ports in config.listen):
        return ForwardConfig(**dict(keys) | {"check": "off"})
    return config


def outgoing(keys: OutgoingKeys, uid_of: Callable[[str], int | None]) -> OutgoingConfig:
    """Users whom nobody knows are left out: `config.crossbehind` tells of them."""
    rules = tuple(_rule(each, uid_of) for each in keys.rule)
    return OutgoingConfig(keys.mode, keys.sticky, keys.udp, keys.masquerade, rules)


def _rule(keys: RuleKeys, uid_of: Callable[[str], int | None]) -> OutgoingRule:
    found = (uid_of(user) if isinstance(user, str) else user for user in keys.users)
    users = tuple(sorted({uid for uid in found if uid is not None}))
    return OutgoingRule(**dict(keys) | {"users": users})
