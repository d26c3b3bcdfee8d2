"""The commands that `plan` prints do what `apply` does.

client ── core ── isp-… ── wan… host
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from ifdefault.config import parse
from ifdefault.kernel.read import read_facts
from ifdefault.plan.describe import describe
from ifdefault.plan.desired import plan
from ifdefault.plan.diff import diff
from tests.net.conftest import LabWorld


@pytest.mark.parametrize("topology", ["two", "p2p", "linklocal", "vpn"])
def test_printed_commands_reach_what_is_desired(lab_world: LabWorld, topology: str) -> None:
    """On a fresh host; later `ip rule add` refuses what apply does to move a rule: add it twice."""
    world = lab_world(topology)
    host = world["host"]
    if topology == "two":
        host.ip("route change default via 203.0.113.1 dev wan0 mtu 1400 advmss 1300\n")
    config = parse(world.topology.config, "ifdefault.toml")
    numbers = {uplink.name: number for number, uplink in enumerate(config.uplinks, 1)}
    facts = host.python(read_facts)
    desired = replace(plan(config, facts, numbers).desired, tables=())
    lines = [describe(operation) for operation in diff(facts, desired, ())]
    assert lines
    host.run(["sh", "-ec", "\n".join(lines)])
    assert diff(host.python(read_facts), desired, ()) == ()
