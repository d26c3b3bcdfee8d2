"""Which documents are followed, and what their reader has before he begins."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ifdefault.dns.roots import ROOTS
from ifdefault.lab import dns, services, topology
from ifdefault.lab.node import Node
from ifdefault.lab.topology import DelegatedZone, Topology
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from tests.systemd import dhcp
from tests.systemd.booted import Booted

TOP = Path(__file__).parents[2]
_A, _A6 = "203.0.113.10", "2001:db8:a::10"
_B, _B6 = "198.51.100.10", "2001:db8:b::10"
FORMER = "var/cache/former.deb"  # the package before this one
_UPLINKS = ("wan0", "wan1")
_ZONE = "www.example.net"
_DELEGATION = DelegatedZone(
    _ZONE, ((f"ns-isp-a.{_ZONE}", (_A, _A6)), (f"ns-isp-b.{_ZONE}", (_B, _B6)))
)

_BIND = "docs/howto/bind.md"
_WIREGUARD = "docs/howto/wireguard.md"
_ZONE_FILE = """\
$TTL 3600
@ SOA ns1 hostmaster 1 3600 600 86400 30
@ NS ns1
ns1 A 198.18.1.10
"""
_NAMED = """\
options {{
  directory "{home}";
  pid-file none;
  session-keyfile "{home}/session.key";
  listen-on {{ 198.18.1.10; }};
  listen-on-v6 {{ none; }};
  recursion no;
}};
controls {{ }};
"""
# the host's own busybox, as if it came from a registry
IMAGE = """\
mkdir -p /srv/www; echo web >/srv/www/index.html
tar -c -h -C / bin/busybox srv/www |
  {0} --change 'CMD ["/bin/busybox", "httpd", "-f", "-p", "80", "-h", "/srv/www"]' - {1} >/dev/null
"""
# the host's files are an overlay already, and its control groups are another's
PODMAN = {
    "etc/containers/storage.conf": """\
[storage]
driver = "vfs"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
""",
    "etc/containers/containers.conf": '[containers]\ncgroups = "disabled"\n',
}
_CONNECTIONS = "etc/NetworkManager/system-connections"
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
_NOT_THE_LAN = "[keyfile]\nunmanaged-devices=interface-name:lan0\n"


def _titled(path: str, title: str) -> str:
    """The block of a document with this title."""
    return (TOP / path).read_text().partition(f' title="{title}"\n')[2].partition("```")[0]


def home() -> Topology:
    """client ── core ─┬─ isp-a ──────── wan0 ┬─ host
    └─ isp-b ── cpe ─ wan1 ┘  192.168.178.20
    """
    to_host = "dnat to 192.168.178.20"
    cpe = {
        "addresses": {"wan": ["198.51.100.10/24"], "lan": ["192.168.178.1/24"]},
        "routes": ["default via 198.51.100.1"],
        "sysctls": {"net.ipv4.ip_forward": 1},
        "nft": f"""table ip nat {{
          chain in {{
            type nat hook prerouting priority dstnat
            iifname wan tcp dport {{ 53, 80, 443 }} {to_host}
            iifname wan udp dport {{ 53, 443 }} {to_host}
          }}
          chain out {{ type nat hook postrouting priority srcnat; oifname wan masquerade; }}
        }}""",
    }
    table = topology.extend({"extends": "two", "nodes": {"cpe": cpe}, "config": ""})
    table |= {"name": "home", "title": "a line behind a router that translates", "drawing": ""}
    table["links"].remove("isp-b.cust0 host.wan1")
    table["links"] += ["isp-b.cust0 cpe.wan", "cpe.lan host.wan1"]
    host = table["nodes"]["host"]
    host["addresses"]["wan1"] = ["192.168.178.20/24"]
    routers = ("203.0.113.1", "2001:db8:a::1", "192.168.178.1 metric 100")
    host["routes"] = [f"default via {router}" for router in routers]
    return topology.parse(table)


def vps() -> Topology:
    """client ── core ─┬─ isp-a ── wan0 ┬─ host
    └─ vps ═══ wg0 ══┘  10.9.0.2
    """
    node = {
        "addresses": {"eth0": ["192.0.2.80/24"]},
        "routes": ["default via 192.0.2.1"],
        "sysctls": {"net.ipv4.ip_forward": 1},
        "nft": _titled(_WIREGUARD, "/etc/nftables.conf, on the vps"),
    }
    table = topology.extend({"extends": "one", "nodes": {"vps": node}, "config": ""})
    table |= {"name": "vps", "title": "a rented server passes connections on", "drawing": ""}
    table["links"] += ["core.vps vps.eth0"]
    table["nodes"].setdefault("core", {}).setdefault("addresses", {})["vps"] = ["192.0.2.1/24"]
    return topology.parse(table)


def far_end(host: Booted) -> None:
    """The vps's side of the tunnel; either side gets the other's public key."""
    node = host.world["vps"]
    name = f"wg{host.world.name}"  # its socket is this machine's
    services.start(node, "wireguard", ["wireguard-go", "--foreground", name])
    eventually(lambda: Path(f"/run/wireguard/{name}.sock").exists(), what="wireguard-go listens")
    theirs = host.shell("wg pubkey </etc/wireguard/wg0.key").strip()
    key = node.run(["wg", "genkey"]).stdout.strip()
    ours = node.run(["wg", "pubkey"], stdin=key).stdout.strip()
    config = _titled(_WIREGUARD, "/etc/wireguard/wg0.conf, on the vps").replace("…", theirs)
    (address,) = re.findall(r"Address = (.*)\n", config)
    config = re.sub(r"(Address|PostUp) = .*\n", "", config)
    node.run(["wg", "setconf", name, "/dev/stdin"], stdin=config)
    node.run(["wg", "set", name, "private-key", "/dev/stdin"], stdin=key)
    node.ip(f"address add {address} dev {name}\nlink set {name} up\n")
    file = host.path("etc/wireguard/wg0.conf")
    file.write_text(file.read_text().replace("…", ours))


def site(world: World) -> None:
    """A web server on the host, and the Internet's name servers, where the name is delegated."""
    services.nginx(world["host"])
    dns.start(world, delegations=[_DELEGATION])
    for family, own in zip((4, 6), dns.ROOT, strict=True):
        _answer_as_roots(world["core"], family, own)


def _answer_as_roots(core: Node, family: int, own: str) -> None:
    """The lab's root server is reached at the addresses of the Internet's."""
    roots = [address for _, address in ROOTS if (":" in address) == (family == 6)]
    core.ip("".join(f"address add {address} dev lo\n" for address in roots))
    name = "ip6" if family == 6 else "ip"
    to_own = f"{name} daddr {{ {', '.join(roots)} }} dnat to {own}"
    hook = "type nat hook prerouting priority dstnat"
    core.nft(f"table {name} roots {{ chain prerouting {{ {hook}; {to_own}; }}; }}")


def nothing(_: World) -> None:
    pass


def web(world: World) -> None:
    services.nginx(world["host"])


def behind(world: World) -> None:
    """A web server behind the host."""
    services.nginx(world["web1"])


def lan(world: World) -> None:
    """One on the host, and one behind it."""
    web(world)
    behind(world)


def leases(world: World) -> None:
    """Both providers lease the addresses that the host has in other worlds."""
    host = world["host"]
    for dev in ("wan0", "wan1"):
        host.ip(f"address flush dev {dev} scope global\n")
    dhcp.Provider(world, "isp-a", "wan0", _A, "2001:db8:a::")
    dhcp.Provider(world, "isp-b", "wan1", _B, "2001:db8:b::")


def content(world: World) -> None:
    """A web server behind the host, that answers with its own address."""
    node = world["content"]
    services.nginx(node)
    hook = "type nat hook prerouting priority dstnat"
    node.nft(f"table ip web {{ chain in {{ {hook}; tcp dport 8080 redirect to :80; }}; }}")


def name_server(host: Booted) -> None:
    """BIND on the client, with the key, and with what the document has it say."""
    (title,) = re.findall(r'title="(named\.conf\.local[^"]*)"', (TOP / _BIND).read_text())
    text = _titled(_BIND, title)
    client = host.world["client"]
    home = services.home_of(client, "named")
    key = host.path("etc/ifdefault/keys/update.key").read_text()
    (home / "update.key").write_text(key)
    (home / "example.net.db").write_text(_ZONE_FILE)
    for path in ("/etc/bind", "/var/lib/bind"):
        text = text.replace(path, str(home))
    config = home / "named.conf"
    config.write_text(_NAMED.format(home=home) + text)
    child = services.start(client, "named", ["named", "-g", "-n", "1", "-c", str(config)])
    services.answering(client, "named", child, socket.SOCK_DGRAM, 53, "198.18.1.10")


@dataclass(frozen=True, slots=True)
class Reader:
    """A reader's host, and the world around it."""

    topology: str | Topology = "two"
    releases: tuple[str, ...] = ("bookworm",)
    installed: bool = True  # ifdefault
    tools: bool = False  # see `package`
    files: Mapping[str, str] = field(default_factory=dict)
    around: Callable[[World], None] = nothing  # what runs beside the host
    before: str = ""  # what was done on the host
    after: tuple[str, ...] = ()  # what was followed before
    elsewhere: Mapping[str, Callable[[Booted], None]] = field(default_factory=dict)


_MAIL = {
    "opt/receivers.py": (TOP / "tests/unit/receivers.py").read_text(),
    "etc/systemd/system/mail.service": """\
[Service]
ExecStart=/usr/bin/python3 /opt/receivers.py 25
""",
}
# A document, without the sections of it that are here, too.
READERS = {
    "README.md": Reader(releases=("trixie",), installed=False, around=site),
    "docs/tutorial.md": Reader(releases=("bookworm", "trixie"), installed=False, around=site),
    "docs/install.md": Reader(releases=("trixie",), installed=False, tools=True),
    "docs/upgrade.md#from-a-checkout-or-a-virtual-environment-to-the-package": Reader(
        releases=("trixie",),
        installed=False,
        tools=True,
        after=("docs/install.md#a-virtual-environment", "docs/install.md#the-units"),
    ),
    "docs/upgrade.md": Reader(
        installed=False,
        around=web,
        before=f"apt-get -qq install /{FORMER}; ifdefault init; systemctl enable --now ifdefault",
    ),
    "docs/how-it-works.md": Reader(around=site),
    "docs/kernel-footprint.md": Reader(before="ifdefault init; systemctl enable --now ifdefault"),
    _BIND: Reader(elsewhere={"on the name server ns": name_server}),
    "docs/howto/cloud-aws.md": Reader("aws"),
    "docs/howto/cloud-azure.md": Reader("azure"),
    "docs/howto/cloud-hetzner.md": Reader("hetzner"),
    "docs/howto/docker.md": Reader(
        "lan",
        around=behind,
        before=f"systemctl start docker; {IMAGE.format('docker import', 'nginx')}",
    ),
    "docs/howto/doctor.md": Reader(before="ifdefault init; systemctl enable --now ifdefault"),
    "docs/howto/firewalld.md": Reader("lan", around=web),
    "docs/howto/history.md": Reader(before="ifdefault init; systemctl enable --now ifdefault"),
    "docs/howto/home-line-behind-nat.md": Reader(home(), around=web),
    "docs/howto/mptcp.md": Reader(tools=True),
    "docs/howto/networkmanager.md": Reader(
        files={
            "etc/NetworkManager/conf.d/lan.conf": _NOT_THE_LAN,
            **{f"{_CONNECTIONS}/{dev}.nmconnection": _CONNECTION.format(dev) for dev in _UPLINKS},
        },
        around=leases,
        before="systemctl start NetworkManager; nm-online --quiet",
    ),
    "docs/howto/notifications.md": Reader(files=_MAIL, before="systemctl start mail"),
    "docs/howto/podman.md": Reader(
        releases=("trixie",),
        files=PODMAN,
        before=IMAGE.format("podman import", "docker.io/library/nginx"),
    ),
    "docs/howto/prometheus.md": Reader(
        before="ifdefault init; systemctl enable --now ifdefault",
    ),
    "docs/howto/proxies.md": Reader(around=content),
    "docs/howto/report.md": Reader(before="ifdefault init; systemctl enable --now ifdefault"),
    "docs/howto/systemd-networkd.md": Reader(around=leases),
    "docs/howto/ufw.md": Reader("lan", around=lan),
    "docs/howto/web.md": Reader(before="ifdefault init; systemctl enable --now ifdefault"),
    _WIREGUARD: Reader(
        vps(),
        tools=True,
        around=web,
        elsewhere={"on the vps": far_end},
    ),
}
HOSTS = [(name, release) for name, reader in READERS.items() for release in reader.releases]


def text(name: str) -> str:
    """What a reader of this name, or of this section, reads; the rest is left blank."""
    path, _, section = name.partition("#")
    own = {other.partition("#")[2] for other in READERS if other.startswith(f"{path}#")}
    parts = re.split(r"(?m)^(?=## )", (TOP / path).read_text())
    return "".join(
        part if (_anchor(part) == section if section else _anchor(part) not in own) else "\n" * rows
        for part, rows in ((part, part.count("\n")) for part in parts)
    )


def _anchor(section: str) -> str:
    heading = section.partition("\n")[0].lower()
    return re.sub(r"\W+", "-", heading).strip("-")


def paths() -> list[Path]:
    """All documents that may tell a reader to do something."""
    docs = (path for path in (TOP / "docs").rglob("*.md") if path.parent.name != "decisions")
    found = [TOP / "README.md", TOP / "packaging/README.md", *docs]
    return sorted(path.relative_to(TOP) for path in found)
