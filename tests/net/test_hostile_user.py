"""A hostile local user delays no failover, calls no uplink down, and takes nothing of the daemon's.

                ┌─ isp-a ── wan0 ┐   forwards nothing, meanwhile
client ── core ─┤                ├ host
                └─ isp-b ── wan1 ┘   intact
"""

from __future__ import annotations

from bench.hostile_user import HostileUser
from ifdefault.lab import faults
from ifdefault.lab.dns_load import DnsLoad
from tests.net.conftest import LabWorld
from tests.net.watched import (
    await_default,
    await_states,
    events,
    public_run_dir,
    standing,
    start,
)

PORT, NAME = 5353, "www.example.org"
DNS = f"""
[[dns.name]]
name = "{NAME}"
[dns.server]
zones = ["{NAME}"]
port = {PORT}
"""


def test_a_hostile_user_costs_no_decision(lab_world: LabWorld) -> None:
    world = lab_world("two")
    with public_run_dir(world):
        start(world, DNS)
        before = standing(world)
        user = HostileUser(world["host"], PORT, "isp-a")
        queries = DnsLoad(world["client"], ["198.51.100.10"], NAME, rate=50, port=PORT)
        queries.start()
        with faults.injected(world, "blackhole", "isp-a"):
            await_states(world, ["down"], "isp-a")
            await_default(world, "wan1")
        await_states(world, ["up"])
        queries.stop()
        made = user.stop()
        assert min(made.values()) >= 0, made  # nothing that it did ended it
        assert made["exec granted"]
        assert [outcome.failed for outcome in queries.outcomes] == [[], []]
        assert not [text for text in events(world, "path") if text.startswith("isp-b")][2:]
        after = standing(world)
        assert (after.pid, after.problems) == (before.pid, before.problems)
