"""Providers' routers on one LAN: told apart by MAC where addresses don't.

client 198.18.1.x ┐        ┌─ isp-a ─┐
                  ├─ core ─┤         ├─ lan ── wan0 host   one address, or one of each
client 198.18.2.x ┘        └─ isp-b ─┘
"""

from __future__ import annotations

import pytest

from ifdefault.lab.faults import inject, remove
from ifdefault.lab.topology import LinkEnd
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from tests.net import answers
from tests.net.conftest import LabWorld

STATELESS = ["udp-bound", "udp-pktinfo", "icmp", "rst", "unreachable"]
MARK = '[host]\nreturn_path = "mark"\n'
ROUTER_B = ("198.51.100.1", "2001:db8:b::1")


def test_a_replaced_router_is_followed_by_apply(lab_world: LabWorld) -> None:
    world = lab_world("shared-address")
    answers.serve(world)
    answers.apply(world)
    gateways = ("203.0.113.2", "2001:db8:a::2")
    old, new = LinkEnd("isp-b", "cust0").mac, LinkEnd("isp-b replaced", "cust0").mac
    assert old in _router_macs(world, "isp-b")

    inject(world, "router", "isp-b")
    eventually(lambda: all(_neighbour(world, gateway) == new for gateway in gateways))
    answers.assert_hangs(world, STATELESS)
    unknown = answers.status(world)["unknown_macs"]
    assert unknown.keys() == {new}
    assert unknown[new] > 0

    answers.apply(world)
    assert _router_macs(world, "isp-b") == [new]
    answers.assert_answered(world)
    remove(world, "router", "isp-b")
    eventually(lambda: all(_neighbour(world, gateway) == old for gateway in gateways))
    answers.apply(world)
    answers.assert_answered(world)


def test_packets_of_unknown_routers_take_the_source_rule(lab_world: LabWorld) -> None:
    """The VRRP pair sends from physical MACs that no neighbour table shows."""
    world = lab_world("vrrp")
    answers.serve(world)
    answers.configure(world, MARK)
    answers.assert_hangs(world, STATELESS)
    answers.apply(world)
    answers.assert_answered(world)
    physical = {LinkEnd(router, "cust0").mac for router in ("isp-b", "isp-b2")}
    assert set(answers.status(world)["unknown_macs"]) == physical
    told = world.ifdefault("status").stdout
    assert all(mac in told for mac in physical)


def test_router_macs_add_to_what_the_neighbour_table_says(lab_world: LabWorld) -> None:
    world = lab_world("vrrp")
    answers.serve(world)
    physical = [LinkEnd(router, "cust0").mac for router in ("isp-b", "isp-b2")]
    macs = ", ".join(f'"{mac}"' for mac in physical)
    # the last table of the topology's config is isp-b's
    answers.configure(world, f"router_macs = [{macs}]\n{MARK}")
    answers.apply(world)
    answers.assert_answered(world)
    assert answers.status(world)["unknown_macs"] == {}
    virtual = {_neighbour(world, gateway) for gateway in ROUTER_B}
    assert len(virtual - set(physical)) == 2
    assert set(_router_macs(world, "isp-b")) == virtual | set(physical)


@pytest.mark.parametrize("lost", ["isp-a", "isp-b"])
def test_one_address_and_a_router_that_nobody_knows(lab_world: LabWorld, lost: str) -> None:
    world = lab_world("shared-address")
    inject(world, "carrier", lost)
    before = answers.kernel_state(world["host"])
    refused = world.ifdefault("apply")
    assert refused.returncode == 2
    assert f"uplink.{lost}: 203.0.113.10 is " in refused.stderr
    assert "set router_macs" in refused.stderr
    assert answers.kernel_state(world["host"]) == before

    remove(world, "carrier", lost)
    eventually(lambda: world.ifdefault("apply", "--quiet").returncode == 0)


def _router_macs(world: World, uplink: str) -> list[str]:
    found = {row["name"]: row["router_macs"] for row in answers.status(world)["uplinks"]}
    return [str(mac) for mac in found[uplink]]


def _neighbour(world: World, address: str) -> str:
    """The MAC that the host knows of a neighbour, "" if none."""
    words = world["host"].run(["ip", "neighbour", "show", address]).stdout.split()
    return words[words.index("lladdr") + 1] if "lladdr" in words else ""
