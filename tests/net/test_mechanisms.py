"""The mechanism that carries replies back: the cheapest by itself, any by order.

                ┌─ isp-a ── wan0 ┐
client ── core ─┤                ├ host
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ifdefault.lab import services
from ifdefault.lab.world import World
from ifdefault.model.config import HostConfig
from ifdefault.plan import numbers
from tests.net import answers
from tests.net.conftest import LabWorld

# sysctls that change by themselves
COUNTING = ("nf_conntrack_count", "neigh/", "route/flush", "stable_secret", "mptcp")


@pytest.mark.parametrize("return_path", ["source", "mark", "conntrack"])
def test_any_mechanism_can_be_ordered(lab_world: LabWorld, return_path: str) -> None:
    world = lab_world("two")
    answers.serve(world)
    answers.configure(world, f'[host]\nreturn_path = "{return_path}"')
    answers.assert_hangs(world, ["rst", "udp-bound"])
    answers.apply(world)
    answers.assert_answered(world)
    uplinks = answers.status(world)["uplinks"]
    assert [uplink["mechanism"] for uplink in uplinks] == [return_path] * 2
    question = "tcp", "198.18.1.10:4321", "198.51.100.10:443"
    told = json.loads(world.ifdefault("explain", *question, "--json", check=True).stdout)
    assert told["mechanism"] == f"{return_path}: set by host.return_path"
    assert (told["uplink"], told["agrees"]) == ("isp-b", True)


@pytest.mark.parametrize("return_path", ["mark", "conntrack"])
def test_an_arrival_mark_suffices(lab_world: LabWorld, return_path: str) -> None:
    """Replies keep to their uplink without the source rules, too."""
    world = lab_world("two")
    answers.serve(world)
    answers.configure(world, f'[host]\nreturn_path = "{return_path}"')
    answers.apply(world)
    for family in ("-4", "-6"):
        delete = f"ip {family} rule del pref {HostConfig().rule_priority + numbers.SOURCE}"
        world["host"].run(["sh", "-ec", f"{delete}; {delete}; ! {delete}"])
    answers.assert_answered(world)


def test_source_rules_need_neither_conntrack_nor_sysctls(lab_world: LabWorld) -> None:
    world = lab_world("two")
    services.nginx(world["host"])
    before = _sysctls(world)
    kinds = ["http", "icmp", "rst", "unreachable"]
    answers.assert_hangs(world, kinds)
    answers.apply(world)
    answers.assert_answered(world, kinds)
    assert _sysctls(world) == before
    assert _tracked(world) == 0
    assert [u["mechanism"] for u in answers.status(world)["uplinks"]] == ["source"] * 2


def test_a_wildcard_udp_socket_makes_the_host_track_connections(lab_world: LabWorld) -> None:
    """The counterpart: it shows that the test above can fail."""
    world = lab_world("two")
    answers.serve(world)
    answers.apply(world)
    answers.assert_answered(world, ["udp-wildcard"])
    assert _tracked(world) > 0
    assert answers.status(world)["redirected_udp"] == [7002, 7003, 7004]


def _tracked(world: World) -> int:
    """Connections that the host tracks."""
    count = Path("/proc/sys/net/netfilter/nf_conntrack_count")
    return world["host"].python(lambda: int(count.read_text()) if count.exists() else 0)


def _sysctls(world: World) -> dict[str, str]:
    """Every readable network sysctl of the host that isn't a counter."""

    def read() -> dict[str, str]:
        files = (p for p in Path("/proc/sys/net").rglob("*") if p.is_file())
        found = (p for p in files if not any(word in str(p) for word in COUNTING))
        return {str(p): p.read_text() for p in found if p.stat().st_mode & 0o400}

    return world["host"].python(read)
