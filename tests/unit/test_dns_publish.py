"""The data to publish, by the uplinks' addresses and the decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import pytest

from ifdefault.dns.publish import (
    DEGRADED_TTL_S,
    names_in_zone,
    next_serial,
    publish,
    serve,
)
from ifdefault.model.address import is_private
from ifdefault.model.dns import (
    CandidateAddresses,
    DnsConfig,
    NameConfig,
    Policy,
    Published,
    ServerConfig,
    UpdateConfig,
    nameserver,
    zone_of,
)
from ifdefault.model.health import Decision

A = CandidateAddresses("isp-a", 3, ("203.0.113.10", "2001:db8:a::10"))
B = CandidateAddresses("isp-b", 1, ("198.51.100.10", "2001:db8:b::10"))
C = CandidateAddresses("isp-c", 1, ("192.0.2.10",))
ALL = (A, B, C)


def decided(*usable: str, rest: Sequence[str] = ()) -> Decision:
    order = (*usable, *rest)
    return Decision(((4, order), (6, order)), ((4, usable), (6, usable)))


def say(
    decision: Decision,
    policy: Policy = "rotate",
    uplinks: tuple[str, ...] | None = None,
    doubted: Sequence[str] = (),
    offers: Sequence[CandidateAddresses] = ALL,
) -> Published:
    config = DnsConfig((NameConfig("www.example", policy, 30, uplinks),))
    (published,) = publish(config, offers, decision, doubted)
    return published


def addresses(published: Published) -> list[str]:
    return [handed.address for handed in published.addresses]


def test_all_that_work_are_named_the_best_first() -> None:
    said = say(decided("isp-b", "isp-a", "isp-c"))
    v4, v6 = ["198.51.100.10", "203.0.113.10", "192.0.2.10"], ["2001:db8:b::10", "2001:db8:a::10"]
    assert addresses(said) == v4 + v6
    assert [handed.weight for handed in said.addresses] == [1] * 5
    weighted = say(decided("isp-b", "isp-a", "isp-c"), "weighted")
    assert [handed.weight for handed in weighted.addresses] == [1, 3, 1, 1, 3]


def test_a_line_that_fills_up_is_named_less_often() -> None:
    full = replace(decided("isp-a", "isp-b", "isp-c"), shares=(("isp-a", 2),))
    found = {policy: say(full, policy).addresses for policy in get_args(Policy)}
    weights = {policy: [each.weight for each in found[policy]] for policy in found}
    assert weights["weighted"] == [6, 8, 8, 6, 8]
    assert weights["rotate"] == [2, 8, 8, 2, 8]
    assert addresses(say(full)) == addresses(say(decided("isp-a", "isp-b", "isp-c")))
    for policy in ("failover", "arrival", "arrival-only"):
        assert found[policy] == say(decided("isp-a", "isp-b", "isp-c"), policy).addresses


def test_a_dead_uplink_is_withdrawn_and_comes_back_as_it_was() -> None:
    before = say(decided("isp-a", "isp-b", "isp-c"))
    during = say(decided("isp-b", "isp-c", rest=["isp-a"]))
    assert addresses(during) == ["198.51.100.10", "192.0.2.10", "2001:db8:b::10"]
    assert say(decided("isp-a", "isp-b", "isp-c")) == before


def test_a_standby_is_named_where_no_other_uplink_of_the_name_works() -> None:
    decision = replace(decided("isp-a", rest=("isp-b", "isp-c")), reserve=((4, ("isp-b",)),))
    assert addresses(say(decision)) == list(A.addresses)
    own = say(decision, uplinks=("isp-b", "isp-c"))
    assert addresses(own) == ["198.51.100.10", "2001:db8:b::10"], "none works in IPv6"


def test_families_are_apart() -> None:
    order = ("isp-a", "isp-b", "isp-c")
    decision = Decision(((4, order), (6, order)), ((4, ("isp-b",)), (6, ("isp-a",))))
    assert addresses(say(decision)) == ["198.51.100.10", "2001:db8:a::10"]


@pytest.mark.parametrize("policy", ["rotate", "weighted", "arrival", "arrival-only"])
def test_the_last_address_is_never_withdrawn(policy: Policy) -> None:
    said = say(decided("isp-b", rest=["isp-a", "isp-c"]), policy, ("isp-a", "isp-c"))
    assert addresses(said) == ["203.0.113.10", "192.0.2.10", "2001:db8:a::10"]


def test_failover_names_the_best_alone() -> None:
    assert addresses(say(decided("isp-b", "isp-a"), "failover")) == [
        "198.51.100.10",
        "2001:db8:b::10",
    ]
    dead = say(decided("isp-b", rest=["isp-a", "isp-c"]), "failover", ("isp-c", "isp-a"))
    assert addresses(dead) == ["203.0.113.10", "2001:db8:a::10"]  # fail static, and still one


def test_the_ttl_drops_while_one_of_its_uplinks_works_badly() -> None:
    every = decided("isp-a", "isp-b", "isp-c")
    assert say(every, doubted=["isp-a"]).ttl == DEGRADED_TTL_S
    assert say(every, doubted=["isp-a"], uplinks=("isp-b",)).ttl == 30
    assert say(every).ttl == 30


def test_a_name_without_uplinks_has_no_address() -> None:
    assert addresses(say(decided("isp-a"), uplinks=())) == []


def test_an_uplink_that_nothing_is_decided_about_comes_last() -> None:
    assert addresses(say(Decision(), offers=(A, C))) == [
        "203.0.113.10",
        "192.0.2.10",
        "2001:db8:a::10",
    ]


def test_zones_hold_their_names_and_a_name_server_for_each_uplink() -> None:
    server = ServerConfig(("example", "deep.example"), nameservers=("ns.other.test",))
    config = DnsConfig(server=server)
    names = tuple(Published(name, "rotate", 30) for name in ("www.example", "a.deep.example"))
    outer, inner = serve(config, (*names, Published("else.test", "rotate", 30)), (A, C))
    assert [zone.zone for zone in (outer, inner)] == ["example", "deep.example"]
    assert outer.nameservers == ("ns-isp-a.example", "ns-isp-c.example", "ns.other.test")
    assert outer.contact == "hostmaster.example"
    assert [each.name for each in outer.names] == [
        "www.example",
        nameserver("isp-a", "example"),
        nameserver("isp-c", "example"),
    ]
    assert inner.names[0].name == "a.deep.example"
    glue = outer.names[1]
    assert addresses(glue) == ["203.0.113.10", "2001:db8:a::10"]


def test_a_delegated_zone_has_its_own_names() -> None:
    config = DnsConfig(
        server=ServerConfig(("www.example",)), updates=(UpdateConfig("example", ()),)
    )
    names = tuple(Published(name, "rotate", 30) for name in ("www.example", "mail.example"))
    assert [each.name for each in names_in_zone(config, names, "example")] == ["mail.example"]
    assert [each.name for each in names_in_zone(config, names, "www.example")] == ["www.example"]


def test_glue_stays_whatever_is_dead() -> None:
    """The delegation at the parent has it as well, and resolvers avoid it by themselves."""
    config = DnsConfig(server=ServerConfig(("example",)))
    (zone,) = serve(config, (say(decided("isp-b")),), ALL)
    assert len(zone.nameservers) == 3


@pytest.mark.parametrize(
    ("last", "now_s", "expected"),
    [
        (None, 1_700_000_000.9, 1_700_000_000),
        (1_700_000_000, 1_700_000_001.0, 1_700_000_001),
        (1_700_000_000, 1_700_000_000.0, 1_700_000_001),  # twice in a second
        (1_700_000_000, 1_600_000_000.0, 1_700_000_001),  # the clock went back
        (4_294_967_295, 5.0, 5),  # round the corner is later, RFC 1982
        (4_294_967_295, 3_000_000_000.0, 1),  # and 0 is passed over
        ((1 << 31) + 1, 0.0, (1 << 31) + 2),  # passed over here as well
        (None, 0.0, 1),
    ],
)
def test_a_serial_only_grows(last: int | None, now_s: float, expected: int) -> None:
    assert next_serial(last, now_s) == expected


def test_the_closest_zone_holds_a_name() -> None:
    zones = ("example", "deep.example", "ample")
    assert zone_of("a.deep.example", zones) == "deep.example"
    assert zone_of("deep.example", zones) == "deep.example"
    assert zone_of("notdeep.example", zones) == "example"
    assert zone_of("example.test", zones) == ""


def test_what_the_internet_reaches() -> None:
    for address in ("10.1.2.3", "172.31.0.1", "192.168.1.1", "100.64.0.1", "fd00::1"):
        assert is_private(address)
    for address in ("203.0.113.10", "2001:db8::1", "172.32.0.1", "100.128.0.1"):
        assert not is_private(address)
