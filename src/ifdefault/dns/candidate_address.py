"""What an uplink brings into the DNS: its addresses, as the Internet sees them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ifdefault.model.address import family_of, is_private
from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.dns import DISCOVER, CandidateAddresses
from ifdefault.model.kernel import Uplink


def seen_as(
    uplink: Uplink, public: Sequence[str], discovered: Mapping[Family, str]
) -> dict[Family, str]:
    """Of each family that the uplink has, what the source of its default is seen as: `public` of
    the config has the first word. "" where that is to be discovered, and isn't yet."""
    found: dict[Family, str] = {}
    given = {family_of(address): address for address in public if address != DISCOVER}
    for family in FAMILIES:
        if own := uplink.source(family):
            else_ = discovered.get(family, "") if DISCOVER in public else own
            found[family] = given.get(family, else_)
    return found


def offer(uplink: Uplink, seen: Mapping[Family, str]) -> CandidateAddresses:
    """Those among its addresses that the Internet can reach."""
    fit = (address for address in seen.values() if address and not is_private(address))
    return CandidateAddresses(uplink.name, uplink.weight, tuple(fit))
