"""`init` finds the uplinks, and nothing else, and writes a config that works."""

from __future__ import annotations

import re
import textwrap
from dataclasses import replace

import pytest

from ifdefault import config
from ifdefault.host.discover import describe_interfaces, discover
from ifdefault.host.render_config import render
from ifdefault.model.kernel import PROTOCOL, Address, Facts, Hop, Link, Neighbour, Route
from ifdefault.plan.resolve import resolve

WAN0, WAN1 = Link(2, "wan0"), Link(3, "wan1")
A4, A6 = Address(4, "wan0", "203.0.113.10", 24), Address(6, "wan0", "2001:db8:a::10", 64)
B4, B6 = Address(4, "wan1", "198.51.100.10", 24), Address(6, "wan1", "2001:db8:b::10", 64)
DEFAULT_A4 = Route(4, 254, "default", hops=(Hop("wan0", "203.0.113.1"),))
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
    before, after = (resolve(c, HOST, {"isp-a": 1, "isp-b": 2})[0] for c in (silent, parsed))
    assert (before.gateways, before.sources) == (after.gateways, after.sources)


def test_the_normal_default_comes_first() -> None:
    better = Route(4, 254, "default", hops=(Hop("wan1", "198.51.100.1"),))
    facts = replace(HOST, routes=(replace(DEFAULT_A4, metric=100), better))
    assert interfaces(facts) == ["wan1", "wan0"]


def test_defaults_of_ours_are_no_evidence() -> None:
    ours = replace(DEFAULT_A4, table=1001, protocol=PROTOCOL)
    facts = Facts(links=(WAN0,), addresses=(Address(4, "wan0", "10.0.0.2", 24),), routes=(ours,))
    assert interfaces(facts) == []


def test_private_address_with_a_default_is_an_uplink() -> None:
    facts = Facts(
        links=(WAN0,), addresses=(Address(4, "wan0", "10.0.0.2", 24),), routes=(DEFAULT_A4,)
    )
    assert interfaces(facts) == ["wan0"]


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
