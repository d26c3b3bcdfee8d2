"""What an uplink's addresses are seen as."""

from __future__ import annotations

import pytest

from ifdefault.dns.candidate_address import candidate
from ifdefault.model.config import Family
from ifdefault.model.dns import DISCOVER, CandidateAddresses
from ifdefault.model.kernel import Uplink
from ifdefault.model.public_address import public_addresses

OWN: tuple[tuple[Family, str], ...] = ((4, "192.168.1.2"), (6, "2001:db8:a::10"))
UPLINK = Uplink("isp-a", 1, "wan0", 1001, 0, 0, 0, weight=3, sources=OWN)


@pytest.mark.parametrize(
    ("public", "discovered", "seen"),
    [
        ((), {}, {4: "192.168.1.2", 6: "2001:db8:a::10"}),
        (("203.0.113.7",), {}, {4: "203.0.113.7", 6: "2001:db8:a::10"}),
        ((DISCOVER,), {}, {4: "", 6: ""}),
        ((DISCOVER,), {4: "203.0.113.7"}, {4: "203.0.113.7", 6: ""}),
        ((), {4: "203.0.113.7"}, {4: "192.168.1.2", 6: "2001:db8:a::10"}),
    ],
)
def test_what_it_is_seen_as(
    public: tuple[str, ...], discovered: dict[Family, str], seen: dict[Family, str]
) -> None:
    assert public_addresses(UPLINK, public, discovered) == seen


def test_a_family_that_it_lacks_is_seen_as_nothing() -> None:
    alone = Uplink("isp-a", 1, "wan0", 1001, 0, 0, 0, sources=OWN[:1])
    assert public_addresses(alone, ("2001:db8::1",), {}) == {4: "192.168.1.2"}


def test_what_the_internet_cannot_reach_is_not_offered() -> None:
    seen: dict[Family, str] = {4: "192.168.1.2", 6: "2001:db8:a::10"}
    assert candidate(UPLINK, seen) == CandidateAddresses("isp-a", 3, ("2001:db8:a::10",))
    assert candidate(UPLINK, {4: "", 6: ""}) == CandidateAddresses("isp-a", 3)
