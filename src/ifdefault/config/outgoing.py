"""The keys of [outgoing] and of its [[outgoing.rule]].

Rules: as in `config.base`. Users are uids, or names that `outgoing_config` resolves.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema

from ifdefault.config.base import (
    USER,
    Interface,
    Keys,
    Uplinks,
    distinct,
    duration,
    port_range,
    prefix,
    reject,
    toml,
)
from ifdefault.model.config import OnReturn, OutgoingConfig, OutgoingRule

_OUTGOING = OutgoingConfig()
_LAST_PORT = 65534  # a policy rule doesn't accept port 65535 (fib_rule_port_range_valid())
_LONGEST_GRACE_S = 86400
_LAST_UID = (1 << 32) - 2  # (uid_t) -1 is no user (setresuid(2))


def _ports(value: Any) -> tuple[int, int]:
    if type(value) is int:
        value = str(value)
    if not isinstance(value, str):
        reject(f"{toml(value)} is not a port", 'write it like 25 or "8000-8099"')
    return port_range(value, toml(value), "8000-8099", _LAST_PORT)


def _merged(ports: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """Sorted and without overlaps: each range costs a policy rule."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ports):
        if merged and first <= merged[-1][1] + 1:
            first, before = merged.pop()
            last = max(last, before)
        merged.append((first, last))
    return tuple(merged)


def _user(value: Any) -> int | str:
    uid = type(value) is int and 0 <= value <= _LAST_UID
    if not uid and not (isinstance(value, str) and re.fullmatch(USER, value)):
        reject(f"{toml(value)} is not a user", "use a uid such as 1000, or a name")
    return value  # type: ignore[no-any-return]


def _cgroup(path: str) -> str:
    parts = path.split("/")
    if parts[0] or len(parts) < 2 or not all(parts[1:]) or {".", ".."} & set(parts):
        remedy = 'write it from the root, like "/system.slice/backup.service"'
        reject(f"{toml(path)} is not a control group", remedy)
    if len(path) > 1000 or not path.isprintable():
        reject(f"{toml(path[:60])} is not a path", "use at most 1000 printable characters")
    return path


def grace_time(text: str) -> int:
    grace_s = duration(text, "30s")
    if grace_s > _LONGEST_GRACE_S:
        reject(f"{toml(text)} is out of range", 'use at most "1d"')
    return grace_s


_PORT_ITEM: dict[str, Any] = {
    "anyOf": [
        {"type": "integer", "minimum": 1, "maximum": _LAST_PORT},
        {"type": "string", "pattern": "^[0-9]+(-[0-9]+)?$"},
    ]
}
_USER_ITEM: dict[str, Any] = {
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": _LAST_UID},
        {"type": "string", "pattern": f"^{USER}$"},
    ]
}


class RuleKeys(Keys):
    """Outgoing traffic that leaves by uplinks of its own."""

    via: Uplinks = Field(description="uplinks, best first")
    to: tuple[Annotated[str, AfterValidator(lambda text: prefix(text, "192.0.2.0/24"))], ...] = (
        Field(default=(), description="destination prefixes or addresses")
    )
    transport: Literal["tcp", "udp"] | None = Field(
        default=None, description="transport protocol; default: any"
    )
    ports: Annotated[
        tuple[Annotated[Any, PlainValidator(_ports), WithJsonSchema(_PORT_ITEM)], ...],
        AfterValidator(_merged),
    ] = Field(default=(), description='destination ports, such as 25 or "8000-8099"')
    users: tuple[Annotated[Any, PlainValidator(_user), WithJsonSchema(_USER_ITEM)], ...] = Field(
        default=(), description="local users, by number or name"
    )
    cgroups: Annotated[tuple[Annotated[str, AfterValidator(_cgroup)], ...], distinct()] = Field(
        default=(), description="control groups (version 2), by path"
    )


class OutgoingKeys(Keys):
    """The uplinks of the connections that this host or its LANs open."""

    mode: Literal["failover", "balance"] = Field(
        default=_OUTGOING.mode,
        description="use the primary uplink, or balance connections by weight",
    )
    sticky: bool = Field(
        default=_OUTGOING.sticky, strict=True, description="balance by destination address"
    )
    udp: bool = Field(default=_OUTGOING.udp, strict=True, description="also balance UDP")
    masquerade: Annotated[tuple[Interface, ...], distinct()] = Field(
        default=(), description="interfaces of LANs to masquerade (source NAT)"
    )
    on_return: OnReturn = Field(
        default="stay",
        description="connections over an uplink stay, or end, when a better one is usable again",
    )
    grace: Annotated[str, AfterValidator(grace_time)] = Field(
        default="30s", validate_default=True, description="how long they may go on until they end"
    )
    rule: tuple[RuleKeys, ...] = Field(default=(), description="traffic that uses other uplinks")


def outgoing_config(keys: OutgoingKeys, uid_of: Callable[[str], int | None]) -> OutgoingConfig:
    """Unknown users are left out: `config.cross` reports them."""
    rules = tuple(_rule(rule, uid_of) for rule in keys.rule)
    return OutgoingConfig(keys.mode, keys.sticky, keys.udp, keys.masquerade, rules)


def _rule(keys: RuleKeys, uid_of: Callable[[str], int | None]) -> OutgoingRule:
    uids = (uid_of(user) if isinstance(user, str) else user for user in keys.users)
    users = tuple(sorted({uid for uid in uids if uid is not None}))
    return OutgoingRule(**dict(keys) | {"users": users})
