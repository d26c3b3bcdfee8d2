"""The source check: what leaves by an uplink with another uplink's source is counted, and dropped.

host 198.51.100.10 (B) ── a foreign rule ──> wan0 (A) ── isp-a refuses it, as real ones do
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing, suppress
from types import MappingProxyType

import pytest

from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from tests.net import answers
from tests.net.conftest import LabWorld

A, B = {4: "203.0.113.10", 6: "2001:db8:a::10"}, {4: "198.51.100.10", 6: "2001:db8:b::10"}
CLIENT = {4: "198.18.1.10", 6: "2001:db8:f:1::10"}
GATEWAY_A = {4: "203.0.113.1", 6: "2001:db8:a::1"}
STRANGER = {4: "192.0.2.77", 6: "2001:db8:77::1"}
FAMILIES = pytest.mark.parametrize("family", [4, 6])
PACKETS = 7


@FAMILIES
@pytest.mark.parametrize(
    ("mode", "counted", "left"),
    [("drop", PACKETS, 0), ("count", PACKETS, PACKETS), ("off", None, PACKETS)],
)
def test_what_is_forced_out_of_the_wrong_uplink(
    lab_world: LabWorld, family: int, mode: str, counted: int | None, left: int
) -> None:
    world = lab_world("two")
    answers.configure(world, f'[host]\nsource_check = "{mode}"')
    answers.apply(world)
    # a rule of somebody else's, above ours
    world["host"].ip(f"rule add pref 100 from {B[family]} lookup 77\n", f"-{family}")
    world["host"].ip(f"route add default via {GATEWAY_A[family]} table 77\n")
    _send(world, B[family], CLIENT[family], 9000)
    eventually(lambda: _refused(world) == left, what="refused by isp-a")
    assert _misrouted(world) == {"isp-a": counted, "isp-b": counted and 0}
    assert answers.status(world)["strangers"] == {}


@FAMILIES
@pytest.mark.parametrize(
    ("option", "value", "caught"),
    [("SO_MARK", 0x21000000, 0), ("SO_BINDTODEVICE", "wan0", PACKETS)],
)
def test_what_an_application_forces(
    lab_world: LabWorld, family: int, option: str, value: int | str, caught: int
) -> None:
    """B's address and A's device: dropped. With the outgoing mark of A the source rule wins."""
    world = _metered(lab_world)
    answers.apply(world)
    _send(world, B[family], CLIENT[family], 9000, 9000, {option: value})
    assert _misrouted(world) == {"isp-a": caught, "isp-b": 0}
    assert _refused(world) == 0


@FAMILIES
@pytest.mark.parametrize(
    ("option", "value"), [("SO_MARK", 0x21000000), ("SO_BINDTODEVICE", "wan0")]
)
def test_without_the_meter_a_rule_holds_a_source(
    lab_world: LabWorld, family: int, option: str, value: int | str
) -> None:
    """On a plain host there is no source check, and no packet leaves by the wrong uplink."""
    world = lab_world("two")
    world["host"].sysctl("net.ipv4.ip_forward", 0)
    answers.apply(world)
    assert _misrouted(world) == {"isp-a": None, "isp-b": None}
    _send(world, B[family], CLIENT[family], 9000, 9000, {option: value})
    assert _refused(world) == 0


@FAMILIES
def test_sources_that_nobody_owns_are_named_and_pass(lab_world: LabWorld, family: int) -> None:
    world = _metered(lab_world)
    length = {4: 32, 6: 128}[family]
    world["host"].ip(f"address add {STRANGER[family]}/{length} dev lo\n")
    answers.apply(world)
    _send(world, STRANGER[family], CLIENT[family], 9000)
    eventually(lambda: _refused(world) == PACKETS, what="it reached isp-a")
    assert answers.status(world)["strangers"] == {STRANGER[family]: PACKETS}
    assert f"{STRANGER[family]} ({PACKETS} p)" in world.ifdefault("status").stdout
    assert _misrouted(world) == {"isp-a": 0, "isp-b": 0}


@pytest.mark.parametrize(
    ("source", "target", "port"),
    [
        (B[4], "224.0.0.251", 5353),
        (B[6], "ff02::fb", 5353),
        (B[4], "255.255.255.255", 67),
        (B[4], GATEWAY_A[4], 67),  # a lease is renewed by unicast
        (B[6], "fe80::1", 9000),
    ],
)
def test_what_stays_on_the_link_is_exempt(
    lab_world: LabWorld, source: str, target: str, port: int
) -> None:
    world = _metered(lab_world)
    world["isp-a"].ip("address add fe80::1/64 dev cust0 nodad\n")
    answers.apply(world)
    sent = _sent(world)
    sender = 68 if port == 67 else port
    _send(world, source, target, sender, port, {"SO_BINDTODEVICE": "wan0"})
    assert _sent(world) >= sent + PACKETS
    found = answers.status(world)
    assert found["strangers"] == {}
    assert _misrouted(world) == {"isp-a": 0, "isp-b": 0}


def test_duplicate_address_detection_is_exempt(lab_world: LabWorld) -> None:
    world = _metered(lab_world)
    answers.apply(world)
    host = world["host"]
    host.sysctl("net.ipv6.conf.wan0.accept_dad", 1)
    host.ip("address add 2001:db8:a::99/48 dev wan0\n")

    def settled() -> bool:
        return "tentative" not in host.run(["ip", "-6", "address", "show", "dev", "wan0"]).stdout

    eventually(settled)
    assert answers.status(world)["strangers"] == {}
    assert _misrouted(world) == {"isp-a": 0, "isp-b": 0}


@FAMILIES
def test_what_is_forwarded_back_to_its_network_is_exempt(lab_world: LabWorld, family: int) -> None:
    """isp-a ──> wan0, host ──> wan0: the source isn't the host's to judge."""
    world = _metered(lab_world)
    world["host"].sysctl(f"net.ipv{family}.conf.all.forwarding", 1)
    answers.apply(world)
    beyond = {4: "192.0.2.200", 6: "2001:db8:77::200"}[family]
    length = {4: 32, 6: 128}[family]
    world["host"].ip(f"route add {beyond}/{length} via {GATEWAY_A[family]} dev wan0\n")
    world["isp-a"].ip(f"route add {beyond}/{length} via {A[family]}\n", f"-{family}")
    sent = _sent(world)
    with closing(answers.udp_socket(world["isp-a"], GATEWAY_A[family], 9000)) as sock:
        for _ in range(PACKETS):
            sock.sendto(b"hello", (beyond, 9000))
    eventually(lambda: _sent(world) >= sent + PACKETS, what="it was forwarded")
    assert answers.status(world)["strangers"] == {}
    assert _misrouted(world) == {"isp-a": 0, "isp-b": 0}


@FAMILIES
def test_frames_that_are_bridged_are_exempt(lab_world: LabWorld, family: int) -> None:
    """The uplink is a bridge with a guest's port; with br_netfilter, the guest's frames pass the
    hooks of IP. The guest has B's address: anything else would only be counted."""
    world = _metered(lab_world)
    host, guest = world["host"], world["client"]
    answers.configure(world, '[host]\nsource_check = "drop"')
    world.config.write_text(world.config.read_text().replace('"wan0"', '"br0"'))
    length = {4: 24, 6: 48}[family]
    host.ip(
        f"address flush dev wan0\nlink add br0 type bridge\nlink set wan0 master br0\n"
        f"link set br0 up\naddress add {A[family]}/{length} dev br0 {'nodad' * (family == 6)}\n"
        f"route add default via {GATEWAY_A[family]} dev br0 metric 50\n"
        f"link add port type veth peer name inside netns {guest.netns}\n"
        f"link set port master br0\nlink set port up\n"
    )
    knob = f"/proc/sys/net/bridge/bridge-nf-call-ip{'6' * (family == 6)}tables"
    # without it the frames pass no hook
    host.run(["sh", "-c", f"modprobe -q br_netfilter; [ ! -e {knob} ] || echo 1 >{knob}"])
    guest.ip(
        f"link set inside up\naddress add {B[family]}/{length} dev inside"
        f" {'nodad' * (family == 6)}\nroute add {GATEWAY_A[family]} dev inside\n"
    )
    answers.apply(world)
    seen = _received(world)
    with closing(answers.udp_socket(guest, B[family], 9000)) as sock:
        for _ in range(PACKETS):
            sock.sendto(b"hello", (GATEWAY_A[family], 9000))
    eventually(lambda: _received(world) >= seen + PACKETS, what="isp-a received it")
    assert answers.status(world)["strangers"] == {}
    assert _misrouted(world) == {"isp-a": 0, "isp-b": 0}
    # and the host's own are checked as ever
    _send(world, B[family], CLIENT[family], 9001, options={"SO_BINDTODEVICE": "br0"})
    assert _misrouted(world) == {"isp-a": PACKETS, "isp-b": 0}


def _metered(lab_world: LabWorld) -> World:
    """A host with a source check."""
    world = lab_world("two")
    answers.configure(world, '[host]\nsource_check = "drop"')
    return world


def _send(
    world: World,
    source: str,
    target: str,
    port: int,
    to_port: int = 9000,
    options: Mapping[str, int | str] = MappingProxyType({}),
) -> None:
    """Send PACKETS datagrams from a source; dropped or unroutable ones are refused."""
    options = {"SO_BROADCAST": 1, **options}
    with closing(answers.udp_socket(world["host"], source, port, options)) as sock:
        for _ in range(PACKETS):
            with suppress(OSError):
                sock.sendto(b"hello", (target, to_port))


def _misrouted(world: World) -> dict[str, int | None]:
    """The counters of the source check, by the uplink by which packets left."""
    return {row["name"]: row["misrouted"] for row in answers.status(world)["uplinks"]}


def _refused(world: World) -> int:
    return world.misrouted()["isp-a"]


def _sent(world: World) -> int:
    """The packets that the host has sent over wan0."""
    command = ["ip", "-j", "-s", "link", "show", "wan0"]
    return int(json.loads(world["host"].run(command).stdout)[0]["stats64"]["tx"]["packets"])


def _received(world: World) -> int:
    """The packets that isp-a has received over the host's link."""
    command = ["ip", "-j", "-s", "link", "show", "cust0"]
    return int(json.loads(world["isp-a"].run(command).stdout)[0]["stats64"]["rx"]["packets"])
