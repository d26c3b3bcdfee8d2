"""What others delete or change is put right, what moves is followed, and a fight isn't fought.

                ┌─ isp-a ── wan0 ┐
client ── core ─┤                ├ host     the daemon runs
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ifdefault.kernel import nft
from ifdefault.lab import faults, services
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.kernel import OWN_TABLES
from tests.net import answers, watched
from tests.net.conftest import LabWorld
from tests.net.watched import await_states, events, ours, standing, start


@pytest.mark.parametrize(
    "harm",
    [
        "ip rule del priority 5030 from 203.0.113.10",
        "ip -6 rule del priority 5030 from 2001:db8:b::10",
        "ip rule flush; ip rule add lookup main priority 32766",
        "ip route flush table 1002",
        "ip route replace default via 203.0.113.1 dev wan0 table 1002 proto 171",
        "ip link set wan1 group default",
        "ip link set wan1 down; ip link set wan1 up; ip -6 addr add 2001:db8:b::10/48 dev wan1",
    ],
)
def test_what_others_undo_is_back(lab_world: LabWorld, harm: str) -> None:
    world = lab_world("two")
    start(world)
    before = ours(world)
    world["host"].run(["sh", "-e", "-c", harm])
    eventually(lambda: ours(world) == before, what=f"after {harm}")
    eventually(lambda: "nothing to do" in world.ifdefault("plan").stderr, what="all is repaired")


@pytest.mark.parametrize(
    ("harm", "is_back"),
    [
        (
            "nft delete table inet ifdefault",
            lambda w: "ifdefault" in w["host"].run(["nft", "list", "tables"]).stdout,
        ),
        (
            "echo 0 >/proc/sys/net/ipv4/tcp_fwmark_accept",
            lambda w: w["host"].sysctl("net.ipv4.tcp_fwmark_accept") == "1",
        ),
    ],
)
def test_ruleset_and_sysctls_are_back(
    lab_world: LabWorld, harm: str, is_back: Callable[[World], bool]
) -> None:
    world = lab_world("shared-address")
    start(world)
    assert is_back(world)
    world["host"].run(["sh", "-e", "-c", harm])
    eventually(lambda: is_back(world), what="put back")


@pytest.mark.parametrize("table", OWN_TABLES)
def test_each_table_is_back(lab_world: LabWorld, table: str) -> None:
    world = lab_world("lan")
    start(world)

    def stands() -> bool:
        return table in dict(world["host"].python(nft.read_tables))

    assert stands()
    world["host"].nft(f"delete table inet {table}\n")
    eventually(stands, what="put back")


def test_a_renumbered_uplink_works_with_its_new_address(lab_world: LabWorld) -> None:
    world = lab_world("two")
    services.builtin(world["host"])
    start(world)
    with faults.injected(world, "renumber", "isp-b"):
        fresh = world["host"].run(["ip", "-br", "-4", "address", "show", "wan1"]).stdout.split()
        address = fresh[2].split("/")[0]
        assert address != "198.51.100.10"

        def answered() -> bool:
            tally = answers.ask(world, ["tcp"], [address], count=1, timeout_s=1.0)
            return all(t.answered == t.tried for t in tally)

        eventually(answered, what="the new address answers")
        await_states(world, ["up"], "isp-b")
    assert not [text for text in events(world, "path") if "-> down" in text]


def test_a_router_with_a_new_mac_is_followed(lab_world: LabWorld) -> None:
    world = lab_world("shared-address")
    services.builtin(world["host"])
    start(world)
    with faults.injected(world, "router", "isp-b"):

        def answered() -> bool:
            tally = answers.ask(world, ["tcp", "icmp"], count=2, timeout_s=1.0)
            return all(t.answered == t.tried for t in tally)

        eventually(answered, what="answers through the new router")


def test_a_rule_above_ours_is_answered(lab_world: LabWorld) -> None:
    """As wg-quick adds it: without a priority, so before the first of ours."""
    world = lab_world("two")
    start(world)
    world["host"].run(["sh", "-c", "ip route add default dev lan0 table 51820"])
    world["host"].run(["sh", "-c", "ip rule add not fwmark 51820 lookup 51820"])

    def ours_first() -> bool:
        rules = world["host"].run(["ip", "rule"]).stdout.splitlines()
        foreign = next(n for n, line in enumerate(rules) if "51820" in line)
        return any("proto 171" in line and "from 198.51" in line for line in rules[:foreign])

    eventually(ours_first, what="our block stands above the tunnel's rule")


def test_a_fight_is_reported_not_fought(lab_world: LabWorld) -> None:
    world = lab_world("two")
    start(world)

    def fought() -> bool:
        world["host"].run(["ip", "rule", "del", "priority", "5050"], check=False)
        return bool(standing(world).conflicts)

    eventually(fought, what="the fight is told")
    assert any("keeps undoing" in text for text in events(world, "repair"))
    # the decision doesn't wait for the end of a fight
    assert world.ifdefault("uplink", "isp-a", "drain").returncode == 0
    assert watched.leaves_by(world) == "wan1"


def test_an_interface_that_goes_and_comes_is_taken_in(lab_world: LabWorld) -> None:
    world = lab_world("two")
    start(world)
    world["host"].run(["ip", "link", "set", "wan1", "down"])
    await_states(world, ["down"], "isp-b")
    world["host"].run(["ip", "link", "set", "wan1", "up"])
    world["host"].configure()
    await_states(world, ["up"], "isp-b")
    eventually(lambda: "nothing to do" in world.ifdefault("plan").stderr, what="all is followed")
