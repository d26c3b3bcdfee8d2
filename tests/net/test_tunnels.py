"""A tunnel of WireGuard follows the uplinks, and one that a client has dialled stays.

                ┌─ isp-a ── wan0 ┐        wg…h: dials wg…d, and is dialled by wg…c, both on
client ── core ─┤                ├ host   the client
                └─ isp-b ── wan1 ┘

Nothing is sent through the tunnels but what the daemon has sent: without it they would stay.
"""

from __future__ import annotations

from ifdefault.lab import faults
from tests.net.conftest import LabWorld
from tests.net.tunnels import Tunnel, await_peer
from tests.net.watched import await_default, await_states, events, start

A, B, CLIENT = "203.0.113.10", "198.51.100.10", "198.18.1.10"


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
