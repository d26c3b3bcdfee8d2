"""`ifdefault doctor` on broken hosts: it names what is wrong, and what it prints mends it.

                ┌─ isp-a ── wan0 ┐
client ── core ─┤                ├ host
                └─ isp-b ── wan1 ┘

Rules: a host is broken by what administrators, other programs and providers do. The commands are
run as they are printed, until nothing is wrong; then clients are answered at both uplinks, and the
host's own connections leave.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifdefault.lab import dns, services
from ifdefault.lab.topology import LinkEnd, Topology, extend, parse
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from tests.net import answers
from tests.net.conftest import LabWorld
from tests.net.watched import start

A, B = "203.0.113.10", "198.51.100.10"
TARGET = "1.1.1.1"
BIG = 100_000
OURS = """
[[dns.name]]
name = "www.example"

[dns.server]
zones = ["www.example"]

[daemon]
user = "nobody"
"""
Finding = dict[str, Any]


@dataclass(frozen=True)
class Broken:
    """`breaks`: commands on the host, on `node` if given; `found`: what the doctor says, by a
    pattern; `mend`: the commands that must be among those it prints; `after`: what else undoes it,
    before the next one. `outgoing`: whether the host's own connections leave
    by an uplink then."""

    breaks: str
    found: str
    mend: str
    node: str = "host"
    after: str = ""
    outgoing: bool = True


LINK_RESET = """\
ip link set {dev} down
ip link set {dev} up
ip addr add {address} dev {dev} nodad
"""
BROKEN = {
    "the config isn't applied": Broken(
        "ifdefault down", r"kernel: the config isn't applied", "ifdefault apply"
    ),
    "the exit node of a mesh VPN is switched on": Broken(
        """
        ip link add wt0 up type veth peer name wt1
        ip link set wt1 up
        ip route add default dev wt0 table 7120
        ip rule add pref 100 from all lookup main suppress_prefixlength 0
        ip rule add pref 110 not from all fwmark 0x1bd00 lookup 7120
        """,
        r"ip rule pref 110 not .*takes replies before the return-path rules",
        "ifdefault apply",
        after="ip link del wt0; ip rule del pref 100; ip rule del pref 110; ifdefault apply -q",
        outgoing=False,  # its packets go into the tunnel
    ),
    "the rule of table local is moved behind": Broken(
        "ip rule add pref 32765 table local; ip rule del pref 0",
        r"the rule of table local doesn't precede",
        "ifdefault apply",
        after="ip rule add pref 0 table local; ip rule del pref 32765 table local",
    ),
    "another program's rule catches all": Broken(
        """
        ifdefault down
        ip route add default table 250 nexthop via 203.0.113.1 dev wan0 \
            nexthop via 198.51.100.1 dev wan1
        ip rule add pref 32765 lookup 250
        ifdefault apply -q
        """,
        r"new IPv4 connections are meant to leave by .*ip rule pref 32765 from all lookup 250",
        "ip rule del pref 32765 from all lookup 250",
        after="ip route flush table 250",
    ),
    "a link reset loses the default route": Broken(
        LINK_RESET.format(dev="wan0", address="2001:db8:a::10/48")
        + "ip -6 route add default via 2001:db8:a::1 dev wan0",
        r"isp-a IPv4: wan0 has no default route, and 203\.0\.113\.1 forwards",
        "ip route add default via 203.0.113.1 dev wan0 metric 200",
    ),
    "an interface is down": Broken(
        "ip link set wan1 down",
        r"uplink\.isp-b: interface wan1 is down",
        "ip link set dev wan1 up",
        after="ip addr add 2001:db8:b::10/48 dev wan1 nodad; ifdefault apply -q",
    ),
    "a false router advertises itself": Broken(
        """
        ip -6 route add default via fe80::66 dev wan0 proto ra metric 10
        ifdefault apply -q
        """,
        r"isp-a IPv6: the gateway is wrong: fe80::66 is silent, and \S+ forwards",
        "ip -6 route del default via fe80::66 dev wan0 metric 10 table main",
    ),
    "an apply waits for its confirmation": Broken(
        """
        printf '\n[host]\nrule_priority = 4000\n' >> "$IFDEFAULT_CONFIG"
        ifdefault apply -q --confirm 600
        """,
        r"apply --confirm: undone in \d+ s",
        "ifdefault confirm",
    ),
    "a path is narrower than the link, and its router doesn't say so": Broken(
        """
        ip link set core0 mtu 1400
        nft 'add table inet cut; add chain inet cut f { type filter hook output priority 0; };
             add rule inet cut f icmp type destination-unreachable drop;
             add rule inet cut f icmpv6 type packet-too-big drop'
        """,
        r"isp-a IPv4, isp-a IPv6: packets of more than 1400 bytes are lost, and no router says so",
        "ip link set dev wan0 mtu 1400",
        node="isp-a",
        after="ip link set dev wan0 mtu 1500",
    ),
}
SERVED = {
    "another server has port 53": Broken(
        "",
        r"dns\.server\.port: port 53 of 203\.0\.113\.10 \(udp\) is used by python\S* \(pid",
        "kill PID",
    ),
    "the host's own firewall closes port 53": Broken(
        """
        nft 'add table inet fw; add chain inet fw input { type filter hook input priority 0; };
             add rule inet fw input iifname "wan*" meta l4proto { tcp, udp } th dport 53 drop'
        """,
        r"nft inet fw input, .*drops packets to UDP and TCP port 53 of 203\.0\.113\.10",
        "nft insert rule inet fw input meta l4proto { tcp, udp } th dport 53 accept",
    ),
    "a route leads to an uplink that isn't used": Broken(
        """
        ip route add 1.1.1.1/32 via 203.0.113.1 dev wan0 proto static metric 50
        ifdefault uplink isp-a down
        """,
        r"ip route 1\.1\.1\.1/32 .*leads to isp-a, which isn't used now",
        "ip route del 1.1.1.1/32 via 203.0.113.1 dev wan0 metric 50 table main",
        after="ifdefault uplink isp-a auto",
    ),
}


# a server that tells each client its address and port (RFC 8489), not XORed
STUN = """\
import socket, struct
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("198.18.0.1", 3478))
while True:
    request, (address, port) = server.recvfrom(2048)
    value = struct.pack("!BBH", 0, 1, port) + socket.inet_aton(address)
    head = struct.pack("!HHI", 0x0101, 4 + len(value), 0x2112A442) + request[8:20]
    server.sendto(head + struct.pack("!HH", 1, len(value)) + value, (address, port))
"""


def two_cards() -> Topology:
    """isp-a and isp-b on one LAN, with two cards of the host."""
    return parse(
        extend(
            {
                "extends": "_lan",
                "name": "two-cards",
                "title": "two providers and two cards of the host on one LAN",
                "drawing": "client ── core ── isp-a, isp-b ── lan ── wan0, wan1 host",
                "config": """
[uplink.isp-a]
interface = "wan0"

[uplink.isp-b]
interface = "wan1"
gateways = ["198.51.100.1"]

[health]
probes = ["icmp://198.18.1.10", "icmp://[2001:db8:f:1::10]"]
""",
                "links": ["isp-b.cust0 lan.port-b", "host.wan1 lan.port-wan1"],
                "providers": {
                    "isp-b": {
                        "number": 2,
                        "prefixes": ["198.51.100.0/24"],
                        "gateways": ["198.51.100.1/24"],
                    }
                },
                "nodes": {
                    "lan": {"bridges": {"br0": ["port-b", "port-wan1"]}},
                    "host": {
                        "addresses": {"wan1": ["198.51.100.10/24"]},
                        "routes": ["default via 198.51.100.1 metric 100"],
                    },
                },
            }
        )
    )


def doctor(
    world: World, *more: str, env: Mapping[str, str] | None = None
) -> tuple[int, list[Finding]]:
    done = world["host"].run([*world.command, "doctor", "--json", *more], check=False, env=env)
    assert done.stderr == "", done.stderr
    findings: list[Finding] = json.loads(done.stdout)["findings"]
    return done.returncode, findings


def wrong(findings: list[Finding]) -> list[Finding]:
    return [each for each in findings if each["level"] in ("error", "warning")]


def text(finding: Finding) -> str:
    return f"{finding['subject']}: {finding['what']}"


def shell(world: World, command: str, node: str = "host") -> None:
    """As an administrator types it."""
    program = Path(sys.executable).parent
    env = {
        "PATH": f"{program}:{os.environ['PATH']}",
        "IFDEFAULT_CONFIG": str(world.config),
        "IFDEFAULT_STATE_DIR": str(world.dir / "state"),
    }
    world[node].run(["sh", "-e", "-c", command], env=env)


def mend(world: World, broken: Broken, *more: str) -> None:
    """Break a host, and do what the doctor says."""
    shell(world, broken.breaks, broken.node)
    status, findings = doctor(world, *more)
    named = [each for each in wrong(findings) if re.search(broken.found, text(each))]
    assert (status, len(named)) == (1, 1), findings
    commands = [command for each in wrong(findings) for command in each["commands"]]
    pattern = re.escape(broken.mend).replace("PID", r"[0-9]+")
    assert any(re.fullmatch(pattern, command) for command in commands), findings
    deadline = time.monotonic() + 20
    while status and time.monotonic() < deadline:
        for each in wrong(findings):
            for command in each["commands"]:
                shell(world, command)
        status, findings = doctor(world, *more)
    assert wrong(findings) == []


def assert_traffic(world: World, *, outgoing: bool) -> None:
    answers.assert_answered(world, ["tcp", "icmp"], [A, B], count=2)
    if outgoing:
        world["host"].run(["ping", "-c1", "-W2", TARGET])
    for address in (A, B):
        got = world["client"].run(["curl", "-sSm3", f"http://{address}/big"]).stdout
        assert len(got) == BIG


def test_what_the_doctor_prints_mends_the_host(lab_world: LabWorld) -> None:
    world = lab_world("two")
    services.builtin(world["host"])
    services.nginx(world["host"])
    (world.dir / "nginx-host" / "big").write_text("x" * BIG)
    answers.apply(world)
    status, findings = doctor(world)
    assert (status, wrong(findings)) == (0, []), findings
    for name, broken in BROKEN.items():
        print(name)  # of the one that fails
        mend(world, broken)
        assert_traffic(world, outgoing=broken.outgoing)
        shell(world, broken.after)


def test_what_it_prints_mends_a_host_that_serves_a_zone(lab_world: LabWorld) -> None:
    world = lab_world("two")
    services.builtin(world["host"])
    dns.start(world)
    squat = "import socket, time; s = socket.socket(2, 2); s.bind(('0.0.0.0', 53)); time.sleep(600)"
    world["host"].popen([sys.executable, "-c", squat])
    eventually(lambda: "python" in world["host"].run(["ss", "-lunp", "sport = 53"]).stdout)
    start(world, OURS)
    for name, broken in SERVED.items():
        print(name)
        mend(world, broken, "--root", dns.ROOT[0])
        for address in (A, B):
            world["client"].run(["dig", f"@{address}", "www.example", "SOA", "+time=2"])
        world["host"].run(["ping", "-c1", "-W2", TARGET])
        shell(world, broken.after)


def test_what_only_traffic_shows(lab_world: LabWorld, tmp_path: Path) -> None:
    world = lab_world(two_cards())
    services.nginx(world["host"])
    answers.apply(world)
    world["core"].popen([sys.executable, "-c", STUN])
    eventually(lambda: world["core"].run(["ss", "-Hlun", "sport = 3478"]).stdout)
    # a masquerading router that doesn't filter, and one that filters a port
    world["isp-b"].nft(
        "table ip nat { chain post { type nat hook postrouting priority srcnat; oifname core0 "
        "ip saddr 198.51.100.0/24 udp dport 3478 masquerade random; }; }; delete table inet bcp38"
    )
    world["isp-a"].nft(
        "table ip cut { chain f { type filter hook forward priority 0; tcp dport 80 drop; }; }"
    )
    world["isp-a"].run(["ip", "addr", "add", f"{B}/32", "dev", "cust0"])
    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!/bin/sh\nexec nsenter --net=/run/netns/{world.netns('client')} sh -s\n")
    ssh.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    more = ("--stun", "198.18.0.1", "--from", "admin@client")
    status, findings = doctor(world, *more, env=env)
    assert status == 1
    mac = LinkEnd("isp-a", "cust0").mac
    assert sorted(map(text, wrong(findings))) == [
        f"from admin@client: TCP port 80 of {A} doesn't answer",
        f"isp-a IPv4: wan1 answers ARP for {A}, which is an address of wan0 (ARP flux)",
        f"isp-b IPv4: another host ({mac}) has the address {B}, too",
        f"isp-b IPv4: wan0 answers ARP for {B}, which is an address of wan1 (ARP flux)",
    ]
    facts = [text(each) for each in findings if each["level"] == "fact"]
    for pattern in (
        f"from admin@client: {B} is open: tcp:80",
        f"isp-a IPv4: public address {A}, no NAT .*",
        r"isp-b IPv4: public address 198\.19\.2\.2, NAPT \(port [0-9]+ became [0-9]+\) .*",
        "isp-a IPv4: the provider drops packets from isp-b's address, as most do",
        f"isp-b IPv4: the provider forwards packets from isp-a's address .{A}.",
    ):
        assert any(re.fullmatch(pattern, fact) for fact in facts), (pattern, facts)
    for each in wrong(findings):
        for command in each["commands"]:
            shell(world, command)
    _, findings = doctor(world)
    assert not [each for each in findings if "ARP flux" in each["what"]]
