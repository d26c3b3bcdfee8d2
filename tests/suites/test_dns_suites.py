"""DNSViz and Zonemaster, which know what can be wrong with a delegated zone, find nothing.

client: dnsviz, zonemaster ── core: root, parent ─┬─ isp-a ── wan0 ┐
                                                  └─ isp-b ── wan1 ┴ host: ifdefault run

Rules: they start at the lab's root. Each must find faults where there are some: the parent also
delegates LAME to the host, which doesn't serve it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from ifdefault.lab import dns
from ifdefault.lab.node import Node
from ifdefault.lab.topology import DelegatedZone
from tests.net.conftest import LabWorld
from tests.net.dns_cases import ADDRESSES, ZONE
from tests.net.test_dns_daemon import serve

LAME = "lame.example"
CONFIG = f"""
[[dns.name]]
name = "{ZONE}"
records = [
  "MX 10 mail.{ZONE}", 'TXT "v=spf1 mx -all"', 'CAA 0 issue "ca.example"', "HTTPS 1 . alpn=h3,h2",
]
[[dns.name]]
name = "mail.{ZONE}"
policy = "failover"
[[dns.name]]
name = "near.{ZONE}"
policy = "arrival-only"
[[dns.name]]
name = "alias.{ZONE}"
uplinks = []
records = ["CNAME mail.{ZONE}"]
[[dns.name]]
name = "*.wild.{ZONE}"
policy = "arrival"
[[dns.name]]
name = "_sip._tcp.{ZONE}"
uplinks = []
records = ["SRV 0 0 5060 mail.{ZONE}"]
[dns.server]
zones = ["{ZONE}"]
"""
NAMES = [
    ZONE,
    *(f"{label}.{ZONE}" for label in ("mail", "near", "alias", "x.wild", "wild", "_sip._tcp")),
]

# What Zonemaster finds at WARNING or above that is the lab's alone, and why.
OF_THE_LAB = {
    "NAMESERVER_IP_PRIVATE_NETWORK": "the host's addresses are for documentation (RFC 5737, 3849)",
    "NAMESERVER_IP_WITHOUT_REVERSE": "the lab's root delegates no zone of addresses",
}


@pytest.fixture
def client(lab_world: LabWorld) -> Node:
    world = lab_world("two")
    serve(world, CONFIG)
    (zone,) = world.topology.delegations()
    dns.start(world, delegations=[zone, DelegatedZone(LAME, zone.nameservers)])
    return world["client"]


def test_they_find_nothing(client: Node) -> None:
    assert dnsviz(client, NAMES) == {}
    assert "INVALID_RCODE" in str(dnsviz(client, [LAME]))
    found = zonemaster(client, ZONE)
    assert [row for row in found if row["tag"] not in OF_THE_LAB] == []
    assert {row["tag"] for row in found} == set(OF_THE_LAB)
    assert "REFUSED" in str(zonemaster(client, LAME))


def dnsviz(client: Node, names: Sequence[str]) -> dict[str, Any]:
    """What it warns of, or calls an error, by name. It tries how EDNS is extended, too."""
    root = ",".join(f"root.lab={f'[{it}]' if ':' in it else it}" for it in dns.ROOT)
    probe = ["dnsviz", "probe", "-d", "1", "-A", "-a", ".", "-E", "-n", "-x", f".:{root}", *names]
    probed = client.run(probe).stdout
    servers = json.loads(probed)[f"{names[0]}."]["auth_ns_ip_mapping"]
    assert sorted(it for addresses in servers.values() for it in addresses) == sorted(ADDRESSES)
    grok = ["dnsviz", "grok", "-l", "warning", "-t", "/dev/null"]
    return dict(json.loads(client.run(grok, stdin=probed).stdout or "{}"))


def zonemaster(client: Node, zone: str) -> list[dict[str, Any]]:
    """What it finds at WARNING or above."""
    hints = client.world.dir / "zonemaster.hints"
    hints.write_text(dns.HINTS)
    options = ["--hints", str(hints), "--level", "WARNING", "--json", "--no-progress"]
    return list(json.loads(client.run(["zonemaster-cli", *options, zone]).stdout or "[]"))
