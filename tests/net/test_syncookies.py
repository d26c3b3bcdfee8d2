"""SYN cookies: what the host forgets between SYN and ACK, the kernel finds again with its mark.

                ┌─ isp-a ── wan0 ┐
client ── core ─┤                ├ host, net.ipv4.tcp_syncookies = 2: for every connection
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ifdefault.lab.world import World
from tests.net import answers
from tests.net.conftest import LabWorld

COUNT = 2000


@pytest.mark.parametrize(
    ("topology", "return_path"),
    [("two", "source"), ("two", "mark"), ("two", "conntrack"), ("shared-address", "auto")],
)
def test_syn_cookies_keep_to_their_uplink(
    lab_world: LabWorld, topology: str, return_path: str
) -> None:
    world = lab_world(topology)
    answers.serve(world)
    world["host"].sysctl("net.ipv4.tcp_syncookies", 2)
    answers.configure(world, f'[host]\nreturn_path = "{return_path}"')
    answers.assert_hangs(world, ["rst"])
    answers.apply(world)
    was = _cookies_accepted(world)
    answers.assert_answered(world, ["tcp"], count=COUNT)
    assert _cookies_accepted(world) - was >= COUNT * len(answers.addresses(world))


def _cookies_accepted(world: World) -> int:
    """Connections that began with a cookie (netstat's TcpExt SyncookiesRecv)."""
    text = world["host"].python(Path("/proc/thread-self/net/netstat").read_text)
    names, values = (line.split() for line in text.splitlines() if line.startswith("TcpExt:"))
    return int(values[names.index("SyncookiesRecv")])
