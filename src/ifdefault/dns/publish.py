"""From the decision to the data to publish: names with the addresses of usable uplinks.

Rules: a name never loses its last address of a family: if none of its uplinks is usable, those that
stand by are published, and if there are none, all (fail static). The functions are stateless. The
embedded server's name servers always have the addresses of their uplinks, even if those are down,
like the delegation at the parent.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.dns import (
    AddressRecord,
    CandidateAddresses,
    DnsConfig,
    NameConfig,
    Published,
    Zone,
    contact,
    nameserver,
    zone_of,
)
from ifdefault.model.health import Decision

DEGRADED_TTL_S = 5  # while an uplink of the name is degraded, as it may be withdrawn soon
NAMESERVER_TTL_S = 3600  # as long as that of the delegation


def publish(
    config: DnsConfig,
    offers: Sequence[CandidateAddresses],
    decision: Decision,
    degraded: Collection[str],
) -> tuple[Published, ...]:
    """The data of each name. `degraded`: names of uplinks in that state."""
    return tuple(_name(name, offers, decision, degraded) for name in config.names)


def _name(
    name: NameConfig,
    offers: Sequence[CandidateAddresses],
    decision: Decision,
    degraded: Collection[str],
) -> Published:
    own = [o for o in offers if name.uplinks is None or o.uplink in name.uplinks]
    is_degraded = any(offer.uplink in degraded for offer in own)
    addresses: list[AddressRecord] = []
    for family in FAMILIES:
        records = [
            record
            for offer in own
            for record in _records(offer, family, _weight(name, offer, decision))
        ]
        published = (
            [record for record in records if record.uplink in decision.usable_in(family)]
            or [record for record in records if record.uplink in decision.works_in(family)]
            or records
        )
        ranks = {uplink: rank for rank, uplink in enumerate(decision.ranking(family))}
        published.sort(key=lambda record: ranks.get(record.uplink, len(ranks)))
        addresses += published[:1] if name.policy == "failover" else published
    ttl = min(name.ttl, DEGRADED_TTL_S) if is_degraded else name.ttl
    return Published(name.name, name.policy, ttl, tuple(addresses), name.records)


def _weight(name: NameConfig, offer: CandidateAddresses, decision: Decision) -> int:
    """How often an address is answered, or comes first: less often while its line fills up."""
    match name.policy:
        case "weighted":
            return decision.weight(offer.uplink, offer.weight)
        case "rotate":
            return decision.share(offer.uplink)
        case _:
            return 1


def _records(offer: CandidateAddresses, family: Family, weight: int = 1) -> list[AddressRecord]:
    records = [AddressRecord(offer.uplink, address, weight) for address in offer.addresses]
    return [record for record in records if record.family == family]


# --- the embedded server's zones ----------------------------------------------------------


def serve(
    config: DnsConfig, published: Sequence[Published], offers: Sequence[CandidateAddresses]
) -> tuple[Zone, ...]:
    """The complete zones of the embedded server; their serial is 0."""
    return tuple(_zone(zone, config, published, offers) for zone in config.server.zones)


def _zone(
    zone: str,
    config: DnsConfig,
    published: Sequence[Published],
    offers: Sequence[CandidateAddresses],
) -> Zone:
    own = tuple(
        Published(
            nameserver(offer.uplink, zone),
            "rotate",
            NAMESERVER_TTL_S,
            tuple(record for family in FAMILIES for record in _records(offer, family)),
        )
        for offer in offers
        if offer.addresses
    )
    return Zone(
        zone,
        0,
        config.server.contact or contact(zone),
        (*(server.name for server in own), *config.server.nameservers),
        (*names_in_zone(config, published, zone), *own),
    )


def names_in_zone(
    config: DnsConfig, published: Sequence[Published], zone: str
) -> tuple[Published, ...]:
    """The names in a zone, without those in configured zones below it."""
    return tuple(name for name in published if zone_of(name.name, config.zones) == zone)


# --- serials ------------------------------------------------------------------------------


def next_serial(last: int | None, now_s: float) -> int:
    """The serial after `last`: Unix time `now_s` if that is greater by RFC 1982, otherwise one
    more. So it increases even if the clock jumps or `last` is lost."""
    clock = int(now_s) % (1 << 32)
    if last is None:
        return clock or 1
    ahead = (clock - last) % (1 << 32)
    return clock if clock and 0 < ahead < 1 << 31 else (last + 1) % (1 << 32) or 1
