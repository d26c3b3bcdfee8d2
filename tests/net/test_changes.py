"""What changes after `apply` is taken in by `apply` again, and real traffic follows.

         ┌─ isp-a ── wan0 ┐
client ──┤                ├ host     routers that come and go, addresses, links, carriers
         └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

import os
import signal

from ifdefault.lab import faults
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from tests.net.conftest import LabWorld
from tests.net.evidence import TCP, UDP, Talk, tapped

A, B = ("203.0.113.10", "2001:db8:a::10"), ("198.51.100.10", "2001:db8:b::10")
C = ("192.0.2.10", "2001:db8:c::10")
CLIENT = ("198.18.1.10", "2001:db8:f:1::10")


def apply(world: World) -> None:
    done = world.ifdefault("apply")
    assert done.returncode == 0, done.stderr
    # what apply leaves behind it finds right: it is idempotent
    assert "nothing to do" in world.ifdefault("plan").stderr


def status(world: World) -> tuple[int, str]:
    done = world.ifdefault("status")
    return done.returncode, done.stdout


def answered(world: World, addresses: tuple[str, ...], dev: str) -> bool:
    """By TCP and UDP, and all of it by one interface."""
    for address in addresses:
        for kind in (TCP, UDP):
            with tapped(world["host"]) as tap:
                if not Talk(world["client"], world["host"], address, kind, wait_s=2.0).answered:
                    return False
            if tap.left_by(src=address) != {dev}:
                return False
    return True


def assert_soon_answered(world: World, addresses: tuple[str, ...], dev: str) -> None:
    """Neighbours are resolved anew after a change, which may cost a first try."""
    what = f"{addresses} answered by {dev}"
    eventually(lambda: answered(world, addresses, dev), what=what)


def unbound_leaves_by(world: World, dev: str) -> bool:
    for address in CLIENT:
        with tapped(world["host"]) as tap:
            if not Talk(world["host"], world["client"], address, wait_s=2.0).answered:
                return False
        if tap.left_by(dst=address) != {dev}:
            return False
    return True


def advertised(world: World) -> bool:
    listing = "ip -6 route show default dev wan1 proto ra table main".split()
    return bool(world["host"].run(listing).stdout)


def assert_advertised(world: World, wanted: bool) -> None:
    eventually(lambda: advertised(world) == wanted, what=f"a default by RA: {wanted}")


def test_an_advertised_default_that_expires_and_comes_back(lab_world: LabWorld) -> None:
    world = lab_world("v6only")
    assert_advertised(world, True)
    apply(world)
    assert_soon_answered(world, B[1:], "wan1")

    os.kill(int((world.dir / "radvd-isp-b.pid").read_text()), signal.SIGKILL)
    assert_advertised(world, False)
    code, told = status(world)
    assert code == 1
    assert "isp-b      pending: no gateway is known on wan1" in told
    assert "ip -6 route del default" in told
    apply(world)
    assert world["host"].run("ip -6 route show table 1002".split(), check=False).stdout == ""
    assert_soon_answered(world, A, "wan0")

    config = world.dir / "radvd-isp-b.conf"
    world["isp-b"].popen(["radvd", "-n", "-C", str(config), "-p", str(world.dir / "radvd.pid")])
    assert_advertised(world, True)
    assert status(world)[0] == 1
    apply(world)
    assert_soon_answered(world, B[1:], "wan1")
    assert status(world)[0] == 0


def test_a_router_with_a_new_mac(lab_world: LabWorld) -> None:
    world = lab_world("two")
    apply(world)
    assert_soon_answered(world, B, "wan1")
    with faults.injected(world, "router", "isp-b"):
        assert_soon_answered(world, B, "wan1")
        apply(world)
        assert_soon_answered(world, B, "wan1")
    assert status(world)[0] == 0


def test_renumbering(lab_world: LabWorld) -> None:
    """As a DHCP client does it: the old address goes, with its routes, and the new one comes."""
    world = lab_world("two")
    host = world["host"]
    apply(world)
    host.ip("address del 198.51.100.10/24 dev wan1\naddress del 2001:db8:b::10/48 dev wan1\n")
    host.ip(
        "address add 198.51.100.20/24 dev wan1\naddress add 2001:db8:b::20/48 dev wan1 nodad\n"
        "route replace default via 198.51.100.1 metric 100\n"
    )
    code, told = status(world)
    assert code == 1
    assert "from 198.51.100.20/32 lookup 1002" in told
    apply(world)
    assert_soon_answered(world, ("198.51.100.20", "2001:db8:b::20"), "wan1")
    for address, target in zip(("198.51.100.20", "2001:db8:b::20"), CLIENT, strict=True):
        assert Talk(host, world["client"], target, device="wan1")() == address
    left = host.run(["sh", "-c", "ip rule; ip -6 rule; ip route show table 1002"]).stdout
    assert "198.51.100.10" not in left
    assert "2001:db8:b::10" not in left
    assert not any(world.misrouted().values())


def test_an_interface_that_goes_down_and_up(lab_world: LabWorld) -> None:
    world = lab_world("two")
    host = world["host"]
    apply(world)
    host.ip("link set wan1 down\n")
    code, told = status(world)
    assert code == 1
    assert "isp-b      pending: interface wan1 is down" in told
    apply(world)
    assert_soon_answered(world, A, "wan0")
    host.ip("link set wan1 up\n")
    host.configure()
    apply(world)
    assert_soon_answered(world, A, "wan0")
    assert_soon_answered(world, B, "wan1")
    assert status(world)[0] == 0


def test_an_interface_that_flapped_unseen(lab_world: LabWorld) -> None:
    """Its routes are gone from every table, and nothing was told."""
    world = lab_world("two")
    host = world["host"]
    apply(world)
    host.ip("link set wan1 down\nlink set wan1 up\n")
    host.configure()
    code, told = status(world)
    assert code == 1
    assert "default via 198.51.100.1 dev wan1 src 198.51.100.10 table 1002" in told
    apply(world)
    assert_soon_answered(world, B, "wan1")


def test_an_interface_that_appears_later(lab_world: LabWorld) -> None:
    world = lab_world("three")
    host = world["host"]
    host.ip("link set wan2 down\nlink set wan2 name later0\n")
    apply(world)
    code, told = status(world)
    assert code == 1
    assert "isp-c      pending: interface wan2 doesn't exist" in told
    assert_soon_answered(world, A, "wan0")
    assert_soon_answered(world, B, "wan1")
    host.ip("link set later0 name wan2\nlink set wan2 up\n")
    host.configure()
    apply(world)
    assert_soon_answered(world, C, "wan2")
    assert status(world)[0] == 0
    assert not any(world.misrouted().values())


def test_the_normal_default_goes_where_there_is_a_carrier(lab_world: LabWorld) -> None:
    world = lab_world("two")
    apply(world)
    assert unbound_leaves_by(world, "wan0")
    with faults.injected(world, "carrier", "isp-a"):
        eventually(lambda: "wan0 (no carrier)" in status(world)[1], what="carrier lost")
        apply(world)
        eventually(lambda: unbound_leaves_by(world, "wan1"), what="wan1")
        assert_soon_answered(world, B, "wan1")
        assert "default via 203.0.113.1 dev wan0" in world["host"].run(["ip", "route"]).stdout
    eventually(lambda: "no carrier" not in status(world)[1], what="carrier back")
    apply(world)
    eventually(lambda: unbound_leaves_by(world, "wan0"), what="wan0 again")
    assert_soon_answered(world, A, "wan0")
    assert not any(world.misrouted().values())
