"""Conflicts with [[forward]] services are reported with the key of the config."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ifdefault.kernel import filters
from ifdefault.model.config import Config, ForwardConfig, OutgoingConfig
from ifdefault.model.kernel import Facts, Hop, Route, Rule
from ifdefault.plan import conflicts_forward
from ifdefault.plan.resolve import resolve
from tests.unit.test_conflicts import CONFIG
from tests.unit.test_conflicts import HOST as BARE
from tests.unit.test_forward_table import forward

HOST = replace(
    BARE,
    rules=(*BARE.rules, Rule(6, 32766, table=254, protocol=2)),
    routes=(
        *BARE.routes,
        Route(4, 254, "192.168.1.0/24", hops=(Hop("lan0"),)),
        Route(4, 254, "10.0.0.0/24", hops=(Hop("lan0", "192.168.1.2"),)),
        Route(4, 254, "198.51.100.0/24", hops=(Hop("wan1"),)),
        Route(4, 254, "10.9.0.0/16", kind="unreachable"),
        Route(4, 254, "0.0.0.0/1", hops=(Hop("tun0"),)),
        Route(6, 254, "fd00:10::/64", hops=(Hop("lan0"),)),
    ),
)
WEB = forward("tcp:80", "192.168.1.10", "10.0.0.10", "fd00:10::10")
LAN = OutgoingConfig(masquerade=("lan0",))


def told(facts: Facts, *forwards: ForwardConfig, outgoing: OutgoingConfig = LAN) -> list[str]:
    config = Config(CONFIG.uplinks, forwards=forwards, outgoing=outgoing)
    names = {uplink.name: n for n, uplink in enumerate(config.uplinks, 1)}
    found = conflicts_forward.find(config, facts, resolve(config, facts, names))
    return [f"{'warning: ' * problem.warning}{problem}" for problem in found]


def test_servers_on_a_lan_and_behind_it() -> None:
    assert told(HOST, WEB) == []


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("192.168.1.1", "is an address of this host, which would make a loop; let the program"),
        ("203.0.113.10", "is an address of this host, which would make a loop; let the program"),
        ("198.51.100.77", "is reached through uplink.isp-b; use servers"),
        ("192.0.2.1", "has no route but a default route; add"),
        ("100.64.0.1", "has no route but a default route; add"),
        ("10.9.0.1", "has no route; add a route"),
        ("fd00:77::1", "has no route but a default route; add"),
    ],
)
def test_servers_elsewhere(address: str, what: str) -> None:
    [line] = told(HOST, WEB, forward("tcp:25", "10.0.0.10", address))
    assert line.startswith(f"forward[1].to[1]: {address} {what}")


@pytest.mark.parametrize(
    ("socket", "named"),
    [
        (("tcp", "0.0.0.0", 80), "every address"),
        (("tcp", "::", 80), "every address"),
        (("tcp", "198.51.100.10", 80), "198.51.100.10"),
        (("tcp", "127.0.0.1", 80), ""),
        (("tcp", "192.168.1.1", 80), ""),
        (("udp", "0.0.0.0", 80), ""),
        (("tcp", "0.0.0.0", 81), ""),
    ],
)
def test_held_ports(socket: tuple[str, str, int], named: str) -> None:
    lines = told(replace(HOST, listening=(socket,)), WEB)
    start = (
        f"forward[0].listen[0]: a program on this host listens on tcp port 80 of {named}; see `ss"
    )
    assert [line.startswith(start) for line in lines] == [True] * bool(named)


def test_a_port_in_a_range_is_held() -> None:
    held = replace(HOST, listening=(("udp", "0.0.0.0", 7005), ("udp", "0.0.0.0", 40000)))
    [line] = told(held, forward("tcp:7000-7010 udp:7000-7010 udp:39000-41000", "10.0.0.10"))
    assert line.startswith("forward[0].listen[1]: a program on this host listens on udp port 7005")


def test_only_where_it_is_offered() -> None:
    held = replace(HOST, listening=(("tcp", "203.0.113.10", 80), ("tcp", "::", 80)))
    assert told(held, forward("tcp:80", "10.0.0.10", uplinks=("isp-b",))) == []


# --- other programs' packet filters ---------------------------------------------------------

DNAT = "-m conntrack --ctstate DNAT -j ACCEPT"
UFW = """\
-A FORWARD -j ufw-before-forward
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -j ufw-user-forward
"""
DOCKER = """\
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
"""


def behind(rules: str, program: str = "iptables", policy: str = "DROP") -> Facts:
    """A host with these rules of iptables."""
    names = dict.fromkeys(line.split()[1] for line in rules.splitlines())
    targets = dict.fromkeys(w for w in rules.split() if w.startswith(("ufw-", "DOCKER")))
    chains = "".join(f":{name} - [0:0]\n" for name in {**names, **targets} if name != "FORWARD")
    text = f"*filter\n:FORWARD {policy} [0:0]\n{chains}{rules}\nCOMMIT\n"
    found = filters.filter_chains('{"nftables": []}', ((program, text),), "forward")
    return replace(HOST, forward_filters=found)


def dropped(facts: Facts, *forwards: ForwardConfig, lan: str = "") -> list[str]:
    """What is dropped, and the commands that let it pass."""
    lines = told(facts, *forwards, outgoing=OutgoingConfig(masquerade=(lan,) if lan else ()))
    assert all(line.startswith("warning: ip") and ": drops " in line for line in lines)
    return [
        "; ".join([line.split(": drops ")[1].split(";")[0], *line.split("`")[1::2]])
        for line in lines
    ]


TO_80 = "forwarded packets to TCP port 80 of 10.0.0.10"
NO_RULE = f"{TO_80}, since no rule there accepts them"


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        ("", f"{NO_RULE}; iptables -I FORWARD {DNAT}"),
        (f"-A FORWARD {DNAT}", ""),
        ("-A FORWARD -d 10.0.0.0/24 -j ACCEPT", ""),
        ("-A FORWARD -d 10.0.0.0/24 -o lan1 -j ACCEPT", f"{NO_RULE}; iptables -I FORWARD {DNAT}"),
        ("-A FORWARD -d 10.0.0.0/24 -i wan0 -o lan0 -j ACCEPT", ""),
        (UFW, f"{NO_RULE}; ufw route allow proto tcp to 10.0.0.10 port 80"),
        (f"{UFW}-A ufw-user-forward -d 10.0.0.10/32 -p tcp -m tcp --dport 80 -j ACCEPT", ""),
        (DOCKER, f"{NO_RULE}; iptables -I DOCKER-USER {DNAT}"),
        (f"{DOCKER}-A DOCKER-USER {DNAT}", ""),
        ("-A FORWARD -m mark --mark 0x1 -j ACCEPT", ""),  # can't tell
    ],
)
def test_what_iptables_drops(rules: str, found: str) -> None:
    web = forward("tcp:80", "10.0.0.10")
    assert dropped(behind(rules), web) == ([found] if found else [])
    assert dropped(behind(rules, policy="ACCEPT"), web) == []
    assert dropped(behind(rules, "ip6tables"), web) == []
    assert dropped(behind(rules)) == []  # forwards nothing


def test_a_rule_that_drops_is_named() -> None:
    facts = behind("-A FORWARD -i wan+ -j REJECT", policy="ACCEPT")
    [line] = told(facts, WEB, outgoing=OutgoingConfig())
    assert line.startswith(
        "warning: iptables filter FORWARD, `-A FORWARD -i wan+ -j REJECT`: drops"
    )


def test_what_a_lan_sends_is_dropped() -> None:
    established = "-I FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    dropping = "IPv4 connections of lan0, since no rule there accepts them"
    commands = f"iptables -I FORWARD -i lan0 -j ACCEPT; iptables {established}"
    assert dropped(behind(""), lan="lan0") == [f"{dropping}; {commands}"]
    assert dropped(behind("-A FORWARD -i lan0 -j ACCEPT"), lan="lan0") == []
    assert dropped(behind(UFW), lan="lan0") == [f"{dropping}; ufw route allow in on lan0"]


def test_what_firewalld_drops() -> None:
    """As it is shown by nft, when lan0 is in the zone internal."""
    table = {"family": "inet", "table": "firewalld"}
    base = {"name": "filter_FORWARD", "type": "filter", "hook": "forward", "policy": "accept"}
    jump = {"jump": {"target": "filter_FWD_internal"}}
    lan = {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lan0"}}
    rules = [("filter_FORWARD", [lan, jump]), ("filter_FWD_internal", [{"reject": None}])]
    objects = [
        {"chain": {**table, **base, "prio": 10}},
        {"chain": {**table, "name": "filter_FWD_internal"}},
        *({"rule": {**table, "chain": c, "handle": 5, "expr": expr}} for c, expr in rules),
    ]
    found = filters.filter_chains(json.dumps({"nftables": objects}), (), "forward")
    [line] = told(replace(HOST, forward_filters=found))
    assert "nft inet firewalld filter_FWD_internal, handle 5: drops IPv4 connections" in line
    commands = line.split("`")[1::2]
    assert commands[1].endswith("--policy uplinks --add-ingress-zone internal")
    assert commands[-1] == "firewall-cmd --reload"


@pytest.mark.parametrize("accepts", [False, True])
def test_what_nftables_drops(accepts: bool) -> None:
    table = {"family": "inet", "table": "fw"}
    chain = {"name": "fwd", "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}
    status = {"match": {"op": "in", "left": {"ct": {"key": "status"}}, "right": "dnat"}}
    rule = {"rule": {**table, "chain": "fwd", "handle": 5, "expr": [status, {"accept": None}]}}
    objects = [{"chain": {**table, **chain}}, *([rule] if accepts else [])]
    found = filters.filter_chains(json.dumps({"nftables": objects}), (), "forward")
    lines = told(replace(HOST, forward_filters=found), WEB, outgoing=OutgoingConfig())
    assert [line.split("`")[1] for line in lines] == (
        [] if accepts else ["nft insert rule inet fw fwd ct status dnat accept"]
    )
