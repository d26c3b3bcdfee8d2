"""A content server that doesn't answer gets no new connections, and what else is said of it.

                ┌─ isp-a ── wan0 ┐                 ┌─ web1
client ── core ─┤                ├ host lan0 ─ lan ┤
                └─ isp-b ── wan1 ┘                 └─ web2
"""

from __future__ import annotations

import http.client
import socket
import subprocess
import time
from collections.abc import Collection

import pytest

from ifdefault.lab import ports, services
from ifdefault.lab.waiting import PATIENCE_S, eventually
from ifdefault.lab.world import World
from tests.net import answers, watched
from tests.net.conftest import LabWorld
from tests.net.watched import events, standing

A, B = "203.0.113.10", "198.51.100.10"
A6, B6 = "2001:db8:a::10", "2001:db8:b::10"
WEB1, WEB2 = ("10.0.0.10", "fd00:10::10"), ("10.0.0.11", "fd00:10::11")
UPLINKS = """
[uplink.isp-a]
interface = "wan0"

[uplink.isp-b]
interface = "wan1"
gateways = ["198.51.100.1", "2001:db8:b::1"]
"""
BOTH = """
[[forward]]
listen = "tcp:80"
to = ["10.0.0.10", "10.0.0.11", "fd00:10::10", "fd00:10::11"]
"""


def test_one_dies_then_the_other_and_they_return(lab_world: LabWorld) -> None:
    world = lab_world("lan")
    first, second = _serve(world, "web1"), _serve(world, "web2")
    _start(world, BOTH)
    assert _served_by(world) == {*WEB1, *WEB2}

    begun_s = time.monotonic()
    _stop(first)
    _await_gone(world, {(address, 80) for address in WEB1})
    assert time.monotonic() - begun_s < PATIENCE_S / 2
    assert _served_by(world) == {*WEB2}
    told = "forward tcp:80: 10.0.0.10:80 is down (connection refused), 1 of 2 left"
    assert told in events(world, "server")

    _stop(second)
    _await_gone(world, {(address, 80) for address in (*WEB1, *WEB2)})
    for target in (A, B, A6, B6):
        assert _is_refused(world, target)
    shown = world.ifdefault("status")
    assert shown.returncode == 1
    assert "tcp:80 IPv4, tcp:80 IPv6: no server is up" in shown.stdout
    (service,) = answers.status(world)["forward"]["services"]
    assert service["refused"] >= 4
    assert service["stranded"] == ["tcp:80 IPv4", "tcp:80 IPv6"]

    _serve(world, "web1")
    _await_gone(world, {(address, 80) for address in WEB2})
    assert _served_by(world) == {*WEB1}
    assert "forward tcp:80: [fd00:10::10]:80 is back (answers), 1 of 2 left" in events(world)
    assert world.misrouted() == {"isp-a": 0, "isp-b": 0}, world.refusals()


def test_who_drains_gets_nothing_new_and_keeps_what_runs(lab_world: LabWorld) -> None:
    world = lab_world("lan")
    for node in ("web1", "web2"):
        _serve(world, node)
    service = f'[[forward]]\nlisten = ["tcp:80", "tcp:{ports.TCP_ECHO}"]\nto = [%s]\n'
    _start(world, service % '"10.0.0.10"')
    assert _served_by(world, [A, B]) == {WEB1[0]}
    address = (A, ports.TCP_ECHO)
    connect = world["client"].python
    with connect(lambda: socket.create_connection(address, PATIENCE_S)) as running:
        drained = '{ address = "10.0.0.10", weight = 0 }, "10.0.0.11"'
        world.config.write_text(UPLINKS + service % drained, encoding="utf-8")
        assert world.ifdefault("reload").returncode == 0
        assert _served_by(world, [A, B]) == {WEB2[0]}
        running.sendall(b"still there?")
        assert running.recv(64) == b"still there?"
    rows = [line.split() for line in world.ifdefault("status").stdout.splitlines()]
    assert ["10.0.0.10:80", "drains", "up"] in [row[2:5] for row in rows if len(row) > 4]


def test_a_page_may_be_asked_for_and_a_restart_asks_anew(lab_world: LabWorld) -> None:
    world = lab_world("lan")
    _serve(world, "web1")
    services.nginx(world["web2"])
    daemon = _start(world, BOTH + 'check = "/health"\n')
    _await_gone(world, {(address, 80) for address in WEB2})
    assert _served_by(world) == {*WEB1}
    causes = {each.cause for each in standing(world).servers if each.state == "down"}
    assert causes == {"status 404, expected one below 400"}
    daemon.terminate()
    assert daemon.wait(PATIENCE_S) == 0
    world.daemon()
    _await_gone(world, {(address, 80) for address in WEB2})
    assert _served_by(world) == {*WEB1}


# --- the world -----------------------------------------------------------------------------


def _serve(world: World, node: str) -> subprocess.Popen[str]:
    return services.builtin(world[node], http=True)


def _start(world: World, more: str) -> subprocess.Popen[str]:
    """Let a daemon run, until it has found every server to be up or down."""
    world.config.write_text(UPLINKS + more, encoding="utf-8")
    daemon = world.daemon()
    watched.await_states(world, ["up"])

    def judged() -> bool:
        return all(each.state != "unproven" for each in standing(world).servers)

    eventually(judged, what="every server is judged")
    return daemon


def _stop(server: subprocess.Popen[str]) -> None:
    server.terminate()
    server.wait(PATIENCE_S)


def _await_gone(world: World, servers: Collection[tuple[str, int]]) -> None:
    def are() -> bool:
        return set(standing(world).decision.servers_down) == set(servers)

    eventually(are, what=f"{servers} are down")


def _served_by(world: World, targets: Collection[str] = (A, B, A6, B6)) -> set[str]:
    """Who answers new connections, each of which is answered."""

    def ask() -> set[str]:
        return {_get(target) for target in targets for _ in range(12)}

    return world["client"].python(ask)


def _get(target: str) -> str:
    connection = http.client.HTTPConnection(target, ports.HTTP, timeout=PATIENCE_S)
    connection.request("GET", "/")
    said = connection.getresponse().read().decode().strip()
    connection.close()
    return said


def _is_refused(world: World, target: str) -> bool:
    begun_s = time.monotonic()
    with pytest.raises(ConnectionRefusedError):
        world["client"].python(lambda: _get(target))
    return time.monotonic() - begun_s < PATIENCE_S / 2
