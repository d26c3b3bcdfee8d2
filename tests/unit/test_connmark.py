"""The chains that keep forwarded flows on their uplink."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ifdefault.model.config import (
    Config,
    ForwardConfig,
    ForwardServer,
    HostConfig,
    OutgoingConfig,
    Ports,
    UplinkConfig,
)
from ifdefault.model.kernel import Facts, Hook, Hop, Route, Rule, Uplink
from ifdefault.plan.connmark import ForwardedFlows, forwarded_flows, tracks_forwarded
from ifdefault.plan.ruleset import Needs, render
from tests.unit.test_ruleset import HOST, A, B, chain

TWO = (
    replace(A, sources=((4, "203.0.113.10"), (6, "2001:db8:a::10"))),
    replace(B, sources=((4, "198.51.100.10"),)),
)
LAN = ForwardedFlows(lans=("lan0",), masquerade=("lan0",))


def text(what: ForwardedFlows | None, uplinks: tuple[Uplink, ...] = TWO) -> str:
    return render(Needs(HOST, uplinks, {}, (), host_forwards=True, forwarded=what))


def test_untracked_flows_have_no_chain() -> None:
    ruleset = text(None)
    assert "chain source_check" in ruleset
    assert "ct " not in ruleset
    assert "chain restore_prerouting" not in ruleset


def test_flows_forwarded_by_others_are_only_tracked() -> None:
    ruleset = text(ForwardedFlows())
    assert chain(ruleset, "restore_prerouting") == [
        "type filter hook prerouting priority mangle; policy accept;",
        'iifname { "wan0", "wan1" } return',
        (
            "ct mark & 0x3f000000 vmap"
            " { 0x01000000 : goto mark_arrival_1, 0x02000000 : goto mark_arrival_2 }"
        ),
    ]
    assert chain(ruleset, "save_forward")[1:] == [
        "ct mark & 0x3f000000 != 0 return",
        'iifname { "wan0", "wan1" } goto by_arrival',
    ]
    assert chain(ruleset, "by_arrival") == [
        (
            "ct original ip daddr vmap"
            " { 198.51.100.10 : goto save_arrival_2, 203.0.113.10 : goto save_arrival_1 }"
        ),
        "ct original ip6 daddr vmap { 2001:db8:a::10 : goto save_arrival_1 }",
        'iifname vmap { "wan0" : goto save_arrival_1, "wan1" : goto save_arrival_2 }',
    ]
    for word in ("snat", "masquerade", "maxseg", "drop;", "save_outgoing_", "mark_outgoing_"):
        assert word not in ruleset


def test_a_masqueraded_lan() -> None:
    ruleset = text(LAN)
    assert chain(ruleset, "save_outgoing_1") == ["ct mark set ct mark & 0xc0ffffff | 0x21000000"]
    assert chain(ruleset, "save_forward")[-1] == (
        'iifname { "lan0" } ct direction original oifname vmap'
        ' { "wan0" : goto save_outgoing_1, "wan1" : goto save_outgoing_2 }'
    )
    out = 'iifname { "lan0" } oifname { "wan0", "wan1" } meta nfproto'
    marks = "ct mark & 0x3f000000 map"
    ways = "0x21000000 : 203.0.113.10, 0x22000000 : 198.51.100.10"
    leave = chain(ruleset, "source_nat")
    assert f"{out} ipv4 snat ip to {marks} {{ {ways} }}" in leave
    assert f"{out} ipv6 snat ip6 to {marks} {{ 0x21000000 : 2001:db8:a::10 }}" in leave


def test_the_guard_precedes_all_rules_with_marks() -> None:
    follow = chain(text(LAN), "save_forward")
    assert follow[1] == (
        'ct state new,invalid iifname { "wan0", "wan1" } oifname { "lan0" } jump guard_internal'
    )
    assert chain(text(LAN), "guard_internal") == [
        "ct status & dnat != 0 return",
        "meta ipsec exists return",
        "counter drop",
    ]


def test_routed_prefixes_pass_the_guard_and_keep_their_source() -> None:
    routed = (replace(TWO[0], routed=("2001:db8:b:100::/56",)), TWO[1])
    ruleset = text(LAN, routed)
    assert chain(ruleset, "guard_internal")[2:] == [
        "ip6 daddr { 2001:db8:b:100::/56 } return",
        "counter drop",
    ]
    snat = next(line for line in chain(ruleset, "source_nat") if "snat ip6" in line)
    assert "ip6 saddr != { 2001:db8:b:100::/56 } snat" in snat
    assert "ip6 saddr { 2001:db8:b:100::/56, 2001:db8:a::10 } return" in chain(
        ruleset, "source_check_1"
    )


def test_uplinks_on_one_interface_are_told_apart_by_their_routers() -> None:
    shared = (
        replace(TWO[0], router_macs=("02:00:00:00:00:01",), gateways=((4, "203.0.113.1"),)),
        replace(
            TWO[1],
            interface="wan0",
            router_macs=("02:00:00:00:00:02",),
            gateways=((4, "198.51.100.1"), (6, "fe80::b")),
        ),
    )
    ruleset = text(LAN, shared)
    assert chain(ruleset, "by_source_mac_1") == [
        "ether saddr { 02:00:00:00:00:01 } goto save_arrival_1",
        "ether saddr { 02:00:00:00:00:02 } goto save_arrival_2",
    ]
    assert chain(ruleset, "by_next_hop_1") == [
        "rt ip nexthop 203.0.113.1 goto save_outgoing_1",
        "rt ip nexthop 198.51.100.1 goto save_outgoing_2",
        "rt ip6 nexthop fe80::b goto save_outgoing_2",
        "goto save_outgoing_1",
    ]
    assert chain(ruleset, "by_arrival")[-1] == 'iifname vmap { "wan0" : goto by_source_mac_1 }'


def test_an_address_of_two_uplinks_tells_nothing() -> None:
    twin = replace(TWO[1], addresses=TWO[0].addresses)
    assert not any(
        "ct original" in line
        for line in chain(text(ForwardedFlows(), (TWO[0], twin)), "by_arrival")
    )


SLOTS = (0x21000000, 0x22000000, 0x21000000, 0x21000000)


@pytest.mark.parametrize(
    ("hook", "kinds", "lot"),
    [
        (
            Hook(HOST.mark_mask, ((4, SLOTS),)),
            "tcp",
            "meta nfproto ipv4 numgen inc mod 4",
        ),
        (
            Hook(HOST.mark_mask, ((4, SLOTS),), sticky=True, udp=True),
            "{ tcp, udp }",
            "jhash ip daddr mod 4 seed 0x1fde",
        ),
    ],
)
def test_a_lan_is_balanced(hook: Hook, kinds: str, lot: str) -> None:
    spared = (
        Rule(4, 32765, dst="192.0.2.0/24", ip_proto=6, dport=(8000, 8099)),
        Rule(6, 32765, ip_proto=17),
        Rule(4, 32765, uids=(1000, 1000)),  # of the host's own sockets
    )
    ruleset = text(replace(LAN, balance=replace(hook, spared=spared)))
    assert chain(ruleset, "balance") == [
        "ip daddr 192.0.2.0/24 meta l4proto tcp th dport 8000-8099 return",
        "meta nfproto ipv6 meta l4proto udp return",
        (
            f"{lot} vmap {{ 0-0 : goto mark_outgoing_1, 1-1 : goto mark_outgoing_2,"
            " 2-3 : goto mark_outgoing_1 }"
        ),
    ]
    assert chain(ruleset, "restore_prerouting")[-1] == (
        f'iifname {{ "lan0" }} ct state new meta l4proto {kinds}'
        " fib daddr type unicast goto balance"
    )


# --- when -----------------------------------------------------------------------------------


def facts(**forwarding: str) -> Facts:
    names = {"v4": "net/ipv4/ip_forward", "v6": "net/ipv6/conf/all/forwarding"}
    return Facts(
        routes=(
            Route(4, 254, "default", hops=(Hop("wan0", "203.0.113.1"),)),
            Route(4, 254, "10.0.0.0/8", hops=(Hop("vpn0"),)),
            Route(4, 254, "10.0.0.0/24", hops=(Hop("lan0"),)),
            Route(4, 254, "198.51.100.0/24", hops=(Hop("wan1"),)),
        ),
        sysctls=tuple((names[key], value) for key, value in forwarding.items()),
    )


CONFIG = Config((UplinkConfig("isp-1", "wan0"), UplinkConfig("isp-2", "wan1")))
SERVICE = ForwardConfig((Ports("tcp", 80, 80),), (ForwardServer("10.0.0.10"),))


@pytest.mark.parametrize(
    ("config", "forwarding", "expected"),
    [
        (CONFIG, {}, False),
        (CONFIG, {"v4": "0", "v6": "0"}, False),
        (CONFIG, {"v4": "0", "v6": "1"}, True),
        (replace(CONFIG, host=HostConfig(forwarded="off")), {"v4": "1"}, False),
        (replace(CONFIG, outgoing=OutgoingConfig(masquerade=("lan0",))), {}, True),
        (replace(CONFIG, host=HostConfig(forwarded="off"), forwards=(SERVICE,)), {}, True),
    ],
)
def test_when_flows_are_tracked(config: Config, forwarding: dict[str, str], expected: bool) -> None:
    assert tracks_forwarded(config, facts(**forwarding)) is expected
    assert bool(forwarded_flows(config, facts(**forwarding), TWO, None)) is expected
    assert forwarded_flows(config, facts(**forwarding), (), None) is None


def test_the_interfaces_of_servers() -> None:
    """By the longest prefix; never on an uplink, and never by a default route."""
    to = tuple(map(ForwardServer, ("10.0.0.10", "10.1.0.1", "198.51.100.77", "192.0.2.1")))
    config = replace(CONFIG, forwards=(replace(SERVICE, to=to),))
    uplinks = (replace(TWO[0], gateways=((4, "203.0.113.1"), (6, "fe80::1"))), TWO[1])
    found = forwarded_flows(config, facts(), uplinks, None)
    assert found == ForwardedFlows(needed=(4,), lans=("lan0", "vpn0"))
