"""The keys of the DNS: [dns] and the tables below it.

Rules: as in `config.base`. Names are stored in lower case, without the final dot. A plain string is
shorthand for a table with only its main key. Whether a file exists and whether a provider is known
is checked on the host.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from operator import attrgetter
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from ifdefault.config.base import (
    LABEL,
    Keys,
    absolute,
    distinct,
    ip,
    labels,
    not_empty,
    number,
    reject,
    shorthand_for,
    toml,
)
from ifdefault.config.dns_records import MOST_RECORDS, bounded, record
from ifdefault.config.probe_url import parse_url
from ifdefault.model.dns import (
    DnsConfig,
    Endpoint,
    ExecConfig,
    NameConfig,
    Policy,
    ProviderConfig,
    ServerConfig,
    UpdateConfig,
)

MOST_NAMES = 256
MOST_SERVERS = 32  # fits one message to the frontend, with our own
_SERVER = ServerConfig()
_WITH_PORT = re.compile(r"([0-9.]+|\[.*\]):([0-9]+)")
DISCOVER_EXAMPLE = "dns://208.67.222.222/myip.opendns.com"


# --- texts --------------------------------------------------------------------------------


def domain(text: str) -> str:
    """A domain name, in lower case and without the final dot."""
    name = text.lower().removesuffix(".")
    if not name.isascii():
        reject(f"{toml(text)} has non-ASCII letters", "write it in Punycode, xn--…")
    parts = labels(name)
    if not parts or parts[-1].isdigit():  # RFC 3696, 2: otherwise it would be an address
        reject(f"{toml(text)} is not a domain name", 'write it like "www.example.net"')
    return name


def _name(text: str) -> str:
    """A domain name; its first label may be "*"."""
    return f"*.{domain(text[2:])}" if text.startswith("*.") else domain(text)


def _contact(text: str) -> str:
    """A mailbox in the form of the SOA: the local part is the first label (RFC 1035, 8)."""
    local, at, host = text.partition("@")
    if at and not LABEL.fullmatch(local.lower()):
        remedy = 'use only letters, digits, - and _ there, as in "hostmaster@example.net"'
        reject(f"{toml(text)} has special characters before the @", remedy)
    return domain(f"{local}.{host}" if at else text) if text else ""


def _discover(url: str) -> str:
    if not re.match(r"(dns|https?)://", url, re.IGNORECASE):
        remedy = f'write it like "{DISCOVER_EXAMPLE}", or https://…'
        reject(f'"{url}" is not the URL of a discovery service', remedy)
    probe = parse_url(url)
    if not probe.path:
        reject(f'"{url}" has no name to query', f'write it like "{DISCOVER_EXAMPLE}"')
    return str(probe)


def _ttl(value: Any) -> Any:
    if value == 0 and type(value) is int:
        reject("a TTL of 0 disables caching", "use 1 or more, such as 30")
    return value


def _endpoint_address(text: str) -> str:
    if match := _WITH_PORT.fullmatch(text):
        table = f'{{ address = "{match[1].strip("[]")}", port = {match[2]} }}'
        reject(f"{toml(text)} is an address and a port", f"write {table}")
    return str(ip(text, "192.0.2.53", loopback=True))


Domain = Annotated[str, AfterValidator(domain)]
Ttl = Annotated[int, Field(strict=True, ge=1, le=86400), BeforeValidator(_ttl)]
KeyFile = Annotated[
    str, AfterValidator(lambda path: absolute(path, "/etc/ifdefault/keys/update.key"))
]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]


def _credentials(path: str) -> str:
    return absolute(path, "/etc/ifdefault/keys/powerdns.toml", required=True)


def _program(path: str) -> str:
    return absolute(path, "/usr/local/sbin/publish", required=True)


# --- servers to talk to -------------------------------------------------------------------


class EndpointKeys(Keys):
    """A DNS server, by its address."""

    address: Annotated[str, AfterValidator(_endpoint_address)]
    port: Port = 53
    key: KeyFile = ""


_SCHEMA = {
    "anyOf": [
        {"type": "string", "examples": ["192.0.2.53", "2001:db8::53"]},
        {
            "type": "object",
            "required": ["address"],
            "additionalProperties": False,
            "properties": {
                "address": {"type": "string"},
                "port": {"type": "integer", "minimum": 1, "maximum": 65535, "default": 53},
                "key": {"type": "string", "default": ""},
            },
        },
    ]
}
_EndpointItem = Annotated[
    EndpointKeys,
    shorthand_for("address"),
    AfterValidator(lambda keys: Endpoint(**dict(keys))),
    WithJsonSchema(_SCHEMA),
]
Endpoints = Annotated[
    tuple[_EndpointItem, ...],
    Field(max_length=MOST_SERVERS),
    distinct("list it once, or with another port", attrgetter("address", "port")),
]


# --- the tables ---------------------------------------------------------------------------


class NameKeys(Keys):
    """A name that leads to this host."""

    name: Annotated[str, AfterValidator(_name)] = Field(
        description="the name; *.NAME is all names below"
    )
    policy: Policy = Field(
        default="rotate", description="how the addresses of usable uplinks are returned"
    )
    ttl: Ttl = Field(default=NameConfig("").ttl, description="TTL in seconds")
    uplinks: Annotated[tuple[str, ...] | None, distinct()] = Field(
        default=None, description="uplinks whose addresses the name gets; default: all"
    )
    records: Annotated[
        tuple[Annotated[str, AfterValidator(record)], ...],
        Field(max_length=MOST_RECORDS),
        AfterValidator(bounded),
    ] = Field(default=(), description="further records: type and data, as in a zone file")


class ServerKeys(Keys):
    """The embedded server and its zones."""

    zones: tuple[Domain, ...] = Field(default=(), description="zones delegated to this host")
    contact: Annotated[str, AfterValidator(_contact)] = Field(
        default=_SERVER.contact, description="mailbox in SOA records; empty: hostmaster at the zone"
    )
    nameservers: tuple[Domain, ...] = Field(
        default=(),
        max_length=MOST_SERVERS,
        description="names of further name servers of the zones",
    )
    secondaries: Endpoints = Field(
        default=(), description="servers that may transfer the zones and are notified of changes"
    )
    port: Port = Field(default=_SERVER.port, description="UDP and TCP port")
    rate_limit: int = Field(
        default=_SERVER.rate_limit,
        strict=True,
        ge=0,
        le=1000000,
        description="UDP responses per second to a network without a DNS cookie; 0: unlimited",
    )


class UpdateKeys(Keys):
    """A zone on other servers, published by dynamic updates."""

    zone: Domain = Field(description="the zone")
    servers: Annotated[
        Endpoints, not_empty("no server", "name one that accepts updates of the zone")
    ] = Field(description="its servers, by address")
    key: KeyFile = Field(default="", description="TSIG key for those without one of their own")


class ProviderKeys(Keys):
    """A zone at a DNS provider, published through its API."""

    zone: Domain = Field(description="the zone")
    provider: str = Field(
        min_length=1, max_length=40, description="the provider's name in dns-lexicon"
    )
    credentials: Annotated[str, AfterValidator(_credentials)] = Field(
        description="TOML file with the provider's options"
    )
    timeout_s: float = number(
        ProviderConfig("", "", "").timeout_s, 1, 600, "time after which an attempt is aborted"
    )


class ExecKeys(Keys):
    """A program that publishes names."""

    program: Annotated[str, AfterValidator(_program)] = Field(
        description="absolute path of an executable"
    )
    zone: Annotated[str, AfterValidator(lambda text: text and domain(text))] = Field(
        default="", description="zone whose names it publishes; empty: all names"
    )
    timeout_s: float = number(ExecConfig("").timeout_s, 0.1, 600, "time after which it is killed")


class DnsKeys(Keys):
    """The names of this host in the DNS, and how they are published."""

    discover: tuple[Annotated[str, AfterValidator(_discover)], ...] = Field(
        default=(),
        description="services that report an uplink's public address: dns, http, https URLs",
    )
    name: tuple[NameKeys, ...] = Field(
        default=(), max_length=MOST_NAMES, description="names that lead to this host"
    )
    server: ServerKeys = ServerKeys()
    update: tuple[UpdateKeys, ...] = Field(
        default=(), description="zones on other servers, by dynamic update (RFC 2136)"
    )
    provider: tuple[ProviderKeys, ...] = Field(
        default=(), description="zones at providers with an API"
    )
    exec: tuple[ExecKeys, ...] = Field(default=(), description="programs that publish names")


def dns_config(keys: DnsKeys) -> DnsConfig:
    return DnsConfig(
        tuple(NameConfig(**dict(name)) for name in keys.name),
        ServerConfig(**dict(keys.server)),
        tuple(map(_update, keys.update)),
        tuple(ProviderConfig(**dict(provider)) for provider in keys.provider),
        tuple(ExecConfig(**dict(program)) for program in keys.exec),
        keys.discover,
    )


def _update(keys: UpdateKeys) -> UpdateConfig:
    servers = cast(Sequence[Endpoint], keys.servers)
    return UpdateConfig(
        keys.zone, tuple(Endpoint(s.address, s.port, s.key or keys.key) for s in servers)
    )
