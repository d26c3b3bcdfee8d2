"""The network layouts of clouds: from `init` to answers, as their DHCP leaves the host.

client ── core ─┬─ isp-a ── wan0 ┬─ host          (drawn in lab/topologies)
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

import re

import pytest

from tests.net import answers
from tests.net.conftest import LabWorld

CLOUDS = ["aws", "azure", "gcp", "hetzner"]
PLATFORM = "168.63.129.16"  # Azure's, from where the load balancer probes each interface


@pytest.mark.parametrize("name", CLOUDS)
def test_what_init_writes_works(lab_world: LabWorld, name: str) -> None:
    """As it is, or with the lines that it has commented out."""
    world = lab_world(name)
    written = world.ifdefault("init", "--print", check=True).stdout
    spoken = re.sub(r"(?m)^# (?=\[uplink|interface|gateways.*a guess)", "", written)
    assert (written == spoken) == (name == "aws"), written
    world.config.write_text(spoken)
    answers.serve(world)
    answers.apply(world)
    done = world.ifdefault("check")
    assert (done.stdout, done.stderr) == ("ok: 2 uplinks\n", "")
    answers.assert_answered(world, ["tcp", "udp-wildcard", "icmp"], count=2)
    if name == "azure":
        for provider, target in (("isp-a", "10.1.0.4"), ("isp-b", "10.1.1.4")):
            answers.assert_answered(world, ["tcp"], [target], node=provider)
