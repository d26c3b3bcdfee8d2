"""Conflicts with [[forward]] services are reported with the key of the config."""

from __future__ import annotations

from dataclasses import replace

import pytest

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


@pytest.mark.parametrize(
    ("chain", "outgoing", "commands"),
    [
        (("inet", "fw", "fwd"), "", ["nft insert rule inet fw fwd ct status dnat accept"]),
        (
            ("ip", "filter", "FORWARD"),
            "",
            ["iptables -I FORWARD -m conntrack --ctstate DNAT -j ACCEPT"],
        ),
        (
            ("ip6", "filter", "FORWARD"),
            "lan0",
            [
                "ip6tables -I FORWARD -m conntrack --ctstate DNAT -j ACCEPT",
                "ip6tables -I FORWARD -i lan0 -j ACCEPT",
                "ip6tables -I FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
            ],
        ),
    ],
)
def test_dropping_chains(chain: tuple[str, str, str], outgoing: str, commands: list[str]) -> None:
    masquerade = OutgoingConfig(masquerade=(outgoing,) if outgoing else ())
    [line] = told(replace(HOST, dropping=(chain,)), WEB, outgoing=masquerade)
    assert line.startswith(f"warning: nft {' '.join(chain)}: drops forwarded packets")
    assert line.split("`")[1::2] == commands


def test_dropping_chains_matter_to_those_who_forward() -> None:
    facts = replace(HOST, dropping=(("ip6", "filter", "FORWARD"),))
    assert told(facts, outgoing=OutgoingConfig()) == []
    assert told(facts, forward("tcp:80", "10.0.0.10"), outgoing=OutgoingConfig()) == []
    assert len(told(facts)) == 1
