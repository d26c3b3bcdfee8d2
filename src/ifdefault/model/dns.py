"""More nouns: what the owner wants of the DNS (DnsConfig), and what it is to say (Published).

Rules: as in `model`. Names are canonical text: lower case, without the final dot; the first label
may be "*". TTLs are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ifdefault.model.address import family_of

# How a name's addresses are handed out:
#   rotate         all of them, each query another first
#   weighted       one of them, chosen by the uplinks' weights
#   failover       those of the best uplink alone, by rank
#   arrival        all of them, those of the uplink that the query came in by first
#   arrival-only   those of that uplink alone
Policy = Literal["rotate", "weighted", "failover", "arrival", "arrival-only"]

DISCOVER = "discover"  # in place of a public address: to be found out through the uplink itself


# --- what the owner wants -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Record:
    """A static record. `rdata` is in wire form without compression, `text` as it was written."""

    type: int
    rdata: bytes
    text: str


@dataclass(frozen=True, slots=True)
class NameConfig:
    """One `[[dns.name]]`: a name that leads to this host."""

    name: str
    policy: Policy = "rotate"
    ttl: int = 30
    uplinks: tuple[str, ...] | None = None  # None is all, () none
    records: tuple[Record, ...] = ()


@dataclass(frozen=True, order=True, slots=True)
class Endpoint:
    """A DNS server to talk to; `key` is the path of its TSIG key's file, "" for none."""

    address: str
    port: int = 53
    key: str = ""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """`[dns.server]`: the embedded server. It is there if it has zones."""

    zones: tuple[str, ...] = ()
    port: int = 53
    contact: str = ""  # the SOA's mailbox, as a name; "" is hostmaster.ZONE
    nameservers: tuple[str, ...] = ()  # further name servers of each zone, by name
    secondaries: tuple[Endpoint, ...] = ()  # may transfer the zones, and are notified
    rate_limit: int = 100  # answers a second to a network of clients without a cookie; 0: any


@dataclass(frozen=True, slots=True)
class UpdateConfig:
    """One `[[dns.update]]`: a zone on others' servers, by dynamic update (RFC 2136)."""

    zone: str
    servers: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """One `[[dns.provider]]`: a zone at a provider, by its API (dns-lexicon's name of it)."""

    zone: str
    provider: str
    credentials: str  # a TOML file with the provider's options, readable by daemon.user alone
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class ExecConfig:
    """One `[[dns.exec]]`: a program that publishes a name however it likes. `zone` "" is any."""

    program: str
    zone: str = ""
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class DnsConfig:
    """The `[dns]` of the config. `discover`: who tells the address that a request came from, as
    `dns://SERVER/NAME` (its A or AAAA record) or `http(s)://…` (the response's text)."""

    names: tuple[NameConfig, ...] = ()
    server: ServerConfig = ServerConfig()
    updates: tuple[UpdateConfig, ...] = ()
    providers: tuple[ProviderConfig, ...] = ()
    execs: tuple[ExecConfig, ...] = ()
    discover: tuple[str, ...] = ()

    @property
    def zones(self) -> tuple[str, ...]:
        """Every zone that some server has; a name belongs to the closest of them."""
        updated = (update.zone for update in self.updates)
        return (*self.server.zones, *updated, *(each.zone for each in self.providers))


# --- what the DNS is to say ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CandidateAddresses:
    """What an uplink brings into the DNS: at most one address a family, as the Internet sees it."""

    uplink: str
    weight: int = 1
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AddressRecord:
    """An address as it is handed out."""

    uplink: str
    address: str
    weight: int = 1

    @property
    def family(self) -> Literal[4, 6]:
        return family_of(self.address)


@dataclass(frozen=True, slots=True)
class Published:
    """A name, and what is to be said of it now. `addresses` are the best first, never none of a
    family in which the name has any."""

    name: str
    policy: Policy
    ttl: int
    addresses: tuple[AddressRecord, ...] = ()
    records: tuple[Record, ...] = ()


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone of the embedded server, whole. `names` hold those of its name servers too (glue);
    `nameservers` are the NS records of its apex, the first of them the SOA's."""

    zone: str
    serial: int
    contact: str
    nameservers: tuple[str, ...]
    names: tuple[Published, ...]


def within(name: str, zone: str) -> bool:
    return name == zone or name.endswith(f".{zone}")


def zone_of(name: str, zones: tuple[str, ...]) -> str:
    """The closest of the zones that hold a name, "" if none does."""
    return max((zone for zone in zones if within(name, zone)), key=len, default="")
