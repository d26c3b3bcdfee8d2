"""An uplink dies, in many ways; the daemon notices, moves the default, frees what hangs, and brings
all back.

                ┌─ isp-a ── wan0 ┐   the default's, until it dies
client ── core ─┤                ├ host
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

import socket
import struct

import pytest

from ifdefault.health.contradiction import SERVED
from ifdefault.lab import faults, ports, services
from ifdefault.lab.waiting import PATIENCE_S, eventually
from ifdefault.model.health import Health
from tests.net import watched
from tests.net.conftest import LabWorld
from tests.net.watched import await_default, await_states, events, leaves_by, standing, start

A, CLIENT = "203.0.113.10", "198.18.1.10"
_NO_PINGS = """\
table inet pings {
  chain f {
    type filter hook forward priority 0;
    icmp type echo-request drop;
    icmpv6 type echo-request drop;
  };
}
"""


@pytest.mark.parametrize("fault", ["blackhole", "no-inbound", "no-outbound", "carrier", "gateway"])
def test_the_default_leaves_a_dead_uplink_and_returns(lab_world: LabWorld, fault: str) -> None:
    world = lab_world("two")
    start(world)
    assert leaves_by(world) == "wan0"
    with faults.injected(world, fault, "isp-a"):
        await_default(world, "wan1")
        await_states(world, ["down"], "isp-a")
        await_states(world, ["up"], "isp-b")
    await_default(world, "wan0")
    await_states(world, ["up"])
    told = [text for text in events(world, "path") if text.startswith("isp-b")]
    assert told == [text for text in told if "unproven -> up" in text], "isp-b never failed"


@pytest.mark.parametrize("topology", ["shared-address", "vrrp", "p2p", "linklocal", "v6only"])
def test_uplinks_of_each_kind_are_judged(lab_world: LabWorld, topology: str) -> None:
    """By probes that leave by them, even where one address and interface serves both."""
    world = lab_world(topology)
    start(world)
    with faults.injected(world, "blackhole", "isp-b"):
        await_states(world, ["down"], "isp-b")
        assert set(standing(world).decision.usable_in(6)) == {"isp-a"}
    await_states(world, ["up"])
    assert not [text for text in events(world, "path") if "isp-a" in text and "-> down" in text]


def test_a_family_may_die_alone(lab_world: LabWorld) -> None:
    world = lab_world("two")
    start(world)
    world["isp-a"].nft(
        "table ip6 dead { chain f { type filter hook forward priority 0; drop; }; }\n"
    )
    eventually(lambda: leaves_by(world, 6) == "wan1", what="IPv6 moves")
    assert leaves_by(world, 4) == "wan0"
    assert watched.states(world)["isp-a", 4] == "up"


def test_when_all_look_dead_nothing_is_withdrawn(lab_world: LabWorld) -> None:
    world = lab_world("two")
    start(world)
    with faults.injected(world, "blackhole", "isp-a"):
        await_default(world, "wan1")
        before = watched.ours(world)
        with faults.injected(world, "blackhole", "isp-b"):
            await_states(world, ["down"])
            assert watched.ours(world) == before
            assert set(standing(world).decision.usable_in(4)) == {"isp-a", "isp-b"}
        await_states(world, ["up"], "isp-b")
        assert leaves_by(world) == "wan1"


def test_a_lossy_line_is_degraded_and_never_down(lab_world: LabWorld) -> None:
    world = lab_world("two")
    start(world, "degraded_loss = 0.05\n")
    with faults.injected(world, "loss", "isp-a", 20):
        eventually(lambda: watched.states(world)["isp-a", 4] == "degraded", what="degraded")
    assert not [text for text in events(world, "path") if "-> down" in text]


@pytest.mark.parametrize("probes", ["", "probes = []\n"])
def test_a_gateway_that_polices_its_answers_is_not_dead(lab_world: LabWorld, probes: str) -> None:
    """Nor is it when it is all there is, and other evidence makes us ask."""
    world = lab_world("two")
    start(world, probes)
    with faults.injected(world, "police", "isp-a", 5):
        until_s = standing(world).up_s + 5.0
        eventually(lambda: standing(world).up_s > until_s, what="some time")
    assert not [text for text in events(world, "path") if "-> down" in text]


def test_clients_that_are_served_contradict_silent_probes(lab_world: LabWorld) -> None:
    """A provider drops pings. The uplink stays in use where clients are served over it, and its
    state says so; without them, it is down."""
    world = lab_world("two")
    services.builtin(world["host"])
    start(world)

    def health() -> Health:
        assert _echoes(served)
        return next(h for h in standing(world).health if (h.uplink, h.family) == ("isp-a", 4))

    with world["client"].python(lambda: _connect(A)) as served:
        world["isp-a"].nft(_NO_PINGS)
        eventually(lambda: health().cause == SERVED, what="it is shown")
        eventually(lambda: health().state == "degraded", what="and used")
        assert leaves_by(world, 6) == "wan1", "no client, and no answer"
        assert "isp-a" in standing(world).decision.usable_in(4)
        until_s = standing(world).up_s + 4.0
        eventually(
            lambda: health().cause == SERVED and standing(world).up_s > until_s, what="some time"
        )
        assert (health().state, health().cause) == ("degraded", SERVED)
        told = [text for text in events(world, "path") if "isp-a IPv4" in text]
        assert "-> degraded" in told[-1], "and so it has been ever since"
    eventually(lambda: watched.states(world)["isp-a", 4] == "down", what="nobody is served")


def test_outgoing_connections_of_the_dead_uplink_are_freed(lab_world: LabWorld) -> None:
    """Those that came in are left, and so is what uses the other uplink, or the LAN."""
    world = lab_world("two")
    services.builtin(world["client"])
    services.builtin(world["host"])
    services.builtin(world["content"])
    start(world)
    out_a = world["host"].python(lambda: _connect(CLIENT))
    out_b = world["host"].python(lambda: _connect(CLIENT, "198.51.100.10"))
    lan = world["host"].python(lambda: _connect("192.168.1.10"))
    into_a = world["client"].python(lambda: _connect(A))
    with out_a, out_b, lan, into_a:
        assert out_a.getsockname()[0] == A
        with faults.injected(world, "blackhole", "isp-a"):
            eventually(lambda: _is_destroyed(out_a), what="freed")
            for kept in (out_b, lan):
                assert not _is_destroyed(kept)
            eventually(lambda: events(world, "ended"), what="an event tells of it")
        assert _echoes(into_a), "an inbound connection outlives the outage"


def test_config_may_keep_them(lab_world: LabWorld) -> None:
    world = lab_world("two")
    services.builtin(world["client"])
    start(world, 'on_down = "keep"\n')
    with world["host"].python(lambda: _connect(CLIENT)) as out_a:
        with faults.injected(world, "blackhole", "isp-a"):
            await_default(world, "wan1")
            assert not _is_destroyed(out_a)
        assert _echoes(out_a)


def _connect(target: str, source: str = "") -> socket.socket:
    where = (source, 0) if source else None
    return socket.create_connection((target, ports.TCP_ECHO), PATIENCE_S, where)


def _is_destroyed(sock: socket.socket) -> bool:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 103 or _state(sock) == 7


def _state(sock: socket.socket) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]  # 7: TCP_CLOSE


def _echoes(sock: socket.socket) -> bool:
    sock.sendall(b"still there?")
    return sock.recv(64) == b"still there?"


@pytest.mark.parametrize("state", ["down", "drain"])
def test_the_operator_takes_an_uplink_out_and_a_restart_keeps_that(
    lab_world: LabWorld, state: str
) -> None:
    world = lab_world("two")
    daemon = world.daemon()
    await_states(world, ["up"])
    done = world.ifdefault("uplink", "isp-a", state)
    assert done.returncode == 0, done.stderr
    assert leaves_by(world) == "wan1"
    daemon.terminate()
    assert daemon.wait(PATIENCE_S) == 0
    start(world)
    assert leaves_by(world) == "wan1"
    assert standing(world).forced == {"isp-a": state}
    assert world.ifdefault("uplink", "isp-a", "auto").returncode == 0
    assert leaves_by(world) == "wan0"


def test_an_uplink_that_is_forced_up_is_used_whatever_is_observed(lab_world: LabWorld) -> None:
    world = lab_world("two")
    start(world)
    assert world.ifdefault("uplink", "isp-a", "up").returncode == 0
    with faults.injected(world, "blackhole", "isp-a"):
        await_states(world, ["down"], "isp-a")
        assert leaves_by(world) == "wan0"


def test_half_open_connections_decide_nothing(lab_world: LabWorld) -> None:
    """Outsiders can make as many as they like: SYNs whose answers go nowhere."""
    world = lab_world("two")
    services.builtin(world["host"])
    start(world)
    before = events(world, "path")
    world["client"].python(lambda: _flood(A, 2000))

    def half_open() -> int:
        said = world["host"].run(["ss", "-Htan", "state", "syn-recv"]).stdout
        return len(said.splitlines())

    eventually(lambda: half_open() > 100, what="many half-open connections")
    until_s = standing(world).up_s + 5.0
    eventually(lambda: standing(world).up_s > until_s, what="some time")
    assert half_open() > 0
    assert events(world, "path") == before


def _flood(target: str, count: int) -> None:
    """SYNs from sources that nobody has (RFC 791, RFC 9293)."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for n in range(count):
            source = bytes([198, 18, 200 + n % 50, n % 250 + 1])
            ends = source + socket.inet_aton(target)
            syn = struct.pack("!HHIIBBHHH", 1024 + n, ports.TCP_ECHO, n, 0, 80, 2, 8192, 0, 0)
            words = struct.unpack("!16H", ends + struct.pack("!BBH", 0, 6, 20) + syn)
            checksum = ~(sum(words) % 0xFFFF) & 0xFFFF
            syn = syn[:16] + struct.pack("!H", checksum) + syn[18:]
            head = struct.pack("!BBHHHBBH", 69, 0, 40, n, 0, 64, socket.IPPROTO_TCP, 0)
            raw.sendto(head + ends + syn, (target, 0))
