"""The addresses by which others reach an uplink: those that the DNS names and MPTCP announces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ifdefault.model.address import family_of
from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.dns import DISCOVER
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
