"""For any decision: a name keeps an address, and serials increase."""

from __future__ import annotations

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from ifdefault.dns.publish import next_serial, publish
from ifdefault.model.dns import CandidateAddresses, DnsConfig, NameConfig, Policy
from ifdefault.model.health import Decision

NAMES = ("isp-a", "isp-b", "isp-c", "isp-d")
some = st.lists(st.sampled_from(NAMES), unique=True).map(tuple)
offers = st.lists(
    st.builds(
        lambda at, v4, v6: CandidateAddresses(
            NAMES[at], at + 1, (f"192.0.2.{at}",) * v4 + (f"2001:db8::{at}",) * v6
        ),
        st.integers(0, 3),
        st.booleans(),
        st.booleans(),
    ),
    unique_by=lambda offer: offer.uplink,
).map(tuple)


@given(offers, some, some, some, some, st.sampled_from(get_args(Policy)), st.none() | some)
def test_each_family_that_a_name_has_keeps_an_address(
    offers: tuple[CandidateAddresses, ...],
    order4: tuple[str, ...],
    order6: tuple[str, ...],
    usable4: tuple[str, ...],
    usable6: tuple[str, ...],
    policy: Policy,
    chosen: tuple[str, ...] | None,
) -> None:
    decision = Decision(((4, order4), (6, order6)), ((4, usable4), (6, usable6)))
    config = DnsConfig((NameConfig("www.example", policy, 30, chosen),))
    (said,) = publish(config, offers, decision, ())
    for family, usable in ((4, usable4), (6, usable6)):
        mine = {
            (offer.uplink, address)
            for offer in offers
            if chosen is None or offer.uplink in chosen
            for address in offer.addresses
            if (":" in address) == (family == 6)
        }
        named = {(h.uplink, h.address) for h in said.addresses if h.family == family}
        assert named <= mine
        assert bool(named) == bool(mine)
        working = {each for each in mine if each[0] in usable}
        if working:
            assert named <= working
            assert policy == "failover" or named == working


@given(st.integers(1, (1 << 32) - 1), st.floats(0, 1e10))
def test_a_serial_grows_whatever_the_clock_says(last: int, now_s: float) -> None:
    serial = next_serial(last, now_s)
    assert 0 < serial < 1 << 32
    assert 0 < (serial - last) % (1 << 32) < 1 << 31  # RFC 1982, 3.2
