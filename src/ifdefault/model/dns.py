"""The DNS: its config (DnsConfig), and the data to publish (Published, Zone).

Rules: as in `model.kernel`. Names are canonical text: lower case, without the final dot; the first
label may be "*". TTLs are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ifdefault.model.address import family_of

# How queries for a name's addresses are answered:
#   rotate         all addresses, rotated for each query, first more rarely while a line is full
#   weighted       one address, by the uplinks' weights
#   failover       the address of the best usable uplink only
#   arrival        all addresses, those of the uplink that received the query first
#   arrival-only   only those of that uplink
Policy = Literal["rotate", "weighted", "failover", "arrival", "arrival-only"]

DISCOVER = "discover"  # instead of a public address: discover it through the uplink
LEXICON_REMEDY = "install the package ifdefault-providers, or by pip ifdefault[providers]"


# --- config -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Record:
    """A static record. `rdata` is in wire form without compression, `text` as it was written."""

    type: int
    rdata: bytes
    text: str


@dataclass(frozen=True, slots=True)
class NameConfig:
    """One `[[dns.name]]`: a name that resolves to this host."""

    name: str
    policy: Policy = "rotate"
    ttl: int = 30
    uplinks: tuple[str, ...] | None = None  # None: all; (): none
    records: tuple[Record, ...] = ()


@dataclass(frozen=True, order=True, slots=True)
class Endpoint:
    """A DNS server; `key` is the path of its TSIG key file, "" for none."""

    address: str
    port: int = 53
    key: str = ""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """`[dns.server]`: the embedded server, which runs if it has zones."""

    zones: tuple[str, ...] = ()
    port: int = 53
    contact: str = ""  # the SOA's mailbox, as a name; "": hostmaster.ZONE
    nameservers: tuple[str, ...] = ()  # further name servers of each zone, by name
    secondaries: tuple[Endpoint, ...] = ()  # may transfer the zones, and get NOTIFY
    rate_limit: int = 100  # responses per second to a network without cookies; 0: unlimited


@dataclass(frozen=True, slots=True)
class UpdateConfig:
    """One `[[dns.update]]`: a zone on other servers, by dynamic update (RFC 2136)."""

    zone: str
    servers: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """One `[[dns.provider]]`: a zone at a provider, by its API; `provider` as in dns-lexicon."""

    zone: str
    provider: str
    credentials: str  # a TOML file with the provider's options, readable only by daemon.user
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class ExecConfig:
    """One `[[dns.exec]]`: a program that publishes names. `zone` "": of any zone."""

    program: str
    zone: str = ""
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class DnsConfig:
    """The `[dns]` of the config. `discover`: services that return the client's address, as
    `dns://SERVER/NAME` (its A or AAAA record) or `http(s)://…` (the response's text)."""

    names: tuple[NameConfig, ...] = ()
    server: ServerConfig = ServerConfig()
    updates: tuple[UpdateConfig, ...] = ()
    providers: tuple[ProviderConfig, ...] = ()
    execs: tuple[ExecConfig, ...] = ()
    discover: tuple[str, ...] = ()

    @property
    def zones(self) -> tuple[str, ...]:
        """All configured zones; a name belongs to the closest enclosing one."""
        updated = (update.zone for update in self.updates)
        return (*self.server.zones, *updated, *(provider.zone for provider in self.providers))


# --- data to publish ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CandidateAddresses:
    """The public addresses of an uplink, at most one per family."""

    uplink: str
    weight: int = 1
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AddressRecord:
    """An A or AAAA record of a name, and the uplink of its address. `weight`: for policies that use
    it, see `dns.order`."""

    uplink: str
    address: str
    weight: int = 1

    @property
    def family(self) -> Literal[4, 6]:
        return family_of(self.address)


@dataclass(frozen=True, slots=True)
class Published:
    """The records of a name. `addresses` are sorted, the best uplink first; a family in which the
    name has addresses is never empty."""

    name: str
    policy: Policy
    ttl: int
    addresses: tuple[AddressRecord, ...] = ()
    records: tuple[Record, ...] = ()

    @property
    def unweighted(self) -> Published:
        """As those see it who know no weights: operators and secondaries."""
        return replace(self, addresses=tuple(replace(a, weight=1) for a in self.addresses))


@dataclass(frozen=True, slots=True)
class Zone:
    """A complete zone of the embedded server. `names` include those of its name servers (glue);
    `nameservers` are the NS records of its apex, the first of which is the SOA's MNAME."""

    zone: str
    serial: int
    contact: str
    nameservers: tuple[str, ...]
    names: tuple[Published, ...]


def nameserver(uplink: str, zone: str) -> str:
    """The generated name of the embedded server on an uplink."""
    return f"ns-{uplink}.{zone}"


def contact(zone: str) -> str:
    """The mailbox of a zone whose config has none."""
    return f"hostmaster.{zone}"


def within(name: str, zone: str) -> bool:
    return name == zone or name.endswith(f".{zone}")


def zone_of(name: str, zones: tuple[str, ...]) -> str:
    """The closest zone that encloses a name, "" if none does."""
    return max((zone for zone in zones if within(name, zone)), key=len, default="")
