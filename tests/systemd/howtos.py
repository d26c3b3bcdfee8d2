"""The readers of docs/howto/.

client ── core ─┬─ isp-a ──────── wan0 ┬─ host lan0 ── content
                └─ isp-b ─ (cpe) ─ wan1 ┘
"""

from __future__ import annotations

from ifdefault.lab import services, topology
from ifdefault.lab.topology import Topology
from ifdefault.lab.world import World
from tests.systemd import dhcp
from tests.systemd.reader import Reader

_KEY = """\
key "www.example.net" {
    algorithm hmac-sha256;
    secret "FbTg45ZMBqH/zqAcO+5QZ/y2Cc8W5fyEOn+2A4Dx86w=";
};
"""
_PRIMARY = """\
options {{
    directory "{home}"; pid-file "{home}/pid"; session-keyfile "{home}/session.key";
    listen-on {{ 198.18.1.10; }}; listen-on-v6 {{ none; }}; recursion no;
}};
controls {{ }};
include "{home}/update.key";
zone "example.net" {{
    type primary;
    file "{home}/example.net.db";
    update-policy {{ grant www.example.net name www.example.net A AAAA; }};
}};
"""
_ZONE = """\
$TTL 3600
@ SOA ns1 hostmaster 1 3600 600 86400 30
@ NS ns1
ns1 A 198.18.1.10
"""
_CPE = {
    "extends": "two",
    "title": "the second line has a router that translates",
    "links": ["isp-b.cust0 cpe.wan", "cpe.lan host.wan1"],
    "nodes": {
        "cpe": {
            "addresses": {"wan": ["198.51.100.10/24"], "lan": ["192.168.178.1/24"]},
            "routes": ["default via 198.51.100.1"],
            "sysctls": {"net.ipv4.ip_forward": 1},
            "nft": """\
table ip nat {
  chain prerouting {
    type nat hook prerouting priority dstnat
    iifname "wan" tcp dport { 53, 80, 443 } dnat to 192.168.178.20
    iifname "wan" udp dport { 53, 443 } dnat to 192.168.178.20
  }
  chain postrouting {
    type nat hook postrouting priority srcnat
    oifname "wan" masquerade
  }
}
""",
        },
    },
}


def behind_a_cpe() -> Topology:
    table = topology.extend(_CPE)
    table["links"].remove("isp-b.cust0 host.wan1")
    host = table["nodes"]["host"]
    host["addresses"]["wan1"] = ["192.168.178.20/24"]
    host["routes"] = [route for route in host["routes"] if "metric" not in route]
    host["routes"].append("default via 192.168.178.1 metric 100")
    return topology.parse(table | {"name": "cpe", "drawing": __doc__ or ""})


def web(world: World) -> None:
    services.nginx(world["host"])


def server_behind(world: World) -> None:
    services.nginx(world["content"])
    world["content"].nft(
        "table ip port { chain p { type nat hook prerouting priority dstnat;"
        " tcp dport 8080 redirect to :80; }; }\n"
    )


def primary(world: World) -> None:
    """BIND on the client."""
    home = services.home_of(world["client"], "named")
    home.chmod(0o777)
    for name, text in (("update.key", _KEY), ("example.net.db", _ZONE), ("named.conf", _PRIMARY)):
        (home / name).write_text(text.format(home=home) if text == _PRIMARY else text)
    services.start(world["client"], "named", ["named", "-g", "-c", str(home / "named.conf")])


def leases(world: World) -> None:
    """The uplinks are configured by what the host runs."""
    for dev in ("wan0", "wan1"):
        world["host"].ip(f"address flush dev {dev} scope global\n")
    dhcp.lease(world, "isp-a", "203.0.113.10")
    dhcp.lease(world, "isp-b", "198.51.100.10")


_CONNECTION = """\
[connection]
id={0}
type=ethernet
interface-name={0}
[ipv4]
method=auto
[ipv6]
method=auto
"""
_UNMANAGED_LAN = {
    "etc/systemd/network/00-lan0.network": "[Match]\nName=lan0\n[Link]\nUnmanaged=yes\n",
    "etc/NetworkManager/conf.d/lan.conf": "[keyfile]\nunmanaged-devices=interface-name:lan0\n",
}
_CONNECTIONS = {
    f"etc/NetworkManager/system-connections/{dev}.nmconnection": _CONNECTION.format(dev)
    for dev in ("wan0", "wan1")
}
READERS = {
    "docs/howto/bind.md": Reader(around=primary, files={"root/update.key": _KEY}),
    "docs/howto/cloud-aws.md": Reader("aws"),
    "docs/howto/cloud-azure.md": Reader("azure"),
    "docs/howto/cloud-hetzner.md": Reader("hetzner"),
    "docs/howto/docker.md": Reader(),
    "docs/howto/firewalld.md": Reader(around=web),
    "docs/howto/home-line-behind-nat.md": Reader(behind_a_cpe(), around=web),
    "docs/howto/networkmanager.md": Reader(
        around=leases,
        files=_CONNECTIONS | _UNMANAGED_LAN,
        before="systemctl start NetworkManager; nm-online -q -s -t 30",
    ),
    "docs/howto/proxies.md": Reader(around=server_behind),
    "docs/howto/systemd-networkd.md": Reader(around=leases, files=_UNMANAGED_LAN),
    "docs/howto/ufw.md": Reader(around=web),
}
