"""What the documents tell a reader to do is done, block by block, and shows what they show.

client ── core ─┬─ isp-a ── wan0 ┬─ host: Debian, with systemd and a web server
                └─ isp-b ── wan1 ┘
core: the Internet's name servers, where www.example.net is delegated to the host
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ifdefault.dns.roots import ROOTS
from ifdefault.lab import dns, services
from ifdefault.lab.node import Node
from ifdefault.lab.topology import DelegatedZone
from tests.net.conftest import LabWorld
from tests.systemd import ROOT, blocks
from tests.systemd.booted import Booted

TOP = Path(__file__).parents[2]
A, A6, B, B6 = "203.0.113.10", "2001:db8:a::10", "198.51.100.10", "2001:db8:b::10"
ZONE = "www.example.net"
DELEGATION = DelegatedZone(ZONE, ((f"ns-isp-a.{ZONE}", (A, A6)), (f"ns-isp-b.{ZONE}", (B, B6))))
DOCUMENTS = ["docs/tutorial.md"]


@pytest.fixture
def host(lab_world: LabWorld, program: Path) -> Booted:
    world = lab_world("two")
    services.nginx(world["host"])
    dns.start(world, delegations=[DELEGATION])
    _root_servers(world["core"])
    host = Booted(world, Path(os.environ[ROOT]), program)
    host.boot()
    return host


@pytest.mark.parametrize("name", DOCUMENTS)
def test_it_does_what_it_says(host: Booted, name: str) -> None:
    assert blocks.follow((TOP / name).read_text(), host) > 0


def _root_servers(core: Node) -> None:
    """The lab's root server answers at the addresses of the Internet's."""
    for family, own in zip((4, 6), dns.ROOT, strict=True):
        roots = [address for _, address in ROOTS if (":" in address) == (family == 6)]
        core.ip("".join(f"address add {address} dev lo\n" for address in roots))
        name = "ip6" if family == 6 else "ip"
        core.nft(f"""
            table {name} roots {{
              chain prerouting {{
                type nat hook prerouting priority dstnat
                {name} daddr {{ {", ".join(roots)} }} dnat to {own}
              }}
            }}""")
