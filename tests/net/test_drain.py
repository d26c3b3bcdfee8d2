"""An uplink is drained: what is left on it is counted, and it goes down when its time is over.

                ┌─ isp-a ── wan0 ┐   isp-a is drained
client ── core ─┤                ├ host
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

import shlex
import signal

from ifdefault.kernel.count_connections import Selector, connections
from ifdefault.lab.waiting import PATIENCE_S, eventually
from ifdefault.lab.world import World
from tests.net import watched
from tests.net.conftest import LabWorld
from tests.net.watched import await_default, await_states, standing, start
from tests.net.wires import Wires

DRAINED, OTHER, CLIENT = "203.0.113.10", "198.51.100.10", "198.18.1.10"
LAN, LAN_HOST = "192.168.1.0/24", "192.168.1.10"
ARRIVAL, OUTGOING, MASK = 0x01000000, 0x21000000, 0x3F000000
TRACKED = """\
table inet tracked {
  chain output { type filter hook output priority 0; ct state new accept; }
}
"""


def left(world: World) -> int | None:
    [drain] = standing(world).drains
    return drain.connections


def test_what_is_left_is_counted_until_nothing_is(lab_world: LabWorld) -> None:
    world = lab_world("two")
    start(world)
    wires = Wires(world)
    with wires.stack:
        here = wires.listen("host", "::")
        there = wires.listen("client", CLIENT)
        coming = wires.connect("client", here, DRAINED)
        going = wires.connect("host", there, CLIENT, source=DRAINED)
        wires.connect("client", here, OTHER)
        drained = world.ifdefault("uplink", "isp-a", "drain", "--timeout", "10m", check=True)
        assert drained.stdout.startswith("isp-a: auto -> drain, then down at ")
        eventually(lambda: left(world) == 2, what="both are counted")
        [drain] = standing(world).drains
        assert 0.0 <= drain.oldest_s < PATIENCE_S
        assert drain.until_s is not None
        assert 500 < drain.until_s - standing(world).now_s <= 600
        assert "isp-a: draining until " in world.ifdefault("status").stdout
        assert ", 2 connections left, the oldest for at least " in world.ifdefault("uplink").stdout
        for end in (going.ours, going.theirs):
            end.close()
        eventually(lambda: left(world) == 1, what="one is left")

        world.ifdefault("uplink", "isp-a", "drain", "--timeout", "1s", check=True)
        eventually(lambda: standing(world).forced == {"isp-a": "down"}, what="it is down")
        assert standing(world).drains == ()
        assert coming.alive, "what came in is not cut"
    text = "isp-a: forced drain -> down, since its timeout is over"
    assert text in watched.events(world, "uplink")
    await_default(world, "wan1")


def test_a_restart_forgets_no_timeout(lab_world: LabWorld) -> None:
    world = lab_world("two")
    daemon = world.daemon()
    await_states(world, ["up"])
    world.ifdefault("uplink", "isp-a", "drain", "--timeout", "10m", check=True)
    world.ifdefault("uplink", "isp-b", "drain", "--timeout", "10m", check=True)
    world.ifdefault("uplink", "isp-b", "drain", check=True)
    world.ifdefault("uplink", "isp-b", "auto", check=True)
    eventually(
        lambda: "isp-a: no connections left" in watched.events(world, "uplink"),
        what="nothing is left",
    )
    daemon.send_signal(signal.SIGTERM)
    daemon.wait(PATIENCE_S)
    world.daemon()
    [drain] = standing(world).drains
    assert (drain.uplink, standing(world).forced) == ("isp-a", {"isp-a": "drain"})
    assert drain.until_s is not None
    assert 500 < drain.until_s - standing(world).now_s <= 600


def test_flows_of_which_there_are_both_ends(lab_world: LabWorld) -> None:
    """As connection tracking has them: the host's own of UDP, and those that it forwards."""
    world = lab_world("two")
    host = world["host"]
    host.nft(TRACKED)
    goes_on, marked = "-u ASSURED,SEEN_REPLY", f"-m {ARRIVAL:#x}"
    lasts = f"--state ESTABLISHED {goes_on}"
    own = f"-s {CLIENT} -d {DRAINED}"

    def translated(ends: str, answers: str, to: str, ports: tuple[int, int]) -> str:
        sport, dport = ports
        reply = f"--reply-src {answers} --reply-dst {to}"
        reply += f" --reply-port-src {dport} --reply-port-dst {sport}"
        return f"{ends} --sport {sport} --dport {dport} {reply}"

    def published(*ports: int) -> str:
        return translated(own, LAN_HOST, CLIENT, (ports[0], ports[1]))

    masqueraded = translated(f"-s {LAN_HOST} -d {CLIENT}", CLIENT, DRAINED, (4, 80))
    counted = [
        f"-p udp {own} --sport 1 --dport 443 {goes_on}",
        f"-p udp -s {DRAINED} -d {CLIENT} --sport 2 --dport 443 {goes_on}",
        f"-p tcp {published(3, 80)} {lasts} {marked}",
        f"-p tcp {masqueraded} {lasts} -m {OUTGOING:#x}",
        f"-p udp {published(5, 443)} {marked} {goes_on}",
    ]
    others = [
        f"-p udp {own} --sport 6 --dport 53 {goes_on}",
        f"-p udp {own} --sport 7 --dport 443 -u SEEN_REPLY",
        f"-p udp -s {LAN_HOST} -d {DRAINED} --sport 8 --dport 443 {goes_on}",
        f"-p udp -s {CLIENT} -d {OTHER} --sport 9 --dport 443 {goes_on}",
        f"-p tcp {own} --sport 10 --dport 80 {lasts} {marked}",
        f"-p tcp {published(11, 80)} --state TIME_WAIT {goes_on} {marked}",
        f"-p tcp {published(12, 80)} {lasts} -m 0x02000000",
    ]
    for entry in (*counted, *others):
        host.run(["conntrack", "-I", "-t", "600", *shlex.split(entry)])
    selector = Selector(
        (DRAINED, "2001:db8:a::10"), (ARRIVAL, OUTGOING), MASK, (LAN,), (DRAINED, OTHER)
    )
    found = host.python(lambda: connections(selector))
    assert len(found) == len(counted)
