"""`init` finds the uplinks, and nothing else, and writes a config that works."""

from __future__ import annotations

import re
import textwrap
from dataclasses import replace

import pytest

from ifdefault import config
from ifdefault.host.discover import Candidate, describe_interfaces, discover
from ifdefault.host.render_config import render, zone
from ifdefault.model.config import OutgoingConfig
from ifdefault.model.kernel import PROTOCOL, Address, Facts, Hop, Link, Neighbour, Route, Rule
from ifdefault.plan.conflicts import find_conflicts
from ifdefault.plan.resolve import resolve

WAN0, WAN1 = Link(2, "wan0"), Link(3, "wan1")
A4, A6 = Address(4, "wan0", "203.0.113.10", 24), Address(6, "wan0", "2001:db8:a::10", 64)
B4, B6 = Address(4, "wan1", "198.51.100.10", 24), Address(6, "wan1", "2001:db8:b::10", 64)
DEFAULT_A4 = Route(4, 254, "default", hops=(Hop("wan0", "203.0.113.1"),))
DEFAULT_B4 = Route(4, 254, "default", hops=(Hop("wan1", "198.51.100.1"),))
DEFAULT_A6 = Route(6, 254, "default", metric=1024, hops=(Hop("wan0", "fe80::1"),))

# A host as they are: one default for each family, a LAN, a bridge of containers, a full tunnel
HOST = Facts(
    links=(
        Link(1, "lo", loopback=True),
        WAN0,
        WAN1,
        Link(4, "lan0"),
        Link(5, "docker0", kind="bridge"),
        Link(6, "wg0", point_to_point=True, kind="wireguard"),
        Link(7, "tun0", point_to_point=True, kind="tun"),
        Link(8, "spare0", up=False),
    ),
    addresses=(
        Address(4, "lo", "127.0.0.1", 8, scope=254),
        A4,
        A6,
        Address(6, "wan0", "2001:db8:a::7777", 64, secondary=True),
        Address(6, "wan0", "fe80::2", 64, scope=253),
        B4,
        B6,
        Address(4, "lan0", "192.168.1.1", 24),
        Address(6, "lan0", "2001:db8:a:1::1", 64),
        Address(4, "docker0", "172.17.0.1", 16),
        Address(4, "wg0", "198.18.0.2", 24),
        Address(4, "tun0", "10.8.0.2", 24),
        Address(4, "spare0", "192.0.2.10", 24),
    ),
    routes=(
        DEFAULT_A4,
        DEFAULT_A6,
        Route(4, 51820, "default", hops=(Hop("wg0"),)),
        Route(4, 254, "0.0.0.0/1", hops=(Hop("tun0", "10.8.0.1"),)),
        Route(4, 254, "128.0.0.0/1", hops=(Hop("tun0", "10.8.0.1"),)),
        Route(4, 254, "10.0.0.0/8", hops=(Hop("lan0", "192.168.1.2"),)),
    ),
)

GOLDEN = """\
# ifdefault: every connection is answered through the uplink it came in on.
# Written by `ifdefault init`; all keys are in ifdefault.toml(5). Lines that are commented out show
# what the kernel has now, or the default; leave them so, and ifdefault follows changes.

[uplink.isp-a]
interface = "wan0"
# addresses = ["203.0.113.10", "2001:db8:a::10"]
# gateways = ["203.0.113.1", "fe80::1"]
# rank = 0  # the lowest rank is primary: new outgoing connections use it
# weight = 1  # share when balancing; of equal rank, the greatest weight is primary

[uplink.isp-b]
interface = "wan1"
# addresses = ["198.51.100.10", "2001:db8:b::10"]
# no router for IPv4 and IPv6 is known here; until it is in gateways, the uplink is pending
# (the line below is a guess, ask the provider)
# gateways = ["198.51.100.1", "2001:db8:b::1"]

# lan0 (192.168.1.1, 2001:db8:a:1::1) has a private address and no default route
# If it leads to a provider:
# [uplink.isp-c]
# interface = "lan0"
# gateways = ["192.168.1.2"]  # a guess, ask the provider

# [host]
# mark_mask = "0x3f000000"  # six adjacent bits of marks that no other program uses
# table_base = 1000  # first of 32 routing tables
# rule_priority = 5000  # first of 51 priorities of policy rules
# source_check = "auto"  # packets leaving by a wrong uplink; or "drop", "count", "off"
# udp_wildcard = "auto"  # UDP servers bound to the wildcard address; or "off", [443]
"""


def interfaces(facts: Facts) -> list[str]:
    return [candidate.interface for candidate in discover(facts).uplinks]


def written(facts: Facts) -> str:
    """The config's uplinks, without its head and its [host]."""
    return render(discover(facts)).partition("changes.\n\n")[2].partition("\n# [host]")[0]


def test_golden() -> None:
    assert render(discover(HOST)) == GOLDEN


def test_what_is_written_works_as_it_is() -> None:
    parsed = config.parse(render(discover(HOST)), "f.toml")
    a, b = resolve(parsed, HOST, {"isp-a": 1, "isp-b": 2})
    assert (a.interface, dict(a.gateways)) == ("wan0", {4: "203.0.113.1", 6: "fe80::1"})
    assert b.pending.startswith("no gateway is known on wan1")


def test_every_commented_key_is_a_key_with_its_default_or_the_kernels_value() -> None:
    spoken = re.sub(r"^# (?=\[|\w+ = )", "", GOLDEN, flags=re.MULTILINE)
    parsed = config.parse(spoken, "f.toml")
    silent = config.parse(GOLDEN, "f.toml")
    assert parsed.host == silent.host
    numbers = {"isp-a": 1, "isp-b": 2, "isp-c": 3}
    before, after = (resolve(c, HOST, numbers)[0] for c in (silent, parsed))
    assert (before.gateways, before.sources) == (after.gateways, after.sources)


@pytest.mark.parametrize("name", ["wan\x7f", 'a"b', "a\\b", "wan\U0001f4a9", "a\x1b", "ü"])
def test_every_name_of_an_interface_is_valid_toml(name: str) -> None:
    facts = Facts((replace(WAN0, name=name),), (replace(A4, dev=name),), (via(name),))
    (uplink,) = config.parse(render(discover(facts)), "f.toml").uplinks
    assert uplink.interface == name


def test_a_name_that_is_no_text_is_named() -> None:
    facts = beside(replace(WAN1, name="wan\udcff"), replace(B4, dev="wan\udcff"))
    assert interfaces(facts) == ["wan0"]
    text = render(discover(facts))
    assert "# wan\\xff may be an uplink, but its name isn't UTF-8; rename it" in text
    assert len(config.parse(text, "f.toml").uplinks) == 1


def via(name: str) -> Route:
    return replace(DEFAULT_A4, hops=(Hop(name, "203.0.113.1"),))


def test_the_normal_default_comes_first() -> None:
    better = Route(4, 254, "default", hops=(Hop("wan1", "198.51.100.1"),))
    facts = replace(HOST, routes=(replace(DEFAULT_A4, metric=100), better))
    assert interfaces(facts) == ["wan1", "wan0"]


def test_what_carries_new_connections_comes_first() -> None:
    """Metrics order the routes of one table; a cloud's second card has a table of its own."""
    main, own = replace(DEFAULT_A4, metric=100), replace(DEFAULT_B4, table=101)
    for_b = Rule(4, 10001, table=101, src="198.51.100.10/32")
    rules = (Rule(4, 0, table=255), for_b, Rule(4, 32766, table=254))
    facts = Facts((WAN1, WAN0), (A4, B4), (own, main), rules=rules)
    assert interfaces(facts) == ["wan0", "wan1"]
    assert interfaces(replace(facts, rules=())) == ["wan0", "wan1"]
    everything = Rule(4, 10000, table=101)
    assert interfaces(replace(facts, rules=(everything, *rules))) == ["wan1", "wan0"]
    # as we have moved it ourselves
    ours = replace(everything, protocol=PROTOCOL)
    assert interfaces(replace(facts, rules=(ours, *rules))) == ["wan0", "wan1"]
    vpn = Link(9, "wg0", point_to_point=True, kind="wireguard")
    tunnel = Route(4, 51820, "default", hops=(Hop("wg0"),))
    tunnelled = replace(facts, links=(*facts.links, vpn), routes=(*facts.routes, tunnel))
    all_but_its_own = Rule(4, 32764, table=51820, mark=51820, mask=0xFFFFFFFF, invert=True)
    wg_quick = (rules[0], for_b, all_but_its_own, rules[-1])
    assert interfaces(replace(tunnelled, rules=wg_quick)) == ["wan0", "wan1"]


def test_first_of_equal_defaults_comes_first() -> None:
    for order in ((DEFAULT_A4, DEFAULT_B4), (DEFAULT_B4, DEFAULT_A4)):
        facts = Facts((WAN0, WAN1), (A4, B4), order)
        assert interfaces(facts) == [order[0].hops[0].dev, order[1].hops[0].dev]


def test_multipath_default_is_written_as_balance() -> None:
    hops = (replace(DEFAULT_B4.hops[0], weight=3), DEFAULT_A4.hops[0])
    rules = (Rule(4, 0, table=255), Rule(4, 32766, table=254))
    facts = Facts((WAN0, WAN1), (A4, B4), (replace(DEFAULT_A4, hops=hops),), rules=rules)
    assert interfaces(facts) == ["wan1", "wan0"]
    parsed = config.parse(render(discover(facts)), "f.toml")
    assert (parsed.outgoing.mode, parsed.outgoing.sticky) == ("balance", True)
    assert [u.weight for u in parsed.uplinks] == [3, 1]
    uplinks = resolve(parsed, facts, {"isp-a": 1, "isp-b": 2})
    assert find_conflicts(parsed, facts, uplinks) == ()
    [problem] = find_conflicts(replace(parsed, outgoing=OutgoingConfig()), facts, uplinks)
    assert str(problem) == (
        "the default route: is multipath over wan0, wan1; apply makes all new connections leave by"
        ' isp-a; to balance them, set outgoing.mode = "balance"'
    )
    to_one_link = replace(DEFAULT_A4, hops=(DEFAULT_A4.hops[0], Hop("wan0", "203.0.113.2")))
    assert not discover(replace(facts, routes=(to_one_link, DEFAULT_B4))).balanced


def test_source_specific_default_makes_an_uplink() -> None:
    route = replace(DEFAULT_A6, hops=(Hop("wan1", "fe80::b"),), from_prefix="2001:db8:b::/64")
    facts = Facts((WAN1,), (B4, B6), (DEFAULT_B4, route))
    assert '# gateways = ["198.51.100.1", "fe80::b"]\n' in written(facts)


def test_address_that_the_default_names_is_listed() -> None:
    transfer, public = Address(4, "wan0", "10.1.0.2", 30), Address(4, "lo", "192.0.2.10", 32)
    facts = Facts((WAN0,), (transfer, public), (replace(DEFAULT_A4, src=public.address),))
    assert '# addresses = ["10.1.0.2", "192.0.2.10"]\n' in written(facts)


# --- kinds of links -----------------------------------------------------------------------


def passed_over(facts: Facts) -> list[tuple[str, tuple[str, ...] | None]]:
    found = discover(facts)
    text = render(found) or render(replace(found, uplinks=(Candidate("x"),)))
    for passed in found.passed_over:  # in the file, as a comment
        assert f"# {passed.interface} {passed.why}\n" in text
    return [(passed.interface, passed.gateways) for passed in found.passed_over]


ELSEWHERE = (DEFAULT_A4, Link(20, "wan0"), A4)  # the first uplink


def beside(link: Link, address: Address, *ports: Link, default: Route | None = None) -> Facts:
    """A host with an uplink, and this link."""
    routes = (ELSEWHERE[0], default) if default else (ELSEWHERE[0],)
    return Facts((ELSEWHERE[1], link, *ports), (ELSEWHERE[2], address), routes)


@pytest.mark.parametrize("kind", ["", "bond", "bridge", "vlan", "team", "veth", "macvlan", "ppp"])
@pytest.mark.parametrize("table", [254, 101])
def test_what_carries_address_and_default_is_an_uplink(kind: str, table: int) -> None:
    default = replace(DEFAULT_B4, table=table)
    port = Link(8, "eth1", master=3)
    assert interfaces(beside(replace(WAN1, kind=kind), B4, port, default=default)) == [
        "wan0",
        "wan1",
    ]


@pytest.mark.parametrize(("kind", "named"), [("vrf", True), ("bond", False), ("bridge", False)])
def test_port_and_member_of_a_vrf_are_none(kind: str, named: bool) -> None:
    member, master = replace(WAN1, master=30), Link(30, "master0", kind=kind)
    facts = beside(member, B4, master, default=DEFAULT_B4)
    assert interfaces(facts) == ["wan0"]
    assert passed_over(facts) == [("wan1", None)] * named


@pytest.mark.parametrize("address", [B4, B6, Address(4, "wan1", "172.17.0.1", 16)])
@pytest.mark.parametrize("kind", ["veth", "tun"])
def test_bridge_of_containers_is_none(address: Address, kind: str) -> None:
    bridge, port = replace(WAN1, kind="bridge"), Link(8, "veth1", kind=kind, master=3)
    facts = beside(bridge, address, port)
    assert interfaces(facts) == ["wan0"]
    assert passed_over(facts) == []


def test_bridge_with_a_card_may_have_a_router() -> None:
    bridge, ports = replace(WAN1, kind="bridge"), (Link(7, "tap1", kind="tun", master=3),)
    assert interfaces(beside(bridge, B4, *ports, Link(8, "eth1", master=3))) == ["wan0", "wan1"]


@pytest.mark.parametrize("kind", ["dummy", "wireguard", "tun", "vxlan", "gre", "xfrm"])
@pytest.mark.parametrize("point_to_point", [True, False])
def test_other_virtual_links_are_none(kind: str, point_to_point: bool) -> None:
    link = replace(WAN1, kind=kind, point_to_point=point_to_point)
    facts = beside(link, B4)
    assert interfaces(facts) == ["wan0"]
    assert passed_over(facts) == []


def test_vpn_with_the_default_is_named() -> None:
    link = Link(3, "wan1", kind="wireguard", point_to_point=True)
    facts = beside(link, B4, default=Route(4, 254, "default", hops=(Hop("wan1"),)))
    assert interfaces(facts) == ["wan0"]
    assert passed_over(facts) == [("wan1", None)]
    in_a_table_of_its_own = Route(4, 51820, "default", hops=(Hop("wan1"),))
    assert passed_over(beside(link, B4, default=in_a_table_of_its_own)) == []


def test_virtual_address_of_vrrp_is_named() -> None:
    """keepalived's use_vmac."""
    link = Link(3, "vrrp.51", kind="macvlan")
    facts = beside(link, Address(4, "vrrp.51", "203.0.113.50", 24))
    assert interfaces(facts) == ["wan0"]
    assert passed_over(facts) == [("vrrp.51", None)]


def test_second_line_without_default() -> None:
    """Its client laid none, since there is one already."""
    line = Link(3, "wan1", point_to_point=True, kind="ppp")
    public = Address(4, "wan1", "198.51.100.10", 32, peer="192.0.2.1")
    facts = beside(line, public)
    assert interfaces(facts) == ["wan0", "wan1"]
    parsed = config.parse(render(discover(facts)), "f.toml")
    assert resolve(parsed, facts, {"isp-a": 1, "isp-b": 2})[1].gateways == ((4, ""),)
    assert passed_over(beside(line, replace(public, address="100.64.0.9"))) == [("wan1", ())]


def test_lan_with_a_delegated_prefix_is_none() -> None:
    """Its DHCPv6 client refuses what of the prefix no LAN has (RFC 7084)."""
    lan = Address(6, "wan1", "2001:db8:100:1::1", 64)
    facts = beside(WAN1, lan)
    assert interfaces(facts) == ["wan0", "wan1"], "nothing tells it from an uplink"
    refused = Route(6, 254, "2001:db8:100::/56", kind="unreachable")
    facts = replace(facts, routes=(*facts.routes, refused))
    assert interfaces(facts) == ["wan0"]
    assert passed_over(facts) == [("wan1", None)]
    last_resort = replace(refused, dst="2000::/3")
    assert interfaces(replace(facts, routes=(*facts.routes[:1], last_resort))) == ["wan0", "wan1"]


def test_address_on_loopback_is_no_other_providers() -> None:
    transfer, public = Address(4, "wan0", "10.1.0.2", 30), Address(4, "lo", "192.0.2.10", 32)
    facts = Facts((WAN0,), (transfer, public), (replace(DEFAULT_A4, src=public.address),))
    assert "several prefixes" not in written(facts)
    second = Address(4, "wan0", "198.51.100.10", 24)
    assert "several prefixes" in written(replace(facts, addresses=(*facts.addresses, second)))


def test_private_address_without_default_is_named_with_a_guess() -> None:
    facts = beside(WAN1, Address(4, "wan1", "192.168.2.10", 24))
    assert interfaces(facts) == ["wan0"]
    assert passed_over(facts) == [("wan1", ("192.168.2.1",))]
    spoken = re.sub(r"^# (?=\[uplink|interface|gateways)", "", render(discover(facts)), flags=re.M)
    uplink = resolve(config.parse(spoken, "f.toml"), facts, {"isp-a": 1, "isp-b": 2})[1]
    assert (uplink.pending, uplink.gateways) == ("", ((4, "192.168.2.1"),))


@pytest.mark.parametrize("address", ["10.129.0.2", "198.51.100.2"])
def test_address_without_a_prefix_but_with_a_route_is_named(address: str) -> None:
    """As clouds give it by DHCP: a /32, and classless routes to the network's router."""
    to_router = Route(4, 254, "192.0.2.1/32", hops=(Hop("wan1"),))
    to_network = Route(4, 254, "192.0.2.0/24", hops=(Hop("wan1", "192.0.2.1"),))
    facts = beside(WAN1, Address(4, "wan1", address, 32), default=to_network)
    facts = replace(facts, routes=(*facts.routes, to_router))
    assert interfaces(facts) == ["wan0"]
    assert passed_over(facts) == [("wan1", ("192.0.2.1",))]
    another = replace(to_network, dst="10.0.0.0/8", hops=(Hop("wan1", "192.0.2.7"),))
    assert passed_over(replace(facts, routes=(*facts.routes, another))) == []


def test_second_address_of_a_prefix_is_no_sign_of_a_shared_lan() -> None:
    second = Address(4, "wan1", "198.51.100.11", 32)
    assert "several prefixes" not in written(Facts((WAN1,), (B4, second), (DEFAULT_B4,)))
    elsewhere = replace(second, address="192.0.2.11", prefixlen=24)
    assert "several prefixes" in written(Facts((WAN1,), (B4, elsewhere), (DEFAULT_B4,)))


def test_defaults_of_ours_are_no_evidence() -> None:
    ours = replace(DEFAULT_A4, table=1001, protocol=PROTOCOL)
    facts = Facts(links=(WAN0,), addresses=(Address(4, "wan0", "10.0.0.2", 24),), routes=(ours,))
    assert interfaces(facts) == []


def test_private_address_with_a_default_is_an_uplink() -> None:
    facts = Facts(
        links=(WAN0,), addresses=(Address(4, "wan0", "10.0.0.2", 24),), routes=(DEFAULT_A4,)
    )
    assert interfaces(facts) == ["wan0"]
    assert "\n# public = []  # for names in the DNS: what 10.0.0.2 is translated to" in written(
        facts
    )
    with_public = replace(facts, addresses=(*facts.addresses, Address(4, "wan0", "192.0.2.9", 32)))
    assert "public" not in written(with_public)


@pytest.mark.parametrize(
    "address",
    [
        Address(4, "wan0", "192.168.1.1", 24),
        Address(4, "wan0", "100.64.0.1", 10),
        Address(6, "wan0", "fd00::1", 64),
        Address(6, "wan0", "fe80::1", 64, scope=253),
        Address(4, "wan0", "203.0.113.1", 32),
    ],
)
def test_no_default_and_no_address_that_can_reach_a_router(address: Address) -> None:
    assert interfaces(Facts(links=(WAN0,), addresses=(address,))) == []


def test_point_to_point_needs_no_gateway() -> None:
    facts = Facts(
        links=(Link(2, "ppp0", point_to_point=True),),
        addresses=(Address(4, "ppp0", "203.0.113.10", 32, peer="203.0.113.1"),),
        routes=(Route(4, 254, "default", hops=(Hop("ppp0"),)),),
    )
    assert written(facts) == textwrap.dedent("""\
        [uplink.isp-a]
        interface = "ppp0"
        # addresses = ["203.0.113.10"]
        # the link needs no gateway
        # rank = 0  # the lowest rank is primary: new outgoing connections use it
        # weight = 1  # share when balancing; of equal rank, the greatest weight is primary
        """)


def test_router_without_a_default_route_is_written_out() -> None:
    router = Neighbour(6, "wan1", "fe80::b", "00:00:5e:00:53:01", router=True)
    facts = Facts(links=(WAN1,), addresses=(B6,), neighbours=(router,))
    assert '\ngateways = ["fe80::b"]\n' in written(facts)
    [uplink] = resolve(config.parse(render(discover(facts)), "f.toml"), facts, {"isp-a": 1})
    assert dict(uplink.gateways) == {6: "fe80::b"}


def test_one_family_without_a_router_says_so() -> None:
    facts = Facts(links=(WAN0,), addresses=(A4, A6), routes=(DEFAULT_A4,))
    assert (
        "# no router for IPv6 is known here; until it is in gateways, the uplink has no IPv6\n"
        "# (the line below is a guess, ask the provider)\n"
        '# gateways = ["203.0.113.1", "2001:db8:a::1"]\n'
    ) in written(facts)


def test_31_names_that_are_valid() -> None:
    links = tuple(Link(n, f"wan{n}") for n in range(1, 32))
    routes = tuple(Route(4, 254, "default", hops=(Hop(link.name),)) for link in links)
    names = [
        uplink.name
        for uplink in config.parse(
            render(discover(Facts(links=links, routes=routes))), "f.toml"
        ).uplinks
    ]
    assert names[:2] == ["isp-a", "isp-b"]
    assert names[25:27] == ["isp-z", "isp-27"]


def test_nothing_to_find() -> None:
    facts = replace(HOST, links=HOST.links[3:5], routes=())
    assert render(discover(facts)) == ""
    assert describe_interfaces(facts) == (
        "lan0 with 192.168.1.1/24, 2001:db8:a:1::1/64; docker0 with 172.17.0.1/16"
    )


def test_a_zone_is_served() -> None:
    text = render(discover(HOST)) + zone("www.example.net")
    found = config.parse(text, "ifdefault.toml").dns
    assert [name.name for name in found.names] == ["www.example.net"]
    assert found.server is not None
    assert found.server.zones == ("www.example.net",)
