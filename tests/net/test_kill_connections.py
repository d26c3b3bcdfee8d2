"""What hangs on a dead uplink is let go of: outgoing sockets and flows, and nobody else's.

                ┌─ isp-a ── wan0 ┐   isp-a is the dead one
client ── core ─┤                ├ host
                └─ isp-b ── wan1 ┘

The host doesn't ask whether it is dead, so all connections here can stay alive, and each that is
still there must still carry data.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from ifdefault.kernel import conntrack
from ifdefault.kernel.kill_connections import Killed, kill
from ifdefault.kernel.netlink import Netlink, attributes
from ifdefault.kernel.uapi import netfilter
from ifdefault.kernel.uapi.netlink import NETLINK_NETFILTER
from ifdefault.lab.node import Node
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from tests.net import answers
from tests.net.conftest import LabWorld
from tests.net.wires import PORT, Wires

DEAD, OTHER = ("203.0.113.10", "2001:db8:a::10"), ("198.51.100.10", "2001:db8:b::10")
CLIENT = ("198.18.1.10", "2001:db8:f:1::10")
CHOSEN, MASK = 0x21000000, 0x3F000000
TRACKED = """\
table inet tracked {
  chain output { type filter hook output priority 0; ct state new accept; }
  chain input { type filter hook input priority 0; ct state new accept; }
  chain zone { type filter hook output priority raw; udp dport 7999 ct zone set 7; }
}
"""


@pytest.fixture
def world(lab_world: LabWorld) -> World:
    world = lab_world("two")
    answers.apply(world)
    return world


@pytest.fixture
def host(world: World) -> Node:
    return world["host"]


@pytest.fixture
def wires(world: World) -> Iterator[Wires]:
    wires = Wires(world)
    with wires.stack:
        yield wires


def freed(host: Node, **options: object) -> Killed:
    arguments = {"addresses": DEAD, **options}
    return host.python(lambda: kill(**arguments))  # type: ignore[arg-type]


# --- sockets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("of", [0, 1], ids=["IPv4", "IPv6"])
def test_outgoing_sockets_by_their_address(host: Node, wires: Wires, of: int) -> None:
    server = wires.listen("client", CLIENT[of])
    doomed = [wires.connect("host", server, CLIENT[of], source=DEAD[of]) for _ in range(3)]
    spared = [wires.connect("host", server, CLIENT[of], source=OTHER[of]) for _ in range(3)]
    assert freed(host) == Killed(sockets=3)
    with pytest.raises(ConnectionAbortedError):
        doomed[0].ours.send(b"still there?")
    assert not any(pair.alive for pair in doomed)
    assert all(pair.alive for pair in spared)
    assert freed(host) == Killed()


def test_a_mapped_address_is_the_address(host: Node, wires: Wires) -> None:
    server = wires.listen("client", CLIENT[0])
    doomed = wires.connect("host", server, CLIENT[0], source=DEAD[0], family=6)
    spared = wires.connect("host", server, CLIENT[0], source=OTHER[0], family=6)
    assert freed(host) == Killed(sockets=1)
    assert (doomed.alive, spared.alive) == (False, True)


def test_sockets_that_still_connect(world: World, host: Node, wires: Wires) -> None:
    world["client"].nft(f"""table inet deaf {{
      chain c {{ type filter hook input priority 0; tcp dport {PORT} drop; }}
    }}
    """)
    with wires.asking("host", CLIENT[0]) as sock:
        assert sock.getsockname()[0] == DEAD[0]
        assert freed(host) == Killed(sockets=1)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNABORTED


def test_outgoing_sockets_by_their_mark(host: Node, wires: Wires) -> None:
    for of in (0, 1):
        server = wires.listen("client", CLIENT[of])
        doomed = wires.connect("host", server, CLIENT[of], mark=CHOSEN | 0x80)
        spared = wires.connect("host", server, CLIENT[of], mark=CHOSEN + 0x01000000)
        unmarked = wires.connect("host", server, CLIENT[of], source=OTHER[of])
        assert freed(host, addresses=(), marks=(CHOSEN,), mask=MASK) == Killed(sockets=1)
        assert [pair.alive for pair in (doomed, spared, unmarked)] == [False, True, True]


@pytest.mark.parametrize("bound", [*DEAD, "0.0.0.0", "::"])
def test_inbound_connections_stay(host: Node, wires: Wires, bound: str) -> None:
    """Their local port has a listener, on their address or the wildcard."""
    server = wires.listen("host", bound)
    targets = {"0.0.0.0": DEAD[:1], "::": DEAD}.get(bound, (bound,))
    inbound = [wires.connect("client", server, target) for target in targets]
    for target in targets:
        of = ":" in target
        far = wires.listen("client", CLIENT[of])
        doomed = wires.connect("host", far, CLIENT[of], source=target)
        assert freed(host) == Killed(sockets=1)
        assert not doomed.alive
    assert all(pair.alive for pair in inbound)


def test_a_listener_elsewhere_makes_no_socket_inbound(host: Node, wires: Wires) -> None:
    wires.listen("host", OTHER[0], 7950)
    far = wires.listen("client", CLIENT[0])
    doomed = wires.connect("host", far, CLIENT[0], source=DEAD[0], port=7950)
    assert freed(host) == Killed(sockets=1)
    assert not doomed.alive


def test_more_listeners_than_the_kernel_is_asked_to_check(host: Node, wires: Wires) -> None:
    servers = [wires.listen("host", "0.0.0.0", 20000 + n) for n in range(510)]
    inbound = [wires.connect("client", server, DEAD[0]) for server in servers[-2:]]
    assert freed(host) == Killed()
    assert all(pair.alive for pair in inbound)


def test_what_is_reached_without_the_uplink_is_spared(host: Node, wires: Wires) -> None:
    """The host connects to its own public address, and to its LAN."""
    own = wires.listen("host", DEAD[0])
    to_itself = wires.connect("host", own, DEAD[0], source=DEAD[0])
    lan = wires.listen("content", "192.168.1.10")
    to_lan = wires.connect("host", lan, "192.168.1.10")
    far = wires.listen("client", CLIENT[0])
    doomed = wires.connect("host", far, CLIENT[0], source=DEAD[0])
    addresses = (*DEAD, "192.168.1.1")
    spared = (*DEAD, "192.168.1.0/24", "fd00:1::/64")
    assert freed(host, addresses=addresses, spared=spared) == Killed(sockets=1)
    assert [pair.alive for pair in (to_itself, to_lan, doomed)] == [True, True, False]
    assert freed(host, addresses=addresses) == Killed(sockets=2)
    assert not to_lan.alive


def test_link_local_addresses_are_passed_over(world: World, host: Node, wires: Wires) -> None:
    listing = "ip -6 -o address show dev lan0 scope link".split()
    own, far = (
        world[node].run(listing).stdout.split()[3].partition("/")[0] for node in ("host", "content")
    )
    server = wires.listen("content", "::")
    pair = wires.connect("host", server, f"{far}%lan0")
    assert pair.ours.getsockname()[0].partition("%")[0] == own
    assert freed(host, addresses=(own,)) == Killed()
    assert pair.alive


# --- connected UDP sockets --------------------------------------------------------------------


@pytest.mark.parametrize("of", [0, 1], ids=["IPv4", "IPv6"])
def test_connected_udp_sockets(host: Node, of: int) -> None:
    """Those of a port that the kernel chose, unless they are bound to an interface."""
    with ExitStack() as stack:

        def connected(source: str, port: int = 0, **options: int | str) -> socket.socket:
            sock = answers.udp_socket(host, source, port, options=options)
            stack.enter_context(sock).connect((CLIENT[of], PORT))
            return sock

        doomed = connected(DEAD[of])
        spared = [
            connected(OTHER[of]),
            connected(DEAD[of], 1701),
            connected(DEAD[of], SO_BINDTODEVICE="wan0"),
            stack.enter_context(answers.udp_socket(host, DEAD[of])),
        ]
        assert freed(host) == Killed(udp_sockets=1)
        with pytest.raises(ConnectionAbortedError):
            doomed.recv(64)
        assert [sock.getsockname()[0] for sock in spared] == [OTHER[of], *[DEAD[of]] * 3]
        assert all(sock.send(b"still there?") for sock in spared[:3])
        marked = connected(OTHER[of], SO_MARK=CHOSEN | 0x80)
        assert freed(host, addresses=(), marks=(CHOSEN,), mask=MASK) == Killed(udp_sockets=1)
        assert marked.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNABORTED


@pytest.mark.parametrize("bound", [*DEAD, "0.0.0.0", "::"])
def test_a_udp_servers_connected_sockets_stay(host: Node, bound: str) -> None:
    """Those of a port on which an unconnected socket receives, as a QUIC server's."""
    for target in {"0.0.0.0": DEAD[:1], "::": DEAD}.get(bound, (bound,)):
        with (
            answers.udp_socket(host, bound, 40443),
            answers.udp_socket(host, target, 40443) as inbound,
        ):
            inbound.connect((CLIENT[":" in target], PORT))
            assert freed(host) == Killed()
            assert inbound.send(b"still there?")


@pytest.mark.parametrize(("mark", "mask"), [(0, MASK), (0x40000000, MASK), (CHOSEN, 0)])
def test_a_mark_that_may_be_anybodys_is_refused(mark: int, mask: int) -> None:
    with pytest.raises(ValueError):
        kill((), (mark,), mask)


# --- tracked flows ---------------------------------------------------------------------------


def flows(host: Node) -> list[tuple[str, str]]:
    """Source and destination of all tracked UDP flows."""

    def read() -> list[tuple[str, str]]:
        with Netlink(NETLINK_NETFILTER) as netlink:
            return sorted(filter(None, map(_ends, netlink.dump(0x101, bytes(4)))))

    return host.python(read)


def _ends(message: bytes) -> tuple[str, str] | None:
    original = attributes(attributes(message, 4)[1], 0)
    if attributes(original[2], 0)[1] != bytes([socket.IPPROTO_UDP]):
        return None
    ip = attributes(original[1], 0)
    first = 1 if message[0] == socket.AF_INET else 3
    source, target = (socket.inet_ntop(message[0], ip[kind]) for kind in (first, first + 1))
    return source, target


@pytest.fixture
def tracking(world: World) -> Node:
    """Outgoing and inbound flows on both uplinks, in both families, a LAN's masqueraded, and
    two in a zone of their own."""
    host = world["host"]
    host.nft(TRACKED)
    host.sysctl("net.ipv4.ip_forward", 1)
    host.nft(f"""table ip lan {{
      chain c {{ type nat hook postrouting priority srcnat;
                 ip saddr 192.168.1.0/24 oifname wan0 snat to {DEAD[0]}; }}
    }}
    """)
    for own in (DEAD, OTHER):
        for of in (0, 1):
            send(host, own[of], CLIENT[of])
            send(world["client"], CLIENT[of], own[of])
    for of in (0, 1):
        send(host, DEAD[of], CLIENT[of], 7999)
    send(world["content"], "192.168.1.10", CLIENT[0])
    eventually(lambda: len(flows(host)) == 11, what="tracked flows")
    return host


def send(node: Node, source: str, target: str, port: int = PORT) -> None:
    with answers.udp_socket(node, source) as sock:
        sock.sendto(b"anybody?", (target, port))


STAY = sorted(
    [
        *((OTHER[of], CLIENT[of]) for of in (0, 1)),
        *((CLIENT[of], own[of]) for own in (DEAD, OTHER) for of in (0, 1)),
    ]
)


@pytest.mark.parametrize("others", [(), OTHER, ("192.0.2.1", "2001:db8:c::1")])
def test_flows_that_are_answered_to_a_dead_address(tracking: Node, others: tuple[str, ...]) -> None:
    assert ("192.168.1.10", CLIENT[0]) in flows(tracking)
    assert freed(tracking, others=others) == Killed(flows=5)
    assert flows(tracking) == STAY
    assert freed(tracking) == Killed()


def test_a_kernel_without_the_filter(tracking: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux before 6.11 refuses it, like an unknown attribute."""
    monkeypatch.setattr(netfilter, "CTA_FILTER", 63)
    monkeypatch.setattr(conntrack, "_PACKETS_AT_ONCE", 1)
    assert freed(tracking) == Killed(flows=5)
    assert flows(tracking) == STAY


@pytest.mark.parametrize("others", [(), OTHER])
def test_nothing_but_a_dead_uplinks_flows(world: World, others: tuple[str, ...]) -> None:
    """A kernel with the inverted comparison then lists nothing."""
    host = world["host"]
    host.nft(TRACKED)
    for of in (0, 1):
        for port in range(7000, 7300):
            send(host, DEAD[of], CLIENT[of], port)
    assert freed(host, others=others) == Killed(flows=600)
    send(host, OTHER[1], CLIENT[1])
    assert freed(host, others=others) == Killed()
    assert flows(host) == [(OTHER[1], CLIENT[1])]


def test_flows_by_their_mark(world: World) -> None:
    host = world["host"]
    marks = (CHOSEN, CHOSEN | 0x81, CHOSEN + 0x01000000, 0)
    host.nft("""table inet marks {
      chain c { type filter hook output priority 1; ct mark set meta mark; }
    }
    """)
    for mark in marks:
        with answers.udp_socket(host, OTHER[0], options={"SO_MARK": mark}) as sock:
            sock.sendto(b"anybody?", (CLIENT[0], PORT + mark % 251))
    assert freed(host, addresses=(), marks=(CHOSEN,), mask=MASK) == Killed(flows=2)


def test_nothing_is_asked_of_a_host_that_tracks_nothing(world: World) -> None:
    assert freed(world["host"]) == Killed()
