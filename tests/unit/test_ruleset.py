"""The text of table ifdefault: only what is needed, without side effects on other packets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ifdefault.model.config import HostConfig
from ifdefault.model.kernel import Address, Redirect, Uplink
from ifdefault.plan import numbers
from ifdefault.plan.ruleset import Needs, render

HOST = HostConfig()


def uplink(number: int, interface: str, *addresses: str, mechanism: str = "source") -> Uplink:
    return Uplink(
        name=f"isp-{number}",
        number=number,
        interface=interface,
        table=1000 + number,
        arrival_mark=numbers.arrival_mark(HOST, number),
        outgoing_mark=numbers.outgoing_mark(HOST, number),
        mark_mask=HOST.mark_mask,
        addresses=tuple(
            Address(6 if ":" in a else 4, interface, a, 64 if ":" in a else 24) for a in addresses
        ),
        mechanism=mechanism,
    )


A = uplink(1, "wan0", "203.0.113.10", "2001:db8:a::10")
B = uplink(2, "wan1", "198.51.100.10")
REDIRECT = Redirect(4, "0.0.0.0", "255.255.255.255", "203.0.113.10")


def text(*uplinks: Uplink, host: HostConfig = HOST, udp: bool = False) -> str:
    redirects = (REDIRECT,) if udp else ()
    return render(Needs(host, uplinks, {4: (53, 443), 6: ()} if udp else {}, redirects))


def chain(ruleset: str, name: str) -> list[str]:
    """The lines of a chain, [] if there is none."""
    _, found, rest = ruleset.partition(f"chain {name} {{\n")
    return [line.strip() for line in rest.partition("\n\t}")[0].splitlines()] if found else []


def test_source_rules_need_no_mark_and_no_conntrack() -> None:
    ruleset = text(A, B)
    assert "mark" not in ruleset
    assert "ct " not in ruleset
    assert "hook prerouting" not in ruleset


def test_nothing_needed_is_nothing() -> None:
    assert text() == ""
    assert text(A, B, host=replace(HOST, source_check="off")) == ""


@pytest.mark.parametrize(("mode", "verdict"), [("drop", "drop"), ("count", "return")])
def test_source_check_judges_others_sources_alone(mode: str, verdict: str) -> None:
    host = replace(HOST, source_check=mode)  # type: ignore[arg-type]
    judged = chain(text(A, B, host=host), "source_check_1")
    assert judged[0] == "ip saddr { 203.0.113.10 } return"
    assert judged.index('iifname "wan0" return') == 2  # after the addresses of both families
    exempt = judged.index("udp sport { 67, 68, 546, 547 } return")
    assert exempt < judged.index("jump bridged")
    owned = judged.index(f"ip saddr @uplink_sources_4 counter name misrouted_1 {verdict}")
    assert exempt < owned < judged.index("update @unknown_sources_4 { ip saddr counter }")
    assert not any("uplink_sources_6" in line for line in judged)  # A owns all of them


def test_source_check_of_one_interface_has_no_others() -> None:
    shared, host = replace(B, interface="wan0"), replace(HOST, source_check="drop")
    assert "uplink_sources" not in text(A, shared, host=host)
    assert "saddr { 198.51.100.10, 203.0.113.10 } return" in text(A, shared, host=host)


def test_source_check_only_where_something_may_bend_a_packet() -> None:
    assert text(A, B) == ""
    forwarding = Needs(HOST, (A, B), {}, (), host_forwards=True)
    assert "chain source_check" in render(forwarding)
    assert "chain source_check" in text(replace(A, mechanism="mark"), replace(B, mechanism="mark"))


def test_neighbour_discovery_is_never_marked() -> None:
    ruleset = text(replace(A, mechanism="mark"), B)
    arrival = chain(ruleset, "mark_arrival")
    spared = arrival.index("icmpv6 type { 133, 134, 135, 136, 137 } return")
    assert spared < arrival.index('iifname vmap { "wan0" : goto interface_0 }')


def test_marks_keep_foreign_bits() -> None:
    assert chain(text(replace(A, mechanism="mark")), "mark_arrival_1") == [
        'meta mark set meta mark & 0xc0ffffff | 0x01000000 comment "uplink.isp-1"'
    ]


@pytest.mark.parametrize(
    ("mechanism", "tracked", "restored"),
    [
        (
            "mark",
            "meta l4proto udp ct direction original ct",
            "meta l4proto udp ct direction reply",
        ),
        ("conntrack", "ct direction original ct mark set", "ct direction reply"),
    ],
)
def test_what_conntrack_is_asked_for(mechanism: str, tracked: str, restored: str) -> None:
    ruleset = text(replace(A, mechanism=mechanism))
    assert chain(ruleset, "mark_and_save_1")[1].startswith(tracked)
    assert chain(ruleset, "restore_output")[1].startswith(restored)


def test_routers_on_one_lan() -> None:
    """By MAC. Neighbours in any prefix of the LAN aren't routers, and nft rejects overlaps."""
    macs = ("02:00:00:00:00:01", "02:00:00:00:00:02")
    first = replace(A, mechanism="mark", router_macs=macs[:1])
    narrow = replace(Address(4, "wan0", "203.0.113.200", 25))
    second = replace(B, interface="wan0", mechanism="mark", router_macs=macs[1:])
    second = replace(second, addresses=(*second.addresses, narrow))
    assert chain(text(first, second), "interface_0") == [
        f"ether saddr {{ {macs[0]} }} goto mark_and_save_1",
        f"ether saddr {{ {macs[1]} }} goto mark_and_save_2",
        "ip saddr { 198.51.100.0/24, 203.0.113.0/24 } return",
        "ip6 saddr { fe80::/10, 2001:db8:a::/64 } return",
        "update @unknown_macs { ether saddr counter }",
    ]


def test_udp_wildcard() -> None:
    ruleset = text(A, B, udp=True)
    assert chain(ruleset, "udp_wildcard")[1] == (
        'iifname { "wan0", "wan1" } udp dport { 53, 443 } ip daddr { 198.51.100.10, 203.0.113.10 }'
        " socket wildcard 1 dnat ip to ip saddr map { 0.0.0.0-255.255.255.255 : 203.0.113.10 }"
    )
    assert chain(ruleset, "mark_arrival")[-1] == (
        'iifname { "wan0", "wan1" } udp dport { 53, 443 } ip daddr vmap'
        " { 198.51.100.10 : goto mark_and_save_2, 203.0.113.10 : goto mark_and_save_1 }"
    )
    assert chain(text(A, B), "mark_arrival") == []


def test_address_of_two_uplinks_is_marked_once() -> None:
    """nft rejects a duplicate key in a map, which `return_path = "source"` could cause."""
    twin = uplink(2, "wan0", "203.0.113.10")
    assert "{ 203.0.113.10 : goto mark_and_save_1 }" in text(A, twin, udp=True)
