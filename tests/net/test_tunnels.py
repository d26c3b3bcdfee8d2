"""A tunnel of WireGuard follows the uplinks, and one that a client has dialled stays.

                ┌─ isp-a ── wan0 ┐        wg…h: dials wg…d, and is dialled by wg…c, both on
client ── core ─┤                ├ host   the client
                └─ isp-b ── wan1 ┘

Nothing is sent through the tunnels but what the daemon has sent: without it they would stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ifdefault.lab import faults, services
from ifdefault.lab.node import Node
from ifdefault.lab.waiting import eventually
from tests.net.conftest import LabWorld
from tests.net.watched import await_default, await_states, events, start

A, B, CLIENT = "203.0.113.10", "198.51.100.10", "198.18.1.10"


class Tunnel:
    """An interface of wireguard-go, whose socket is this machine's."""

    def __init__(self, node: Node, letter: str, port: int, address: str) -> None:
        self.node, self.name, self.port = node, f"wg{node.world.name}{letter}", port
        services.start(node, self.name, ["wireguard-go", "--foreground", self.name])
        socket = Path(f"/var/run/wireguard/{self.name}.sock")
        eventually(socket.exists, what="wireguard-go listens")
        key = node.run(["wg", "genkey"]).stdout
        self.key = node.run(["wg", "pubkey"], stdin=key).stdout.strip()
        own = ["listen-port", str(port), "private-key", "/dev/stdin"]
        node.run(["wg", "set", self.name, *own], stdin=key)
        node.ip(f"address add {address}/24 dev {self.name}\nlink set {self.name} up\n")

    def add(self, peer: Tunnel, allowed: str, *more: str) -> None:
        self._set([peer.key, "allowed-ips", allowed, *more])

    def _set(self, peer: Sequence[str]) -> None:
        self.node.run(["wg", "set", self.name, "peer", *peer])

    def shown(self, what: str, peer: Tunnel) -> str:
        rows = self.node.run(["wg", "show", self.name, what]).stdout.splitlines()
        return dict(row.split("\t") for row in rows)[peer.key]

    def reaches(self, peer: Tunnel, address: str) -> bool:
        """Whether it has heard the peer from this address last."""
        return self.shown("endpoints", peer) == f"{address}:{peer.port}"


def await_peer(tunnel: Tunnel, peer: Tunnel, address: str) -> None:
    eventually(lambda: tunnel.reaches(peer, address), what=f"{tunnel.name} hears {address}")


def test_a_tunnel_follows_the_uplinks_and_a_client_stays(lab_world: LabWorld) -> None:
    world = lab_world("two")
    host, client = world["host"], world["client"]
    ours = Tunnel(host, "h", 51820, "10.9.0.1")
    dialled = Tunnel(client, "d", 51821, "10.9.0.2")
    dialling = Tunnel(client, "c", 51822, "10.9.1.3")
    ours.add(dialled, "10.9.0.0/24", "endpoint", f"{CLIENT}:{dialled.port}")
    ours.add(dialling, "10.9.1.3/32")
    dialled.add(ours, "10.9.0.1/32")
    dialling.add(ours, "10.9.0.1/32", "endpoint", f"{B}:{ours.port}")
    start(world)
    ping = ["ping", "-n", "-c", "1", "-w", "20"]
    host.run([*ping, "10.9.0.2"])
    client.run(["ip", "route", "add", "10.9.0.1/32", "dev", dialling.name])
    host.run(["ip", "route", "add", "10.9.1.3/32", "dev", ours.name])
    client.run([*ping, "-I", "10.9.1.3", "10.9.0.1"])
    assert (dialled.reaches(ours, A), dialling.reaches(ours, B)) == (True, True)
    with faults.injected(world, "blackhole", "isp-a"):
        await_peer(dialled, ours, B)
        client.run([*ping, "-I", "10.9.1.3", "10.9.0.1"])
    await_default(world, "wan0")
    await_peer(dialled, ours, A)
    await_states(world, ["up"])
    host.run([*ping, "10.9.1.3"])
    assert dialling.reaches(ours, B), "it is answered from the address that it dialled"
    assert ours.shown("persistent-keepalive", dialled) == "off"
    told = events(world, "tunnel")
    assert told[-2:] == [
        f"{ours.name}: WireGuard reaches 2 peers by isp-b",
        f"{ours.name}: WireGuard reaches its peer by isp-a",
    ]
