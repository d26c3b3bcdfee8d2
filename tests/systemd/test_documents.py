"""What the documents tell a reader to do is done, block by block, and shows what they show.

client ── core ─┬─ isp-a ── wan0 ┬─ host: Debian with systemd, a web server and our package
                └─ isp-b ── wan1 ┘
core: the Internet's name servers, where www.example.net is delegated to the host
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
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


@pytest.fixture
def host(lab_world: LabWorld, tmp_path: Path) -> Iterator[Booted]:
    world = lab_world("two")
    services.nginx(world["host"])
    dns.start(world, delegations=[DELEGATION])
    _root_servers(world["core"])
    host = Booted(world, Path(os.environ[ROOT]), tmp_path)
    root = host.files / "root"
    root.mkdir(parents=True)
    shutil.copy("/tmp/site-scratch/ifdefault_0.2.0~debian12_amd64.deb", root)
    host.boot()
    yield host
    world.end()
    host.remove()


@pytest.mark.parametrize("name", ["README.md", "docs/tutorial.md"])
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
