"""Conflicts are reported with the rule that causes them, and a remedy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ifdefault.model.config import FAMILIES, Config, HostConfig, UplinkConfig
from ifdefault.model.kernel import (
    PROTOCOL,
    TABLE_LOCAL,
    TABLE_MAIN,
    Address,
    Facts,
    Hop,
    Link,
    Route,
    Rule,
)
from ifdefault.model.packet_filter import ForeignMark
from ifdefault.plan import conflicts_defaults
from ifdefault.plan.conflicts import find_conflicts
from ifdefault.plan.resolve import resolve
from ifdefault.plan.rule_block import catches_default, first_priority

CONFIG = Config((UplinkConfig("isp-a", "wan0"), UplinkConfig("isp-b", "wan1")))
HOST = Facts(
    links=(Link(2, "wan0"), Link(3, "wan1"), Link(4, "lan0")),
    addresses=(
        Address(4, "wan0", "203.0.113.10", 24),
        Address(4, "wan1", "198.51.100.10", 24),
        Address(6, "wan1", "2001:db8:b::10", 64),
        Address(4, "lan0", "192.168.1.1", 24),
    ),
    routes=(
        Route(4, 254, "default", hops=(Hop("wan0", "203.0.113.1"),)),
        Route(4, 254, "default", metric=9, hops=(Hop("wan1", "198.51.100.1"),)),
        Route(6, 254, "default", hops=(Hop("wan1", "fe80::1"),)),
    ),
    rules=(
        Rule(4, 0, table=255, protocol=2),
        Rule(4, 32766, table=254, protocol=2),
        Rule(6, 0, table=255, protocol=2),
    ),
)
TUNNEL = (Route(4, 51820, "default", hops=(Hop("wg0"),)),)
WG_QUICK = (
    Rule(4, 4998, table=254, suppress_prefixlength=0, protocol=3),
    Rule(4, 4999, table=51820, mark=0xCA6C, mask=0xFFFFFFFF, invert=True, protocol=3),
)
ALL = 0xFFFFFFFF
BYPASS = Rule(4, 5210, table=254, mark=0x80000, mask=0xFF0000, protocol=3)


def told(facts: Facts, config: Config = CONFIG) -> list[str]:
    """Each problem as shown to users, with warnings marked."""
    names = {uplink.name: n for n, uplink in enumerate(config.uplinks, 1)}
    found = find_conflicts(config, facts, resolve(config, facts, names))
    return [f"{'warning: ' * problem.warning}{problem}" for problem in found]


def with_rules(*rules: Rule, routes: tuple[Route, ...] = ()) -> Facts:
    return replace(HOST, rules=HOST.rules + rules, routes=HOST.routes + routes)


def host(**keys: Any) -> Config:
    return replace(CONFIG, host=HostConfig(**keys))


def test_plain_host_has_no_conflict() -> None:
    assert told(HOST) == []


def test_what_is_ours_is_no_conflict() -> None:
    ours = Rule(4, 5030, table=1001, src="203.0.113.10/32", protocol=PROTOCOL)
    route = Route(4, 1001, "default", hops=(Hop("wan0", "203.0.113.1"),), protocol=PROTOCOL)
    assert told(with_rules(ours, routes=(route,))) == []


def test_foreign_rule_in_our_block() -> None:
    [line] = told(with_rules(Rule(4, 5020, table=77, dst="10.0.0.0/8", protocol=3)))
    assert line == (
        "ip rule pref 5020 from all to 10.0.0.0/8 lookup 77: has a priority among ours, "
        "5000 to 5050; change its priority, or set host.rule_priority = 4900"
    )


def test_foreign_rule_with_our_outgoing_priority_is_no_conflict() -> None:
    assert told(with_rules(Rule(4, 32765, table=77, dst="10.0.0.0/8", protocol=3))) == []


def test_foreign_rule_and_routes_in_our_tables() -> None:
    routes = tuple(Route(4, 1003, dst, protocol=4) for dst in ("10.0.0.0/8", "172.16.0.0/12"))
    lines = told(with_rules(Rule(6, 200, table=1031, iif="lan0", protocol=3), routes=routes))
    assert lines[0].startswith("ip -6 rule pref 200 from all iif lan0 lookup 1031: looks up table")
    assert (
        "table 1003: contains 2 foreign routes, such as 10.0.0.0/8; set host.table_base" in lines[1]
    )
    assert len(lines) == 2


def test_tables_next_to_ours_are_free() -> None:
    routes = tuple(Route(4, table, "10.0.0.0/8") for table in (999, 1032))
    assert told(with_rules(routes=routes)) == []


def test_foreign_mask_on_ours_names_a_free_one() -> None:
    calico = Rule(4, 40, table=77, mark=0x10000, mask=0xFFFF0000, protocol=3)
    [line] = told(with_rules(calico))
    assert "selects by bits of host.mark_mask 0x3f000000; set host.mark_mask = 0xfc00" in line


def test_no_bits_left() -> None:
    calico = Rule(4, 40, table=77, mark=0x10000, mask=0xFFFF0000, protocol=3)
    other = Rule(4, 41, table=77, mark=0x100, mask=0xFF0, protocol=3)
    assert told(with_rules(calico, other))[0].endswith(
        "no six adjacent bits are free; give this rule a narrower mask, as in 0x1/0xff"
    )


MULLVAD = 0x6D6F6C65


def whole(value: int, *, sets: bool) -> Facts:
    return replace(HOST, foreign_marks=(ForeignMark("nft inet x y, handle 4", ALL, sets, value),))


@pytest.mark.parametrize(
    ("value", "mask", "told_of"),
    [
        (1, 0x3F000000, None),
        (0xCA6C, 0x3F000000, None),
        (0x1000000, 0x3F000000, "error: would be taken for that of uplink.isp-a"),
        (0x22001234, 0x3F000000, "error: would be taken for that of uplink.isp-b"),
        (0x3000000, 0x3F000000, None),  # there is no third uplink
        (MULLVAD, 0x3F000000, "warning: take main's default, not the primary uplink"),
        (MULLVAD, 0xFC000000, None),
        (MULLVAD, 0x00FC0000, None),
    ],
)
def test_whole_marks(value: int, mask: int, told_of: str | None) -> None:
    """Whether a rule compares it, or a ruleset compares or sets it."""
    config = host(mark_mask=mask)
    rule = Rule(4, 32765, table=77, mark=value, mask=ALL, invert=True, protocol=3)
    for facts in (with_rules(rule), whole(value, sets=False), whole(value, sets=True)):
        lines = told(facts, config)
        if told_of is None:
            assert lines == []
            continue
        [line] = lines
        kind, _, what = told_of.partition(": ")
        assert line.startswith("warning: ") == (kind == "warning")
        assert what in line
        proposed = int(line.rpartition("host.mark_mask = ")[2], 16)
        assert told(facts, host(mark_mask=proposed)) == []


def test_the_mask_that_is_proposed_is_accepted() -> None:
    """Whatever uses marks on this host."""
    rules = (
        Rule(4, 40, table=77, mark=0x40000, mask=0xFF0000, protocol=3),
        Rule(4, 41, table=77, mark=MULLVAD, mask=ALL, invert=True, protocol=3),
        Rule(4, 42, table=77, mark=0x1000000, mask=ALL, protocol=3),
    )
    facts = replace(with_rules(*rules), foreign_marks=(ForeignMark("nft", 0xC000, sets=True),))
    line = next(line for line in told(facts) if not line.startswith("warning: "))
    proposed = int(line.rpartition("host.mark_mask = ")[2], 16)
    assert told(facts, host(mark_mask=proposed)) == []


@pytest.mark.parametrize("bits", [0x01000000, 0x21000000])
def test_foreign_ruleset_on_our_bits(bits: int) -> None:
    [line] = told(replace(HOST, foreign_marks=(ForeignMark("nft ip fw in, handle 4", bits),)))
    assert line.startswith(f"nft ip fw in, handle 4: uses bits {bits:#x} of host.mark_mask")


def test_overwritten_mark_matters_only_where_we_mark() -> None:
    facts = replace(
        HOST, foreign_marks=(ForeignMark("nft ip tproxy pre, handle 2", ALL, sets=True),)
    )
    assert told(facts) == []
    lines = told(facts, host(return_path="conntrack"))
    assert lines
    assert all(line.startswith("warning: nft ip tproxy pre") for line in lines)


def test_tproxy_and_copied_marks_are_refused() -> None:
    facts = replace(
        with_rules(Rule(4, 100, table=77, mark=1, mask=0xFFFFFFFF, protocol=3)),
        foreign_marks=(ForeignMark("nft ip tproxy pre, handle 2", 1, sets=True),),
    )
    assert told(facts) == []
    [line] = told(facts, host(return_path="mark"))
    assert "ip rule pref 100" in line
    assert "connections that nft ip tproxy pre, handle 2 marks" in line
    assert 'host.return_path = "conntrack"' in line


def test_copied_marks_leave_wireguards_inverted_rule_alone() -> None:
    facts = replace(
        with_rules(*WG_QUICK, routes=TUNNEL),
        foreign_marks=(ForeignMark("nft ip wg-quick-wg0 pre", ALL, sets=True, value=0xCA6C),),
    )
    lines = told(facts, host(return_path="mark"))
    assert [line for line in lines if not line.startswith("warning: ")] == []


# --- others' rules that catch or bypass a default ------------------------------------------


def test_full_tunnel_started_after_us_moves_the_block_above_it() -> None:
    facts = with_rules(*WG_QUICK, routes=TUNNEL)
    assert first_priority(CONFIG, facts) == 4900
    [line] = told(facts)
    assert line == (
        "warning: ip rule pref 4999 not from all fwmark 0xca6c/0xffffffff lookup 51820: "
        "takes replies before the return-path rules; apply adds the return-path rules before it"
    )


def test_what_apply_has_done_is_advised_no_more() -> None:
    elsewhere = Rule(4, 5030, table=1001, src="203.0.113.10/32", protocol=PROTOCOL)
    assert len(told(with_rules(*WG_QUICK, elsewhere, routes=TUNNEL))) == 1
    moved = replace(elsewhere, priority=4930)
    assert told(with_rules(*WG_QUICK, moved, routes=TUNNEL)) == []

    late = tuple(replace(r, priority=32765) if not r.priority else r for r in HOST.rules)
    [line, *_] = told(replace(HOST, rules=(*late, elsewhere)))
    assert "apply adds its own, pref 4999" in line
    local = tuple(Rule(f, 5000, table=TABLE_LOCAL, protocol=PROTOCOL) for f in FAMILIES)
    assert told(replace(HOST, rules=(*local, *late, elsewhere))) == []


def test_full_tunnel_below_us_is_left_alone() -> None:
    below = [replace(rule, priority=32764 + n) for n, rule in enumerate(WG_QUICK)]
    facts = with_rules(*below, routes=TUNNEL)
    assert first_priority(CONFIG, facts) == 5000
    assert told(facts) == []


def test_block_skips_taken_priorities_and_returns_when_the_tunnel_goes() -> None:
    neighbour = Rule(4, 4920, table=77, dst="10.0.0.0/8", protocol=3)
    assert first_priority(CONFIG, with_rules(*WG_QUICK, neighbour, routes=TUNNEL)) == 4800
    assert first_priority(CONFIG, with_rules(neighbour)) == 5000


def test_no_room_above_a_catcher_is_an_error() -> None:
    [line] = told(with_rules(Rule(4, 60, table=51820, protocol=3), routes=TUNNEL))
    assert (
        "leaves no room for the return-path rules before it; give it a priority greater than 60"
        in line
    )
    assert not line.startswith("warning")


@pytest.mark.parametrize(
    ("rule", "routes", "catches"),
    [
        (Rule(4, 9, table=7), ("default",), True),
        (Rule(4, 9, table=7), ("0.0.0.0/1", "128.0.0.0/1"), True),
        (Rule(4, 9, table=7), ("10.0.0.0/8",), False),
        (Rule(4, 9, table=7, suppress_prefixlength=0), ("default",), False),
        (Rule(4, 9, table=7, suppress_prefixlength=0), ("0.0.0.0/1",), True),
        (Rule(4, 9, table=7, src="198.51.100.0/24"), ("default",), True),
        (Rule(4, 9, table=7, src="192.168.0.0/16"), ("default",), False),
        (Rule(4, 9, table=7, src="192.168.0.0/16", invert=True), ("default",), True),
        (Rule(4, 9, table=7, dst="10.0.0.0/8"), ("default",), False),
        (Rule(4, 9, table=7, iif="lan0"), ("default",), False),
        (Rule(4, 9, table=7, iif="lo"), ("default",), True),
        (Rule(4, 9, table=7, oif="wg0"), ("default",), False),
        (Rule(4, 9, table=7, mark=1, mask=1), ("default",), False),
        (Rule(4, 9, table=7, mark=0, mask=1), ("default",), True),
        (Rule(4, 9, table=7, mark=1, mask=1, invert=True), ("default",), True),
        (Rule(4, 9, table=7, ip_proto=6, dport=(80, 80)), ("default",), True),
        (Rule(4, 9, table=7, unfollowed=True), ("default",), False),
        (Rule(4, 9, action="unreachable"), (), True),
        (Rule(4, 9, action="goto", goto=40), (), False),
        (Rule(6, 9, table=7), ("2000::/3",), True),
        (Rule(6, 9, table=7), ("fc00::/7",), False),
    ],
)
def test_catches_default(rule: Rule, routes: tuple[str, ...], catches: bool) -> None:
    facts = replace(HOST, routes=tuple(Route(rule.family, 7, dst) for dst in routes))
    addresses = ("203.0.113.10", "198.51.100.10", "2001:db8:b::10")
    assert catches_default(rule, facts, addresses) is catches


def test_bypass_of_the_primary_is_a_warning() -> None:
    [line] = told(with_rules(BYPASS))
    assert line.startswith(
        "warning: ip rule pref 5210 from all fwmark 0x80000/0xff0000 lookup main: "
        "looks up main before the primary uplink's table"
    )


# --- the host ------------------------------------------------------------------------------


def test_strict_filter_is_no_matter_to_source_rules() -> None:
    assert told(replace(HOST, sysctls=(("net/ipv4/conf/all/rp_filter", "1"),))) == []


def test_strict_filter_and_marks() -> None:
    facts = replace(HOST, sysctls=(("net/ipv4/conf/wan1/rp_filter", "1"),))
    [line] = told(facts, host(return_path="mark"))
    assert line == (
        "warning: sysctl net.ipv4.conf.wan1.rp_filter: strict, would drop marked packets that "
        "arrive on wan1; apply sets net.ipv4.conf.wan1.src_valid_mark = 1"
    )
    loose = (("net/ipv4/conf/all/rp_filter", "2"), *facts.sysctls)
    assert told(replace(facts, sysctls=loose), host(return_path="mark")) == []


def test_strict_filter_and_wildcard_udp() -> None:
    facts = replace(
        HOST, sysctls=(("net/ipv4/conf/wan1/rp_filter", "1"),), wildcard_udp=((4, 4433),)
    )
    assert "src_valid_mark = 1" in "".join(told(facts))
    assert told(facts, host(udp_wildcard="off")) == []


def test_strict_filter_and_forwarding() -> None:
    sysctls = (("net/ipv4/ip_forward", "1"), ("net/ipv4/conf/all/rp_filter", "1"))
    facts = replace(HOST, sysctls=sysctls)
    [line] = told(facts, host(forwarded="off"))
    assert "conf.all.rp_filter: strict, drops packets from wan1 that are to be forwarded" in line
    lines = told(facts)
    assert "drops forwarded packets that arrive on wan0" in lines[0]
    assert "apply sets net.ipv4.conf.wan1.rp_filter = 2 (loose)" in lines[1]
    assert len(lines) == 2


def test_a_reverse_path_filter_of_nftables_and_forwarding() -> None:
    """It drops on all uplinks but the primary one, in families that are forwarded."""
    where = "nft inet firewalld filter_PREROUTING, handle 52"
    facts = replace(HOST, reverse_path_filters=((where, 4), ("nft ip6 x y, handle 1", 6)))
    forwarding = replace(facts, sysctls=(("net/ipv4/ip_forward", "1"),))
    assert told(facts) == []
    [line] = told(forwarding)
    assert line.startswith(f"warning: {where}: drops forwarded IPv4 packets that arrive on wan1, ")
    assert "IPv6_rpfilter=no" in line
    assert told(forwarding, host(forwarded="off")) == []
    assert told(forwarding, Config(CONFIG.uplinks[:1])) == []


def test_missing_interface_and_gateway_are_pending() -> None:
    config = Config((UplinkConfig("isp-a", "wan0"), UplinkConfig("isp-c", "wan9")))
    facts = replace(HOST, routes=())
    lines = told(facts, config)
    assert lines[0].startswith("warning: uplink.isp-a: pending: no gateway is known on wan0")
    assert lines[1] == "warning: uplink.isp-c: pending: interface wan9 doesn't exist"


def test_foreign_link_group_is_remembered() -> None:
    facts = replace(HOST, links=(Link(2, "wan0", group=7), *HOST.links[1:]))
    [line] = told(facts)
    assert line == (
        "warning: uplink.isp-a: wan0 is in link group 7; "
        "apply moves it to group 171, and down moves it back"
    )


def test_router_of_some_addresses_only() -> None:
    """An uplink has one router; a source-specific default leads to another one."""

    def default(gateway: str, prefix: str = "") -> Route:
        hops = (Hop("wan0", gateway),)
        return Route(6, TABLE_MAIN, "default", 1024, hops=hops, from_prefix=prefix)

    addresses = tuple(Address(6, "wan0", f"2001:db8:{p}::10", 64) for p in "bc")
    routes = (default("fe80::1"), default("fe80::c", "2001:db8:c::/64"))
    facts = replace(HOST, addresses=addresses, routes=routes)
    config = Config((UplinkConfig("isp-a", "wan0"),))
    [problem] = conflicts_defaults.find(config, facts, resolve(config, facts, {"isp-a": 1}))
    assert str(problem) == (
        "uplink.isp-a: the default from 2001:db8:c::/64, for 2001:db8:c::10, is via fe80::c;"
        " configure an uplink for each router of wan0, with addresses and gateways"
    )
    told = replace(facts, routes=routes[:1])
    assert not list(conflicts_defaults.find(config, told, resolve(config, told, {"isp-a": 1})))


def test_two_links_that_answer_arp_for_each_other() -> None:
    """ARP flux."""
    addresses = (
        Address(4, "wan0", "203.0.113.10", 24),
        Address(4, "wan1", "203.0.113.20", 25),
    )
    quiet = tuple((f"net/ipv4/conf/{dev}/arp_filter", "0") for dev in ("all", "wan0", "wan1"))
    ignores = tuple((f"net/ipv4/conf/{dev}/arp_ignore", "0") for dev in ("all", "wan0", "wan1"))
    facts = replace(HOST, addresses=addresses, sysctls=(*quiet, *ignores))
    [line] = [line for line in told(facts) if "ARP" in line]
    assert line == (
        "warning: sysctl net.ipv4.conf.wan0.arp_ignore: wan0 and wan1 share 203.0.113.0/24, and "
        "answer ARP for each other's addresses; run `sysctl -w net.ipv4.conf.wan0.arp_ignore=1 "
        "net.ipv4.conf.wan1.arp_ignore=1`"
    )
    strict = (("net/ipv4/conf/all/arp_ignore", "1"), *quiet, *ignores[1:])
    assert not any("ARP" in line for line in told(replace(facts, sysctls=strict)))
    apart = replace(HOST, sysctls=facts.sysctls)
    assert not any("ARP" in line for line in told(apart))
    bonded = tuple(replace(link, mac="02:00:00:00:00:01") for link in HOST.links)
    [line] = [line for line in told(replace(apart, links=bonded)) if "ARP" in line]
    assert "wan0 and wan1 share MAC 02:00:00:00:00:01" in line


def test_tables_that_are_too_large_are_named() -> None:
    hop = (Hop("wan0", "203.0.113.1"),)
    many = tuple(Route(4, 254, f"20.{n >> 8}.{n & 255}.0/24", hops=hop) for n in range(1001))
    assert told(replace(HOST, routes=(*HOST.routes, *many[1:]))) == told(HOST)
    [line] = set(told(replace(HOST, routes=(*HOST.routes, *many)))) - set(told(HOST))
    assert line.startswith("warning: ip route show dev wan0: shows 1001 routes through routers")
    by_rule = Rule(4, 9999, table=4242, src="192.0.2.0/24", protocol=3)
    facts = replace(HOST, unread=((4, 4242), (6, 254)), rules=(*HOST.rules, by_rule))
    table, main = sorted(set(told(facts)) - set(told(HOST)))
    assert table.startswith(
        "warning: table 4242: has more IPv4 routes than are read, and pref 9999 from 192.0.2.0/24 "
        "lookup 4242 looks it up"
    )
    assert main.startswith("warning: table main: has more IPv6 routes than are read")


def test_a_budget_on_an_interface_that_two_uplinks_share() -> None:
    limited = UplinkConfig("isp-b", "wan0", gateways=("203.0.113.2",), budget_bytes=10**9)
    config = Config((UplinkConfig("isp-a", "wan0", gateways=("203.0.113.1",)), limited))
    what = "wan0 is counted, which carries isp-a, too; let the budget be that of all of them"
    assert f"warning: uplink.isp-b.budget: {what}" in told(HOST, config)
    assert "budget" not in " ".join(told(HOST, CONFIG))
