"""`init` takes over from systemd-networkd beside ifupdown, from netplan and from NetworkManager.

client ── core ─┬─ isp-a ── wan0 ┬─ host, with a systemd of its own
                └─ isp-b ── wan1 ┘

Rules: what is to be removed, and in which order, is read from what `init` prints. Connections are
open all the while, and are asked at every step. A reboot isn't needed to see that nothing comes
back: the program is restarted.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ifdefault import config
from ifdefault.lab.waiting import eventually
from ifdefault.model.config import Config, OutgoingRule
from tests.net import answers, steps
from tests.net.lines import lines
from tests.systemd.booted import CONFIG, Booted
from tests.systemd.conftest import Boot

A, B, CLIENT = "203.0.113.10", "198.51.100.10", "198.18.1.10"
Uplink = tuple[str, str, tuple[str, ...]]  # name, interface, gateways
KINDS = ["tcp", "udp-bound", "icmp"]

NETWORKD = """\
[Match]
Name=wan0

[Network]
Address=203.0.113.10/24
IPv6AcceptRA=no
LLMNR=no

[Route]
Gateway=203.0.113.1

[Route]
Gateway=203.0.113.1
Table=101

[RoutingPolicyRule]
From=203.0.113.10
Table=101
Priority=100

[RoutingPolicyRule]
To=192.0.2.0/24
Table=101
Priority=150
"""
IFUPDOWN = """\
auto lo
iface lo inet loopback
auto wan1
iface wan1 inet static
  address 198.51.100.10/24
  post-up ip route add default via 198.51.100.1 dev wan1 table 102
  post-up ip rule add from 198.51.100.10 table 102 prio 200
  pre-down ip rule del from 198.51.100.10 table 102 prio 200
"""
NETPLAN = """\
network:
  version: 2
  renderer: networkd
  ethernets:
    wan0:
      addresses: [203.0.113.10/24]
      accept-ra: false
      routes:
      - {to: default, via: 203.0.113.1}
    wan1:
      addresses: [198.51.100.10/24]
      accept-ra: false
      routes:
      - {to: default, via: 198.51.100.1, table: 102}
      routing-policy:
      - {from: 198.51.100.10, table: 102, priority: 100}
"""
NETWORK_MANAGER = """\
[connection]
id=wan1
type=ethernet
interface-name=wan1
[ipv4]
method=manual
address1=198.51.100.10/24,198.51.100.1
route-table=102
routing-rule1=priority 100 from 198.51.100.10 table 102
[ipv6]
method=disabled
"""
UNMANAGED = "[keyfile]\nunmanaged-devices=interface-name:lan0\n"
KEEP_FOREIGN = "[Network]\nManageForeignRoutingPolicyRules=no\nManageForeignRoutes=no\n"


def await_their_rules(host: Booted, *addresses: str) -> None:
    def laid() -> bool:
        rules = host.shell("ip rule")
        return all(f"from {address} lookup" in rules for address in addresses)

    eventually(laid, what="they lay their rules")
    answers.assert_answered(host.world, KINDS, [A, B], count=2)


def take_over(host: Booted, uplinks: Sequence[Uplink]) -> Config:
    """Do what `init` says, and ask the connections at every step."""
    printed = host.ifdefault("init", "--force").stdout
    written = config.parse(host.path(CONFIG).read_text(), CONFIG)
    found = [(u.name, u.interface, u.gateways) for u in written.uplinks]
    assert found == list(uplinks), printed
    world = host.world
    before = world.misrouted()
    with lines() as opened:
        held = [opened(world["client"], world["host"], to) for to in (A, B)]
        held.append(opened(world["host"], world["client"], CLIENT, port=7901))
        for step in steps.read(printed):
            for done in steps.perform(
                step,
                lambda argv: host.run(argv, check=False),
                lambda path: host.path(path.removeprefix("/")),
            ):
                assert [line.works() for line in held] == [True] * len(held), f"after {done}"
                tallies = answers.ask(world, KINDS, [A, B], count=1)
                assert [tally for tally in tallies if not tally.ok] == [], f"after {done}"
    assert world.misrouted() == before, world.refusals()
    assert host.ifdefault("check").stderr == ""
    assert_only_ours(host)
    return written


def assert_only_ours(host: Booted) -> None:
    rules = [line.split(":\t")[1] for line in host.shell("ip rule").splitlines()]
    theirs = [rule for rule in rules if "proto 171" not in rule]
    assert theirs == [f"from all lookup {table}" for table in ("local", "main", "default")]
    tables = host.shell("ip route show table all | grep -o 'table [0-9][0-9]*' | sort -u")
    assert tables.split("\n")[:-1] == ["table 1001", "table 1002"]


def test_networkd_and_ifupdown(boot: Boot) -> None:
    host = boot(
        enable=["systemd-networkd.service", "networking.service"],
        files={
            "etc/systemd/network/wan0.network": NETWORKD,
            "etc/systemd/networkd.conf.d/keep.conf": KEEP_FOREIGN,
            "etc/network/interfaces": IFUPDOWN,
        },
        bare=True,
    )
    await_their_rules(host, A, B)
    uplinks = [("isp-a", "wan0", ()), ("isp-b", "wan1", ("198.51.100.1",))]
    written = take_over(host, uplinks)
    assert written.outgoing.rules == (OutgoingRule(("isp-a",), ("192.0.2.0/24",)),)
    host.systemctl("restart", "networking")
    host.ifdefault("apply")
    assert_only_ours(host)
    answers.assert_answered(host.world, KINDS, [A, B], count=2)


@pytest.mark.parametrize("renderer", ["networkd", "NetworkManager"])
def test_netplan(boot: Boot, renderer: str) -> None:
    files = {
        "etc/netplan/wan.yaml": NETPLAN.replace("renderer: networkd", f"renderer: {renderer}"),
        "etc/NetworkManager/conf.d/lan.conf": UNMANAGED,
    }
    unit = {"networkd": "systemd-networkd.service"}.get(renderer, f"{renderer}.service")
    host = boot(enable=[unit], files=files, bare=True)
    if renderer == "NetworkManager":  # for which netplan 0.106 drops routing-policy
        host.shell("nm-online --quiet; ip rule add from 198.51.100.10 table 102 priority 100")
    await_their_rules(host, B)
    take_over(host, [("isp-a", "wan0", ()), ("isp-b", "wan1", ("198.51.100.1",))])


def test_network_manager(boot: Boot) -> None:
    wan0 = NETWORK_MANAGER.replace("wan1", "wan0").replace("198.51.100", "203.0.113")
    wan0 = "".join(line for line in wan0.splitlines(True) if "rout" not in line)
    host = boot(
        enable=["NetworkManager.service"],
        files={
            "etc/NetworkManager/system-connections/wan0.nmconnection": wan0,
            "etc/NetworkManager/system-connections/wan1.nmconnection": NETWORK_MANAGER,
            "etc/NetworkManager/conf.d/lan.conf": UNMANAGED,
        },
        bare=True,
    )
    await_their_rules(host, B)
    take_over(host, [("isp-a", "wan0", ()), ("isp-b", "wan1", ("198.51.100.1",))])
    host.systemctl("restart", "NetworkManager")
    host.ifdefault("apply")
    assert_only_ours(host)
    answers.assert_answered(host.world, KINDS, [A, B], count=2)
