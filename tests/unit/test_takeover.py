"""`init` takes over rules: what the config says, what it can't say, and what is to be removed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ifdefault import config
from ifdefault.host import render_takeover
from ifdefault.host.discover import discover
from ifdefault.host.foreign_files import ForeignFiles
from ifdefault.host.foreign_syntax import NAMES, Statement
from ifdefault.host.render_config import render
from ifdefault.host.takeover import Takeover, take_over
from ifdefault.model.config import Config, OutgoingRule
from ifdefault.model.kernel import PROTOCOL, Address, Facts, Hop, Link, Route, Rule
from ifdefault.model.packet_filter import ForeignMark
from ifdefault.plan import conflicts_leftovers, foreign_rules
from ifdefault.plan.conflicts import find_conflicts
from ifdefault.plan.resolve import resolve

A, B, LAN = "203.0.113.10", "198.51.100.10", "192.168.1.1"
GATEWAY_A, GATEWAY_B = "203.0.113.1", "198.51.100.1"
STANDARD = (Rule(4, 0, table=255), Rule(4, 32766, table=254), Rule(4, 32767, table=253))
FROM_A, FROM_B = Rule(4, 100, table=101, src=f"{A}/32"), Rule(4, 101, table=102, src=f"{B}/32")
BY_A, BY_B = Hop("wan0", GATEWAY_A), Hop("wan1", GATEWAY_B)
HOST = Facts(
    links=(Link(1, "lo", loopback=True), Link(2, "wan0"), Link(3, "wan1"), Link(4, "lan0")),
    addresses=(
        Address(4, "wan0", A, 24),
        Address(4, "wan1", B, 24),
        Address(4, "lan0", LAN, 24),
    ),
    routes=(
        Route(4, 254, "default", hops=(BY_A,)),
        Route(4, 254, "203.0.113.0/24", hops=(Hop("wan0"),)),
        Route(4, 254, "198.51.100.0/24", hops=(Hop("wan1"),)),
        Route(4, 101, "default", hops=(BY_A,)),
        Route(4, 102, "default", hops=(BY_B,)),
    ),
    rules=(STANDARD[0], FROM_A, FROM_B, *STANDARD[1:]),
)
ALONE = replace(HOST, rules=STANDARD, routes=HOST.routes[:3])  # without theirs


def with_(*rules: Rule, routes: tuple[Route, ...] = (), **changes: object) -> Facts:
    in_order = sorted((*HOST.rules, *rules), key=lambda rule: rule.priority)
    facts = replace(HOST, rules=tuple(in_order), routes=(*HOST.routes, *routes))
    return replace(facts, **changes)  # type: ignore[arg-type]


def taken(facts: Facts = HOST, *statements: Statement, **names: int) -> Takeover:
    return take_over(discover(facts), facts, ForeignFiles({**NAMES, **names}, [*statements]))


def parsed(takeover: Takeover) -> Config:
    return config.parse(render(takeover.discovery, takeover), "f.toml")


def printed(takeover: Takeover) -> str:
    return "\n".join(render_takeover.lines(takeover))


def test_nothing_to_take_over() -> None:
    found = taken(ALONE)
    assert found == Takeover(found.discovery)
    assert printed(found) == ""


def test_a_gateway_that_goes_with_its_table_is_written() -> None:
    found = taken()
    a, b = parsed(found).uplinks
    assert (a.gateways, b.gateways) == ((), (GATEWAY_B,)), "main has isp-a's"
    assert [u.pending for u in resolve(parsed(found), ALONE, {"isp-a": 1, "isp-b": 2})] == ["", ""]


def test_the_source_that_a_table_names_is_kept() -> None:
    alias = Address(4, "wan1", "198.51.100.20", 24, secondary=True)
    named = Route(4, 102, "default", hops=(BY_B,), src=alias.address)
    facts = replace(HOST, addresses=(*HOST.addresses, alias), routes=(*HOST.routes[:4], named))
    assert parsed(taken(facts)).uplinks[1].addresses == (alias.address, B)


def test_what_is_to_be_removed_in_order() -> None:
    found = taken()
    assert found.commands == (
        f"ip rule del pref 100 from {A}/32 lookup 101",
        f"ip rule del pref 101 from {B}/32 lookup 102",
        "ip route flush table 101",
        "ip route flush table 102",
    )
    assert found.unknown == tuple(
        command.replace("rule del", "rule") for command in found.commands[:2]
    )
    steps = [line for line in printed(found).splitlines() if line[0].isdigit()]
    assert steps == [
        "1. ifdefault apply --confirm 60, then ifdefault confirm; ours precede the others",
        "2. undo in the kernel what is still there:",
        "3. ifdefault apply, then ifdefault check",
        "4. systemctl enable --now ifdefault",
    ]


def test_names_of_tables_are_names_of_uplinks() -> None:
    found = taken(HOST, Provider_1=101, two=102)
    assert [u.name for u in parsed(found).uplinks] == ["provider-1", "two"]
    doubled = taken(HOST, T_1=101, **{"T-1": 102})
    assert [u.name for u in parsed(doubled).uplinks] == ["t-1", "isp-b"]


@pytest.mark.parametrize(
    ("rule", "outgoing"),
    [
        (Rule(4, 9, table=102, dst="192.0.2.0/24"), OutgoingRule(("isp-b",), ("192.0.2.0/24",))),
        (
            Rule(4, 9, table=102, ip_proto=6, dport=(25, 26)),
            OutgoingRule(("isp-b",), (), "tcp", ((25, 26),)),
        ),
        (Rule(4, 9, table=102, uids=(7, 8)), OutgoingRule(("isp-b",), users=(7, 8))),
    ],
)
def test_rules_that_the_config_can_say(rule: Rule, outgoing: OutgoingRule) -> None:
    found = taken(with_(rule))
    assert parsed(found).outgoing.rules == (outgoing,)
    assert found.left == ()


def test_a_prefix_behind_the_host_is_routed() -> None:
    facts = with_(Rule(4, 9, table=102, src="192.0.2.0/24"))
    assert parsed(taken(facts)).uplinks[1].routed == ("192.0.2.0/24",)


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (Rule(4, 9, table=102, src="192.168.1.0/24"), "selects packets from 192.168.1.0/24"),
        (Rule(4, 9, table=102, src=f"{A}/32"), f"selects packets from {A}, of wan0"),
        (Rule(4, 9, table=102, iif="lan0"), "selects packets that come in on lan0"),
        (Rule(4, 9, table=102, oif="wan0"), "selects sockets that are bound to wan0"),
        (Rule(4, 9, table=102, ip_proto=47), "selects IP protocol 47"),
        (Rule(4, 9, table=102, dport=(1, 9)), "selects ports of several protocols, or 65535"),
        (Rule(4, 9, table=102, ip_proto=6, dport=(1, 65535)), "selects ports of several"),
        (Rule(4, 9, table=102, uids=(0, 1000)), "selects users 0 to 1000"),
        (Rule(4, 9, table=102, tos=4), "has a selector that the config has no key for"),
        (Rule(4, 9, table=102, mark=1, mask=255), "selects mark 0x1, set by nft"),
    ],
)
def test_rules_that_it_cant_say_may_stay(rule: Rule, why: str) -> None:
    mark = ForeignMark("nft ip mangle output, handle 3", 0xFFFFFFFF, True, 1)
    found = taken(with_(rule, foreign_marks=(mark,)))
    [(what, said)] = found.left
    assert "pref 9" in what
    assert said.startswith(why)
    assert said.endswith("; it may stay")
    assert not any("pref 9 " in command for command in found.commands)
    assert "ip route flush table 102" not in found.commands
    assert parsed(found).outgoing.rules == ()


def test_others_rules_arent_mentioned() -> None:
    """A VPN's, a proxy's, ours, and those that refuse."""
    vpn = Link(9, "wg0", point_to_point=True, kind="wireguard")
    rules = (
        Rule(4, 9, table=51820, mark=51820, mask=0xFFFFFFFF, invert=True),
        Rule(4, 10, table=254, suppress_prefixlength=0),
        Rule(4, 11, table=100, mark=1, mask=0xFFFFFFFF),
        Rule(4, 12, table=1001, protocol=PROTOCOL),
        Rule(4, 13, action="blackhole", src="10.9.0.0/16"),
        Rule(4, 14, table=254, dst="10.0.0.0/8"),
    )
    routes = (
        Route(4, 51820, "default", hops=(Hop("wg0"),)),
        Route(4, 100, "default", kind="local", hops=(Hop("lo"),)),
        Route(4, 1001, "default", hops=(BY_A,), protocol=PROTOCOL),
    )
    facts = replace(
        ALONE,
        links=(*HOST.links, vpn),
        rules=(STANDARD[0], *rules, *STANDARD[1:]),
        routes=(*ALONE.routes, *routes),
    )
    found = taken(facts)
    assert found == Takeover(found.discovery)


def test_main_that_was_moved_is_put_back_first() -> None:
    rules = (STANDARD[0], Rule(4, 999, table=254), FROM_A, FROM_B, STANDARD[2])
    assert taken(replace(HOST, rules=rules)).commands[:2] == (
        "ip rule add pref 32766 from all lookup main",
        "ip rule del pref 999 from all lookup main",
    )


def test_routers_on_one_lan_are_an_uplink_each() -> None:
    links = (HOST.links[0], Link(2, "wan0"))
    addresses = (Address(4, "wan0", A, 24), Address(4, "wan0", B, 24))
    by_b = Hop("wan0", GATEWAY_B)
    routes = (*HOST.routes[:1], HOST.routes[3], Route(4, 102, "default", hops=(by_b,)))
    facts = replace(HOST, links=links, addresses=addresses, routes=routes)
    assert [
        (u.name, u.interface, u.addresses, u.gateways) for u in parsed(taken(facts)).uplinks
    ] == [
        ("isp-a", "wan0", (A,), (GATEWAY_A,)),
        ("isp-b", "wan0", (B,), (GATEWAY_B,)),
    ]


def test_main_and_a_table_have_routers_on_one_lan() -> None:
    addresses = (Address(4, "wan0", A, 24), Address(4, "wan0", B, 24))
    by_b = Route(4, 102, "default", hops=(Hop("wan0", GATEWAY_B),))
    facts = replace(
        HOST,
        links=HOST.links[:2],
        addresses=addresses,
        routes=(HOST.routes[0], by_b),
        rules=(STANDARD[0], FROM_B, *STANDARD[1:]),
    )
    first, second = parsed(taken(facts)).uplinks
    assert (first.addresses, first.gateways) == ((A,), (GATEWAY_A,))
    assert (second.addresses, second.gateways) == ((B,), (GATEWAY_B,))


def test_shorewalls_fallback_is_emptied_and_its_rule_stays() -> None:
    fallback = Route(4, 253, "default", metric=2, hops=(BY_B,))
    facts = replace(ALONE, routes=(*ALONE.routes, fallback))
    found = taken(facts)
    assert found.commands == ("ip route flush table default",)
    assert parsed(found).uplinks[1].gateways == (GATEWAY_B,)


def test_who_is_left_out_of_a_multipath_default_is_a_backup() -> None:
    third = Link(5, "wan2")
    both = Route(4, 250, "default", hops=(replace(BY_A, weight=2), BY_B))
    backup = Route(4, 254, "default", metric=9, hops=(Hop("wan2", "192.0.2.1"),))
    facts = replace(
        HOST,
        links=(*HOST.links, third),
        addresses=(*HOST.addresses, Address(4, "wan2", "192.0.2.10", 24)),
        routes=(*HOST.routes[1:], both, backup),
        rules=(STANDARD[0], Rule(4, 32765, table=250), *STANDARD[1:]),
    )
    written = parsed(taken(facts))
    assert written.outgoing.mode == "balance"
    assert [(u.interface, u.weight, u.rank) for u in written.uplinks] == [
        ("wan0", 2, 0),
        ("wan1", 1, 0),
        ("wan2", 1, 1),
    ]


def test_numbers_of_others_are_left_to_them() -> None:
    foreign = Rule(4, 5020, table=1002, src="192.168.7.0/24", mark=1 << 24, mask=0xFF << 24)
    facts = with_(foreign)
    host = parsed(taken(facts)).host
    assert (host.rule_priority, host.table_base) == (4900, 2000)
    assert host.mark_mask == 0x3F << 18
    written = parsed(taken(facts))
    uplinks = resolve(written, facts, {"isp-a": 1, "isp-b": 2})
    assert [p for p in find_conflicts(written, facts, uplinks) if not p.warning] == []


# --- with files ----------------------------------------------------------------------------------


def line(number: int, text: str, *known: tuple[str, object], **more: object) -> Statement:
    return Statement("a script", "/s", number, text, known, **more)  # type: ignore[arg-type]


def test_lines_are_found_again() -> None:
    rule = line(3, "ip rule add from $A table 101", ("table", 101), ("dst", ""))
    other = line(4, "ip rule add from $X", ("dst", ""), ("iif", ""))
    route = line(5, "ip route add default table 102", ("table", 102), kind="route")
    gone = line(6, "ip rule add to 192.0.2.9 table 101", ("dst", "192.0.2.9/32"))
    found = taken(HOST, rule, other, route, gone)
    assert [s.line for s in found.statements] == [3, 4, 5]
    assert found.notes == (
        ("/s:6", "lays a rule that isn't in the kernel now: ip rule add to 192.0.2.9 table 101"),
    )
    text = printed(found)
    assert "To take over from a script without losing a connection:" in text
    assert "     /s:3: ip rule add from $A table 101\n" in text


def test_what_is_broken_is_said() -> None:
    empty, vpns = Rule(4, 9, table=77, src=f"{B}/32"), Rule(4, 10, table=78)
    unruled = Route(4, 88, "default", hops=(BY_B,))
    files = ForeignFiles(
        dict(NAMES), [line(1, "half 3")], [("/etc/shorewall/providers", "isn't read")]
    )
    facts = with_(empty, vpns, routes=(unruled,))
    found = take_over(discover(facts), facts, files)
    assert found.notes == (
        ("/etc/shorewall/providers", "isn't read"),
        (
            f"ip rule pref 9 from {B}/32 lookup 77",
            "has no effect, since its table has no routes",
        ),
        ("table 88", "has a default route by an uplink, but no rule looks it up"),
        ("/s:1", "isn't understood: half 3"),
    )
    assert "ip route flush table 88" in found.commands
    assert f"ip rule del pref 9 from {B}/32 lookup 77" in found.commands


def test_text_of_others_stays_a_comment() -> None:
    evil = line(3, "ip rule add table 101 \x1b[2J\r[host]", ("table", 101))
    found = taken(HOST, evil)
    assert "table 101 \\x1b[2J\\r[host]\n" in render(found.discovery, found)
    assert parsed(found).uplinks


# --- what check says afterwards ------------------------------------------------------------------


def test_leftovers_that_do_harm_are_named() -> None:
    facts = with_(Rule(4, 9, table=101, dst="192.0.2.0/24"))
    written = parsed(taken(facts))
    uplinks = resolve(written, facts, {"isp-a": 1, "isp-b": 2})
    (live,) = map(str, conflicts_leftovers.find(written, facts, uplinks))
    assert live == (
        "ip rule pref 9 from all to 192.0.2.0/24 lookup 101: looks up table 101 of another program,"
        " which leads to isp-a even while that is down; `ifdefault init --print` says how to remove"
        " it"
    )
    # rules for replies are still there, which ours precede
    assert FROM_A in facts.rules
    assert not list(conflicts_leftovers.find(written, ALONE, uplinks))


def test_rules_of_one_uplink_only_are_found() -> None:
    assert foreign_rules.find(HOST, ["wan0"])[0].rule == FROM_A
    assert {f.rule for f in foreign_rules.find(HOST, ["wan0"])} == {FROM_A}


def test_thousands_of_rules_in_a_script_are_named_in_part() -> None:
    known = (("src", "192.0.2.1/32"), ("table", 77))
    rows = [Statement("a script", "/f", n, "ip rule add …", known) for n in range(1, 7001)]
    notes = take_over(discover(ALONE), ALONE, ForeignFiles(dict(NAMES), rows)).notes
    assert len(notes) == 21
    assert notes[-1] == ("and 6980 more", "")
