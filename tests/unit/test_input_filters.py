"""Ports that other programs' packet filters close: what is read of these, and what is concluded.

The rulesets of ufw and firewalld were listed with `iptables-save` and `nft -jst list ruleset` after
`ufw allow 22/tcp; ufw enable`, and with firewalld's default zone. The net test of the same name
compares conclusions with the kernel's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ifdefault.kernel import filters
from ifdefault.kernel.filter_iptables import iptables_chains
from ifdefault.kernel.filter_nft import nft_chains
from ifdefault.kernel.foreign import Saved
from ifdefault.model.config import Config, UplinkConfig
from ifdefault.model.dns import DnsConfig, ServerConfig
from ifdefault.model.kernel import OWN_TABLES, Uplink
from ifdefault.model.packet_filter import FilterChain
from ifdefault.plan import conflicts_input
from ifdefault.plan.packet_filter import Packet, dropped

RULESETS = Path(__file__).parent / "rulesets"
A, A6, B = "203.0.113.10", "2001:db8:a::10", "198.51.100.10"
UPLINKS = (
    Uplink("isp-a", 1, "wan0", 1001, 0, 0, 0, sources=((4, A), (6, A6))),
    Uplink("isp-b", 2, "wan1", 1002, 0, 0, 0, sources=((4, B),)),
)
NONE = '{"nftables": []}'


def told(chains: tuple[FilterChain, ...], port: int = 53) -> list[str]:
    server = ServerConfig(("www.example",), port=port)
    uplinks = (UplinkConfig("isp-a", "wan0"), UplinkConfig("isp-b", "wan1"))
    config = Config(uplinks, dns=DnsConfig(server=server))
    problems = list(conflicts_input.find(config, chains, UPLINKS))
    assert all(problem.warning for problem in problems)
    return [str(problem) for problem in problems]


# --- the firewalls that distributions have ------------------------------------------------


def ufw(*allowed: str) -> Saved:
    """What iptables-save prints; `allowed`: as `ufw allow` writes it."""
    programs = []
    for program in ("iptables", "ip6tables"):
        text = (RULESETS / f"ufw_22.{program}").read_text()
        chain = "ufw-user-input" if program == "iptables" else "ufw6-user-input"
        lines = [f"-A {chain} {match} -j ACCEPT" for match in allowed]
        programs.append((program, text.replace("COMMIT", "\n".join([*lines, "COMMIT"]))))
    return tuple(programs)


UDP, TCP = "-p udp -m udp --dport 53", "-p tcp -m tcp --dport 53"


def test_ufw() -> None:
    assert told(filters.filter_chains(NONE, ufw())) == [
        (
            f"iptables filter INPUT: drops packets to UDP and TCP port 53 of {A}, {B}, since no "
            "rule there accepts them; open it to clients: `ufw allow 53`"
        ),
        (
            f"ip6tables filter INPUT: drops packets to UDP and TCP port 53 of {A6}, since no rule "
            "there accepts them; open it to clients: `ufw allow 53`"
        ),
    ]
    assert told(filters.filter_chains(NONE, ufw(UDP, TCP))) == []
    [ipv4, _] = told(filters.filter_chains(NONE, ufw(UDP)))
    assert "to TCP port 53 of" in ipv4
    assert ipv4.endswith("`ufw allow 53/tcp`")
    limited = "-p udp --dport 53 -m conntrack --ctstate NEW -m recent --set --name DEFAULT"
    assert told(filters.filter_chains(NONE, ufw(limited, TCP))) == []  # can't tell
    some = f"-s 192.0.2.0/24 {UDP}", TCP
    assert len(told(filters.filter_chains(NONE, ufw(*some)))) == 2, "a rule for one client"


def test_firewalld() -> None:
    ruleset = json.loads((RULESETS / "firewalld_public.json").read_text())
    assert told(filters.filter_chains(json.dumps(ruleset), ())) == [
        (
            f"nft inet firewalld filter_IN_public, handle 72: drops packets to UDP and TCP port 53 "
            f"of {A}, {A6}, {B}; open it to clients: `firewall-cmd --permanent --zone=public "
            "--add-service=dns`, then `firewall-cmd --reload`"
        )
    ]
    assert "--add-port=5353/udp --add-port=5353/tcp`" in "".join(
        told(filters.filter_chains(json.dumps(ruleset), ()), 5353)
    )
    for transport in ("tcp", "udp"):  # as --add-service=dns adds them
        port = {"payload": {"protocol": transport, "field": "dport"}}
        match = {"match": {"op": "==", "left": port, "right": 53}}
        chain = {"family": "inet", "table": "firewalld", "chain": "filter_IN_public_allow"}
        rule = {**chain, "handle": 175, "expr": [match, {"accept": None}]}
        ruleset["nftables"].append({"rule": rule})
    assert told(filters.filter_chains(json.dumps(ruleset), ())) == []


# --- nftables -----------------------------------------------------------------------------

PORT = {"payload": {"protocol": "th", "field": "dport"}}


def ruleset(
    *rules: list[dict[str, Any]], policy: str = "accept", table: str = "fw", family: str = "inet",
    name: str = "in", flags: str = "", **hook: Any
) -> dict[str, Any]:  # fmt: skip
    """A table with a base chain, and a chain `more`, in which the last rule is."""
    where = {"family": family, "table": table}
    base = {"type": "filter", "hook": "input", "prio": 0, "policy": policy, **hook}
    chains = [{**where, "name": name, **base}, {**where, "name": "more"}]
    made: list[dict[str, Any]] = [{"table": {"family": family, "name": table, "flags": [flags]}}]
    made += [{"chain": chain} for chain in chains]
    for number, rule in enumerate(rules):
        made.append({"rule": {**where, "chain": name, "handle": number + 4, "expr": rule}})
    return {"nftables": made}


def of(described: dict[str, Any]) -> tuple[FilterChain, ...]:
    return nft_chains(described["nftables"], lambda *_: None)


def match(left: Any, right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


DROP: dict[str, Any] = {"drop": None}


def test_a_policy_without_a_rule() -> None:
    assert told(of(ruleset(policy="drop"))) == [
        (
            f"nft inet fw in: drops packets to UDP and TCP port 53 of {A}, {A6}, {B}, since no "
            "rule there accepts them; open it to clients: "
            "`nft insert rule inet fw in meta l4proto { tcp, udp } th dport 53 accept`"
        )
    ]
    assert told(of(ruleset([match(PORT, 53), {"accept": None}], policy="drop"))) == []


def test_where_it_is_closed_and_where_not() -> None:
    wan1 = match({"meta": {"key": "iifname"}}, "wan1")
    udp = match(
        {"payload": {"protocol": "udp", "field": "dport"}}, {"set": [53, {"range": [1, 9]}]}
    )
    assert told(of(ruleset([wan1, udp, {"counter": None}, DROP]))) == [
        (
            f"nft inet fw in, handle 4: drops packets to UDP port 53 of {B}; open it to clients: "
            "`nft insert rule inet fw in udp dport 53 accept`"
        )
    ]


@pytest.mark.parametrize(
    "described",
    [
        ruleset([DROP], table=OWN_TABLES[0]),
        ruleset([DROP], flags="dormant"),
        ruleset([DROP], hook="forward"),
        ruleset([DROP], hook="output"),
        ruleset([DROP], family="bridge"),
        ruleset([DROP], type="nat"),
        ruleset([match(PORT, "@unknown"), DROP]),
        ruleset([match(PORT, "@unknown"), {"accept": None}], policy="drop"),
        ruleset([{"limit": {"rate": 1, "per": "second"}}, {"accept": None}], policy="drop"),
        ruleset([match({"meta": {"key": "mark"}}, 7), DROP]),
        ruleset([match({"meta": {"key": "mark"}}, 7), {"accept": None}], policy="drop"),
        ruleset([{"xt": {"type": "match", "name": "u32"}}, {"accept": None}], policy="drop"),
        ruleset([{"vmap": {"key": PORT, "data": "@unknown"}}], policy="drop"),
        ruleset([{"jump": {"target": "gone"}}], policy="drop"),
        ruleset([{"redirect": {"port": 5353}}], policy="drop"),
        ruleset([{"queue": None}, DROP]),
        ruleset([{"something new": None}, {"accept": None}], policy="drop"),
        ruleset([match(PORT, 53, "!="), DROP]),
        ruleset([match({"payload": {"protocol": "ip", "field": "saddr"}}, "192.0.2.1"), DROP]),
    ],
)  # fmt: skip
def test_of_others_and_of_what_is_unknown_nothing_is_said(described: dict[str, Any]) -> None:
    assert told(of(described)) == []


def test_prerouting_counts_and_so_does_what_isnt_tracked() -> None:
    assert told(of(ruleset([match(PORT, 53), DROP], hook="prerouting")))
    state = match({"ct": {"key": "state"}}, "new", "in")
    assert told(of(ruleset([state, DROP])))
    assert told(of(ruleset([match(PORT, 53), {"notrack": None}], [state, DROP]))) == []


def test_a_rule_of_iptables_that_nft_can_show() -> None:
    described = ruleset([match(PORT, 53), DROP], family="ip", table="filter", name="INPUT")
    [problem] = told(of(described))
    assert problem.endswith(
        "`iptables -I INPUT -p udp --dport 53 -j ACCEPT`, "
        "`iptables -I INPUT -p tcp --dport 53 -j ACCEPT`"
    )


def test_nothing_is_parsed_where_no_chain_is_at_such_a_hook() -> None:
    forward = json.dumps(ruleset([DROP], hook="forward"))
    assert filters.filter_chains(forward.removesuffix("}"), ()) == ()  # it would be no JSON


def test_the_table_that_iptables_shows_is_not_read_twice() -> None:
    opaque: list[dict[str, Any]] = [{"xt": {"type": "match", "name": "comment"}}, DROP]
    described = ruleset(opaque, family="ip", table="filter", name="INPUT")
    saved = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -m comment --comment x -j DROP\nCOMMIT\n"
    chains = filters.filter_chains(json.dumps(described), (("iptables", saved),))
    assert [chain.program for chain in chains] == ["iptables"]
    [problem] = told(chains)
    assert problem.startswith("iptables filter INPUT, `-A INPUT -m comment --comment x -j DROP`: ")


# --- iptables -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "closed"),
    [
        ("-A INPUT -p udp -m udp --dport 53 -j DROP", True),
        ("-A INPUT -p udp -m udp ! --dport 53 -j DROP", False),
        ("-A INPUT -i wan0 -p 17 -j REJECT --reject-with icmp-port-unreachable", True),
        ("-A INPUT ! -i wan+ -j DROP", False),
        ("-A INPUT -p udp -m multiport --dports 22,50:60 -j DROP", True),
        ("-A INPUT -p udp -m u32 --u32 0x0=0x0 -j DROP", False),
        ("-A INPUT -m mark --mark 0x1 -j DROP", False),
        ("-A INPUT -m rpfilter --invert -j DROP", False),
        ('-A INPUT -m comment --comment "it\'s -j ACCEPT ! \\"x\\"" -j DROP', True),
        ("-A INPUT -s 192.0.2.1/32 -j DROP", False),
        ("-A INPUT -d 203.0.113.0/24 -j DROP", True),
        ("-A INPUT -m iprange --dst-range 203.0.113.9-203.0.113.11 -j DROP", True),
        ("-A INPUT -m set --match-set banned src -j DROP", False),
        ("-A INPUT -j LOG\n-A INPUT -j OTHER", False),
        ("-A INPUT -g one\n-A INPUT -j ACCEPT\n-A one -p udp -j DROP", True),
        ("-A INPUT -j one\n-A INPUT -j DROP\n-A one -p udp -j ACCEPT", False),
        ("-A INPUT -j one\n-A INPUT -j DROP\n-A one -p udp -j RETURN\n-A one -j ACCEPT", True),
        ("-A INPUT -j NFQUEUE --queue-num 0", False),
    ],
)  # fmt: skip
def test_iptables(rules: str, closed: bool) -> None:
    saved = f"*filter\n:INPUT ACCEPT [0:0]\n:one - [0:0]\n{rules}\nCOMMIT\n"
    chains = iptables_chains(saved, "iptables")
    assert (dropped(chains, Packet("wan0", 4, "udp", A, 53)) is not None) == closed
    assert dropped(chains, Packet("wan0", 6, "udp", A6, 53)) is None


def test_a_notrack_of_iptables() -> None:
    saved = "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p udp -j CT --notrack\nCOMMIT\n"
    saved += "*filter\n:INPUT DROP [0:0]\n-A INPUT -m conntrack --ctstate NEW -j ACCEPT\nCOMMIT\n"
    chains = iptables_chains(saved, "iptables")
    assert dropped(chains, Packet("wan0", 4, "udp", A, 53)) is None  # perhaps
    saved = saved.replace("NEW", "UNTRACKED")
    assert dropped(iptables_chains(saved, "iptables"), Packet("wan0", 4, "tcp", A, 53))
