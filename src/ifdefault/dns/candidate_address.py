"""The addresses of an uplink that are candidates for publication in the DNS. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ifdefault.model.address import is_private
from ifdefault.model.config import Family
from ifdefault.model.dns import CandidateAddresses
from ifdefault.model.kernel import Uplink


def candidate(uplink: Uplink, public: Mapping[Family, str]) -> CandidateAddresses:
    """The uplink's public addresses without unknown and private ones."""
    reachable = (address for address in public.values() if address and not is_private(address))
    return CandidateAddresses(uplink.name, uplink.weight, tuple(reachable))
