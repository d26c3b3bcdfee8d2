"""Hosts of clouds, whose systemd-networkd gets the layout by DHCP: from `init` to answers.

client ── core ─┬─ isp-a (DHCP) ── wan0 ┬─ host          (the layouts: lab/topologies)
                └─ isp-b (DHCP) ── wan1 ┘
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from tests.net import answers
from tests.net.watched import await_states
from tests.systemd.booted import CONFIG
from tests.systemd.conftest import Boot
from tests.systemd.dhcp import Provider
from tests.systemd.test_networks import KINDS, NETWORKD

UNIT, DAEMON = "systemd-networkd.service", "ifdefault.service"
_BY_DHCP = "[Match]\nName={}\n[Network]\nDHCP=ipv4\nIPv6AcceptRA=no\n"


@dataclass(frozen=True, slots=True)
class Cloud:
    """`options`: of the DHCP servers of isp-a and isp-b."""

    wan0: str
    wan1: str
    addresses: tuple[str, str]
    routes: tuple[str, str]  # that tell that the leases have come
    options: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())


def _routes(*routes: str) -> str:
    """In the place of a router, "PREFIX,ROUTER" each (RFC 3442)."""
    return f"--dhcp-option-force=option:classless-static-route,{','.join(routes)}"


def _classless(address: str, router: str, *prefixes: str) -> tuple[str, ...]:
    """A /32, a route to the router, and routes by it."""
    return (
        f"--shared-network=cust0,{address}",
        f"--dhcp-range={address},static,255.255.255.255,2m",
        "--dhcp-option=option:netmask,255.255.255.255",
        "--dhcp-option=28",  # no broadcast address: it would be the router's
        _routes(f"{router}/32,0.0.0.0", *(f"{prefix},{router}" for prefix in prefixes)),
    )


CLOUDS = {
    # amazon-ec2-net-utils 2, lib/lib.sh: create_if_overrides and create_rules
    "aws": Cloud(
        f"{_BY_DHCP.format('wan0')}[DHCPv4]\nRouteMetric=512\n",
        f"{_BY_DHCP.format('wan1')}[DHCPv4]\nRouteMetric=522\nRouteTable=10001\n"
        "[Route]\nGateway=_dhcp4\nTable=10001\n"
        "[RoutingPolicyRule]\nFrom=10.0.2.10\nPriority=10001\nTable=10001\n",
        ("10.0.1.10", "10.0.2.10"),
        ("default via 10.0.1.1", "default via 10.0.2.1 dev wan1 table 10001"),
    ),
    "gcp": Cloud(
        _BY_DHCP.format("wan0"),
        _BY_DHCP.format("wan1"),
        ("10.128.0.2", "10.129.0.2"),
        ("default via 10.128.0.1", "10.129.0.0/20 via 10.129.0.1"),
        (
            _classless("10.128.0.2", "10.128.0.1", "0.0.0.0/0"),
            _classless("10.129.0.2", "10.129.0.1", "10.129.0.0/20"),
        ),
    ),
    "azure": Cloud(
        _BY_DHCP.format("wan0"),
        _BY_DHCP.format("wan1"),
        ("10.1.0.4", "10.1.1.4"),
        ("168.63.129.16 via 10.1.0.1", "10.1.1.0/24 dev wan1"),
        (
            (
                _routes(
                    *(
                        f"{prefix},10.1.0.1"
                        for prefix in ("0.0.0.0/0", "168.63.129.16/32", "169.254.169.254/32")
                    )
                ),
            ),
            (_routes("10.1.1.0/24,0.0.0.0"),),
        ),
    ),
    "hetzner": Cloud(
        _BY_DHCP.format("wan0"),
        _BY_DHCP.format("wan1"),
        ("203.0.113.10", "10.0.0.2"),
        ("default via 172.31.1.1", "10.0.0.0/16 via 10.0.0.1"),
        (
            _classless("203.0.113.10", "172.31.1.1", "0.0.0.0/0"),
            _classless("10.0.0.2", "10.0.0.1", "10.0.0.0/16"),
        ),
    ),
}


@pytest.mark.parametrize("name", CLOUDS)
def test_from_init_to_answers(boot: Boot, name: str) -> None:
    cloud = CLOUDS[name]

    def provide(world: World) -> None:
        for number, provider in enumerate(("isp-a", "isp-b")):
            dev = f"wan{number}"
            world["host"].ip(
                f"address flush dev {dev}\nroute flush dev {dev}\nlink set {dev} down\n"
            )
            Provider(world, provider, dev, cloud.addresses[number], "", *cloud.options[number])
        for rule in world["host"].spec.rules:
            option, _, text = rule.partition(" ") if rule[0] == "-" else ("-4", "", rule)
            world["host"].ip(f"rule del {text}\n", option)

    files = {
        f"etc/systemd/network/wan{n}.network": t for n, t in enumerate((cloud.wan0, cloud.wan1))
    }
    host = boot(name, release="trixie", enable=[UNIT], files=files, before=provide)
    shown = "ip route show table all"
    eventually(
        lambda: all(route in host.shell(shown) for route in cloud.routes), what="leases come"
    )
    host.ifdefault("init", "--force")
    config = host.path(CONFIG)
    config.write_text(
        re.sub(r"(?m)^# (?=\[uplink|interface|gateways.*a guess)", "", config.read_text())
    )
    host.systemctl("start", DAEMON)
    await_states(host.world, ["up"])
    answers.assert_answered(host.world, KINDS, cloud.addresses, count=2)
    (warning,) = host.ifdefault("check").stderr.splitlines()
    assert warning.startswith(NETWORKD)
