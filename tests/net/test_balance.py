"""The host's own connections are shared out among the uplinks, and answers aren't.

                ┌─ isp-a ── wan0 ┐   weight 3
client ── core ─┤                ├ host
                └─ isp-b ── wan1 ┘   weight 1
"""

from __future__ import annotations

import signal
import socket
import subprocess
from collections import Counter

import pytest

from ifdefault.ipc.control.client import SOCKET, listener
from ifdefault.ipc.control.protocol import Reload, SetUplink
from ifdefault.kernel.ebpf import attach
from ifdefault.lab import services
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.kernel import SLOTS
from tests.net import answers, kernelstate, watched
from tests.net.conftest import LabWorld
from tests.net.farend import AF, BALANCE, SO_MARK, A, B, configure, far


def assert_shared(seen: Counter[str], family: Family, share: float = 0.75) -> None:
    """Exactly, as all slots were used equally often, from any start."""
    assert set(seen) == {A[family], B[family]}
    assert sum(seen.values()) % SLOTS == 0
    assert abs(seen[A[family]] - share * sum(seen.values())) <= 2, seen


def test_connections_are_shared_by_weight(lab_world: LabWorld) -> None:
    world = lab_world("two")
    configure(world)
    kernelstate.apply(world)
    assert kernelstate.operations_left(world) == ()
    with far(world) as ends:
        for family in FAMILIES:
            assert_shared(ends.connect(2 * SLOTS, family), family)
        assert_shared(ends.connect(SLOTS, mapped=True), 4)
    assert world.misrouted() == {"isp-a": 0, "isp-b": 0}
    kernelstate.down(world)
    assert world["host"].python(attach.read) is None
    assert world["host"].run(["ip", "rule"]).stdout.count("\n") == 3


def test_the_order_is_not_that_of_the_caller(lab_world: LabWorld) -> None:
    """Who connects to two servers in turn comes to each by both uplinks."""
    world = lab_world("two")
    configure(world)
    kernelstate.apply(world)
    with far(world) as ends:
        seen = Counter[str](), Counter[str]()
        for number in range(200):
            seen[number % 2].update(ends.connect(1, mapped=bool(number % 2)))
    for counts in seen:
        assert 60 <= counts[A[4]] <= 90, counts


def test_what_has_decided_for_itself_is_left_alone(lab_world: LabWorld) -> None:
    """Bound and marked sockets, those to the LAN and to the host itself, and those in another
    network namespace. Datagrams, too, unless they are asked for."""
    world = lab_world("two")
    configure(world)
    kernelstate.apply(world)
    host = world["host"]
    with far(world) as ends:
        for family in FAMILIES:
            assert set(ends.connect(40, family, bound=B[family])) == {B[family]}
        # a mark of nobody's: the normal default
        assert set(ends.connect(40, mark=1)) == {A[4]}
    stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
    assert host.python(lambda: marks(stream, "198.18.1.10")) - {0}
    assert host.python(lambda: marks(stream, "127.0.0.1", "169.254.1.1", "::1", "fe80::1")) == {0}
    assert host.python(lambda: marks(datagram, "198.18.1.10", "2001:db8:f:1::10")) == {0}
    assert world["core"].python(lambda: marks(stream, "198.18.1.10")) == {0}


def test_rules_come_before_the_balance(lab_world: LabWorld) -> None:
    """Also for IPv4-mapped IPv6 destinations. Datagrams are balanced if configured."""
    world = lab_world("two")
    rule = '[[outgoing.rule]]\nto = ["198.18.1.0/24"]\ntransport = "tcp"\nvia = ["isp-b"]\n'
    configure(world, f"{BALANCE}udp = true\n{rule}")
    kernelstate.apply(world)
    assert kernelstate.operations_left(world) == ()
    with far(world) as ends:
        assert set(ends.connect(40)) == {B[4]}
        assert set(ends.connect(40, mapped=True)) == {B[4]}
        assert_shared(ends.connect(SLOTS, 6), 6)
    found = world["host"].python(lambda: marks(socket.SOCK_DGRAM, "198.18.1.10"))
    assert len(found - {0}) == 2


def marks(kind: socket.SocketKind, *addresses: str) -> set[int]:
    """The marks of sockets after connect()."""
    found = set()
    for address in addresses:
        for _ in range(20):
            with socket.socket(AF[6 if ":" in address else 4], kind) as sock:
                sock.setblocking(False)
                sock.connect_ex((address, 9))
                found.add(sock.getsockopt(socket.SOL_SOCKET, SO_MARK))
    return found


@pytest.mark.parametrize("topology", ["two", "shared-address"])
def test_the_return_path_holds(lab_world: LabWorld, topology: str) -> None:
    """Listening sockets aren't affected: replies keep to the uplink of the connection."""
    world = lab_world(topology)
    answers.configure(world, f"{BALANCE}udp = true\n")
    services.builtin(world["host"])
    answers.apply(world)
    answers.assert_answered(world)
    assert world["host"].python(attach.read) is not None


def test_a_destination_keeps_to_its_uplink(lab_world: LabWorld) -> None:
    world = lab_world("two")
    configure(world, f"{BALANCE}sticky = true\n")
    kernelstate.apply(world)
    addresses = [f"198.18.1.{n}" for n in range(100, 140)]
    world["client"].ip("\n".join(f"address add {a}/32 dev lo" for a in addresses))
    world["core"].ip("\n".join(f"route add {a} via 198.18.1.10" for a in addresses))
    with far(world) as ends:
        for family in FAMILIES:
            assert len(ends.connect(50, family)) == 1
        found = [ends.connect(3, to=address) for address in addresses]
    assert all(len(seen) == 1 for seen in found)
    assert {source for seen in found for source in seen} == {A[4], B[4]}


def test_a_member_leaves_and_returns(lab_world: LabWorld) -> None:
    """Other connections continue, and everything is balanced as before."""
    world = lab_world("two")
    configure(world)
    world.daemon()
    with far(world) as ends:
        eventually(lambda: len(ends.connect(20)) == 2, what="both have some")
        held = [sock for sock in ends.kept if sock.getsockname()[0] == A[4]]
        assert held
        theirs = {sock.getpeername(): sock for sock in ends.kept}
        before = world["host"].python(attach.read)
        watched.request(world, SetUplink("isp-b", "down"))
        assert set(ends.connect(100)) == {A[4]}
        watched.request(world, SetUplink("isp-b", "auto"))
        eventually(lambda: world["host"].python(attach.read) == before, what="as it was")
        assert_shared(ends.connect(SLOTS), 4)
        for sock in held:
            sock.send(b"alive")
            assert theirs[sock.getsockname()].recv(9) == b"alive"


def test_it_outlives_the_daemon(lab_world: LabWorld) -> None:
    world = lab_world("two")
    configure(world)
    child = world.daemon()
    eventually(lambda: len(programs(world)) == 2, what="it is laid")
    before = programs(world)
    child.send_signal(signal.SIGKILL)
    child.wait()
    with far(world) as ends:
        assert_shared(ends.connect(SLOTS), 4)
        world.daemon()
        watched.await_states(world, ["up"])
        assert programs(world) == before  # adopted, not laid anew
        assert_shared(ends.connect(SLOTS), 4)
        # what somebody takes away is put back
        world["host"].python(attach.remove)
        watched.request(world, Reload())
        assert_shared(ends.connect(SLOTS), 4)
    world.ifdefault("down", check=True)
    assert programs(world) == []


def programs(world: World) -> list[int]:
    """The ids of the attached programs."""

    def find() -> list[int]:
        return [each.program for each in attach.find()]

    return world["host"].python(find)


def test_without_rights_all_connections_use_the_primary(lab_world: LabWorld) -> None:
    """`check` reports it by its key, the daemon in its status; everything else is installed."""
    world = lab_world("two")
    configure(world)
    powerless = ["setpriv", "--bounding-set=-sys_admin,-bpf", "--inh-caps=-all", *world.command]
    done = world["host"].run([*powerless, "check"])
    told = [line for line in done.stderr.splitlines() if "outgoing.mode" in line]
    assert len(told) == 1, done.stderr
    assert "no program on connect()" in told[0]
    child = world["host"].popen([*powerless, "run"], stderr=subprocess.DEVNULL)
    eventually(lambda: listener(world.run_dir / SOCKET))
    watched.await_states(world, ["up"])
    said = watched.standing(world).problems
    assert sum("no program on connect()" in text for text in said) == 1
    assert world["host"].python(attach.read) is None
    with far(world) as ends:
        assert set(ends.connect(40)) == {A[4]}
    child.terminate()
    child.wait()
    world.daemon()
    eventually(lambda: programs(world), what="it is laid by who may")
