"""MPTCP connections go on while the provider dies over which they began, and after it returns.

                ┌─ isp-a ── wan0 ┐   203.0.113.10, 2001:db8:a::10; seen as 203.0.113.99 by a NAT
client ── core ─┤                ├ host     the daemon announces both
                └─ isp-b ── wan1 ┘   198.51.100.10, 2001:db8:b::10
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ifdefault.kernel.mptcp import read
from ifdefault.lab import faults
from ifdefault.lab.waiting import PATIENCE_S, eventually
from ifdefault.lab.world import World
from ifdefault.model.config import FAMILIES
from ifdefault.model.mptcp import Endpoint
from tests.net.conftest import LabWorld
from tests.net.farend import AF, A, B
from tests.net.watched import await_states

MPTCP = 262  # IPPROTO_MPTCP
PORT = 8080
OUTSIDE = "203.0.113.99"
NAT = f"""\
table ip nat {{
  chain c {{
    type nat hook prerouting priority dstnat;
    ip daddr {OUTSIDE} dnat to {A[4]};
  }};
}}
"""
FOREIGN = Endpoint(7, "192.0.2.7", signal=True)
OURS_B = {250: B[4], 248: B[6]}
OURS = {253: OUTSIDE, 252: A[6]} | OURS_B


def endpoints(world: World) -> dict[int, str]:
    """Those of ours, with "backup" behind those that are; the foreign one is there."""
    state = world["host"].python(read)
    assert state is not None
    assert FOREIGN in state.endpoints
    own = {e.id for e in state.endpoints if e.ours}
    assert {253, 254}.isdisjoint(own) or {253, 254} <= own, "with the address behind the NAT"
    return {
        e.id: f"{e.address}{' backup' if e.backup else ''}"
        for e in state.endpoints
        if e.ours and e.signal
    }


def subflows(world: World, address: str) -> int:
    """How many connections come in over an address."""
    source = f"src [{address}]" if ":" in address else f"src {address}"
    listed = world["host"].run(["ss", "-Htn", "state", "established", *source.split()])
    return len(listed.stdout.splitlines())


class Echo:
    """A connection that is used all the time: every 20 ms a few bytes go to the host and back."""

    def __init__(self, sock: socket.socket) -> None:
        self.count = 0
        self.error = ""
        self._sock, self._ended = sock, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._ended.wait(0.02):
                self._sock.sendall(b"x" * 1000)
                left = 1000
                while left:
                    left -= len(self._sock.recv(left)) or left * 2
                self.count += 1
        except (OSError, ValueError) as error:
            self.error = repr(error)

    def works(self) -> None:
        """It does now, and hasn't ended."""
        count = self.count
        eventually(lambda: self.error or self.count > count, what="the connection goes on")
        assert not self.error

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._sock.close()


def serve(listener: socket.socket) -> None:
    def echo(sock: socket.socket) -> None:
        with sock:
            while data := sock.recv(4096):
                sock.sendall(data)

    try:
        while True:
            threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()
    except OSError:
        return  # closed


@contextmanager
def echoes(world: World) -> Iterator[list[Echo]]:
    """One of each family, which began over isp-a."""
    world["client"].run(["ip", "mptcp", "limits", "set", "subflows", "8", "add_addr_accepted", "8"])
    with ExitStack() as stack:
        listener = world["host"].python(lambda: socket.socket(socket.AF_INET6, 1, MPTCP))
        stack.callback(listener.close)
        stack.callback(listener.shutdown, socket.SHUT_RDWR)
        listener.bind(("::", PORT))
        listener.listen()
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        found = []
        for family in FAMILIES:
            sock = world["client"].python(lambda: socket.socket(AF[family], 1, MPTCP))  # noqa: B023
            sock.settimeout(PATIENCE_S)
            sock.connect((OUTSIDE if family == 4 else A[6], PORT))
            found.append(Echo(sock))
            stack.callback(found[-1].close)
        yield found


def test_connections_survive_their_provider(lab_world: LabWorld) -> None:
    world = lab_world("two")
    host = world["host"]
    host.run(["ip", "mptcp", "endpoint", "add", FOREIGN.address, "id", "7", "signal"])
    host.run(["ip", "mptcp", "limits", "set", "subflows", "3"])
    before = host.python(read)
    world["isp-a"].nft(NAT)
    outside = f'"wan0"\npublic = ["{OUTSIDE}"]'
    config = world.topology.config.replace('"wan0"', outside, 1)
    world.config.write_text(f"{config}[health]\nrecover_s = 0.3\n[mptcp]\nannounce = true\n")
    world.daemon()
    await_states(world, ["up"])
    eventually(lambda: endpoints(world) == OURS, what="all addresses are announced")
    with echoes(world) as connections:
        everywhere = [*A.values(), *B.values()]
        eventually(lambda: all(subflows(world, a) for a in everywhere), what="two subflows each")
        with faults.injected(world, "blackhole", "isp-a"):
            await_states(world, ["down"], "isp-a")
            eventually(lambda: endpoints(world) == OURS_B, what="isp-a's are gone")
            for connection in connections:
                connection.works()
        eventually(lambda: endpoints(world) == OURS, what="they are back")
        eventually(lambda: all(subflows(world, a) for a in everywhere), what="two again")

        host.run(["ip", "mptcp", "endpoint", "delete", "id", "252"])
        host.run(["ip", "mptcp", "limits", "set", "subflows", "1"])
        eventually(lambda: endpoints(world) == OURS, what="what others delete is repaired")
        world.ifdefault("apply", check=True)  # nothing is left to be done
        host.run(["ip", "mptcp", "endpoint", "add", "192.0.2.9"])  # the kernel chooses its id
        found = host.python(read)
        assert found is not None
        theirs = next(e for e in found.endpoints if e.address == "192.0.2.9")
        assert not theirs.ours
        host.run(["ip", "mptcp", "endpoint", "delete", "id", str(theirs.id)])
        world.ifdefault("uplink", "isp-b", "drain", check=True)
        backup = {250: f"{B[4]} backup", 248: f"{B[6]} backup"}
        eventually(lambda: endpoints(world) == OURS | backup, what="a drained uplink is backup")
        for connection in connections:
            connection.works()
        world.ifdefault("uplink", "isp-b", "down", check=True)
        eventually(lambda: endpoints(world) == OURS | backup, what="it works, and so it stays")
        state = host.python(read)
        assert state is not None
        assert dict(state.limits) == {"subflows": 8, "add_addr_accepted": 8}
    world.ifdefault("down", check=True)
    assert host.python(read) == before
