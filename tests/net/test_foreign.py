"""Others' settings on the same host: strict filters, firewalls, marks, a transparent proxy, rules.

         ┌─ isp-a ── wan0 ┐
client ──┤                ├ host lan0 ── content
         └─ isp-b ── wan1 ┘

Each test lays them first, as a distribution or another program does, and then applies.
"""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from ifdefault.lab import ports, services
from ifdefault.lab.node import Node
from ifdefault.lab.topology import ProviderAddress
from ifdefault.lab.traffic import measure
from ifdefault.lab.world import World
from tests.net.conftest import LabWorld
from tests.net.evidence import UDP, Talk

KINDS = "tcp http udp-bound udp-pktinfo udp-wildcard udp-dual icmp rst unreachable".split()
MODES = ("auto", "mark", "conntrack")
COUNT = 4
HOST_B = ("198.51.100.10", "2001:db8:b::10")
CLIENT = ("198.18.1.10", "2001:db8:f:1::10")


def serving(world: World, mode: str = "auto") -> World:
    services.builtin(world["host"], http=True)
    with world.config.open("a") as config:
        config.write(f'\n[host]\nreturn_path = "{mode}"\n')
    return world


def apply(world: World) -> str:
    done = world.ifdefault("apply")
    assert done.returncode == 0, done.stderr
    return done.stderr


def assert_all_answered(world: World) -> None:
    """Every kind, on every uplink, in both families; nothing misrouted."""
    by_client: dict[tuple[str, ...], list[ProviderAddress]] = {}
    for target in world.topology.targets():
        by_client.setdefault(target.sources, []).append(target)
    for sources, targets in by_client.items():
        addresses = [target.address for target in targets]
        found = measure(
            world["client"], KINDS, addresses, count=COUNT, timeout_s=5.0, sources=sources
        )
        assert [tally for tally in found if not tally.ok] == []
    assert not any(world.misrouted().values())


def counted(node: Node, table: str) -> dict[str, int]:
    """The packets of a table's named counters."""
    told = json.loads(node.run(["nft", "-j", "list", "counters", "table", *table.split()]).stdout)
    counters = (entry["counter"] for entry in told["nftables"] if "counter" in entry)
    return {counter["name"]: int(counter["packets"]) for counter in counters}


# --- the reverse-path filter ----------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("where", ["all", "interface"])
def test_a_strict_filter_set_by_the_distribution(
    lab_world: LabWorld, where: str, mode: str
) -> None:
    world = serving(lab_world("two"), mode)
    for name in ["all"] if where == "all" else ["wan0", "wan1"]:
        world["host"].sysctl(f"net.ipv4.conf.{name}.rp_filter", 1)
    told = apply(world)
    assert "rp_filter: strict, would drop marked packets" in told
    assert world["host"].sysctl("net.ipv4.conf.wan1.src_valid_mark") == "1"
    assert_all_answered(world)


def test_a_strict_filter_where_only_the_routers_macs_differ(lab_world: LabWorld) -> None:
    world = serving(lab_world("shared-address"))
    world["host"].sysctl("net.ipv4.conf.all.rp_filter", 1)
    apply(world)
    assert_all_answered(world)


def test_source_rules_alone_satisfy_a_strict_filter(lab_world: LabWorld) -> None:
    world = lab_world("two")
    world["host"].sysctl("net.ipv4.conf.all.rp_filter", 1)
    with world.config.open("a") as config:
        config.write('\n[host]\nudp_wildcard = "off"\n')
    assert "rp_filter" not in apply(world)
    assert world["host"].sysctl("net.ipv4.conf.wan1.src_valid_mark") == "0"
    for address in HOST_B:
        for kind in (socket.SOCK_STREAM, UDP):
            assert Talk(world["client"], world["host"], address, kind)() in CLIENT


# --- firewalls and marks --------------------------------------------------------------------

DROP_BY_DEFAULT = f"""
table inet firewall {{
  chain input {{
    type filter hook input priority filter; policy drop;
    iif lo accept
    ct state established,related accept
    ct state invalid drop
    icmp type echo-request accept
    icmpv6 type {{ echo-request, nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert }} accept
    tcp dport {{ {ports.HTTP}, {ports.TCP_ECHO}, {ports.CLOSED} }} accept
    udp dport {{ {ports.UDP_BOUND}-{ports.UDP_DUAL}, {ports.CLOSED} }} accept
  }}
  chain output {{
    type filter hook output priority filter; policy drop;
    oif lo accept
    ct state established,related accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit }} accept
  }}
}}
"""


@pytest.mark.parametrize("mode", MODES)
def test_a_firewall_that_lets_only_established_connections_pass(
    lab_world: LabWorld, mode: str
) -> None:
    world = serving(lab_world("two"), mode)
    world["host"].nft(DROP_BY_DEFAULT)
    apply(world)
    assert_all_answered(world)
    assert not Talk(world["client"], world["host"], HOST_B[0], wait_s=0.3).answered


# The user's own bits, 0x1 on packets and 0x4 on connections, are set, kept, and matched later.
OWN_MARKS = """
table inet user {
  counter marked { }
  counter matched { }
  counter other_bits { }
  counter connections { }
  chain prerouting {
    type filter hook prerouting priority raw; policy accept;
    iifname "wan*" meta l4proto tcp meta mark set meta mark | 0x1 counter name marked
  }
  chain input {
    type filter hook input priority filter; policy accept;
    meta l4proto != tcp return
    meta mark & 0x1 == 0x1 counter name matched
    meta mark & 0xc0ffffff != 0x1 counter name other_bits
    ct mark set ct mark | 0x4
  }
  chain output {
    type filter hook output priority mangle; policy accept;
    meta l4proto tcp ct mark & 0xc0ffffff == 0x4 counter name connections
  }
}
"""


@pytest.mark.parametrize("mode", MODES)
def test_no_other_bit_of_a_mark_changes(lab_world: LabWorld, mode: str) -> None:
    world = serving(lab_world("two"), mode)
    world["host"].nft(OWN_MARKS)
    apply(world)
    assert_all_answered(world)
    found = counted(world["host"], "inet user")
    assert found["marked"] == found["matched"] > 0
    assert found["other_bits"] == 0
    assert found["connections"] >= COUNT * 4


def test_a_whole_mark_set_on_input_does_no_harm_and_is_named_where_it_would(
    lab_world: LabWorld,
) -> None:
    world = serving(lab_world("two"))
    world["host"].nft("""
table inet user {
  counter matched { }
  chain input {
    type filter hook input priority mangle; policy accept;
    meta mark set 0x1
  }
  chain later {
    type filter hook input priority filter; policy accept;
    meta mark 0x1 counter name matched
  }
}
""")
    assert "overwrites the whole packet mark" not in apply(world)
    assert_all_answered(world)
    assert counted(world["host"], "inet user")["matched"] > 0
    world.config.write_text(world.config.read_text().replace('"auto"', '"mark"'))
    check = world.ifdefault("check")
    assert "nft inet user input" in check.stderr
    assert "overwrites the whole packet mark, including our bits" in check.stderr


@pytest.mark.parametrize("program", ["iptables", "iptables-legacy"])
def test_iptables_rules_with_marks(lab_world: LabWorld, program: str) -> None:
    """Other bits don't matter; use of ours is reported, in any kernel table."""
    world = serving(lab_world("two"))
    host = world["host"]
    both = (program, program.replace("ip", "ip6", 1))
    rule = "-t mangle -A PREROUTING -p tcp -j MARK --set-xmark"
    for command in both:
        host.run([command, *rule.split(), "0x40/0x40"])
        match = "-A INPUT -p tcp -m mark ! --mark 0x40/0x40 -j DROP"
        host.run([command, *match.split()])
    apply(world)
    assert_all_answered(world)
    for command in both:
        host.run([command, *rule.split(), "0x1000000/0x1000000"])
    check = world.ifdefault("check")
    assert check.returncode == 1
    for name in ("iptables", "ip6tables"):
        assert (
            f"{name} mangle PREROUTING: uses bits 0x1000000 of host.mark_mask 0x3f000000"
            in check.stderr
        )
    refused = world.ifdefault("apply")
    assert refused.returncode == 1
    assert "set host.mark_mask = " in refused.stderr


# --- a transparent proxy --------------------------------------------------------------------

TPROXY = """
table inet proxy {
  chain prerouting {
    type filter hook prerouting priority mangle; policy accept;
    tcp dport 8081 tproxy to :9999 meta mark set 1 accept
    meta l4proto tcp socket transparent 1 meta mark set 1 accept
  }
}
"""
_IP_TRANSPARENT, _IPV6_TRANSPARENT = 19, 75  # linux/in.h, linux/in6.h


def lay_tproxy(node: Node) -> None:
    """As in Documentation/networking/tproxy.rst."""
    for option in ("-4", "-6"):
        node.ip("rule add fwmark 1 lookup 100\nroute add local default dev lo table 100\n", option)
    node.nft(TPROXY)


def asked_of_proxy(world: World, client: str, address: str) -> str:
    """Connect to an address on the proxied port, and return the original destination."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    transparent = {
        socket.AF_INET: (socket.IPPROTO_IP, _IP_TRANSPARENT),
        socket.AF_INET6: (socket.IPPROTO_IPV6, _IPV6_TRANSPARENT),
    }

    def listen() -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(*transparent[family], 1)
        sock.bind(("::" if ":" in address else "0.0.0.0", 9999))
        sock.listen()
        sock.settimeout(60)
        return sock

    with ExitStack() as stack:
        proxy = stack.enter_context(world["host"].python(listen))
        connected = world[client].python(lambda: socket.create_connection((address, 8081), 5))
        asking = stack.enter_context(connected)
        conn = stack.enter_context(proxy.accept()[0])
        conn.sendall(b"instead")
        assert asking.recv(64) == b"instead"
        return str(conn.getsockname()[0])


@pytest.mark.parametrize("first", ["proxy", "apply"])
def test_a_transparent_proxy_with_a_mark_of_its_own(lab_world: LabWorld, first: str) -> None:
    world = serving(lab_world("two"))
    world["host"].sysctl("net.ipv4.ip_forward", 1)
    world["host"].sysctl("net.ipv6.conf.all.forwarding", 1)
    if first == "apply":
        apply(world)
    lay_tproxy(world["host"])
    apply(world)
    for address in CLIENT:
        assert asked_of_proxy(world, "content", address) == address
    for target in world.topology.targets():
        assert asked_of_proxy(world, "client", target.address) == target.address
    assert_all_answered(world)


def test_a_transparent_proxy_and_the_mark_mode_are_refused_together(lab_world: LabWorld) -> None:
    """tcp_fwmark_accept would copy the proxy's mark to its connections, and keep them local."""
    world = serving(lab_world("two"), "mark")
    lay_tproxy(world["host"])
    before = world["host"].run(["ip", "rule"]).stdout
    refused = world.ifdefault("apply")
    assert refused.returncode == 1
    assert "would take replies of connections that nft inet proxy prerouting" in refused.stderr
    assert 'set host.return_path = "conntrack"' in refused.stderr
    assert world["host"].run(["ip", "rule"]).stdout == before


# --- others' rules and settings -------------------------------------------------------------


def test_rules_at_our_priorities_are_named_and_stay(lab_world: LabWorld) -> None:
    world = lab_world("two")
    for option in ("-4", "-6"):
        world["host"].ip("rule add pref 5020 fwmark 0x7 lookup main\n", option)
    refused = world.ifdefault("apply")
    assert refused.returncode == 1
    for rule in ("ip rule pref 5020", "ip -6 rule pref 5020"):
        assert rule in refused.stderr
    assert "has a priority among ours, 5000 to 5050" in refused.stderr
    assert "set host.rule_priority = 4900" in refused.stderr
    with world.config.open("a") as config:
        config.write("\n[host]\nrule_priority = 4900\n")
    apply(world)
    assert "5020:\tfrom all fwmark 0x7 lookup main" in world["host"].run(["ip", "rule"]).stdout
    for address in HOST_B:
        assert Talk(world["client"], world["host"], address)() in CLIENT


def test_routes_in_our_tables_are_named_and_stay(lab_world: LabWorld) -> None:
    world = lab_world("two")
    world["host"].ip("route add 192.0.2.0/24 dev lan0 table 1002\n")
    refused = world.ifdefault("apply")
    assert refused.returncode == 1
    assert "table 1002: contains 1 foreign route, such as 192.0.2.0/24" in refused.stderr
    assert "192.0.2.0/24" in world["host"].run("ip route show table 1002".split()).stdout


def test_networkd_settings_are_named(lab_world: LabWorld, tmp_path: Path) -> None:
    """Only if it runs in the same network namespace; here a process with its name does."""
    world = lab_world("two")
    config = tmp_path / "ifdefault.toml"
    config.write_text(world.config.read_text())
    # `ip netns exec` gives a mount namespace of its own
    script = f"""
mount -t tmpfs lab /run && mkdir -p /run/systemd/netif
cp "$(command -v sleep)" {tmp_path}/systemd-networkd
{tmp_path}/systemd-networkd 60 &
until [ "$(cat /proc/$!/comm)" = systemd-network ]; do :; done
"$@"; status=$?
kill $!
exit $status
"""
    program = [*world.command[:3], "-c", str(config), "--state-dir", str(tmp_path), "check"]
    done = world["host"].run(["sh", "-c", script, "sh", *program], check=False)
    assert done.returncode == 0, done.stderr
    assert "systemd-networkd: removes foreign rules and routes" in done.stderr
    for key in ("RoutingPolicyRules", "Routes", "NextHops"):
        assert f"ManageForeign{key}=no" in done.stderr
