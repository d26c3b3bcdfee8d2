"""The public addresses of an uplink, which are candidates for publication in the DNS. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ifdefault.model.address import family_of, is_private
from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.dns import DISCOVER, CandidateAddresses
from ifdefault.model.kernel import Uplink


def public_addresses(
    uplink: Uplink, public: Sequence[str], discovered: Mapping[Family, str]
) -> dict[Family, str]:
    """The public address of each family that the uplink has: of the config's `public`, the
    discovered one, or the source of its default route. "" if it isn't discovered yet."""
    addresses: dict[Family, str] = {}
    configured = {family_of(address): address for address in public if address != DISCOVER}
    for family in FAMILIES:
        if own := uplink.source(family):
            default = discovered.get(family, "") if DISCOVER in public else own
            addresses[family] = configured.get(family, default)
    return addresses


def candidate(uplink: Uplink, public: Mapping[Family, str]) -> CandidateAddresses:
    """The uplink's public addresses without unknown and private ones."""
    reachable = (address for address in public.values() if address and not is_private(address))
    return CandidateAddresses(uplink.name, uplink.weight, tuple(reachable))
