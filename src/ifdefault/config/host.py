"""The keys of [host].

Rules: as in `config.base`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema

from ifdefault.config.base import Keys, reject, toml
from ifdefault.model.config import HostConfig, ReturnPath, SourceCheckMode

_HOST = HostConfig()
_MARK_BITS = 6
_TABLES = 32  # as many as there are uplink numbers, 0 included


def _mark_mask(value: Any) -> int:
    remedy = f"use {_MARK_BITS} adjacent bits that nothing else uses, such as {_HOST.mark_mask:#x}"
    mask = value
    if isinstance(value, str) and re.fullmatch(r"0x[0-9A-Fa-f]{1,8}", value):
        mask = int(value, 16)
    if not isinstance(mask, int) or isinstance(mask, bool):
        reject(f"{toml(value)} is not a mask", remedy)
    lowest = mask & -mask
    if not 0 < mask < 1 << 32 or mask != lowest * ((1 << _MARK_BITS) - 1):
        text = value if isinstance(value, str) else f"{mask:#x}"
        reject(f"{text} isn't {_MARK_BITS} adjacent bits", remedy)
    return mask


def _table_base(base: int) -> int:
    last = base + _TABLES - 1
    if base <= 255 and last >= 253:
        reject(
            f"tables {base} to {last} include the reserved 253 to 255",
            f"use 256 or more, such as {_HOST.table_base}",
        )
    return base


def _udp_wildcard(value: Any) -> Literal["auto", "off"] | tuple[int, ...]:
    if value in ("auto", "off"):
        return value  # type: ignore[no-any-return]
    ports = value if isinstance(value, list) else [None]
    if not all(type(port) is int and 0 < port < 65536 for port in ports):
        reject(f"{toml(value)} is not valid", 'use "auto", "off" or a list of ports such as [443]')
    return tuple(sorted(set(ports)))


MarkMask = Annotated[
    int,
    PlainValidator(_mark_mask),
    WithJsonSchema({"type": ["integer", "string"], "default": f"{_HOST.mark_mask:#x}"}),
]
UdpWildcard = Annotated[
    Literal["auto", "off"] | tuple[int, ...],
    PlainValidator(_udp_wildcard),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["auto", "off"]},
                {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 65535}},
            ]
        }
    ),
]


class HostKeys(Keys):
    """Settings of the host as a whole."""

    mark_mask: MarkMask = Field(
        default=_HOST.mark_mask,
        description="six adjacent bits of packet and connection marks to use",
    )
    table_base: Annotated[int, AfterValidator(_table_base)] = Field(
        default=_HOST.table_base,
        strict=True,
        ge=1,
        le=(1 << 32) - _TABLES,
        description="first of 32 routing tables",
    )
    rule_priority: int = Field(
        default=_HOST.rule_priority,
        strict=True,
        ge=100,
        le=32000,
        description="first of 51 priorities of the return path's policy rules",
    )
    interface_group: int = Field(
        default=_HOST.interface_group,
        strict=True,
        ge=1,
        le=(1 << 31) - 1,
        description="link group of uplink interfaces",
    )
    source_check: SourceCheckMode = Field(
        default=_HOST.source_check,
        description="source check of packets that leave by an uplink with another's address",
    )
    return_path: ReturnPath = Field(
        default=_HOST.return_path, description="how replies find their uplink"
    )
    udp_wildcard: UdpWildcard = Field(
        default=_HOST.udp_wildcard, description="ports of UDP servers bound to the wildcard address"
    )
    forwarded: Literal["follow", "off"] = Field(
        default=_HOST.forwarded,
        description="whether replies to forwarded connections leave by the uplink they came in on",
    )
