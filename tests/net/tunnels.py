"""A tunnel of WireGuard at each of its ends, for the tests of its way.

Rules: each tunnel makes its own keys; by which address it hears a peer is what it shows.
"""

from __future__ import annotations

from pathlib import Path

from ifdefault.lab import services
from ifdefault.lab.node import Node
from ifdefault.lab.waiting import eventually


class Tunnel:
    """A tunnel of the kernel, or of wireguard-go, whose socket is this machine's."""

    def __init__(
        self, node: Node, letter: str, port: int, address: str, *, kernel: bool = False
    ) -> None:
        self.node, self.name, self.port = node, f"wg{node.world.name}{letter}", port
        if kernel:
            node.ip(f"link add {self.name} type wireguard\n")
        else:
            services.start(node, self.name, ["wireguard-go", "--foreground", self.name])
            socket = Path(f"/var/run/wireguard/{self.name}.sock")
            eventually(socket.exists, what="wireguard-go listens")
        key = node.run(["wg", "genkey"]).stdout
        self.key = node.run(["wg", "pubkey"], stdin=key).stdout.strip()
        own = ["listen-port", str(port), "private-key", "/dev/stdin"]
        node.run(["wg", "set", self.name, *own], stdin=key)
        node.ip(f"address add {address}/24 dev {self.name}\nlink set {self.name} up\n")

    def add(self, peer: Tunnel, allowed: str, *more: str) -> None:
        command = ["wg", "set", self.name, "peer", peer.key, "allowed-ips", allowed]
        self.node.run([*command, *more])

    def shown(self, what: str, peer: Tunnel) -> str:
        rows = self.node.run(["wg", "show", self.name, what]).stdout.splitlines()
        return dict(row.split("\t") for row in rows)[peer.key]

    def reaches(self, peer: Tunnel, address: str) -> bool:
        """Whether it has heard the peer from this address last."""
        return self.shown("endpoints", peer) == f"{address}:{peer.port}"


def await_peer(tunnel: Tunnel, peer: Tunnel, address: str) -> None:
    eventually(lambda: tunnel.reaches(peer, address), what=f"{tunnel.name} hears {address}")
