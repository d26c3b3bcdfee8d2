"""Each fault does what it says, to real packets, and ending it restores what was.

                ┌─ isp-a ── wan0 ┐   the host asks the gateway, and a target beyond it
client ── core ─┤                ├ host
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest

from ifdefault.lab import faults, registry
from ifdefault.lab.attempts import checksum
from ifdefault.lab.faults import inject, injected, remove
from ifdefault.lab.node import Node
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.errors import HostError
from tests.net.conftest import LabWorld

BEYOND = {4: "1.1.1.1", 6: "2606:4700:4700::1111"}
GATEWAY = {4: "203.0.113.1", 6: "2001:db8:a::1"}
FAMILIES = (4, 6)
SILENCE_S = 0.5  # no answer takes so long here


class Echo:
    """Echo requests to one target."""

    def __init__(self, node: Node, target: str) -> None:
        self._v6 = ":" in target
        family = socket.AF_INET6 if self._v6 else socket.AF_INET
        protocol = socket.IPPROTO_ICMPV6 if self._v6 else socket.IPPROTO_ICMP
        with node.enter():
            self._sock = socket.socket(family, socket.SOCK_RAW, protocol)
        self._target = target
        self._sent: dict[int, float] = {}
        self.answered: dict[int, float] = {}  # sequence number -> round-trip time, seconds

    def close(self) -> None:
        self._sock.close()

    def send(self) -> None:
        number = len(self._sent)
        message = struct.pack("!BBHHHI", 128 if self._v6 else 8, 0, 0, id(self) & 0xFFFF, 0, number)
        if not self._v6:
            message = message[:2] + checksum(message).to_bytes(2) + message[4:]
        self._sent[number] = time.monotonic()
        try:
            self._sock.sendto(message, (self._target, 0))
        except OSError:  # no route, no carrier: an answer won't come
            return

    def hear(self, until_s: float) -> None:
        """Take answers until a moment, or until all have come."""
        while len(self.answered) < len(self._sent):
            self._sock.settimeout(max(0.001, until_s - time.monotonic()))
            try:
                packet = self._sock.recv(2048)
            except TimeoutError:
                return
            data = packet if self._v6 else packet[20:]
            if data[0] == (129 if self._v6 else 0) and data[4:6] == struct.pack(
                "!H", id(self) & 0xFFFF
            ):
                (number,) = struct.unpack("!I", data[8:12])
                self.answered.setdefault(number, time.monotonic() - self._sent[number])

    def rate(self, count: int) -> float:
        """Ask so often; return the share that was answered."""
        before = len(self.answered)
        for _ in range(count):
            self.send()
            self.hear(time.monotonic())
        self.hear(time.monotonic() + SILENCE_S)
        return (len(self.answered) - before) / count


@contextmanager
def asking(node: Node, target: str) -> Iterator[Echo]:
    echo = Echo(node, target)
    try:
        yield echo
    finally:
        echo.close()


def answers(node: Node, target: str) -> bool:
    with asking(node, target) as echo:
        return echo.rate(1) == 1


def silent(node: Node, target: str) -> bool:
    return not answers(node, target)


def rtt_ms(node: Node, target: str) -> float:
    """The best of three."""
    with asking(node, target) as echo:
        for _ in range(3):
            echo.send()
            echo.hear(time.monotonic() + 1.0)
        return 1000 * min(echo.answered.values())


def await_rtt(node: Node, target: str, least_ms: float, below_ms: float) -> None:
    """A busy machine may add to it; never does it take away."""

    def in_bounds() -> bool:
        taken_ms = rtt_ms(node, target)
        assert taken_ms >= least_ms
        return taken_ms < below_ms

    eventually(in_bounds, what=f"less than {below_ms:g} ms")


def carrier(world: World) -> bool:
    return "NO-CARRIER" not in world["host"].run(["ip", "link", "show", "wan0"]).stdout


def assert_whole(world: World) -> None:
    """Everything answers, and goes on answering."""
    host = world["host"]
    targets = [*GATEWAY.values(), *BEYOND.values()]
    eventually(lambda: all(answers(host, target) for target in targets), what="all answer")
    for target in targets:
        with asking(host, target) as echo:
            assert echo.rate(20) == 1
    assert carrier(world)


# --- faults that stand ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "gateway", "link"),
    [
        ("carrier", False, False),
        ("blackhole", True, True),
        ("gateway", False, True),
        ("no-inbound", True, True),
        ("no-outbound", True, True),
    ],
)
def test_nothing_beyond_answers(lab_world: LabWorld, fault: str, gateway: bool, link: bool) -> None:
    world = lab_world("two")
    host = world["host"]
    assert_whole(world)
    with injected(world, fault, "isp-a"):
        for family in FAMILIES:
            assert not answers(host, BEYOND[family])
            assert answers(host, GATEWAY[family]) is gateway
        assert carrier(world) is link
        assert answers(host, "198.51.100.1")  # the other provider suffers nothing
    assert_whole(world)


def test_a_dead_router_is_silent_on_the_link_too(lab_world: LabWorld) -> None:
    """Not even ARP and ND are answered, and a new neighbour entry can't come to be."""
    world = lab_world("two")
    host = world["host"]
    assert_whole(world)

    def known() -> str:
        return host.run(["ip", "neighbour", "show", "dev", "wan0", "nud", "reachable"]).stdout

    with injected(world, "gateway", "isp-a"):
        host.run(["ip", "neighbour", "flush", "dev", "wan0"])
        assert not any(answers(host, target) for target in GATEWAY.values())
        assert known() == ""
        assert carrier(world)
    eventually(lambda: all(answers(host, target) for target in GATEWAY.values()))
    assert known()


@pytest.mark.parametrize(("fault", "heard"), [("no-inbound", False), ("no-outbound", True)])
def test_one_way_faults_take_one_way(lab_world: LabWorld, fault: str, heard: bool) -> None:
    world = lab_world("two")

    def questions() -> int:
        """Echo requests that reached the host."""
        lines = world["host"].run(["nstat", "-asz", "IcmpInEchos"]).stdout
        return int(lines.split("IcmpInEchos")[1].split()[0])

    with injected(world, fault, "isp-a"):
        before = questions()
        assert not answers(world["client"], "203.0.113.10")
        assert (questions() > before) is heard
    assert answers(world["client"], "203.0.113.10")


@pytest.mark.parametrize("amount", [20, 60])
def test_loss_takes_its_share_both_ways(lab_world: LabWorld, amount: int) -> None:
    world = lab_world("two")
    both = 1 - (1 - amount / 100) ** 2
    with injected(world, "loss", "isp-a", amount=amount):
        for target in BEYOND.values():
            with asking(world["host"], target) as echo:
                lost = 1 - echo.rate(1000)
            # five standard deviations
            assert abs(lost - both) < 5 * (both * (1 - both) / 1000) ** 0.5
    assert_whole(world)


@pytest.mark.parametrize(
    ("fault", "policed", "free"),
    [
        ("police", GATEWAY, BEYOND),
        ("police-beyond", BEYOND, GATEWAY),
        ("police-path", BEYOND, GATEWAY),
    ],
)
def test_police_lets_a_few_echo_requests_through(
    lab_world: LabWorld, fault: str, policed: dict[int, str], free: dict[int, str]
) -> None:
    world = lab_world("two")
    host = world["host"]
    with injected(world, fault, "isp-a"), ExitStack() as stack:
        for family in FAMILIES:
            assert stack.enter_context(asking(host, free[family])).rate(40) == 1
        begun = time.monotonic()
        echo = stack.enter_context(asking(host, policed[4]))
        echo.rate(40)
        # five at once, and five for each second since
        assert 1 <= len(echo.answered) <= 6 + 5 * (time.monotonic() - begun)
        # and again, as they come back
        eventually(lambda: answers(host, policed[4]), what="an answer")
        eventually(lambda: answers(host, policed[6]), what="an answer")
    with injected(world, fault, "isp-a", amount=1000), asking(host, policed[4]) as echo:
        assert echo.rate(40) == 1
    assert_whole(world)


def test_a_replaced_router_has_another_mac(lab_world: LabWorld) -> None:
    world = lab_world("two")

    def mac() -> str:
        answers(world["host"], GATEWAY[4])
        told = world["host"].run(["ip", "neighbour", "show", GATEWAY[4]]).stdout
        return told.partition("lladdr ")[2].partition(" ")[0]

    own = mac()
    assert own
    with injected(world, "router", "isp-a"):
        eventually(lambda: mac() not in (own, ""), what="another MAC")
        assert answers(world["host"], BEYOND[4])
    eventually(lambda: mac() == own, what="its own MAC")
    assert_whole(world)


# --- faults that take time ------------------------------------------------------------------


def runs_of_loss(echo: Echo, count: int, patience_s: float) -> list[int]:
    """Ask every 10 ms until so many runs of losses are over; return their lengths."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        echo.send()
        echo.hear(time.monotonic() + 0.01)
        late = max(0, len(echo._sent) - 5)  # may still come
        text = "".join(".x"[number not in echo.answered] for number in range(late))
        found = [len(run) for run in re.findall(r"(?<=\.)x+(?=\.)", "." + text)]
        if len(found) >= count:
            return found
    raise TimeoutError(f"fewer than {count} bursts in {patience_s:g} s")


@pytest.mark.parametrize("family", FAMILIES)
def test_bursts_lose_everything_for_a_while(lab_world: LabWorld, family: int) -> None:
    world = lab_world("two")
    with (
        injected(world, "bursts", "isp-a", amount=100, every_s=0.3),
        asking(world["host"], BEYOND[family]) as echo,
    ):
        runs = runs_of_loss(echo, count=8, patience_s=20.0)
        # losses by chance would come one by one
        assert max(runs) >= 3
        assert len(echo.answered) > 2 * len(runs)
        assert answers(world["host"], GATEWAY[family])
    assert_whole(world)


@pytest.mark.parametrize("name", ["two", "same-gateway"])
def test_flapping_takes_the_carrier_again_and_again(lab_world: LabWorld, name: str) -> None:
    """And the routes that went with it come back, some of which only a topology knows of."""
    world = lab_world(name)
    host = world["host"]
    with injected(world, "flapping", "isp-a", amount=1):
        for _ in range(2):
            eventually(lambda: not carrier(world), what="no carrier")
            eventually(lambda: carrier(world), what="a carrier")
            eventually(lambda: answers(host, BEYOND[4]), what="an answer")
    assert carrier(world)
    for target in BEYOND.values():
        eventually(partial(answers, host, target), what="an answer")
        with asking(host, target) as echo:
            over = time.monotonic() + 1.2  # longer than a period
            while time.monotonic() < over:
                assert echo.rate(1) == 1


def test_flapping_beyond_leaves_the_carrier(lab_world: LabWorld) -> None:
    world = lab_world("two")
    host = world["host"]
    with injected(world, "flapping-beyond", "isp-a", amount=1):
        for family in FAMILIES:
            eventually(partial(silent, host, BEYOND[family]), what="silence")
            assert carrier(world)
            assert answers(host, GATEWAY[family])
            eventually(partial(answers, host, BEYOND[family]), what="an answer")
    assert_whole(world)


@pytest.mark.parametrize("name", ["two", "neighbour", "p2p", "vrrp", "same-gateway"])
def test_delay_takes_its_time_each_way(lab_world: LabWorld, name: str) -> None:
    world = lab_world(name)
    host, client = world["host"], world["client"]
    world.ifdefault("apply", check=True)  # or IPv6 takes the wrong source on a shared LAN
    own = {4: "203.0.113.10", 6: "2001:db8:a::10"}
    for family in FAMILIES:
        eventually(partial(answers, client, own[family]), what="an answer")
    with injected(world, "delay", "isp-a", amount=50):
        for family in FAMILIES:
            await_rtt(host, BEYOND[family], 100, 200)
            await_rtt(client, own[family], 100, 200)
    await_rtt(host, BEYOND[4], 0, 50)
    assert not sum(world.misrouted().values())


def test_delay_loses_nothing_at_thousands_a_second(lab_world: LabWorld) -> None:
    world = lab_world("two")
    with asking(world["host"], BEYOND[4]) as first:  # now all MACs on the way are known
        first.send()
        first.hear(time.monotonic() + 2.0)
        assert first.answered
    with (
        injected(world, "delay", "isp-a", amount=20),
        asking(world["host"], BEYOND[4]) as echo,
    ):
        begun = time.monotonic()
        for _ in range(4000):
            echo.send()
            if len(echo._sent) % 20 == 0:
                echo.hear(time.monotonic() + 0.004)
        echo.hear(time.monotonic() + 2.0)
        assert len(echo.answered) == 4000
        assert 4000 / (time.monotonic() - begun) > 1000
        assert min(echo.answered.values()) >= 0.040


# --- other addresses ------------------------------------------------------------------------


def state(world: World) -> list[str]:
    """Addresses and routes of the host and the routers."""
    nodes = [world["host"], *(world[p.name] for p in world.topology.providers)]
    looks = ["ip -o address", "ip -4 route", "ip -6 route"]
    text = "".join(node.run(look.split()).stdout for node in nodes for look in looks)
    # lifetimes run, and the order of what was put back isn't the old one
    lasting = re.sub(r"(?m)(valid_lft|preferred_lft|expires) \S+|^\d+: ", "", text)
    return sorted(lasting.splitlines())


RENUMBERED = ["two", "p2p", "same-gateway", "linklocal", "shared-lan", "v6only", "many-addresses"]


@pytest.mark.parametrize("name", RENUMBERED)
def test_a_renumbered_host_has_other_addresses(lab_world: LabWorld, name: str) -> None:
    world = lab_world(name)
    client = world["client"]
    renewed = faults.renewed(world, "renumber", "isp-b")
    assert renewed
    assert not set(renewed) & set(renewed.values())
    if name == "v6only":
        eventually(lambda: any("proto ra" in line for line in state(world)), what="radvd")
    before = state(world)
    with injected(world, "renumber", "isp-b"):
        told = world["host"].run(["ip", "-br", "address"]).stdout
        for old, new in renewed.items():
            assert f" {new}/" in told or f" {new} " in told
            assert f" {old}/" not in told
            assert f" {old} " not in told
        (world.dir / "ifdefault.toml").write_text(respelled(world.topology.config, renewed))
        world.ifdefault("apply", check=True)
        for new in renewed.values():
            eventually(partial(answers, client, new), what=f"{new} answers")
        assert not any(answers(client, old) for old in renewed)
        world.ifdefault("down", check=True)
    eventually(lambda: state(world) == before, what="all as it was")


def respelled(text: str, renewed: dict[str, str]) -> str:
    for old, new in renewed.items():
        text = text.replace(f'"{old}"', f'"{new}"')
    return text


@pytest.mark.parametrize("name", ["two", "p2p", "same-gateway", "linklocal", "neighbour"])
def test_a_router_with_other_addresses_is_followed_by_main(lab_world: LabWorld, name: str) -> None:
    world = lab_world(name)
    host = world["host"]
    renewed = faults.renewed(world, "regateway", "isp-a")
    assert renewed
    before = state(world)
    with injected(world, "regateway", "isp-a"):
        defaults = "".join(
            host.run(["ip", o, "route", "show", "default"]).stdout for o in ("-4", "-6")
        )
        for old, new in renewed.items():
            assert f" {new} dev wan0" in defaults
            assert f" {old} dev wan0" not in defaults
        for target in BEYOND.values():
            eventually(partial(answers, host, target), what="an answer")
    assert state(world) == before
    eventually(lambda: all(answers(host, target) for target in BEYOND.values()))


# --- several at once, and several processes -------------------------------------------------


def test_faults_stand_together(lab_world: LabWorld) -> None:
    world = lab_world("two")
    host = world["host"]
    with injected(world, "delay", "isp-a", amount=30):
        with injected(world, "no-inbound", "isp-a"), injected(world, "loss", "isp-a", amount=20):
            assert set(faults.active(world, "isp-a")) == {"delay", "no-inbound", "loss"}
            assert not answers(host, BEYOND[4])
            with injected(world, "carrier", "isp-a"), injected(world, "regateway", "isp-a"):
                assert not carrier(world)
        await_rtt(host, BEYOND[4], 60, 100)
        # a relay doesn't lose twice
        with injected(world, "loss", "isp-a", amount=50), asking(host, BEYOND[4]) as echo:
            assert abs(echo.rate(1000) - 0.25) < 0.07
    assert faults.active(world, "isp-a") == ()
    assert_whole(world)


def test_a_fault_again_is_another_amount(lab_world: LabWorld) -> None:
    world = lab_world("two")
    inject(world, "delay", "isp-a", amount=200)
    inject(world, "delay", "isp-a", amount=20)
    await_rtt(world["host"], BEYOND[4], 40, 80)
    remove(world, "delay", "isp-a")
    assert_whole(world)


def test_what_cannot_stand_together_is_refused(lab_world: LabWorld) -> None:
    world = lab_world("two")
    with injected(world, "carrier", "isp-a"):
        with pytest.raises(
            HostError, match='isp-a: "carrier" is active and changes the carrier too'
        ):
            inject(world, "flapping", "isp-a")
        with injected(world, "flapping", "isp-b"):
            assert faults.active(world, "isp-b") == ("flapping",)
    assert_whole(world)
    with pytest.raises(HostError, match="use 1 to 99"):
        inject(world, "loss", "isp-a", amount=100)
    with pytest.raises(HostError, match='"blackhole" has no amount'):
        inject(world, "blackhole", "isp-a", amount=1)
    with pytest.raises(HostError, match="can't occur every 3 s"):
        inject(world, "loss", "isp-a", every_s=3)
    assert faults.active(world, "isp-a") == ()


def test_ending_what_is_not_there_does_no_harm(lab_world: LabWorld) -> None:
    world = lab_world("two")
    before = state(world)
    for fault in faults.FAULTS:
        remove(world, fault, "isp-a")
        assert state(world) == before, fault
        assert all(answers(world["host"], target) for target in BEYOND.values()), fault


@pytest.mark.parametrize("fault", ["bursts", "flapping", "flapping-beyond", "delay", "renumber"])
def test_another_process_ends_it(lab_world: LabWorld, fault: str) -> None:
    """What `ifdefault lab fault --undo` does to a fault that we laid, and `lab down` to all."""
    world = lab_world("two")
    inject(world, fault, "isp-a")
    started = [entry.split() for entry in registry.entries(world.name, "processes")]
    assert len(started) == (fault != "renumber")
    other = World.adopt(world.name)
    assert faults.active(other, "isp-a") == (fault,)
    remove(other, fault, "isp-a")
    assert not any(registry.start_time(int(pid)) == int(start) for pid, start in started)
    assert registry.entries(world.name, "processes") == {}
    assert_whole(world)


def test_faults_end_with_the_world(lab_world: LabWorld) -> None:
    world = lab_world("two")
    adopted = World.adopt(world.name)
    for fault in ("bursts", "delay", "flapping"):
        inject(adopted, fault, "isp-b")
    started = [entry.split() for entry in registry.entries(world.name, "processes")]
    assert len(started) == 3
    world.down()  # it didn't start them
    assert not any(registry.start_time(int(pid)) == int(start) for pid, start in started)
    adopted.down()
