"""From the decision to what the DNS is to say: names with the addresses of uplinks that work.

Rules: a name never loses its last address of a family: if none of its uplinks is usable, all of
them are named (fail static). Withdrawal and return are the same step, since nothing is remembered.
The names of the embedded server's name servers lead to their uplinks, dead or alive, as the
delegation at the parent does.
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
    zone_of,
)
from ifdefault.model.health import Decision

DOUBTED_TTL_S = 5  # while an uplink of the name is degraded: it may have to be withdrawn
NAMESERVER_TTL_S = 3600  # as long-lived as the delegation itself


def publish(
    config: DnsConfig,
    offers: Sequence[CandidateAddresses],
    decision: Decision,
    doubted: Collection[str],
) -> tuple[Published, ...]:
    """What to say of each name. `doubted` are uplinks that work badly."""
    return tuple(_name(name, offers, decision, doubted) for name in config.names)


def _name(
    name: NameConfig,
    offers: Sequence[CandidateAddresses],
    decision: Decision,
    doubted: Collection[str],
) -> Published:
    mine = [o for o in offers if name.uplinks is None or o.uplink in name.uplinks]
    in_doubt = any(offer.uplink in doubted for offer in mine)
    addresses: list[AddressRecord] = []
    for family in FAMILIES:
        found = [handed for offer in mine for handed in _handed(offer, family)]
        usable = decision.usable_in(family)
        kept = [handed for handed in found if handed.uplink in usable] or found
        place = {uplink: at for at, uplink in enumerate(decision.ranking(family))}
        kept.sort(key=lambda handed: place.get(handed.uplink, len(place)))
        addresses += kept[:1] if name.policy == "failover" else kept
    ttl = min(name.ttl, DOUBTED_TTL_S) if in_doubt else name.ttl
    return Published(name.name, name.policy, ttl, tuple(addresses), name.records)


def _handed(offer: CandidateAddresses, family: Family) -> list[AddressRecord]:
    found = [AddressRecord(offer.uplink, address, offer.weight) for address in offer.addresses]
    return [handed for handed in found if handed.family == family]


# --- the embedded server's zones ----------------------------------------------------------


def serve(
    config: DnsConfig, published: Sequence[Published], offers: Sequence[CandidateAddresses]
) -> tuple[Zone, ...]:
    """The zones whole, but for their serial, which is 0."""
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
            tuple(handed for family in FAMILIES for handed in _handed(offer, family)),
        )
        for offer in offers
        if offer.addresses
    )
    return Zone(
        zone,
        0,
        config.server.contact or f"hostmaster.{zone}",
        (*(each.name for each in own), *config.server.nameservers),
        (*held(config, published, zone), *own),
    )


def nameserver(uplink: str, zone: str) -> str:
    """The name of the name server that is reached by an uplink."""
    return f"ns-{uplink}.{zone}"


def held(config: DnsConfig, published: Sequence[Published], zone: str) -> tuple[Published, ...]:
    """The names that belong to a zone: a delegated zone inside it has its own."""
    return tuple(each for each in published if zone_of(each.name, config.zones) == zone)


# --- serials ------------------------------------------------------------------------------


def next_serial(last: int | None, now_s: float) -> int:
    """The serial after `last`: the time where that is later by RFC 1982, else one more. So it only
    grows, though the clock may jump, and though `last` may be forgotten. `now_s`: the epoch's."""
    clock = int(now_s) % (1 << 32)
    if last is None:
        return clock or 1
    ahead = (clock - last) % (1 << 32)
    return clock if clock and 0 < ahead < 1 << 31 else (last + 1) % (1 << 32) or 1
