"""What [[outgoing.rule]]s select leaves by its uplink, with that uplink's address, and is answered.

                ┌─ isp-a ── wan0 ┐   203.0.113.10, 2001:db8:a::10: the normal default
client ── core ─┤                ├ host
                └─ isp-b ── wan1 ┘   198.51.100.10, 2001:db8:b::10

Rules: which uplink a packet left by is told by its source, since the providers filter (BCP 38).
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable

import pytest

from ifdefault.config import read as read_config
from ifdefault.host.transaction import commit, prepare_config
from ifdefault.kernel.link_stats import read_link_stats
from ifdefault.lab import faults, ports, services
from ifdefault.lab.traffic import measure
from ifdefault.lab.waiting import PATIENCE_S, eventually
from ifdefault.lab.world import World
from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.health import Decision
from tests.net import answers, kernelstate, watched
from tests.net.conftest import LabWorld

CLIENT: dict[Family, str] = {4: "198.18.1.10", 6: "2001:db8:f:1::10"}
OTHER: dict[Family, str] = {4: "198.18.2.10", 6: "2001:db8:f:2::10"}  # the client's as well
A: dict[Family, str] = {4: "203.0.113.10", 6: "2001:db8:a::10"}
B: dict[Family, str] = {4: "198.51.100.10", 6: "2001:db8:b::10"}
USER = 64123
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
Ask = Callable[[], str]


def rules(*bodies: str) -> str:
    return "".join(f"[[outgoing.rule]]\n{body}\n" for body in bodies)


@pytest.fixture
def world(lab_world: LabWorld) -> World:
    world = lab_world("two")
    services.builtin(world["client"])
    return world


def laid(world: World, text: str) -> None:
    answers.configure(world, text)
    kernelstate.apply(world)


def source(kind: int, target: str, port: int) -> Ask:
    """Ask a server, whose answer must come; return the address that the kernel asked from."""

    def ask_it() -> str:
        family = socket.AF_INET6 if ":" in target else socket.AF_INET
        with socket.socket(family, kind) as sock:
            sock.settimeout(PATIENCE_S)
            sock.connect((target, port))
            sock.send(b"who am I?")
            assert sock.recv(64) == b"who am I?"
            return str(sock.getsockname()[0])

    return ask_it


def as_user(uid: int, what: Ask) -> Ask:
    """The same by a process of another user."""

    def in_a_child() -> str:
        come, go = os.pipe()
        if not (pid := os.fork()):
            said = "it failed"
            try:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
                said = what()
            finally:
                os.write(go, json.dumps(said).encode())
                os._exit(0)
        os.close(go)
        with open(come, "rb") as pipe:
            said = json.load(pipe)
        os.waitpid(pid, 0)
        return str(said)

    return in_a_child


def asked_from(world: World, what: Ask) -> str:
    return world["host"].python(what)


def test_by_destination(world: World) -> None:
    """TCP and UDP; another destination goes as ever."""
    laid(world, rules('to = ["198.18.1.0/24", "2001:db8:f:1::10"]\nvia = ["isp-b"]'))
    for family in FAMILIES:
        for kind, port in ((TCP, ports.TCP_ECHO), (UDP, ports.UDP_BOUND)):
            assert asked_from(world, source(kind, CLIENT[family], port)) == B[family]
            assert asked_from(world, source(kind, OTHER[family], port)) == A[family]


@pytest.mark.parametrize("uplink", ["isp-a", "isp-b"])
def test_ping_and_sockets_that_are_not_connected(world: World, uplink: str) -> None:
    laid(world, rules(f'to = ["198.18.1.10", "2001:db8:f:1::10"]\nvia = ["{uplink}"]'))
    before, refused = sent(world), world.misrouted()
    tallies = measure(world["host"], ["icmp", "udp-bound", "tcp"], CLIENT.values(), count=4)
    assert [tally for tally in tallies if not tally.ok] == []
    assert world.misrouted() == refused
    grown = {dev: count - before[dev] for dev, count in sent(world).items()}
    used, unused = ("wan0", "wan1") if uplink == "isp-a" else ("wan1", "wan0")
    assert grown[used] >= 2 * (4 + 4 + 4 * 3)
    assert grown[unused] < 8, "neighbour discovery at most"


def sent(world: World) -> dict[str, int]:
    found = world["host"].python(lambda: read_link_stats(["wan0", "wan1"]))
    return {dev: told.packets_out for dev, told in found.items()}


def test_by_port(world: World) -> None:
    by_port = f'transport = "tcp"\nports = ["{ports.TCP_ECHO}-7050"]\nvia = ["isp-b"]'
    laid(world, rules(by_port, f'transport = "udp"\nports = [{ports.UDP_DUAL}]\nvia = ["isp-b"]'))
    for family in FAMILIES:
        target = CLIENT[family]
        assert asked_from(world, source(TCP, target, ports.TCP_ECHO)) == B[family]
        assert asked_from(world, source(UDP, target, ports.UDP_DUAL)) == B[family]
        assert asked_from(world, source(UDP, target, ports.UDP_BOUND)) == A[family]


def test_by_user(world: World) -> None:
    laid(world, rules(f'users = [{USER}]\nvia = ["isp-b"]'))
    for family in FAMILIES:
        for kind, port in ((TCP, ports.TCP_ECHO), (UDP, ports.UDP_BOUND)):
            what = source(kind, CLIENT[family], port)
            assert asked_from(world, as_user(USER, what)) == B[family]
            assert asked_from(world, as_user(USER + 1, what)) == A[family]
            assert asked_from(world, what) == A[family]


def test_by_all_at_once_and_in_their_order(world: World) -> None:
    all_at_once = f"""
        to = ["198.18.1.0/24", "2001:db8:f:1::/64"]
        transport = "tcp"
        ports = [{ports.TCP_ECHO}]
        users = [{USER}]
        via = ["isp-a"]
    """
    laid(world, rules(all_at_once, f'users = [{USER}]\nvia = ["isp-b"]'))
    for family in FAMILIES:
        for kind, port, target, wanted in (
            (TCP, ports.TCP_ECHO, CLIENT, A),
            (TCP, ports.TCP_ECHO, OTHER, B),
            (UDP, ports.UDP_BOUND, CLIENT, B),
        ):
            what = as_user(USER, source(kind, target[family], port))
            assert asked_from(world, what) == wanted[family]


def test_the_next_uplink_where_the_first_is_down(world: World) -> None:
    """And the rules are changed without a trace of the former ones."""
    answers.configure(world, rules('to = ["198.18.1.0/24", "2001:db8:f:1::/64"]\n'
                                   'via = ["isp-b", "isp-a"]',
                                   f'transport = "tcp"\nports = [{ports.TCP_ECHO}]\n'
                                   'via = ["isp-b", "isp-a"]'))  # fmt: skip
    both = ("isp-a", "isp-b")
    what = {f: source(TCP, CLIENT[f], ports.TCP_ECHO) for f in FAMILIES}
    for usable, wanted in ((both, B), (("isp-a",), A), (both, B)):
        decide(world, both, usable)
        for family in FAMILIES:
            assert asked_from(world, what[family]) == wanted[family]
    kernelstate.down(world)
    assert "32765" not in world["host"].run(["ip", "rule"]).stdout


def decide(world: World, order: tuple[str, ...], usable: tuple[str, ...]) -> None:
    """As the daemon would, had it judged so."""

    def inside() -> None:
        store = kernelstate.store_of(world)
        decision = Decision(
            tuple((f, order) for f in FAMILIES), tuple((f, usable) for f in FAMILIES)
        )
        with store.lock(wait=True):
            config = read_config(world.config)
            commit(prepare_config(config, store, decision=decision), store)
            left = prepare_config(config, store, decision=decision).operations
            assert left == (), "the kernel deleted what was meant"

    world["host"].python(inside)


def test_the_daemon_takes_the_next_uplink_and_returns(world: World) -> None:
    watched.start(world, rules('to = ["198.18.1.10"]\nvia = ["isp-b", "isp-a"]'))
    assert watched.leaves_by(world) == "wan1"
    with faults.injected(world, "blackhole", "isp-b"):
        watched.await_default(world, "wan0")
        assert asked_from(world, source(TCP, CLIENT[4], ports.TCP_ECHO)) == A[4]
    eventually(lambda: watched.leaves_by(world) == "wan1", what="it returns")


@pytest.mark.parametrize("via", ["isp-a", "isp-b"])
def test_answers_of_the_hosts_own_services_are_unaffected(lab_world: LabWorld, via: str) -> None:
    """Of rules that select every port that a client may ask from, and every client; also one in
    isp-a's own prefix. Some servers are bound to no address."""
    world = lab_world("neighbour")
    services.builtin(world["host"])
    everything = (
        'to = ["198.18.0.0/15", "203.0.113.0/24", "2001:db8::/32"]',
        'transport = "udp"\nports = ["1-65534"]',
        'transport = "tcp"\nports = ["1-65534"]',
    )
    laid(world, rules(*(f'{selectors}\nvia = ["{via}"]' for selectors in everything)))
    for node in ("client", "neighbour"):
        answers.assert_answered(
            world, ["icmp"], node=node, count=1
        )  # its MAC is known from here on
        answers.assert_answered(world, node=node)


def test_the_lan_stays_the_lan(world: World) -> None:
    services.builtin(world["content"])
    laid(world, rules('to = ["192.168.0.0/16", "fd00::/8"]\nvia = ["isp-b"]'))
    assert asked_from(world, source(TCP, "192.168.1.10", ports.TCP_ECHO)) == "192.168.1.1"
    assert asked_from(world, source(TCP, "fd00:1::10", ports.TCP_ECHO)) == "fd00:1::1"
