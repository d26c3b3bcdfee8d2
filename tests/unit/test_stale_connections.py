"""Only connections of the dead uplink are ended, and none to neighbours."""

from __future__ import annotations

from dataclasses import replace

from ifdefault.daemon.controller.effects import EndConnections
from ifdefault.daemon.controller.stale_connections import connections_to_end
from ifdefault.model.config import Family
from ifdefault.model.health import Decision
from ifdefault.model.kernel import Address, Facts, Hop, Route, Uplink

BLANK = Uplink("a", 1, "wan0", 1001, 0x01000000, 0x21000000, 0x3F000000)
A = replace(
    BLANK,
    addresses=(Address(4, "wan0", "203.0.113.10", 24), Address(6, "wan0", "2001:db8:a::10", 48)),
)
B = replace(
    BLANK,
    name="b",
    number=2,
    interface="wan1",
    outgoing_mark=0x22000000,
    addresses=(Address(4, "wan1", "198.51.100.10", 24),),
)
FACTS = Facts(
    addresses=(*A.addresses, *B.addresses, Address(4, "lan0", "192.168.1.1", 24)),
    routes=(
        Route(4, 254, "default", hops=(Hop("wan0", "203.0.113.1"),)),
        Route(4, 254, "203.0.113.0/24", hops=(Hop("wan0"),)),
        Route(4, 254, "192.168.1.0/24", hops=(Hop("lan0"),)),
        Route(4, 254, "10.0.0.0/8", hops=(Hop("lan0", "192.168.1.2"),)),
        Route(4, 1001, "172.16.0.0/12", hops=(Hop("tun0"),)),
    ),
)


def freed(
    *uplinks: Uplink, usable: dict[Family, tuple[str, ...]], family: Family = 4
) -> EndConnections:
    decision = Decision((), tuple(usable.items()))
    return connections_to_end(FACTS, uplinks, decision, uplinks[0], family)


def test_its_addresses_of_that_family_but_not_those_it_shares() -> None:
    usable: dict[Family, tuple[str, ...]] = {4: ("b",), 6: ("a",)}
    assert freed(A, B, usable=usable).addresses == ("203.0.113.10",)
    assert freed(A, B, usable=usable, family=6).addresses == ("2001:db8:a::10",)
    shared = replace(B, addresses=A.addresses)
    assert freed(A, shared, usable=usable).addresses == ()


def test_its_mark_once_it_is_dead_in_both_families() -> None:
    assert freed(A, B, usable={4: ("b",), 6: ("a",)}).marks == ()
    assert freed(A, B, usable={4: ("b",), 6: ("b",)}).marks == (A.outgoing_mark,)


def test_what_is_reached_by_no_uplink_is_spared() -> None:
    spared = freed(A, B, usable={4: ("b",)}).spared
    assert {"192.168.1.0/24", "10.0.0.0/8", "192.168.1.1", "198.51.100.10"} <= set(spared)
    assert not {"203.0.113.0/24", "default", "172.16.0.0/12"} & set(spared)


def test_the_others_come_in_their_rank() -> None:
    c = replace(B, name="c", addresses=(Address(4, "wan2", "192.0.2.10", 24),))
    decision = Decision(((4, ("c", "b", "a")),), ((4, ("c", "b")),))
    assert connections_to_end(FACTS, (A, B, c), decision, A, 4).others == (
        "192.0.2.10",
        "198.51.100.10",
    )
