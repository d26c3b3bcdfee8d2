"""The keys of the config file, as pydantic models: what each may hold, and how it is written.

Rules: one field per key, with the description that the JSON Schema shows; defaults come from
`wanted`, where they are stated once. The daemon's tables are in `config.watch`, those of the DNS in
`config.naming`, and of what lies behind the host in `config.behind`. What only several tables
together can get wrong is in `config.cross`.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
)

from ifdefault.config.base import Interface, Keys, ip, prefix, reject, toml
from ifdefault.config.dns import DnsKeys
from ifdefault.config.forward import ForwardKeys, OutgoingKeys
from ifdefault.config.health import DaemonKeys, HealthKeys, HookKeys
from ifdefault.config.probe_url import Probes
from ifdefault.model.config import HostConfig, ReturnPath, TruthMode
from ifdefault.model.dns import DISCOVER

_HOST = HostConfig()
_NAME = r"[a-z0-9][a-z0-9-]{0,30}"
_MARK_BITS = 6
_TABLES = 32  # one per uplink, and the normal default's


def _uplink_name(name: str) -> str:
    if not re.fullmatch(_NAME, name):
        reject(
            "not a name for an uplink",
            "use up to 31 of a-z, 0-9 and -, beginning with a letter or digit",
        )
    return name


def _address(text: str) -> str:
    address = ip(text, "203.0.113.10")
    if address.is_link_local:
        reject(f'"{text}" is link-local', "name addresses that the Internet can reach")
    return str(address)


def _gateway(text: str) -> str:
    return str(ip(text, "203.0.113.1"))


def _one_per_family(hosts: tuple[str, ...], kind: str, remedy: str) -> tuple[str, ...]:
    for family in (4, 6):
        count = sum(ip_address(host).version == family for host in hosts)
        if count > 1:
            reject(f"{count} IPv{family} {kind}", remedy)
    return hosts


def _gateways(gateways: tuple[str, ...]) -> tuple[str, ...]:
    remedy = "keep one, and make each further router an uplink of its own"
    return _one_per_family(gateways, "gateways", remedy)


def _spelled(value: Any) -> Any:
    if value == DISCOVER:
        return (DISCOVER,)
    if isinstance(value, str):
        reject(f"{toml(value)} is no choice", f'use "{DISCOVER}", or a list of addresses')
    return value


def _public(addresses: tuple[str, ...]) -> tuple[str, ...]:
    if DISCOVER not in addresses:
        return _one_per_family(addresses, "addresses", "keep the one that the DNS is to name")
    if len(addresses) > 1:
        reject(f'"{DISCOVER}" beside addresses', f'name all, or write public = "{DISCOVER}"')
    return addresses


def _routed(text: str) -> str:
    routed = prefix(text, "2001:db8:b:100::/56")
    if routed.endswith("/0"):
        reject(f"{toml(text)} is everything", "name what the provider routes to this host")
    return routed


def _mac(text: str) -> str:
    digits = re.sub(r"[:.-]", "", text).lower()
    if not re.fullmatch(r"[0-9a-f]{12}", digits):
        reject(f'"{text}" is not a MAC address', 'write it like "00:00:5e:00:53:01"')
    if int(digits[:2], 16) & 1 or not int(digits, 16):
        reject(f'"{text}" is no single router\'s MAC address', "see `ip neigh` for the router's")
    return ":".join(digits[i : i + 2] for i in range(0, 12, 2))


def _mark_mask(value: Any) -> int:
    remedy = f"use {_MARK_BITS} adjacent bits that nobody else marks, such as {_HOST.mark_mask:#x}"
    mask = value
    if isinstance(value, str) and re.fullmatch(r"0x[0-9A-Fa-f]{1,8}", value):
        mask = int(value, 16)
    if not isinstance(mask, int) or isinstance(mask, bool):
        reject(f"{toml(value)} is not a mask", remedy)
    lowest = mask & -mask
    if not 0 < mask < 1 << 32 or mask != lowest * ((1 << _MARK_BITS) - 1):
        shown = value if isinstance(value, str) else f"{mask:#x}"
        reject(f"{shown} isn't {_MARK_BITS} adjacent bits", remedy)
    return mask


def _table_base(base: int) -> int:
    last = base + _TABLES - 1
    if base <= 255 and last >= 253:
        reject(
            f"tables {base} to {last} hold the reserved ones, 253 to 255",
            f"use 256 or more, such as {_HOST.table_base}",
        )
    return base


def _udp_wildcard(value: Any) -> Literal["auto", "off"] | tuple[int, ...]:
    if value in ("auto", "off"):
        return value  # type: ignore[no-any-return]
    ports = value if isinstance(value, list) else [None]
    if not all(type(port) is int and 0 < port < 65536 for port in ports):
        reject(f"{toml(value)} is no choice", 'use "auto", "off" or a list of ports such as [443]')
    return tuple(sorted(set(ports)))


Name = Annotated[
    str, AfterValidator(_uplink_name), WithJsonSchema({"type": "string", "pattern": f"^{_NAME}$"})
]
Address = Annotated[str, AfterValidator(_address)]
Gateways = Annotated[
    tuple[Annotated[str, AfterValidator(_gateway)], ...], AfterValidator(_gateways)
]
Public = Annotated[
    tuple[
        Annotated[str, AfterValidator(lambda text: text if text == DISCOVER else _address(text))],
        ...,
    ],
    BeforeValidator(_spelled),
    AfterValidator(_public),
    WithJsonSchema(
        {"anyOf": [{"const": DISCOVER}, {"type": "array", "items": {"type": "string"}}]}
    ),
]
Mac = Annotated[str, AfterValidator(_mac)]
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


class UplinkKeys(Keys):
    """An uplink: an interface, or one router on it; what is left out is read from the kernel."""

    interface: Interface = Field(description="network interface that leads to the provider")
    addresses: tuple[Address, ...] = Field(
        default=(), description="the host's addresses from this provider, without prefix length"
    )
    gateways: Gateways = Field(
        default=(), description="the provider's router, at most one per family"
    )
    router_macs: tuple[Mac, ...] = Field(
        default=(), description="MAC addresses the routers send from, beside those of the gateways"
    )
    rank: int = Field(
        default=0,
        strict=True,
        ge=0,
        le=1000,
        description="the lowest rank carries the normal default",
    )
    weight: int = Field(
        default=1,
        strict=True,
        ge=1,
        le=1000,
        description="among equal ranks the greatest weight does",
    )
    probes: Probes | None = Field(
        default=None, description="targets beyond the gateway, instead of those of [health]"
    )
    public: Public = Field(
        default=(), description="what the DNS says instead of the addresses: behind a NAT"
    )
    routed: tuple[Annotated[str, AfterValidator(_routed)], ...] = Field(
        default=(), description="prefixes that the provider routes to this host"
    )


class HostKeys(Keys):
    """What holds for the host as a whole."""

    mark_mask: MarkMask = Field(
        default=_HOST.mark_mask, description="six adjacent bits of the packet mark that are ours"
    )
    table_base: Annotated[int, AfterValidator(_table_base)] = Field(
        default=_HOST.table_base,
        strict=True,
        ge=1,
        le=(1 << 32) - _TABLES,
        description="first of 32 route tables",
    )
    rule_priority: int = Field(
        default=_HOST.rule_priority,
        strict=True,
        ge=100,
        le=32000,
        description="first priority of our policy rules",
    )
    interface_group: int = Field(
        default=_HOST.interface_group,
        strict=True,
        ge=1,
        le=(1 << 31) - 1,
        description="link group that uplinks are put into",
    )
    truth_meter: TruthMode = Field(
        default=_HOST.truth_meter,
        description="what becomes of a packet that leaves by an uplink with another's source",
    )
    return_path: ReturnPath = Field(
        default=_HOST.return_path, description="how replies find their uplink"
    )
    udp_wildcard: UdpWildcard = Field(
        default=_HOST.udp_wildcard, description="UDP ports whose sockets are bound to no address"
    )
    forwarded: Literal["follow", "off"] = Field(
        default=_HOST.forwarded,
        description="whether answers to what is forwarded keep to the uplink that it came in on",
    )


class File(Keys):
    """The whole config file."""

    model_config = ConfigDict(title="ifdefault.toml")

    uplink: dict[Name, UplinkKeys] = Field(default={}, description="the uplinks, by name")
    host: HostKeys = HostKeys()
    health: HealthKeys = Field(default_factory=HealthKeys)
    daemon: DaemonKeys = DaemonKeys()
    hooks: HookKeys = HookKeys()
    dns: DnsKeys = DnsKeys()
    forward: tuple[ForwardKeys, ...] = Field(
        default=(), description="services that content servers behind the host offer"
    )
    outgoing: OutgoingKeys = OutgoingKeys()
