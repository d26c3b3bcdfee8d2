"""Path-MTU discovery on each uplink, and ICMP errors of the host's own.

                     ┌─ isp-a ── …
client ── core ═1300═┤             host
                     └─ isp-b ── …      "fragmentation needed" comes from the provider's router
"""

from __future__ import annotations

import socket
import struct
from contextlib import closing

import pytest

from ifdefault.lab import ports, services
from ifdefault.lab.topology import ProviderAddress
from ifdefault.lab.waiting import PATIENCE_S, eventually
from ifdefault.lab.world import World
from tests.net import answers
from tests.net.conftest import LabWorld

MTU = 1300
BIG_BYTES = 3_000_000
UNREACHABLE = {4: (3, 3), 6: (1, 4)}  # port unreachable (RFC 792, RFC 4443)
MARKED = ("shared-address",)
TOPOLOGIES = ["two", "shared-lan", "shared-address", "linklocal", "same-gateway", "p2p"]


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_large_download_learns_the_mtu_of_its_uplink(lab_world: LabWorld, topology: str) -> None:
    world = lab_world(topology)
    services.nginx(world["host"])
    (world.dir / "nginx-host" / "big").write_bytes(bytes(BIG_BYTES))
    answers.apply(world)
    _narrow(world)
    for target in world.topology.targets():
        client = _client(world, target)
        mark = _mark(world, target) if topology in MARKED else ()
        assert f"mtu {MTU}" not in _route(world, target, client, *mark)
        assert _download(world, target.address, client) >= BIG_BYTES
        assert f"mtu {MTU}" in _route(world, target, client, *mark)
    assert set(world.misrouted().values()) == {0}


@pytest.mark.parametrize("port", [ports.UDP_BOUND, ports.UDP_PKTINFO, ports.UDP_WILDCARD])
@pytest.mark.parametrize("topology", ["two", "shared-address"])
def test_large_datagrams_get_through(lab_world: LabWorld, topology: str, port: int) -> None:
    """The first answer is lost, and tells the host the MTU; then it fragments."""
    world = lab_world(topology)
    answers.serve(world)
    answers.apply(world)
    _narrow(world)
    for target in world.topology.targets():
        with closing(answers.udp_socket(world["client"], _client(world, target))) as sock:

            def large(sock: socket.socket = sock, address: str = target.address) -> bool:
                return answers.answered(sock, address, port, 1400)

            eventually(large, what=f"1400 bytes to {target.address}")
    assert set(world.misrouted().values()) == {0}


@pytest.mark.parametrize("topology", ["two", "many-addresses", "shared-lan", "shared-address"])
def test_errors_come_from_the_address_that_was_asked(lab_world: LabWorld, topology: str) -> None:
    world = lab_world(topology)
    answers.assert_hangs(world, ["unreachable"])
    answers.apply(world)
    for target in world.topology.targets():
        assert _unreachable_from(world, target, _client(world, target)) == target.address
    assert not any(u["misrouted"] for u in answers.status(world)["uplinks"])


def _narrow(world: World) -> None:
    """Make the links between core and providers narrower than the host's own."""
    for provider in world.topology.providers:
        world["core"].ip(f"link set {provider.name} mtu {MTU}\n")
        world[provider.name].ip(f"link set core0 mtu {MTU}\n")


def _client(world: World, target: ProviderAddress) -> str:
    """A client that comes in through the target's provider."""
    candidates = target.sources or world.topology.addresses("client")
    return next(a for a in candidates if (":" in a) == (target.family == 6))


def _mark(world: World, target: ProviderAddress) -> tuple[str, str]:
    names = [provider.name for provider in world.topology.providers]
    return "mark", f"{(names.index(target.provider) + 1) << 24:#x}"


def _route(world: World, target: ProviderAddress, client: str, *more: str) -> str:
    command = ["ip", "route", "get", client, "from", target.address, *more]
    return world["host"].run(command).stdout


def _download(world: World, address: str, client: str) -> int:
    """The bytes of one large answer."""
    with world["client"].enter():
        sock = socket.create_connection((address, ports.HTTP), 5.0, (client, 0))
    with closing(sock):
        sock.settimeout(PATIENCE_S)
        sock.sendall(b"GET /big HTTP/1.1\r\nHost: www\r\nConnection: close\r\n\r\n")
        return sum(len(chunk) for chunk in iter(lambda: sock.recv(65536), b""))


def _unreachable_from(world: World, target: ProviderAddress, client: str) -> str:
    """Ask a closed port, and see who says so."""
    family = socket.AF_INET6 if target.family == 6 else socket.AF_INET
    protocol = socket.IPPROTO_ICMPV6 if target.family == 6 else socket.IPPROTO_ICMP
    with world["client"].enter():
        icmp = socket.socket(family, socket.SOCK_RAW, protocol)
    with closing(icmp), closing(answers.udp_socket(world["client"], client)) as sock:
        icmp.settimeout(PATIENCE_S)
        sock.sendto(b"anybody?", (target.address, ports.CLOSED))
        own = struct.pack("!HH", sock.getsockname()[1], ports.CLOSED)
        while True:
            data, peer = icmp.recvfrom(2048)
            data = data[20:] if target.family == 4 else data
            if (data[0], data[1]) == UNREACHABLE[target.family] and own in data:
                return str(peer[0])


@pytest.mark.parametrize("family", [4, 6])
def test_an_outgoing_socket_bound_to_nothing_learns_it(lab_world: LabWorld, family: int) -> None:
    """It takes the normal default, and its errors name the address that this gave it."""
    world = lab_world("two")
    services.builtin(world["client"])
    answers.apply(world)
    _narrow(world)
    target = {4: "198.18.1.10", 6: "2001:db8:f:1::10"}[family]
    anywhere = {4: "0.0.0.0", 6: "::"}[family]
    with closing(answers.udp_socket(world["host"], anywhere)) as sock:

        def large() -> bool:
            return answers.answered(sock, target, ports.UDP_BOUND, 1400)

        eventually(large, what="1400 bytes and back")
    assert set(world.misrouted().values()) == {0}
