"""Programs that configure the uplinks by DHCP and router advertisements, as Debian ships them.

client ── core ─┬─ isp-a (DHCP, RA) ── wan0 ┬─ host
                └─ isp-b (DHCP, RA) ── wan1 ┘

Rules: without the daemon at first, where the package's hooks reload the unit, and nothing else
does. Then with the daemon, on the same host.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest

from ifdefault.lab.topology import load
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from tests.net import answers
from tests.net.watched import await_states
from tests.systemd.booted import Booted
from tests.systemd.conftest import Boot
from tests.systemd.dhcp import Provider

DAEMON, ONCE = "ifdefault.service", "ifdefault-once.service"
METRICS = {"wan0": 100, "wan1": 200}
KINDS = ["tcp", "udp-pktinfo", "udp-wildcard", "icmp", "rst", "unreachable"]  # any address's
A, B, B_NEXT = "203.0.113.10", "198.51.100.10", "198.51.100.20"
ROUTER, OTHER_ROUTER = "198.51.100.1", "198.51.100.2"
CONFIG = '[uplink.isp-a]\ninterface = "wan0"\n[uplink.isp-b]\ninterface = "wan1"\n'
NETWORKD = (
    "warning: systemd-networkd: removes foreign rules and routes when it restarts"
    " (ManageForeignRoutingPolicyRules, ManageForeignRoutes, ManageForeignNextHops)"
)
PATIENCE_S = 30.0  # for programs that wait, too


@dataclass(frozen=True, slots=True)
class Network:
    """`comes`: what brings wan1, which isn't there at boot. `renewal_is_told`: whether a hook is
    run when a lease gets another address. `restart`: what an administrator runs."""

    release: str
    units: tuple[str, ...]
    files: dict[str, str]
    restart: str
    comes: str = ""  # or its carrier
    renewal_is_told: bool = True
    renew: str = ""  # or it renews by itself
    warnings: tuple[str, ...] = ()


def _networkd() -> dict[str, str]:
    return {
        f"etc/systemd/network/{dev}.network": f"""\
[Match]
Name={dev}
[Network]
DHCP=ipv4
[DHCPv4]
RouteMetric={metric}
"""
        for dev, metric in METRICS.items()
    }


def _network_manager() -> dict[str, str]:
    files = {"etc/NetworkManager/conf.d/lan.conf": "[keyfile]\nunmanaged-devices=lan0\n"}
    for dev, metric in METRICS.items():
        files[f"etc/NetworkManager/system-connections/{dev}.nmconnection"] = f"""\
[connection]
id={dev}
type=ethernet
interface-name={dev}
[ipv4]
method=auto
route-metric={metric}
[ipv6]
method=auto
route-metric={metric}
"""
    return files


def _ifupdown(before: str) -> dict[str, str]:
    """`before`: IPv6 comes first, since the kernel asks for routers only when the link comes up."""
    text = "".join(
        f"{before.format(dev)}iface {dev} inet dhcp\n  metric {metric}\n"
        for dev, metric in METRICS.items()
    )
    return {"etc/network/interfaces": f"auto lo wan0\niface lo inet loopback\n{text}"}


# as Debian's, but that it doesn't ask for five seconds whether others have the address
DHCPCD = """\
duid
persistent
option domain_name_servers, classless_static_routes, interface_mtu
require dhcp_server_identifier
slaac private
noarp
"""
NETWORKS = {
    "networkd": Network(
        "trixie",
        ("systemd-networkd.service", "networkd-dispatcher.service", "ifdefault-networkd.service"),
        _networkd(),
        restart="systemctl restart systemd-networkd",
        renewal_is_told=False,
        renew="networkctl renew wan1",  # it asks again after a minute only if an answer is lost
        warnings=(NETWORKD,),
    ),
    "NetworkManager": Network(
        "trixie",
        ("NetworkManager.service", "NetworkManager-dispatcher.service"),
        _network_manager(),
        restart="systemctl restart NetworkManager",
    ),
    "ifupdown-dhclient": Network(
        "bookworm",
        ("networking.service",),
        _ifupdown("iface {} inet6 auto\n"),
        restart="systemctl restart networking; ifup wan1",
        comes="ifup wan1",
    ),
    "ifupdown-dhcpcd": Network(
        "trixie",
        ("networking.service",),
        _ifupdown("") | {"etc/dhcpcd.conf": DHCPCD},
        restart="systemctl restart networking; ifup wan1",
        comes="ifup wan1",
    ),
}


def addresses(host: Booted) -> dict[int, list[str]]:
    """Those of the uplinks that can be used now, by family."""
    found: dict[int, list[str]] = {4: [], 6: []}
    for dev in METRICS:
        shown = host.run(["ip", "-j", "address", "show", "dev", dev, "scope", "global"]).stdout
        for row in (row for link in json.loads(shown) for row in link.get("addr_info", ()) if row):
            if not row.get("tentative") and not row.get("deprecated"):
                found[6 if row["family"] == "inet6" else 4].append(row["local"])
    return found


def await_answers(host: Booted, v4: list[str]) -> None:
    """Until it has these addresses and as many of IPv6, and each is answered by its own uplink."""

    def answered() -> bool:
        has = addresses(host)
        if has[4] != v4 or len(has[6]) < len(v4):
            return False
        tallies = answers.ask(host.world, KINDS, [*has[4], *has[6]], count=1, timeout_s=1.0)
        return all(tally.ok for tally in tallies)

    try:
        eventually(answered, PATIENCE_S, what=f"all is answered at {v4}")
    except TimeoutError as error:
        log = (host.world.dir / "dnsmasq-isp-b.log").read_text()
        error.add_note(f"{addresses(host)}\n{log[-2000:]}")
        raise
    has = addresses(host)
    answers.assert_answered(host.world, KINDS, [*has[4], *has[6]], count=2)


def await_reload(host: Booted, was: dict[str, str]) -> None:
    """Until a hook has reloaded the unit."""
    eventually(lambda: reloads(host) != was, PATIENCE_S, what="a hook is run")


def reloads(host: Booted) -> dict[str, str]:
    return host.show(ONCE, "ExecReload")


@pytest.mark.parametrize("name", NETWORKS)
def test_what_comes_changes_and_restarts(boot: Boot, name: str) -> None:
    network = NETWORKS[name]
    providers: list[Provider] = []

    def provide(world: World) -> None:
        """Addresses by DHCP and advertisements alone, and none until a link is up."""
        for dev in METRICS:
            world["host"].ip(f"address flush dev {dev}\nlink set {dev} down\n")
        world["isp-b"].ip(f"address add {OTHER_ROUTER}/24 dev cust0\n")
        providers.append(Provider(world, "isp-a", "wan0", A, "2001:db8:a::"))
        providers.append(Provider(world, "isp-b", "wan1", B, "2001:db8:b::"))
        if not network.comes:
            world["isp-b"].ip("link set cust0 down\n")

    host = boot(
        replace(load("two"), config=CONFIG),
        release=network.release,
        enable=[*network.units, ONCE],
        files=network.files,
        before=provide,
    )
    world, isp_b = host.world, providers[1]
    await_answers(host, [A])
    was = reloads(host)
    if network.comes:
        host.shell(network.comes)
    else:
        world["isp-b"].ip("link set cust0 up\n")
    await_reload(host, was)
    await_answers(host, [A, B])

    was = reloads(host)
    isp_b.lease(B_NEXT, OTHER_ROUTER)
    host.shell(network.renew)
    if network.renewal_is_told:
        await_reload(host, was)
    await_answers(host, [A, B_NEXT])

    was = reloads(host)
    host.shell(network.restart)
    await_reload(host, was)
    await_answers(host, [A, B_NEXT])
    assert_warned(host, network)

    host.systemctl("start", DAEMON)  # in the other one's place
    await_states(world, ["up"])
    isp_b.lease(B, ROUTER)
    host.shell(network.renew)
    await_answers(host, [A, B])
    host.shell(network.restart)
    await_answers(host, [A, B])
    assert_warned(host, network)
    assert host.show(DAEMON, "NRestarts") == {"NRestarts": "0"}


def assert_warned(host: Booted, network: Network) -> None:
    """Of what this program is known for, and of nothing else."""
    done = host.ifdefault("check")
    rows = done.stderr.splitlines()
    assert [row.partition("; ")[0] for row in rows] == list(network.warnings), rows
