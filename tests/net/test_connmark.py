"""What is forwarded keeps to its uplink: answers to that by which the question came in, a LAN's
connections to that on which they began.

                ┌─ isp-a ── wan0 ┐             ┌─ web  (published: 8080, by others' DNAT)
client ── core ─┤                ├ host bridge ┤
                └─ isp-b ── wan1 ┘             └─ job

Which way packets took is what a packet socket on the host has heard.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import pytest

from ifdefault.config import parse
from ifdefault.lab import services, topology
from ifdefault.lab.traffic import measure
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.config import Config
from tests.net import answers
from tests.net.conftest import LabWorld
from tests.net.evidence import TCP, UDP, Talk, tapped
from tests.net.kernelstate import apply, down
from tests.net.lines import Line, lines

HOST_A, HOST_B = ("203.0.113.10", "2001:db8:a::10"), ("198.51.100.10", "2001:db8:b::10")
OWN = (("wan0", HOST_A), ("wan1", HOST_B))
CLIENT = ("198.18.1.10", "2001:db8:f:1::10")
CLIENT_2 = ("198.18.2.10", "2001:db8:f:2::10")  # in a network of its own
WEB = ("172.17.0.2", "fd00:17::2")
PUBLISHED, LISTENS = 8080, 7000
BRIEF_S = answers.BRIEF_S
CONTAINERS = pytest.mark.parametrize("kind", ["docker", "containers"])
MTU, BIG_BYTES = 1300, 400_000


def published(world: World, asked: str, kind: socket.SocketKind = TCP, wait_s: float = 5.0) -> Talk:
    """A client of a container's published port."""
    bound = WEB[":" in asked]
    client, web = world["client"], world["web"]
    return Talk(
        client, web, asked, kind, bound=bound, port=PUBLISHED, listens=LISTENS, wait_s=wait_s
    )


# --- what others' rules forward -------------------------------------------------------------


@CONTAINERS
def test_published_containers_answer_where_they_were_asked(lab_world: LabWorld, kind: str) -> None:
    world = lab_world(kind)
    for asked in HOST_B:
        assert not published(world, asked, wait_s=BRIEF_S).answered
    apply(world)
    before = world.misrouted()
    for dev, own in OWN:
        for asked in own:
            with tapped(world["host"]) as tap:
                for transport in (TCP, UDP):
                    assert published(world, asked, transport)() == CLIENT[":" in asked]
            assert tap.left_by(src=asked) == {dev}
    assert world.misrouted() == before


def test_without_following_they_dont(lab_world: LabWorld) -> None:
    world = lab_world("docker")
    answers.configure(world, '[host]\nforwarded = "off"')
    apply(world)
    for asked in HOST_A:
        assert published(world, asked).answered
    for asked in HOST_B:
        assert not published(world, asked, wait_s=BRIEF_S).answered
    caught = {row["name"]: row["misrouted"] for row in answers.status(world)["uplinks"]}
    assert caught["isp-a"] > 0


def test_a_strict_reverse_path_filter_is_loosened(lab_world: LabWorld) -> None:
    world = lab_world("docker")
    for name in ("all", "wan0", "wan1"):
        world["host"].sysctl(f"net.ipv4.conf.{name}.rp_filter", 1)
    assert "apply sets net.ipv4.conf.wan1.rp_filter = 2" in world.ifdefault("check").stderr
    apply(world)
    assert published(world, HOST_B[0]).answered
    world["host"].sysctl("net.ipv4.conf.wan1.rp_filter", 1)
    assert not published(world, HOST_B[0], wait_s=BRIEF_S).answered


def test_the_hosts_own_servers_are_as_ever(lab_world: LabWorld) -> None:
    world = lab_world("docker")
    answers.serve(world)
    services.nginx(world["host"])
    apply(world)
    answers.assert_answered(world, [*answers.KINDS, "http"])
    for dev, own in OWN:
        with tapped(world["host"]) as tap:
            assert measure(world["client"], ["http"], own, count=4)
        for address in own:
            assert tap.left_by(src=address) == {dev}


def test_errors_from_inside_follow(lab_world: LabWorld) -> None:
    """No server in the container: the source of "port unreachable" is the destination."""
    world = lab_world("docker")
    apply(world)
    for dev, own in OWN:
        for asked in own:
            sock = answers.udp_socket(world["client"], CLIENT[":" in asked])
            with tapped(world["host"]) as tap, closing(sock):
                sock.connect((asked, PUBLISHED))
                sock.send(b"anybody?")
                with pytest.raises(ConnectionRefusedError):
                    sock.recv(64)
            assert tap.left_by(src=asked) == {dev}


def test_errors_from_outside_reach_the_container(lab_world: LabWorld) -> None:
    """Beyond isp-b the MTU is smaller: "fragmentation needed" reaches the container."""
    world = lab_world("docker")
    apply(world)
    world["core"].ip(f"link set isp-b mtu {MTU}\n")
    world["isp-b"].ip(f"link set core0 mtu {MTU}\n")
    with lines() as opened, ThreadPoolExecutor(1) as beside:
        for asked in HOST_B:
            bound = WEB[":" in asked]
            line = opened(
                world["client"], world["web"], asked, bound=bound, port=PUBLISHED, listens=LISTENS
            )
            sent = beside.submit(line.server.sendall, bytes(BIG_BYTES))
            assert sum(map(len, _chunks(line.client, BIG_BYTES))) == BIG_BYTES
            sent.result()
            route = world["web"].run(["ip", "route", "get", CLIENT[":" in asked]]).stdout
            assert f"mtu {MTU}" in route


def _chunks(sock: socket.socket, wanted: int) -> Iterator[bytes]:
    while wanted > 0 and (chunk := sock.recv(65536)):
        wanted -= len(chunk)
        yield chunk


def test_flows_that_run_already_are_taken_in(lab_world: LabWorld) -> None:
    """They came in over isp-a, and stay there when the primary changes to isp-b and back."""
    world = lab_world("containers")
    with lines() as opened:
        running = [
            opened(
                world["client"],
                world["web"],
                asked,
                transport,
                bound=WEB[":" in asked],
                port=PUBLISHED,
                listens=LISTENS,
            )
            for asked in HOST_A
            for transport in (TCP, UDP)
        ]
        apply(world, ranked(world, "isp-b"))
        assert published(world, HOST_B[0]).answered
        with tapped(world["host"]) as tap:
            assert all(line.works() for line in running)
        assert {dev for asked in HOST_A for dev in tap.left_by(src=asked)} == {"wan0"}
        down(world)
        assert all(line.works() for line in running)


def ranked(world: World, first: str) -> Config:
    """The world's config, with this primary uplink."""
    config = parse(world.config.read_text(), "ifdefault.toml")
    uplinks = (replace(uplink, rank=int(uplink.name != first)) for uplink in config.uplinks)
    return replace(config, uplinks=tuple(uplinks))


# --- routers on one LAN ---------------------------------------------------------------------


def behind(base: str) -> topology.Topology:
    """A topology with a LAN behind its host: `web` is published, by a user's own DNAT."""
    return topology.parse(
        topology.extend(
            {
                "extends": base,
                "name": f"{base}-behind",
                "drawing": "",
                "links": ["host.lan0 web.eth0"],
                "nodes": {
                    "host": {
                        "addresses": {"lan0": ["172.17.0.1/16", "fd00:17::1/64"]},
                        "sysctls": {"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1},
                        "nft": topology.load("containers").node("host").nft.split("chain post")[0]
                        + "}",
                    },
                    "web": {
                        "addresses": {"eth0": [f"{WEB[0]}/16", f"{WEB[1]}/64"]},
                        "routes": ["default via 172.17.0.1", "default via fd00:17::1"],
                    },
                },
            }
        )
    )


@pytest.mark.parametrize("base", ["shared-lan", "shared-address"])
def test_uplinks_that_share_an_interface(lab_world: LabWorld, base: str) -> None:
    world = lab_world(behind(base))
    answers.configure(world, '[outgoing]\nmasquerade = ["lan0"]')
    apply(world)
    before = world.misrouted()
    clients = (CLIENT, CLIENT_2)  # at shared-address one behind each provider
    for target in world.topology.targets():
        for client in clients:
            source = client[target.family == 6]
            if source in (target.sources or (source,)):
                for transport in (TCP, UDP):
                    talk = replace(published(world, target.address, transport), source=source)
                    assert talk() == source
    with lines() as opened:
        for first, other in (("isp-a", "isp-b"), ("isp-b", "isp-a")):
            apply(world, ranked(world, first))
            # what comes back to a shared address comes by the provider that serves the client
            remote = clients[base == "shared-address" and first == "isp-b"]
            running = [
                opened(world["web"], world["client"], address, transport)
                for address in remote
                for transport in (TCP, UDP)
            ]
            own = (HOST_A if base == "shared-address" or first == "isp-a" else HOST_B) * 2
            assert sorted(line.seen for line in running) == sorted(own)
            apply(world, ranked(world, other))
            assert all(line.works() for line in running)
    assert world.misrouted() == before


def test_segments_fit_the_uplink(lab_world: LabWorld) -> None:
    """isp-b's link is narrow, and the content server and its client don't know: what they agree on
    fits it (with TCP's timestamps, 12 bytes less)."""
    world = lab_world("lan")
    world["host"].ip(f"link set wan1 mtu {MTU}\n")
    apply(world)
    with lines() as opened:
        for asked, bound, headers in (
            (HOST_B[0], "10.0.0.11", 40),
            (HOST_B[1], "fd00:10::11", 60),
        ):
            line = opened(world["client"], world["web2"], asked, bound=bound, port=7005)
            agreed = line.client.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
            assert agreed == MTU - headers - 12


# --- prefixes that a provider routes to the host ----------------------------------------------

ROUTED = ("198.51.100.130", "2001:db8:b:77::2")


def route_prefixes(world: World, server: str, devs: tuple[str, str], more: str = "") -> None:
    """isp-b routes prefixes to the host, which has them on its first device, for a server there."""
    prefixes = ("198.51.100.128/25", "2001:db8:b:77::/64")
    for prefix, via in zip(prefixes, HOST_B, strict=True):
        world["isp-b"].ip(f"route add {prefix} via {via}\n")
        world["host"].ip(f"route add {prefix} dev {devs[0]}\n")
    world[server].ip(
        f"address add {ROUTED[0]}/32 dev {devs[1]}\n"
        f"address add {ROUTED[1]}/128 dev {devs[1]} nodad\n"
    )
    head = "[uplink.isp-b]\n"
    text = world.topology.config.replace(head, f"{head}routed = {list(prefixes)}\n")
    world.config.write_text(f"{text}\n{more}", encoding="utf-8")


def test_a_routed_prefix_needs_no_nat(lab_world: LabWorld) -> None:
    """Its own rule suffices, whether flows are tracked or not."""
    world = lab_world("two")
    route_prefixes(world, "content", ("lan0", "lan0"), '[host]\nforwarded = "off"')
    forwarding(world)
    apply(world)
    before = world.misrouted()
    with tapped(world["host"]) as tap:
        for address, client in zip(ROUTED, CLIENT, strict=True):
            for transport in (TCP, UDP):
                assert Talk(world["client"], world["content"], address, transport)() == client
                out = Talk(world["content"], world["client"], client, transport, source=address)
                assert out() == address
        assert all(tally.ok for tally in measure(world["client"], ["icmp"], ROUTED, count=2))
        for address in ROUTED:
            assert tap.left_by(src=address) == {"wan1"}
    assert world.misrouted() == before


def test_the_source_check_knows_whose_a_routed_prefix_is(lab_world: LabWorld) -> None:
    world = lab_world("two")
    route_prefixes(world, "content", ("lan0", "lan0"))
    forwarding(world)
    apply(world)
    before = world.misrouted()
    for number, option in enumerate(("-4", "-6")):  # somebody's rule, above ours
        world["host"].ip(f"rule add pref 100 from {ROUTED[number]} lookup 77\n", option)
    world["host"].ip("route add default via 203.0.113.1 table 77\n")
    world["host"].ip("route add default via 2001:db8:a::1 table 77\n")
    for asked in ROUTED:
        assert not Talk(world["client"], world["content"], asked, UDP, wait_s=BRIEF_S).answered
    caught = {row["name"]: row["misrouted"] for row in answers.status(world)["uplinks"]}
    assert caught == {"isp-a": 2, "isp-b": 0}
    assert world.misrouted() == before


def forwarding(world: World) -> None:
    world["host"].sysctl("net.ipv4.ip_forward", 1)
    world["host"].sysctl("net.ipv6.conf.all.forwarding", 1)


# --- the LAN's way out ------------------------------------------------------------------------

DESK = ("10.0.0.20", "fd00:10::20")


def test_a_lans_connections_keep_the_uplink_that_they_began_on(lab_world: LabWorld) -> None:
    world = lab_world("lan")
    with lines() as opened:
        begun: list[tuple[str, tuple[str, str], list[Line]]] = []
        for first, (dev, own) in zip(("isp-a", "isp-b"), OWN, strict=True):
            apply(world, ranked(world, first))
            new = [
                opened(world["desk"], world["client"], address, transport, port=9000 + len(begun))
                for address in CLIENT
                for transport in (TCP, UDP)
            ]
            assert sorted(line.seen for line in new) == sorted(own * 2)
            begun.append((dev, own, new))
            for dev, own, there in begun:
                with tapped(world["host"]) as tap:
                    assert all(line.works() for line in there)
                assert {d for address in own for d in tap.left_by(src=address)} == {dev}
    assert not any(world.misrouted().values())


BALANCED = """
[outgoing]
mode = "balance"
masquerade = ["lan0"]
{more}
[[outgoing.rule]]
to = ["198.18.2.0/24", "2001:db8:f:2::/64"]
via = ["isp-b"]
"""


@pytest.mark.parametrize("more", ["", "sticky = true"])
def test_a_balanced_lan(lab_world: LabWorld, more: str) -> None:
    """Both uplinks are used, or one per destination; flows selected by a rule aren't."""
    world = lab_world("lan")
    text = world.topology.config.partition("[outgoing]")[0] + BALANCED.format(more=more)
    world.config.write_text(text, encoding="utf-8")
    apply(world)
    for family in (0, 1):
        seen = [Talk(world["desk"], world["client"], CLIENT[family])() for _ in range(24)]
        assert set(seen) <= {HOST_A[family], HOST_B[family]}
        assert len(set(seen)) == (1 if more else 2)
        for transport in (TCP, UDP):
            ruled = Talk(world["desk"], world["client"], CLIENT_2[family], transport)
            assert {ruled() for _ in range(8)} == {HOST_B[family]}
        assert Talk(world["desk"], world["client"], CLIENT[family], UDP)() == HOST_A[family]
        # neither the host itself nor its LAN is the uplinks'
        assert Talk(world["desk"], world["host"], HOST_B[family])() == DESK[family]
        assert Talk(world["desk"], world["host"], f"{LAN[family]}1")() == DESK[family]
    assert not any(world.misrouted().values())


LAN = ("10.0.0.", "fd00:10::")


@pytest.mark.parametrize("mode", ["auto", "conntrack"])
def test_nobody_comes_in_but_to_what_is_offered(lab_world: LabWorld, mode: str) -> None:
    """The host forwards since we told it to: a neighbour could send to its LAN, and doesn't get
    through; a prefix that is routed to it is let in, and goes out as it is."""
    world = lab_world("lan")
    route_prefixes(world, "desk", ("lan0", "eth0"), f'[host]\nreturn_path = "{mode}"')
    for prefix, own in (("10.0.0.0/24", HOST_A[0]), ("fd00:10::/64", HOST_A[1])):
        far = ("198.19.1.2", "2001:db8:ff:1::2")[":" in prefix]
        world["core"].ip(f"route add {prefix} via {far}\n")
        world["isp-a"].ip(f"route add {prefix} via {own}\n")
    apply(world)
    for private, routed, client in zip(DESK, ROUTED, CLIENT, strict=True):
        with tapped(world["host"]) as tap:
            for transport in (TCP, UDP):
                inward = Talk(world["client"], world["desk"], private, transport, wait_s=BRIEF_S)
                assert not inward.answered
        assert tap.came_by(dst=private) == {"wan0"}
        assert tap.left_by(dst=private) == set()
        assert Talk(world["client"], world["desk"], routed)() == client
        assert Talk(world["desk"], world["client"], client, source=routed)() == routed


# --- forwarding, switched on ------------------------------------------------------------------


def test_an_advertised_default_stays(lab_world: LabWorld) -> None:
    """A router ignores router advertisements, unless accept_ra is 2 before it becomes one."""
    world = lab_world("v6only")
    host = world["host"]
    host.sysctl("net.ipv6.conf.wan1.accept_ra", 1)
    eventually(lambda: advertised(world), what="a default is advertised")
    answers.configure(world, '[outgoing]\nmasquerade = ["lan0"]')
    apply(world)
    assert host.sysctl("net.ipv6.conf.all.forwarding") == "1"
    assert advertised(world)
    host.ip(f"route del default via {advertised(world)} dev wan1\n", "-6")
    eventually(lambda: advertised(world), what="the next is taken, too")
    down(world)
    assert host.sysctl("net.ipv6.conf.all.forwarding") == "0"
    assert host.sysctl("net.ipv6.conf.wan1.accept_ra") == "1"
    assert advertised(world)


def advertised(world: World) -> str:
    """The advertised gateway, "" if there is none."""
    command = ["ip", "-6", "route", "show", "default", "dev", "wan1", "proto", "ra"]
    words = world["host"].run(command).stdout.split()
    return words[words.index("via") + 1] if "via" in words else ""
