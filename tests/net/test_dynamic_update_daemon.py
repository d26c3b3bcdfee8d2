"""The whole daemon says by dynamic update which uplinks lead to the host.

                ┌─ isp-a ── wan0 ┐
client ── core ─┤                ├ host: ifdefault run
        server  └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

from pathlib import Path

from ifdefault.lab import faults
from ifdefault.lab.topology import ZONE
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from tests.net.test_dynamic_update import SERVER, key, records, world
from tests.net.watched import await_states, events, standing

__all__ = ["key", "world"]  # fixtures
A, B, A6, B6 = "203.0.113.10", "198.51.100.10", "2001:db8:a::10", "2001:db8:b::10"
RENUMBERED = "203.0.113.74"


def configure(world: World, key: Path) -> None:
    world.config.write_text(
        f"""\
{world.topology.config}
[health]
recover_s = 0.3

[[dns.name]]
name = "{ZONE}"

[[dns.update]]
zone = "{ZONE}"
servers = [{{ address = "{SERVER}", key = "{key}" }}]
"""
    )


def await_records(world: World, *addresses: str) -> None:
    eventually(lambda: set(records(world, ZONE)) == set(addresses), what=f"it says {addresses}")


def await_current(world: World) -> None:
    """Until the daemon has seen that all servers say what they are to say."""

    def current() -> bool:
        publishers = standing(world).dns.publishers
        return bool(publishers) and all(each.state == "current" for each in publishers)

    eventually(current, what="all publishers are current")


def test_a_dead_uplink_leaves_the_dns_and_returns(world: World, key: Path) -> None:
    configure(world, key)
    world.daemon()
    await_states(world, ["up"])
    await_records(world, A, B, A6, B6)
    with faults.injected(world, "blackhole", "isp-a"):
        await_records(world, B, B6)
        await_current(world)
    await_records(world, A, B, A6, B6)
    await_current(world)
    (publisher,) = (each for each in standing(world).dns.publishers if each.where == SERVER)
    assert (publisher.kind, publisher.zone, publisher.name) == ("update", ZONE, ZONE)
    assert set(publisher.seen) == {A, B, A6, B6}
    assert not [text for text in events(world, "dns") if "failing" in text]


def test_a_killed_daemon_s_old_address_is_withdrawn_by_the_next(world: World, key: Path) -> None:
    configure(world, key)
    daemon = world.daemon()
    await_records(world, A, B, A6, B6)
    daemon.kill()
    daemon.wait()
    world["host"].ip(
        f"address del {A}/24 dev wan0\naddress add {RENUMBERED}/24 dev wan0\n"
        "route replace default via 203.0.113.1 dev wan0\n"
    )
    world.daemon()
    await_records(world, RENUMBERED, B, A6, B6)
    await_current(world)
