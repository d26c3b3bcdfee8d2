"""What a lost state file held, as far as the kernel shows it."""

from __future__ import annotations

from dataclasses import replace

from ifdefault.model.config import Config, OutgoingConfig, OutgoingRule, UplinkConfig
from ifdefault.model.host import State
from ifdefault.model.kernel import PROTOCOL, Facts, Hook, Hop, Link, Route, Rule
from ifdefault.plan.recover import recover


def route(table: int, dev: str, gateway: str, protocol: int = PROTOCOL) -> Route:
    return Route(4, table, "default", hops=(Hop(dev, gateway),), protocol=protocol)


CONFIG = Config(
    (
        UplinkConfig("isp-a", "wan0", gateways=("192.0.2.1",)),
        UplinkConfig("isp-b", "wan1"),
        UplinkConfig("isp-c", "wan0", gateways=("192.0.2.2",)),
        UplinkConfig("isp-d", "wan3"),
    ),
    outgoing=OutgoingConfig(rules=(OutgoingRule(via=("isp-a",), cgroups=("/x/ifdefault-isp-b",)),)),
)
FACTS = Facts(
    links=(Link(1, "lo"), Link(2, "wan0", group=171), Link(3, "wan1", group=171), Link(4, "eth0")),
    rules=(Rule(4, 5010, table=254, suppress_ifgroup=171, protocol=PROTOCOL),),
    routes=(
        route(1003, "wan0", "192.0.2.1"),
        route(1001, "wan0", "192.0.2.2"),
        route(1004, "wan1", "198.51.100.1"),
        route(1002, "wan1", "198.51.100.1", protocol=4),  # another program's
        route(1009, "eth0", "192.168.1.1"),
    ),
    hook=Hook(0x3F000000, cgroups=(("/x/ifdefault-isp-b", 1, 1), ("/y/ifdefault-isp-a", 2, 2))),
)


def test_numbers_groups_and_commands() -> None:
    state = recover(State(), FACTS, CONFIG)
    assert state.numbers == {"isp-a": 3, "isp-c": 1, "isp-b": 4}
    assert state.groups == {"wan0": (0, 171), "wan1": (0, 171)}
    assert state.runs == {"/y/ifdefault-isp-a": "isp-a"}, "the other one is the config's"
    assert recover(State(), FACTS) == State(groups=state.groups)


def test_what_is_known_is_never_doubted() -> None:
    known = State(numbers={"isp-a": 7})
    assert recover(known, FACTS, CONFIG) == known


def test_others_groups_and_tables_are_not_ours() -> None:
    strange = replace(FACTS, rules=(replace(FACTS.rules[0], protocol=4),))
    assert recover(State(), strange, CONFIG) == State()
