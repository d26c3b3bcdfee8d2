"""The hook of packaging/ takes in a changed address, called as each of its callers calls it.

         ┌─ isp-a ── wan0 ┐
client ──┤                ├ host     `ifdefault` in its PATH uses this world's config and state
         └─ isp-b ── wan1 ┘          (ppp0 in `p2p`)
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from ifdefault.lab.world import World
from tests.net.conftest import LabWorld
from tests.net.evidence import Talk, tapped

HOOK = Path(__file__).parents[2] / "packaging" / "hooks" / "ifdefault"
ADDRESSES = ("198.51.100.20", "2001:db8:b::20")
ETHERNET = """\
address del 198.51.100.10/24 dev wan1
address del 2001:db8:b::10/48 dev wan1
address add 198.51.100.20/24 dev wan1
address add 2001:db8:b::20/48 dev wan1 nodad
"""
PPP = """\
address del 198.51.100.10 peer 198.51.100.1 dev ppp0
address del 2001:db8:b::10/128 dev ppp0
address add 198.51.100.20 peer 198.51.100.1 dev ppp0
address add 2001:db8:b::20/128 dev ppp0 nodad
route replace default dev ppp0 metric 100
"""
CALLERS = {  # topology, change, environment, arguments
    "ifupdown": (
        "two",
        ETHERNET,
        "IFACE=wan1 LOGICAL=wan1 ADDRFAM=inet METHOD=static MODE=start PHASE=post-up VERBOSITY=0",
        "",
    ),
    "ppp": (
        "p2p",
        PPP,
        "PPP_IFACE=ppp0 PPP_TTY=/dev/pts/1 PPP_LOCAL=198.51.100.20 PPP_REMOTE=198.51.100.1",
        "ppp0 /dev/pts/1 0 198.51.100.20 198.51.100.1 isp-b",
    ),
    "networkd-dispatcher": (
        "two",
        ETHERNET,
        "IFACE=wan1 STATE=routable OperationalState=routable ADDR=198.51.100.20 json={}",
        "",
    ),
    "NetworkManager": (
        "two",
        ETHERNET,
        "NM_DISPATCHER_ACTION=dhcp4-change DEVICE_IFACE=wan1 DEVICE_IP_IFACE=wan1",
        "wan1 dhcp4-change",
    ),
}


def install(world: World) -> Path:
    """Programs for the hook: ours by this world's state, no systemd, and a log that we read."""
    programs = {
        "ifdefault": f'exec {shlex.join(world.command)} "$@"',
        "systemctl": "exit 1",
        "logger": f'echo "$*" >>{world.dir}/log',
    }
    folder = world.dir / "bin"
    folder.mkdir()
    for name, line in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.parametrize("caller", CALLERS)
def test_a_changed_address_is_taken_in(lab_world: LabWorld, caller: str) -> None:
    topology, change, environment, arguments = CALLERS[caller]
    world = lab_world(topology)
    host, client = world["host"], world["client"]
    folder = install(world)
    assert world.ifdefault("apply").returncode == 0
    if topology == "p2p":
        world["isp-b"].ip("".join(f"route add {to} dev cust0\n" for to in ADDRESSES))
    host.ip(change)
    assert world.ifdefault("status").returncode == 1

    # callers give what they know, and no more
    path = f"PATH={folder}:{os.defpath}"
    own = ["env", "-i", path, f"IFDEFAULT_CONFIG={world.config}", *shlex.split(environment)]
    done = host.run([*own, str(HOOK), *arguments.split()])
    assert (done.stdout, done.stderr) == ("", "")
    assert not (world.dir / "log").exists()
    assert world.ifdefault("status").returncode == 0
    for address in ADDRESSES:
        with tapped(host) as tap:
            Talk(client, host, address)()
        assert tap.left_by(src=address) == {"ppp0" if topology == "p2p" else "wan1"}
    assert not any(world.misrouted().values())
