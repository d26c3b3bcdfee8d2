"""Services of content servers on a LAN: on every address of every uplink, and from behind.

                ┌─ isp-a ── wan0 ┐                 ┌─ web1: nginx, caddy
client ── core ─┤                ├ host lan0 ─ lan ┼─ web2: nginx, echoes on 7000-7004
                └─ isp-b ── wan1 ┘                 └─ desk, a client

Health is given here: what servers the daemon finds down is tested with the daemon.
"""

from __future__ import annotations

import functools
import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from ifdefault.config import parse
from ifdefault.host.store import Store
from ifdefault.host.transaction import commit, prepare_config
from ifdefault.kernel import nft
from ifdefault.lab import ports, services
from ifdefault.lab.node import Node
from ifdefault.lab.waiting import PATIENCE_S, eventually
from ifdefault.lab.world import World
from ifdefault.model.config import FAMILIES, Config, ForwardConfig, ForwardServer, Ports
from ifdefault.model.health import Decision
from ifdefault.model.kernel import FORWARD_TABLE
from tests.net import answers
from tests.net.conftest import LabWorld

WEB1, WEB2 = ("10.0.0.10", "fd00:10::10"), ("10.0.0.11", "fd00:10::11")
ECHOES = ["tcp", "udp-bound", "udp-pktinfo", "udp-wildcard", "udp-dual"]
FAR = ["198.51.100.10", "2001:db8:b::10"]  # not where the normal default goes
HTTP = Ports("tcp", ports.HTTP, ports.HTTP)
NAMES = ("isp-a", "isp-b")


@pytest.fixture
def world(lab_world: LabWorld) -> World:
    """With a web server on each server, and the echo servers on the second."""
    found = lab_world("lan")
    for name in ("web1", "web2"):
        services.nginx(found[name])
    services.builtin(found["web2"])
    return found


def shared(
    *weights: int, on_down: str = "next", listen: tuple[Ports, ...] = (HTTP,)
) -> ForwardConfig:
    """A service of both servers, in both families."""
    to = tuple(
        ForwardServer(address, weight=weight)
        for addresses, weight in zip((WEB1, WEB2), weights, strict=True)
        for address in addresses
    )
    return ForwardConfig(listen, to, on_down=on_down)  # type: ignore[arg-type]


def lay(world: World, *forwards: ForwardConfig, down: tuple[tuple[str, int], ...] = ()) -> float:
    """Apply the topology's uplinks with these services; return the time in seconds."""
    config = Config(parse(world.topology.config, "ifdefault.toml").uplinks, forwards=forwards)
    every = tuple((family, NAMES) for family in FAMILIES)
    store = Store(world.dir / "state")

    def run() -> float:
        with store.lock():
            started = time.perf_counter()
            commit(prepare_config(config, store, decision=Decision(every, every, down)), store)
            took = time.perf_counter() - started
            again = prepare_config(config, store, decision=Decision(every, every, down))
        assert again.operations == ()
        return took

    return world["host"].python(run)


@contextmanager
def connected(node: Node, target: str, port: int = ports.HTTP) -> Iterator[socket.socket]:
    with node.enter():
        sock = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET)
    with sock:
        sock.settimeout(PATIENCE_S)
        sock.connect((target, port))
        yield sock


def server_of(sock: socket.socket) -> str:
    """The server that answers on a connection, which stays open."""
    sock.sendall(b"GET / HTTP/1.1\r\nHost: www\r\n\r\n")
    answer = b""
    while not answer.endswith(b"\n") or b"\r\n\r\n" not in answer:
        answer += sock.recv(4096)
    return answer.decode().split()[-1]


def draws(world: World, target: str, count: int) -> Counter[str]:
    """The servers of so many new connections; "" for a refused one."""
    found: Counter[str] = Counter()
    for _ in range(count):
        server = ""
        with suppress(ConnectionRefusedError), connected(world["client"], target) as sock:
            server = server_of(sock)
        found[server] += 1
    return found


def test_all_kinds_of_traffic_on_every_address(world: World) -> None:
    """The server sees the client's own address."""
    services.caddy(world["web1"])
    answers.apply(world)
    answers.assert_answered(world, ["you", "quic", *ECHOES, "icmp"])
    assert not any(uplink["misrouted"] for uplink in answers.status(world)["uplinks"])


def test_connections_in_thousands(world: World) -> None:
    lay(world, shared(1, 1))
    answers.assert_answered(world, ["you"], count=1000)


@pytest.mark.parametrize("node", ["desk", "host"])
def test_hairpin(world: World, node: str) -> None:
    answers.apply(world)
    answers.assert_answered(world, ECHOES, node=node)


def test_weights(world: World) -> None:
    lay(world, shared(3, 1))
    for target, one, two in zip(FAR, WEB1, WEB2, strict=True):
        found = draws(world, target, 200)
        assert found.total() == 200 == found[one] + found[two]
        assert 120 <= found[one] <= 180  # five times the deviation


def test_drained_servers_keep_what_they_have(world: World) -> None:
    lay(world, shared(0, 1))
    with ExitStack() as stack:
        running = [stack.enter_context(connected(world["client"], target)) for target in FAR]
        assert [server_of(sock) for sock in running] == [*WEB2]
        lay(world, shared(1, 0))
        for target, server in zip(FAR, WEB1, strict=True):
            assert draws(world, target, 20) == {server: 20}
        assert [server_of(sock) for sock in running] == [*WEB2]


def test_a_service_on_one_uplink(world: World) -> None:
    forward = ForwardConfig(
        (HTTP,), (ForwardServer(WEB1[0]), ForwardServer(WEB1[1])), uplinks=("isp-b",)
    )
    lay(world, forward)
    answers.assert_answered(world, ["you"], FAR)
    near = sorted(set(answers.addresses(world)) - set(FAR))
    assert [draws(world, target, 5) for target in near] == [{"": 5}] * len(near)


def test_the_next_server_takes_the_share_of_one_that_is_gone(world: World) -> None:
    down = tuple((address, ports.HTTP) for address in WEB1)
    lay(world, shared(1, 1), down=down)
    for target, server in zip(FAR, WEB2, strict=True):
        assert draws(world, target, 20) == {server: 20}


def test_without_a_server_clients_are_refused_at_once(world: World) -> None:
    """By the uplink that the connection came in on, TCP and UDP."""
    echoes = Ports("udp", ports.UDP_BOUND, ports.UDP_BOUND)
    lay(world, shared(1, 1), down=tuple((a, ports.HTTP) for a in (*WEB1, *WEB2)))
    before = world.misrouted()
    for node, targets in (("client", answers.addresses(world)), ("desk", FAR), ("host", FAR)):
        for target in targets:
            started = time.monotonic()
            with pytest.raises(ConnectionRefusedError), connected(world[node], target):
                pass
            assert time.monotonic() - started < PATIENCE_S / 2
    assert refusals(world) == len(answers.addresses(world)) + 2 * len(FAR)
    down = tuple((a, echoes.first) for a in (*WEB1, *WEB2))
    lay(world, shared(1, 1, listen=(echoes,)), down=down)
    for target in answers.addresses(world):
        with answers.udp_socket(world["client"], "::" if ":" in target else "") as sock:
            sock.connect((target, echoes.first))
            sock.send(b"anybody?")
            with pytest.raises(ConnectionRefusedError):
                sock.recv(64)
    assert world.misrouted() == before


def refusals(world: World) -> int:
    """The number of counted refusals of the first service."""
    read = functools.partial(nft.read_counters, FORWARD_TABLE)
    return world["host"].python(read)["refused_0"][0]


def test_the_share_of_a_gone_server_may_be_refused(world: World) -> None:
    lay(world, shared(1, 1, on_down="reset"), down=tuple((a, ports.HTTP) for a in WEB1))
    for target, server in zip(FAR, WEB2, strict=True):
        found = draws(world, target, 100)
        assert found.total() == 100 == found[server] + found[""]
        assert 25 <= found[server] <= 75


def test_a_datagram_flow_that_is_served_stays_served(world: World) -> None:
    """Until the reply, conntrack considers all its packets new, but the server is picked once."""
    mute = Ports("udp", 7005, 7005)
    forward = shared(1, 1, on_down="reset", listen=(mute,))
    lay(world, forward, down=tuple((a, mute.first) for a in WEB1))
    with (
        answers.udp_socket(world["web2"], "", mute.first) as server,
        answers.udp_socket(world["client"]) as client,
    ):
        server.settimeout(answers.BRIEF_S)

        def arrives() -> bool:
            client.sendto(b"hello", (FAR[0], mute.first))
            try:
                return bool(server.recv(64))
            except TimeoutError:
                return False

        eventually(arrives, what="a datagram is served")
        server.settimeout(PATIENCE_S)
        assert all(arrives() for _ in range(20))


def test_thousands_of_services(world: World) -> None:
    """All are installed, a second plan is empty, and any of them answers."""
    first, count = 10000, 10000
    forwards = tuple(
        ForwardConfig(
            (Ports("tcp", port, port),), tuple(ForwardServer(a, ports.HTTP) for a in WEB1)
        )
        for port in range(first, first + count)
    )
    lay(world, *forwards)
    for target, server in zip(FAR, WEB1, strict=True):
        for port in (first, first + count // 3, first + count - 1):
            with connected(world["client"], target, port) as sock:
                assert server_of(sock) == server


def test_a_foreign_edit_is_repaired(world: World) -> None:
    """Edits of other tables don't matter."""
    lay(world, shared(1, 1))
    world["host"].nft("flush chain inet ifdefault_forward dnat_services\n")
    answers.assert_none_answered(world, ["you"], FAR)
    lay(world, shared(1, 1))
    answers.assert_answered(world, ["you"], FAR)
    read = functools.partial(nft.read_table, FORWARD_TABLE)
    before = world["host"].python(read)
    world["host"].nft("table inet other {\n chain forward {\n counter\n }\n}\n")
    assert world["host"].python(read) == before


def test_a_port_that_a_program_holds_is_an_error(world: World) -> None:
    services.nginx(world["host"])
    done = world.ifdefault("check", "--json")
    found = {problem["where"]: problem for problem in json.loads(done.stdout)["problems"]}
    assert done.returncode == 1
    line = world.topology.config.splitlines().index('listen = "tcp:80"') + 1
    [told] = [found[where] for where in found if where.startswith(f"{world.config}:{line}: ")]
    assert told["what"].startswith("a program on this host listens on tcp port 80 of every address")


def test_a_firewall_that_drops_what_is_forwarded_is_named(world: World) -> None:
    """The remedy in the message makes the services work."""
    world["host"].nft(FIREWALL)
    answers.apply(world)
    answers.assert_none_answered(world, ["tcp"], FAR)
    found = json.loads(world.ifdefault("check", "--json").stdout)["problems"]
    dropping = [problem for problem in found if problem["where"] == "nft inet fw forward"]
    assert [problem["warning"] for problem in dropping] == [True, True]  # services, and the LAN
    for problem in dropping:
        for command in problem["remedy"].split("`")[1::2]:
            world["host"].run(command.split())
    answers.assert_answered(world, ["you", "tcp"], FAR)
    assert world.ifdefault("check").returncode == 0
    assert "fw forward" not in world.ifdefault("check").stderr


FIREWALL = """
table inet fw {
  chain forward {
    type filter hook forward priority filter; policy drop;
  }
}
"""
