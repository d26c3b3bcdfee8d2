"""Every connection is answered through the uplink that it came in on, whatever the topology.

                ┌─ isp-a ── …
client ── core ─┤             host, all its servers       (drawn in lab/topologies)
                └─ isp-b ── …
"""

from __future__ import annotations

import pytest

from ifdefault.lab import services
from ifdefault.lab.topology import names
from tests.net import answers
from tests.net.conftest import LabWorld

ANSWERED_BEFORE = ("aws", "one")  # by a cloud's agent, or by the only uplink
FORWARDING = {"lan"}  # what is asked there isn't the host's own: see test_forward


@pytest.mark.parametrize("topology", sorted({*names()} - FORWARDING))
def test_every_kind_of_traffic_is_answered_on_every_address(
    lab_world: LabWorld, topology: str
) -> None:
    world = lab_world(topology)
    answers.serve(world)
    services.nginx(world["host"])
    if topology not in ANSWERED_BEFORE:
        # no TCP: what is half open when we apply has no arrival mark, and would still be refused
        answers.assert_hangs(world, ["udp-bound", "udp-pktinfo", "icmp", "unreachable"])
    answers.apply(world)
    answers.assert_answered(world, [*answers.KINDS, "http"])
    assert not any(uplink["misrouted"] for uplink in answers.status(world)["uplinks"])


def test_tcp_in_thousands(lab_world: LabWorld) -> None:
    world = lab_world("two")
    answers.serve(world)
    answers.assert_hangs(world, ["tcp"], ["198.51.100.10", "2001:db8:b::10"])
    answers.apply(world)
    answers.assert_answered(world, ["tcp"], count=2000)
