"""WireGuard of the kernel: as an uplink, as a tunnel for everything, and as a server.

                ┌─ isp-a ── wan0 ┐              ┌─ isp-a ── wan0 ┐
client ── core ─┤           │    ├ host    core ┼─ isp-b ── wan1 ┤ host
                └─ isp-b ══ wg0 ═┘              └─ vpn ══ tun0 ══┘
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ifdefault.lab import faults, topology
from ifdefault.lab.topology import Topology
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from tests.net import answers
from tests.net.conftest import LabWorld
from tests.net.evidence import TCP, UDP, Talk, tapped
from tests.net.tunnels import Tunnel, await_peer
from tests.net.watched import await_default, await_states, events, leaves_by, start
from tests.system import worlds

# of nobody's: made for these tests
HOST_KEY = "sMVI5ZmSlMJgJ+RZbfB5kMxaezmFKzrb2YJXrsxv+2w="
HOST_PUBLIC = "decQnGAFC8CR5mpVJrF8+CfL1luCVgZyA1msgN8hfz4="
PEER_KEY = "KOrQsZSxzHNMareByDoN+L+Bclg0wFs20qJymP6QZUE="
PEER_PUBLIC = "G3LX/YPJ+rdF59nfEgj/PHdqzWvTcxEIDDkFL4vlNjw="
PORT = 51820
CLIENT = ("198.18.1.10", "2001:db8:f:1::10")
VPN = ("198.19.100.2", "2001:db8:ff:100::2")
UPLINKS = {
    "wan0": ("203.0.113.10", "2001:db8:a::10"),
    "wan1": ("198.51.100.10", "2001:db8:b::10"),
}

# --- an uplink ------------------------------------------------------------------------------

UPLINK = f"""
title = "the second uplink is a tunnel over the first"
links = ["isp-a.cust0 host.wan0"]
config = '''
[uplink.isp-a]
interface = "wan0"

[uplink.isp-b]
interface = "wg0"
'''

[nodes.isp-b]
interfaces = ["add cust0 type wireguard", "set cust0 up"]
scripts.up = '''
echo {PEER_KEY} | wg set cust0 listen-port {PORT} private-key /dev/stdin peer {HOST_PUBLIC} \
  allowed-ips 198.51.100.10/32,2001:db8:b::10/128 endpoint 203.0.113.10:{PORT}
'''

[nodes.host]
interfaces = ["add wg0 type wireguard", "set wg0 up"]
addresses.wan1 = []
addresses.wg0 = ["198.51.100.10/32", "2001:db8:b::10/128"]
routes = [
  "default via 203.0.113.1",
  "default via 2001:db8:a::1",
  "default dev wg0 metric 100",
  "-6 default dev wg0 metric 2048",
]
scripts.up = '''
echo {HOST_KEY} | wg set wg0 listen-port {PORT} private-key /dev/stdin peer {PEER_PUBLIC} \
  allowed-ips 0.0.0.0/0,::/0 endpoint 198.19.2.2:{PORT}
'''
"""


def test_every_kind_of_traffic_is_answered_through_an_uplink(lab_world: LabWorld) -> None:
    world = lab_world(worlds.two("wireguard", __doc__, UPLINK))
    answers.serve(world)
    answers.assert_hangs(world, ["udp-bound"])
    answers.apply(world)
    answers.assert_answered(world)


def test_a_tunnel_dies_alone_and_with_what_carries_it(lab_world: LabWorld) -> None:
    world = lab_world(worlds.two("wireguard", __doc__, UPLINK))
    answers.serve(world)
    start(world)
    with blocked(world):
        await_states(world, ["down"], "isp-b")
        assert leaves_by(world) == "wan0"
    await_states(world, ["up"])
    assert not [text for text in events(world, "path") if "isp-a" in text and "-> down" in text]
    with faults.injected(world, "blackhole", "isp-a"):
        await_states(world, ["down"])
    await_states(world, ["up"])
    await_default(world, "wan0")
    answers.assert_answered(world)


@contextmanager
def blocked(world: World) -> Iterator[None]:
    """The provider of the first uplink lets no tunnel pass."""
    chain = "type filter hook forward priority 0;"
    world["isp-a"].nft(f"table ip no_vpn {{ chain f {{ {chain} udp dport {PORT} drop; }}; }}\n")
    yield
    world["isp-a"].nft("delete table ip no_vpn\n")


# --- a tunnel for everything ----------------------------------------------------------------

EVERYTHING = {
    "extends": "two",
    "title": "wg-quick's tunnel for everything",
    "links": ["core.vpn vpn.core0"],
    "nodes": {
        "core": {"addresses": {"vpn": ["198.19.100.1/30", "2001:db8:ff:100::1/64"]}},
        "vpn": {
            "interfaces": ["add tun0 type wireguard", "set tun0 up"],
            "addresses": {
                "core0": ["198.19.100.2/30", "2001:db8:ff:100::2/64"],
                "tun0": ["10.8.0.1/24", "fd00:8::1/64"],
            },
            "routes": ["default via 198.19.100.1", "default via 2001:db8:ff:100::1"],
            "sysctls": {"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1},
            "nft": "table inet vpn { chain p { type nat hook postrouting priority srcnat;"
            ' oifname "core0" masquerade; }; }',
            "scripts": {
                "up": f"echo {PEER_KEY} | wg set tun0 listen-port {PORT} private-key /dev/stdin"
                f" peer {HOST_PUBLIC} allowed-ips 10.8.0.2/32,fd00:8::2/128"
            },
        },
    },
}
QUICK = f"""\
[Interface]
PrivateKey = {HOST_KEY}
Address = 10.8.0.2/24, fd00:8::2/64

[Peer]
PublicKey = {PEER_PUBLIC}
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = {VPN[0]}:{PORT}
"""


def everything() -> Topology:
    table = topology.extend(EVERYTHING)
    return topology.parse(table | {"name": "wg-quick", "drawing": __doc__})


def test_wg_quick_then_apply(lab_world: LabWorld) -> None:
    world = lab_world(everything())
    answers.serve(world)
    quick(world, "up")
    assert through_the_tunnel(world)
    answers.apply(world)
    assert through_the_tunnel(world)
    answers.assert_answered(world)
    assert world.ifdefault("status").returncode == 0
    quick(world, "down")
    answers.apply(world)
    answers.assert_answered(world)
    assert leaves_by(world) == "wan0"


def test_wg_quick_under_the_daemon(lab_world: LabWorld) -> None:
    world = lab_world(everything())
    answers.serve(world)
    start(world)
    quick(world, "up")
    eventually(lambda: settled(world), what="the daemon has dealt with the tunnel's rules")
    assert through_the_tunnel(world)
    answers.assert_answered(world)
    quick(world, "down")
    eventually(lambda: settled(world), what="the daemon has dealt with their end")
    answers.assert_answered(world)
    assert leaves_by(world) == "wan0"


def settled(world: World) -> bool:
    return world.ifdefault("plan").stdout == ""


def quick(world: World, word: str) -> None:
    config = world.dir / "tun0.conf"
    config.write_text(QUICK)
    config.chmod(0o600)
    world["host"].run(["wg-quick", word, str(config)])


def through_the_tunnel(world: World) -> bool:
    """What the host sends of its own goes through the tunnel alone."""
    for address in CLIENT:
        for kind in (TCP, UDP):
            with tapped(world["host"]) as tap:
                seen = Talk(world["host"], world["client"], address, kind)()
            if tap.left_by(dst=address) != {"tun0"} or seen not in VPN:
                return False
    return True


# --- the host's own -------------------------------------------------------------------------


def test_a_tunnel_follows_the_uplinks_unless_it_is_bound(lab_world: LabWorld) -> None:
    """Nothing is sent through them but what the daemon has sent."""
    world = lab_world("two")
    host = world["host"]
    free, bound = (Tunnel(host, f"h{n}", PORT + n, f"10.9.{n}.1", kernel=True) for n in (0, 1))
    host.run(["wg", "set", bound.name, "fwmark", "0x22000000"])  # isp-b's
    start(world)
    peers = []
    for n, ours in enumerate((free, bound)):
        peer = Tunnel(world["client"], f"c{n}", PORT + 10 + n, f"10.9.{n}.2", kernel=True)
        peer.add(ours, f"10.9.{n}.1/32")
        ours.add(peer, f"10.9.{n}.0/24", "endpoint", f"{CLIENT[0]}:{peer.port}")
        host.run(["ping", "-n", "-c", "1", "-w", "20", f"10.9.{n}.2"])
        peers.append(peer)
    a, b = UPLINKS["wan0"][0], UPLINKS["wan1"][0]
    assert (peers[0].reaches(free, a), peers[1].reaches(bound, b)) == (True, True)
    with faults.injected(world, "blackhole", "isp-a"):
        await_peer(peers[0], free, b)
        assert peers[1].reaches(bound, b)
    await_peer(peers[0], free, a)
    host.run(["ping", "-n", "-c", "1", "-w", "20", "10.9.1.2"])
    assert peers[1].reaches(bound, b)


# --- a server -------------------------------------------------------------------------------


def test_a_server_is_reached_by_each_uplink(lab_world: LabWorld) -> None:
    """Its socket is the kernel's, and on the wildcard address."""
    world = lab_world("two")
    host, client = world["host"], world["client"]
    tunnel(world, "host", HOST_KEY, PEER_PUBLIC, "10.9.0.1")
    tunnel(world, "client", PEER_KEY, HOST_PUBLIC, "10.9.0.2")
    answers.apply(world)
    for dev, addresses in UPLINKS.items():
        for address in addresses:
            end = f"[{address}]:{PORT}" if ":" in address else f"{address}:{PORT}"
            client.run(["wg", "set", "tun0", "peer", HOST_PUBLIC, "endpoint", end])
            with tapped(host) as tap:
                done = client.run("ping -n -i 0.2 -c 3 -w 20 10.9.0.1".split())
            assert " 0% packet loss" in done.stdout
            assert tap.left_by(src=address) == {dev}
    assert not any(world.misrouted().values())


def tunnel(world: World, node: str, key: str, peer: str, address: str) -> None:
    world[node].ip("link add tun0 type wireguard\n")
    world[node].run(
        f"wg set tun0 listen-port {PORT} private-key /dev/stdin peer {peer}"
        " allowed-ips 10.9.0.0/24".split(),
        stdin=f"{key}\n",
    )
    world[node].ip(f"address add {address}/24 dev tun0\nlink set tun0 up\n")
