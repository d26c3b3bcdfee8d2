"""What the host's own programs choose, they get: a device, an address, a mark, or nothing.

         ┌─ isp-a ── wan0 ┐
client ──┼─ isp-b ── wan1 ┤ host     a server at the client says whom it sees,
         └─ isp-c ── wan2 ┘          a packet socket at the host where it left

Main has a default by each of the first two, and none by the third.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ifdefault.lab.world import World
from tests.net.conftest import LabWorld
from tests.net.evidence import TCP, UDP, Talk, tapped

CLIENT = ("198.18.1.10", "2001:db8:f:1::10")
OWN = {
    "wan0": ("203.0.113.10", "2001:db8:a::10"),
    "wan1": ("198.51.100.10", "2001:db8:b::10"),
    "wan2": ("192.0.2.10", "2001:db8:c::10"),
}
CHOSEN = {"wan0": 0x21000000, "wan1": 0x22000000, "wan2": 0x23000000}
KINDS = (TCP, UDP)


@pytest.fixture
def world(lab_world: LabWorld) -> World:
    world = lab_world("three")
    assert world.ifdefault("apply").returncode == 0
    return world


def leaves(world: World, dev: str, target: str, **options: str | int) -> Iterator[str]:
    """Exchange TCP and UDP with the client; return what doesn't leave by `dev` from its address."""
    own = OWN[dev][":" in target]
    for kind in KINDS:
        talk = Talk(world["host"], world["client"], target, kind, **options)  # type: ignore[arg-type]
        with tapped(world["host"]) as tap:
            seen = talk()
        if (seen, tap.left_by(dst=target)) != (own, {dev}):
            yield f"{talk}: seen as {seen}, left by {tap.left_by(dst=target)}"


@pytest.mark.parametrize("dev", OWN)
def test_a_socket_on_a_device_leaves_by_it(world: World, dev: str) -> None:
    for target in CLIENT:
        assert not list(leaves(world, dev, target, device=dev))


@pytest.mark.parametrize("dev", OWN)
def test_a_socket_on_an_address_leaves_by_its_uplink(world: World, dev: str) -> None:
    for target, source in zip(CLIENT, OWN[dev], strict=True):
        assert not list(leaves(world, dev, target, source=source))


@pytest.mark.parametrize("dev", OWN)
def test_an_outgoing_mark_picks_the_uplink(world: World, dev: str) -> None:
    for target in CLIENT:
        assert not list(leaves(world, dev, target, mark=CHOSEN[dev]))


def test_an_unbound_socket_uses_the_primary(world: World) -> None:
    for target in CLIENT:
        assert not list(leaves(world, "wan0", target))


def test_the_primary_is_chosen_by_rank_and_main_stays(world: World) -> None:
    host = world["host"]
    listings = ["ip -4 route show table main".split(), "ip -6 route show table main".split()]
    before = [host.run(listing).stdout for listing in listings]
    config = world.config.read_text()
    world.config.write_text(
        config.replace('"wan0"', '"wan0"\nrank = 1').replace('"wan2"', '"wan2"\nrank = 2')
    )
    assert world.ifdefault("apply").returncode == 0
    for target in CLIENT:
        assert not list(leaves(world, "wan1", target))
        assert not list(leaves(world, "wan0", target, device="wan0"))
    assert [host.run(listing).stdout for listing in listings] == before
    world.config.write_text(config)
    assert world.ifdefault("apply").returncode == 0
    for target in CLIENT:
        assert not list(leaves(world, "wan0", target))
    assert not any(world.misrouted().values())


@pytest.mark.parametrize("dev", OWN)
def test_ping_from_a_device_and_from_an_address(world: World, dev: str) -> None:
    for target, own in zip(CLIENT, OWN[dev], strict=True):
        for choice in (dev, own):
            with tapped(world["host"]) as tap, tapped(world["client"]) as there:
                world["host"].run(["ping", "-n", "-c", "1", "-W", "5", "-I", choice, target])
            assert tap.left_by(src=own, dst=target) == {dev}
            assert there.came_by(src=own, dst=target)
    assert not any(world.misrouted().values())


def test_a_device_without_an_address_for_the_family_is_no_way_around(lab_world: LabWorld) -> None:
    """IPv6 only: without IPv4 there, the kernel uses no other uplink instead."""
    world = lab_world("v6only")
    assert world.ifdefault("apply").returncode == 0
    talk = Talk(world["host"], world["client"], CLIENT[0], device="wan1", wait_s=0.5)
    with tapped(world["host"]) as tap:
        assert not talk.answered
    assert "wan0" not in tap.left_by(dst=CLIENT[0])
