"""What worked before `apply` works after it, by the same interfaces and with the same addresses.

         ┌─ isp-a ── wan0 ┐      ┌─ lan0 ── content, br0 ── containers
client ──┤                ├ host ┤
         └─ isp-b ── wan1 ┘      └─ vpn0 ── peer, tun0 ── vpn

Each test talks, applies, and talks again: paths are those that a packet socket heard.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from ifdefault.lab import services
from ifdefault.lab.traffic import measure
from ifdefault.lab.world import World
from tests.net.conftest import LabWorld
from tests.net.evidence import TCP, UDP, Path, Talk, path, tapped

HOST_A, HOST_B = ("203.0.113.10", "2001:db8:a::10"), ("198.51.100.10", "2001:db8:b::10")
CLIENT = ("198.18.1.10", "2001:db8:f:1::10")
CLIENT_2 = ("198.18.2.10", "2001:db8:f:2::10")  # in a network of its own
LAN_HOST, CONTENT = ("192.168.1.1", "fd00:1::1"), ("192.168.1.10", "fd00:1::10")
WEB, JOB, BRIDGE = ("172.17.0.2", "fd00:17::2"), ("172.17.0.3", "fd00:17::3"), "172.17.0.1"
PEER, SITE = ("100.100.0.2", "fd7a::2"), ("10.20.0.1", "fd7a::2")
VPN_SERVER = ("198.19.100.2", "2001:db8:ff:100::2")
BYPASS = 0x80000  # Tailscale's own packets
WG_MARK = 51820


def apply(world: World) -> None:
    done = world.ifdefault("apply")
    assert done.returncode == 0, done.stderr


def talks(
    client: str, server: str, asked: Iterable[str], world: World, *, mark: int = 0
) -> Iterator[Talk]:
    """A TCP and a UDP exchange with each address."""
    for address in asked:
        for kind in (TCP, UDP):
            yield Talk(world[client], world[server], address, kind, mark=mark)


def told(world: World, wanted: Iterable[Talk]) -> dict[str, Path]:
    return {
        f"{talk.client.name} to {talk.asked} of {talk.server.name}, {talk.kind.name}, "
        f"{talk.mark:#x}, {talk.source}": path(world["host"], talk)
        for talk in wanted
    }


def assert_kept(world: World, wanted: Iterable[Talk]) -> None:
    """All of them are answered before and after `apply`, by the same path."""
    wanted = list(wanted)
    before = told(world, wanted)
    apply(world)
    assert told(world, wanted) == before
    assert not any(world.misrouted().values())


def forwarding(world: World) -> None:
    world["host"].sysctl("net.ipv4.ip_forward", 1)
    world["host"].sysctl("net.ipv6.conf.all.forwarding", 1)


def route_prefixes(
    world: World, via: str, *, server: str, dev: str, table: str = "main"
) -> tuple[str, ...]:
    """A provider routes a prefix to the host, and the host to a server behind it, without NAT."""
    v4, v6 = {"isp-a": ("203.0.113", "2001:db8:a"), "isp-b": ("198.51.100", "2001:db8:b")}[via]
    world[via].ip(f"route add {v4}.128/25 via {v4}.10\nroute add {v6}:77::/64 via {v6}::10\n")
    for prefix in (f"{v4}.128/25", f"{v6}:77::/64"):
        world["host"].ip(f"route add {prefix} dev {dev} table {table}\n")
    world[server].ip(
        f"address add {v4}.130/32 dev {dev}\naddress add {v6}:77::2/128 dev {dev} nodad\n"
    )
    return f"{v4}.130", f"{v6}:77::2"


MASQUERADE = """
table inet user {
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    iifname "lan0" oifname { "wan0", "wan1" } masquerade
  }
}
"""


MODES = ("auto", "mark", "conntrack")


def choose(world: World, mode: str) -> None:
    with world.config.open("a") as config:
        config.write(f'\n[host]\nreturn_path = "{mode}"\n')


@pytest.mark.parametrize("mode", MODES)
def test_the_lan_keeps_its_paths(lab_world: LabWorld, mode: str) -> None:
    world = lab_world("two")
    choose(world, mode)
    forwarding(world)
    world["host"].nft(MASQUERADE)
    routed = route_prefixes(world, "isp-a", server="content", dev="lan0")
    assert_kept(
        world,
        [
            *talks("host", "content", CONTENT, world),
            *talks("content", "host", LAN_HOST, world),
            *talks("content", "host", HOST_A + HOST_B, world),
            *talks("content", "client", CLIENT, world),
            *talks("client", "content", routed, world),
        ],
    )


@pytest.mark.parametrize("mode", MODES)
def test_the_users_own_rules_for_a_prefix_of_the_second_uplink_keep_working(
    lab_world: LabWorld, mode: str
) -> None:
    """Main has no route to it: an arrival mark would send forwarded packets back out."""
    world = lab_world("two")
    choose(world, mode)
    forwarding(world)
    routed = route_prefixes(world, "isp-b", server="content", dev="lan0", table="8")
    for option, via in (("-4", "198.51.100.1"), ("-6", "2001:db8:b::1")):
        world["host"].ip(f"route add default via {via} table 7\n", option)
        world["host"].ip("rule add pref 30000 iif wan1 lookup 8\n", option)
    world["host"].ip("rule add pref 30001 from 198.51.100.128/25 lookup 7\n", "-4")
    world["host"].ip("rule add pref 30001 from 2001:db8:b:77::/64 lookup 7\n", "-6")
    assert_kept(world, talks("client", "content", routed, world))


def test_specific_routes_keep_their_uplink_and_their_lan(lab_world: LabWorld) -> None:
    world = lab_world("two")
    world["host"].ip(
        "route add 198.18.2.0/24 via 198.51.100.1\n"
        "route add 2001:db8:f:2::/64 via 2001:db8:b::1\n"
        "route add 10.1.0.0/16 via 192.168.1.10\n"
        "route add fd00:2::/64 via fd00:1::10\n"
    )
    world["content"].ip("address add 10.1.0.1/32 dev lo\naddress add fd00:2::1/128 dev lo\n")
    assert_kept(
        world,
        [
            *talks("host", "client", CLIENT + CLIENT_2, world),
            *talks("host", "content", ("10.1.0.1", "fd00:2::1"), world),
        ],
    )


@pytest.mark.parametrize("mode", MODES)
def test_containers_keep_their_paths(lab_world: LabWorld, mode: str) -> None:
    world = lab_world("containers")
    choose(world, mode)
    web, client, host = world["web"], world["client"], world["host"]
    published = [
        Talk(client, web, asked, bound=bound, port=8080, listens=7000)
        for asked, bound in zip(HOST_A, WEB, strict=True)
    ]
    assert_kept(
        world,
        [
            *talks("job", "client", CLIENT, world),
            *talks("job", "web", WEB, world),
            *talks("job", "host", (BRIDGE, "fd00:17::1", *HOST_A, *HOST_B), world),
            *talks("host", "job", JOB, world),
            *published,
        ],
    )
    assert path(host, published[0])[0] == CLIENT[0]


@pytest.mark.parametrize("mode", MODES)
def test_a_vpn_with_specific_routes_keeps_its_paths(lab_world: LabWorld, mode: str) -> None:
    world = lab_world("vpn")
    choose(world, mode)
    routed = route_prefixes(world, "isp-a", server="peer", dev="vpn0")
    assert_kept(
        world,
        [
            *talks("host", "peer", PEER + SITE[:1], world),
            *talks("peer", "host", ("100.100.0.1", "fd7a::1"), world),
            *talks("client", "peer", routed, world),
            *talks("host", "client", CLIENT, world, mark=BYPASS),
        ],
    )


def test_a_vpns_peer_may_talk_to_an_uplinks_address(lab_world: LabWorld) -> None:
    """An exit node's peers reach its public addresses through the VPN."""
    world = lab_world("vpn")
    assert_kept(world, talks("peer", "host", HOST_A + HOST_B, world))


# --- a tunnel for everything ----------------------------------------------------------------

TUNNELS = ("fulltunnel-openvpn", "fulltunnel-wg")


def through_the_tunnel(world: World) -> bool:
    """The host's own packets go only through the tunnel."""
    for address in CLIENT:
        for kind in (TCP, UDP):
            with tapped(world["host"]) as tap:
                seen = Talk(world["host"], world["client"], address, kind)()
            if tap.left_by(dst=address) != {"tun0"} or seen not in VPN_SERVER:
                return False
    return True


def encapsulated(world: World) -> list[Talk]:
    """The tunnel's own packets to its server."""
    mark = WG_MARK if world.topology.name == "fulltunnel-wg" else 0
    v6 = VPN_SERVER[mark == 0 :] if mark else ()
    return list(talks("host", "vpn", (VPN_SERVER[0], *v6), world, mark=mark))


def assert_answered_by_each_uplink(world: World) -> None:
    for dev, own in (("wan0", HOST_A), ("wan1", HOST_B)):
        with tapped(world["host"]) as tap:
            for talk in talks("client", "host", own, world):
                talk()
        for address in own:
            assert tap.left_by(src=address) == {dev}
    assert not any(world.misrouted().values())


@pytest.mark.parametrize("topology", TUNNELS)
def test_a_full_tunnel_that_was_there_first(lab_world: LabWorld, topology: str) -> None:
    world = lab_world(topology)
    world["host"].script("vpn_up")
    assert through_the_tunnel(world)
    assert_kept(world, encapsulated(world))
    assert through_the_tunnel(world)
    assert_answered_by_each_uplink(world)


def test_openvpn_that_comes_later(lab_world: LabWorld) -> None:
    world = lab_world("fulltunnel-openvpn")
    apply(world)
    world["host"].script("vpn_up")
    assert through_the_tunnel(world)
    assert_answered_by_each_uplink(world)
    apply(world)
    assert world.ifdefault("status").returncode == 0
    assert through_the_tunnel(world)
    assert_answered_by_each_uplink(world)
    world["host"].script("vpn_down")
    assert path(world["host"], Talk(world["host"], world["client"], CLIENT[0]))[0] == HOST_A[0]


def test_wireguard_that_comes_later_is_named_and_taken_in(lab_world: LabWorld) -> None:
    world = lab_world("fulltunnel-wg")
    host = world["host"]
    apply(world)
    before = host.run(["ip", "rule"]).stdout
    host.script("vpn_up")
    assert not Talk(world["client"], host, HOST_B[0], wait_s=0.3).answered

    check = world.ifdefault("check")
    assert "not from all fwmark 0xca6c/0xffffffff lookup 51820" in check.stderr
    assert "apply adds the return-path rules before it" in check.stderr
    assert "pref 4930 from 198.51.100.10/32 lookup 1002" in world.ifdefault("plan").stdout
    status = world.ifdefault("status")
    assert status.returncode == 1
    assert "the kernel differs" in status.stdout

    own = encapsulated(world)
    with_tunnel = told(world, own)
    apply(world)
    assert world.ifdefault("status").returncode == 0
    assert through_the_tunnel(world)
    assert told(world, own) == with_tunnel
    assert_answered_by_each_uplink(world)

    host.script("vpn_down")
    apply(world)
    assert host.run(["ip", "rule"]).stdout == before
    assert_answered_by_each_uplink(world)
    assert path(host, Talk(host, world["client"], CLIENT[1]))[0] == HOST_A[1]


# --- a client inside one uplink's own prefix ------------------------------------------------


def test_a_neighbour_on_one_uplink_is_answered_by_the_other(lab_world: LabWorld) -> None:
    world = lab_world("neighbour")
    services.builtin(world["host"], http=True)
    apply(world)
    kinds = ("tcp", "http", "udp-bound", "udp-pktinfo", "udp-wildcard", "udp-dual", "icmp", "rst")
    with tapped(world["host"]) as tap:
        found = measure(
            world["neighbour"], (*kinds, "unreachable"), HOST_A + HOST_B, count=3, timeout_s=5.0
        )
    assert [tally for tally in found if not tally.ok] == []
    for dev, own in (("wan0", HOST_A), ("wan1", HOST_B)):
        for address in own:
            assert tap.left_by(src=address) == {dev}
    assert not any(world.misrouted().values())
