"""What the host's own connections tell of its uplinks, and what its interfaces have carried.

                ┌─ isp-a ── wan0 ┐
client ── core ─┤                ├ host lan0 ── content
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from ifdefault.kernel.link_stats import LinkStatsReader, read_link_stats
from ifdefault.kernel.tcp_stats import MEMORY_S, WALK_S, TcpMonitor
from ifdefault.lab import faults
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.health import TcpStats
from tests.net import answers
from tests.net.conftest import LabWorld
from tests.net.wires import PORT, Wires

A, B = ("203.0.113.10", "2001:db8:a::10"), ("198.51.100.10", "2001:db8:b::10")
CLIENT = ("198.18.1.10", "2001:db8:f:1::10")
LAN = ("192.168.1.0/24", "fd00:1::/64")
STEP_S = WALK_S / 3


@pytest.fixture
def world(lab_world: LabWorld) -> World:
    world = lab_world("two")
    answers.apply(world)
    return world


@pytest.fixture
def wires(world: World) -> Iterator[Wires]:
    wires = Wires(world)
    with wires.stack:
        yield wires


@pytest.fixture
def signs(world: World) -> Iterator[TcpMonitor]:
    with world["host"].python(lambda: TcpMonitor(LAN)) as signs:
        yield signs


def acknowledged(signs: TcpMonitor, address: str, number: int) -> None:
    """Read until so many sockets have progressed; an ACK may be delayed."""
    seen: list[int] = []

    def enough() -> bool:
        seen.append(signs.read(len(seen) * STEP_S / 9).get(address, TcpStats()).progressed)
        return sum(seen) >= number

    eventually(enough)
    assert sum(seen) == number


def test_nothing_there(signs: TcpMonitor) -> None:
    assert signs.read(0.0) == {}
    assert signs.read(STEP_S) == {}


def test_sockets_by_their_own_address(signs: TcpMonitor, wires: Wires) -> None:
    servers = [wires.listen("client", address) for address in CLIENT]
    for of, server in enumerate(servers):
        for own in (A[of], B[of]):
            wires.connect("host", server, CLIENT[of], source=own)
            wires.connect("host", server, CLIENT[of], source=own)
        inbound = wires.listen("host", B[of])
        wires.connect("client", inbound, B[of])
    wires.connect("host", servers[0], CLIENT[0], source=A[0], family=6)  # as ::ffff:203.0.113.10
    found = signs.read(0.0)
    assert found == {
        A[0]: TcpStats(sockets=3),
        A[1]: TcpStats(sockets=2),
        B[0]: TcpStats(sockets=3),
        B[1]: TcpStats(sockets=3),
    }
    assert signs.complete
    assert 0 < signs.cost_s < 1


def test_what_stays_near_tells_nothing(signs: TcpMonitor, wires: Wires) -> None:
    for near, own in (("127.0.0.1", "127.0.0.1"), ("::1", "::1")):
        wires.connect("host", wires.listen("host", own), near)
    for near in ("192.168.1.10", "fd00:1::10"):
        wires.connect("host", wires.listen("content", near), near)
    assert signs.read(0.0) == {}
    signs.exclude(())
    assert signs.read(STEP_S).keys() == {"192.168.1.1", "fd00:1::1"}


@pytest.mark.parametrize("of", [0, 1], ids=["IPv4", "IPv6"])
def test_progress(signs: TcpMonitor, wires: Wires, of: int) -> None:
    server = wires.listen("client", CLIENT[of])
    moving, still = (wires.connect("host", server, CLIENT[of], source=A[of]) for _ in range(2))
    elsewhere = wires.connect("host", server, CLIENT[of], source=B[of])
    assert signs.read(0.0)[A[of]] == TcpStats(sockets=2)
    assert signs.read(0.0)[A[of]] == TcpStats(sockets=2)
    moving.ours.send(b"to them")  # what is acknowledged
    acknowledged(signs, A[of], 1)
    still.theirs.send(b"to us")  # what comes in
    acknowledged(signs, A[of], 1)
    assert signs.read(STEP_S)[B[of]] == TcpStats(sockets=1)
    assert elsewhere.alive


def test_a_new_connection_is_progress(signs: TcpMonitor, wires: Wires) -> None:
    server = wires.listen("client", CLIENT[0])
    wires.connect("host", server, CLIENT[0], source=A[0])
    signs.read(0.0)
    wires.connect("host", server, CLIENT[0], source=A[0])
    seen = signs.read(WALK_S)[A[0]]
    assert seen == TcpStats(sockets=2, progressed=1, ack_ms=seen.ack_ms)
    assert seen.ack_ms < WALK_S * 1000
    assert signs.read(WALK_S + STEP_S)[A[0]] == TcpStats(sockets=2)


def test_a_new_connection_that_is_older_than_the_last_look(signs: TcpMonitor, wires: Wires) -> None:
    """Readings between two walks miss it; its path may be down by then."""
    server = wires.listen("client", CLIENT[0])
    wires.connect("host", server, CLIENT[0], source=A[0])
    signs.read(0.0)
    wires.connect("host", server, CLIENT[0], source=A[0])
    assert signs.read(0.0)[A[0]] == TcpStats(sockets=1)
    signs.exclude(LAN)  # walks at the next look, which is no later
    assert signs.read(0.0)[A[0]] == TcpStats(sockets=2)


def test_a_connection_that_has_ended_is_progress_where_that_is_asked(
    signs: TcpMonitor, wires: Wires
) -> None:
    """Once, from the second walk on, and if this end was the first to close it."""
    server = wires.listen("client", CLIENT[0])
    first, second = (wires.connect("host", server, CLIENT[0], source=A[0]) for _ in range(2))
    at = (step * WALK_S for step in count())
    for pair in (first, second):
        assert signs.read(next(at), ended=pair is second).get(A[0], TcpStats()).sockets
        pair.ours.close()
        pair.theirs.close()
    eventually(lambda: signs.read(next(at), ended=True).get(A[0], TcpStats()).progressed == 1)
    for _ in range(3):
        assert signs.read(next(at), ended=True) == {}


def test_a_connection_that_has_gone_is_forgotten(signs: TcpMonitor, wires: Wires) -> None:
    server = wires.listen("client", CLIENT[0])
    pair = wires.connect("host", server, CLIENT[0], source=A[0])
    assert signs.read(0.0)[A[0]].sockets == 1
    pair.ours.close()
    assert signs.read(STEP_S) == {}
    assert signs.read(2 * STEP_S) == {}


def test_progress_since_long_ago_tells_nothing_of_now(signs: TcpMonitor, wires: Wires) -> None:
    server = wires.listen("client", CLIENT[0])
    pair = wires.connect("host", server, CLIENT[0], source=A[0])
    signs.read(0.0)
    assert pair.alive
    wires.connect("host", server, CLIENT[0], source=A[0])
    assert signs.read(MEMORY_S * 1.1)[A[0]] == TcpStats(sockets=2)


def test_stalled(signs: TcpMonitor, wires: Wires, world: World) -> None:
    server = wires.listen("client", CLIENT[0])
    hanging, idle = (wires.connect("host", server, CLIENT[0], source=A[0]) for _ in range(2))
    fine = wires.connect("host", server, CLIENT[0], source=B[0])
    at = count()
    assert not signs.read(next(at) * STEP_S)[A[0]].stalled
    with faults.injected(world, "blackhole", "isp-a"):
        hanging.ours.send(b"anybody?")
        assert fine.alive
        eventually(lambda: signs.read(next(at) * STEP_S)[A[0]].stalled == 1)
        assert signs.read(next(at) * STEP_S)[B[0]].stalled == 0
    eventually(lambda: signs.read(next(at) * STEP_S)[A[0]].stalled == 0)
    assert idle.alive


def test_half_open(signs: TcpMonitor, wires: Wires, world: World) -> None:
    """A client that never gets the host's SYN-ACK, like one with a forged address."""
    world["client"].nft(f"""table inet deaf {{
      chain c {{ type filter hook input priority 0; tcp sport {PORT} drop; }}
    }}
    """)
    wires.listen("host", A[0])
    with wires.asking("client", A[0]):
        at = count()
        eventually(lambda: signs.read(next(at) * STEP_S).get(A[0]) == TcpStats(half_open=1))
        again = TcpStats(half_open=1, half_open_unanswered=1)
        eventually(lambda: signs.read(next(at) * STEP_S).get(A[0]) == again)


def test_of_very_many_some_are_read(world: World, wires: Wires) -> None:
    server = wires.listen("client", CLIENT[0])
    pairs = [
        wires.connect("host", server, CLIENT[0], source=A[0]) for _ in range(300)
    ]  # more than the kernel tells at once
    with world["host"].python(lambda: TcpMonitor(sockets_max=5)) as signs:
        for step in range(3):
            # the socket is made anew, which must happen where the host is
            found = world["host"].python(lambda s=step: signs.read(s * STEP_S))  # type: ignore[misc]
            assert found == {A[0]: TcpStats(sockets=5)}
            assert not signs.complete
        for pair in pairs:
            pair.ours.send(b"to them")
        moved = world["host"].python(lambda: signs.read(3 * STEP_S))
        assert moved[A[0]].progressed


def test_counters(world: World) -> None:
    host = world["host"]
    with host.python(lambda: LinkStatsReader(["wan0", "wan1", "gone0"])) as counters:
        before = counters.read()
        assert before.keys() == {"wan0", "wan1"}
        host.run(["ping", "-n", "-c", "1", "-W", "5", "-I", A[0], CLIENT[0]])
        after = counters.read()

        def agree() -> bool:
            return counters.read() == host.python(lambda: read_link_stats(["wan0", "wan1"]))

        eventually(agree, what="unless a packet comes between the two")
        assert after["wan0"].packets_out > before["wan0"].packets_out
        assert after["wan0"].bytes_in - before["wan0"].bytes_in >= 98
        host.ip("link del wan1\n")
        assert counters.read().keys() == {"wan0"}
