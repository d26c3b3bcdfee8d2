"""The keys of [uplink.NAME].

Rules: as in `config.base`. Addresses are stored in canonical form.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema

from ifdefault.config.base import (
    Interface,
    Keys,
    ip,
    prefix,
    reject,
    times_of_day,
    toml,
)
from ifdefault.config.outgoing import OutgoingKeys, grace_time
from ifdefault.config.probe_url import Probes
from ifdefault.model.config import OnBudget, OnReturn, UplinkConfig
from ifdefault.model.dns import DISCOVER

NAME = r"[a-z0-9](?:[a-z0-9-]{0,29}[a-z0-9])?"  # also a part of host names
_UNITS = {f"{p}B": 1000**n for n, p in enumerate(("", *"kMGTP"))}
_UNITS |= {f"{p}iB": 1024**n for n, p in enumerate("KMGTP", 1)} | {"KB": 1000}
_RATES = {"kbit/s": 10**3, "Mbit/s": 10**6, "Gbit/s": 10**9}
_NUMBER = r"([0-9]{1,6}(?:\.[0-9]{1,3})?)"
_BIT_RATE = re.compile(rf"{_NUMBER}(?:/{_NUMBER})? ?({'|'.join(_RATES)})")
_BYTES = re.compile(rf"([0-9]{{1,15}}(?:\.[0-9]{{1,6}})?) ?({'|'.join(_UNITS)})")


def _uplink_name(name: str) -> str:
    if not re.fullmatch(NAME, name):
        reject(
            "not a valid uplink name",
            "use up to 31 of a-z, 0-9 and -, with a letter or digit at both ends",
        )
    return name


def _address(text: str) -> str:
    address = ip(text, "203.0.113.10")
    if address.is_link_local:
        reject(f'"{text}" is link-local', "use an address that the Internet can reach")
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
    remedy = "keep one, and define an uplink for each other router"
    return _one_per_family(gateways, "gateways", remedy)


def _discover_shorthand(value: Any) -> Any:
    if value == DISCOVER:
        return (DISCOVER,)
    if isinstance(value, str):
        reject(f"{toml(value)} is not valid", f'use "{DISCOVER}", or a list of addresses')
    return value


def _public(addresses: tuple[str, ...]) -> tuple[str, ...]:
    if DISCOVER not in addresses:
        return _one_per_family(addresses, "addresses", "keep the one to be published")
    if len(addresses) > 1:
        remedy = f'list all addresses, or set public = "{DISCOVER}"'
        reject(f'"{DISCOVER}" can\'t be combined with addresses', remedy)
    return addresses


def _routed(text: str) -> str:
    routed = prefix(text, "2001:db8:b:100::/56")
    if routed.endswith("/0"):
        remedy = "use the prefix that the provider routes to this host"
        reject(f"{toml(text)} covers everything", remedy)
    return routed


def _mac(text: str) -> str:
    digits = re.sub(r"[:.-]", "", text).lower()
    if not re.fullmatch(r"[0-9a-f]{12}", digits):
        reject(f'"{text}" is not a MAC address', 'write it like "00:00:5e:00:53:01"')
    if int(digits[:2], 16) & 1 or not int(digits, 16):
        reject(f'"{text}" is not a unicast MAC address', "see `ip neigh` for the router's")
    return ":".join(digits[i : i + 2] for i in range(0, 12, 2))


def _budget(text: str) -> int:
    match = _BYTES.fullmatch(text.strip())
    if text and match is None:
        reject(f"{toml(text)} is not an amount of data", 'write it like "500 GB" or "2 TiB"')
    amount = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    if text and not amount:
        reject(f"{toml(text)} is not a budget", "leave it out for an unlimited line")
    return amount


def _needs_budget(on_budget: OnBudget, info: ValidationInfo) -> OnBudget:
    if on_budget != "warn" and info.data.get("budget") == 0:
        reject(f"{toml(on_budget)} without a budget", 'add one, as in budget = "500 GB"')
    return on_budget


def _hours(text: str) -> tuple[int, int] | None:
    return times_of_day(text, "08:00-20:00", "leave hours out: it is used at all times")


def _capacity(text: str) -> tuple[int, int] | None:
    match = _BIT_RATE.fullmatch(text.strip())
    if text and match is None:
        what = f"{toml(text)} is not a capacity"
        reject(what, 'write it like "100 Mbit/s", or "100/40 Mbit/s" for in and out')
    if match is None:
        return None
    unit = _RATES[match[3]]
    rates = int(float(match[1]) * unit), int(float(match[2] or match[1]) * unit)
    if not all(rates):
        reject(f"{toml(text)} is not a capacity", "leave it out if you don't know it")
    return rates


Name = Annotated[
    str, AfterValidator(_uplink_name), WithJsonSchema({"type": "string", "pattern": f"^{NAME}$"})
]
_UplinkAddress = Annotated[str, AfterValidator(_address)]
Gateways = Annotated[
    tuple[Annotated[str, AfterValidator(_gateway)], ...], AfterValidator(_gateways)
]
Public = Annotated[
    tuple[
        Annotated[str, AfterValidator(lambda text: text if text == DISCOVER else _address(text))],
        ...,
    ],
    BeforeValidator(_discover_shorthand),
    AfterValidator(_public),
    WithJsonSchema(
        {"anyOf": [{"const": DISCOVER}, {"type": "array", "items": {"type": "string"}}]}
    ),
]
Mac = Annotated[str, AfterValidator(_mac)]


class UplinkKeys(Keys):
    """An uplink: an interface, or one router on it. What is left out is read from the kernel."""

    interface: Interface = Field(description="network interface that leads to the provider")
    addresses: tuple[_UplinkAddress, ...] = Field(
        default=(), description="the host's addresses from this provider, without prefix length"
    )
    gateways: Gateways = Field(
        default=(), description="the provider's router, at most one per family"
    )
    router_macs: tuple[Mac, ...] = Field(
        default=(),
        description="MAC addresses that the routers send from, besides those of gateways",
    )
    rank: int = Field(
        default=0,
        strict=True,
        ge=0,
        le=1000,
        description="preference: the lowest rank is primary",
    )
    weight: int = Field(
        default=1,
        strict=True,
        ge=1,
        le=1000,
        description="share when balancing; of equal rank, the greatest weight is primary",
    )
    probes: Probes | None = Field(
        default=None, description="probe targets beyond the gateway, instead of those in [health]"
    )
    public: Public = Field(
        default=(),
        description='addresses to publish in the DNS, for uplinks behind NAT; or "discover"',
    )
    routed: tuple[Annotated[str, AfterValidator(_routed)], ...] = Field(
        default=(), description="prefixes that the provider routes to the host"
    )
    budget: Annotated[str, AfterValidator(_budget)] = Field(
        default="",
        validate_default=True,
        description='traffic that a month includes, in and out, such as "500 GB"',
    )
    reset_day: int = Field(
        default=1,
        strict=True,
        ge=1,
        le=31,
        description="day of the month when the provider begins to count anew",
    )
    on_budget: Annotated[OnBudget, AfterValidator(_needs_budget)] = Field(
        default="warn",
        description="warn only, make it a standby, or take it down once the budget is used up",
    )
    metered: bool = Field(
        default=False,
        strict=True,
        description="it costs by volume: new connections use it when no other uplink is usable",
    )
    hours: Annotated[str, AfterValidator(_hours)] = Field(
        default="",
        validate_default=True,
        description='when it is used, in local time, such as "08:00-20:00"; else it is a standby',
    )
    capacity: Annotated[str, AfterValidator(_capacity)] = Field(
        default="",
        validate_default=True,
        description='what it carries, such as "100/40 Mbit/s"; its weight falls as it fills up',
    )
    on_return: OnReturn | None = Field(
        default=None,
        description="outgoing connections that it carries when a better uplink is usable again"
        " stay, or end; default: as in [outgoing], but end if it is metered",
    )
    grace: Annotated[str, AfterValidator(grace_time)] | None = Field(
        default=None, description="how long they may go on; default: as in [outgoing]"
    )


def uplink_config(name: str, keys: UplinkKeys, outgoing: OutgoingKeys) -> UplinkConfig:
    values: dict[str, Any] = dict(keys)
    default: Any = outgoing.grace  # validated: a number
    grace_s, on_return = values.pop("grace"), values.pop("on_return")
    return UplinkConfig(
        name,
        budget_bytes=values.pop("budget"),
        grace_s=default if grace_s is None else grace_s,
        on_return=on_return or ("end" if keys.metered else outgoing.on_return),
        **values,
    )
