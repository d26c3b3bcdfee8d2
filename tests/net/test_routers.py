"""Two routers of one provider: the daemon follows the one that answers.

client ── core ── isp-a ─┬─ cust0    203.0.113.1, 2001:db8:a::1: the better default ─┬─ wan0 host
                         └─ router2  203.0.113.2, 2001:db8:a::2 ────────────────────┘
"""

from __future__ import annotations

import pytest

from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.config import Family
from tests.net import watched
from tests.net.conftest import LabWorld

ROUTERS: dict[Family, tuple[str, str]] = {
    4: ("203.0.113.1", "203.0.113.2"),
    6: ("2001:db8:a::1", "2001:db8:a::2"),
}
MAC = "00:00:5e:00:53:66"
# the first router receives nothing more, but what the second one sends may leave by its interface
DEAD = """
table arp dead {
  chain in { type filter hook input priority 0; iifname "cust0" arp operation request drop; }
}
table inet dead {
  chain in {
    type filter hook input priority 0
    iifname "cust0" icmp type echo-request drop
    iifname "cust0" icmpv6 type { echo-request, nd-neighbor-solicit } drop
  }
  chain through { type filter hook forward priority 0; iifname "cust0" drop; }
}
"""
ALIVE = "delete table arp dead\ndelete table inet dead\n"


def build(lab_world: LabWorld) -> World:
    world = lab_world("one")
    provider, host = world["isp-a"], world["host"]
    for name in ("all/arp_ignore", "cust0/arp_ignore"):
        provider.sysctl(f"net.ipv4.conf.{name.replace('/', '.')}", 1)
    provider.ip(
        "link add router2 link cust0 type macvlan mode bridge\n"
        "link set router2 up\n"
        "address add 203.0.113.2/24 dev router2 noprefixroute\n"
        "address add 2001:db8:a::2/48 dev router2 nodad noprefixroute\n"
    )
    host.ip(
        "route add default via 203.0.113.2 metric 100\n"
        "route add default via 2001:db8:a::2 metric 2048\n"
    )
    return world


def router(world: World, family: Family) -> str:
    """The gateway in our table."""
    show = ["ip", f"-{family}", "route", "show", "table", "1001", "default"]
    said = world["host"].run(show).stdout.split()
    return said[said.index("via") + 1]


@pytest.mark.parametrize("family", [4, 6])
def test_the_router_that_answers_is_used(lab_world: LabWorld, family: Family) -> None:
    world = build(lab_world)
    first, second = ROUTERS[family]
    watched.start(world)
    assert router(world, family) == first
    world["isp-a"].nft(DEAD)
    eventually(lambda: router(world, family) == second, what="the second router")
    watched.await_states(world, ["up"])
    main = world["host"].run(["ip", f"-{family}", "route", "show", "default"]).stdout
    assert f"via {first}" in main  # whatever became of it, main's default is as it was
    assert not [text for text in watched.events(world) if "undoing" in text]
    moved = f"isp-a IPv{family}: gateway {first} -> {second}"
    assert moved in watched.events(world, "gateway")

    world["isp-a"].nft(ALIVE)
    world["host"].ip("route add 192.0.2.0/24 dev lan0\n")  # a reason to look, before 30 s are over
    eventually(lambda: router(world, family) == first, what="the first router again")
    watched.await_states(world, ["up"])


def test_a_host_that_advertises_itself_is_not_used(lab_world: LabWorld) -> None:
    world = lab_world("one")
    rogue = "default via fe80::66 dev wan0 proto ra metric 1024 pref high"
    world["host"].ip(f"route append {rogue}\nneighbour add fe80::66 lladdr {MAC} dev wan0\n")
    world.ifdefault("apply")
    assert router(world, 6) == "2001:db8:a::1"
