"""Other authoritative servers: BIND, Knot, gdnsd and PowerDNS, each for the lab's zone.

Rules: config, sockets and PID files are in the world's directory, and the world ends the servers.
Those that check addresses run in the core, beyond both providers, on their own addresses: there a
monitor sees what clients see, and no provider's failure cuts it off. Those that take updates run
there too.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ifdefault.lab import lookup, services
from ifdefault.lab.node import Node
from ifdefault.lab.topology import ZONE, DelegatedZone
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World

OUTSIDE = ("198.18.0.55", "2001:db8:f::55")
NAMESERVER = f"ns.{ZONE}"
DELEGATED = (DelegatedZone(ZONE, ((NAMESERVER, OUTSIDE),)),)
KEY_NAME = "host-key"
SECRET = "bm90IGEgc2VjcmV0LCBidXQgYSBrZXkgZm9yIHRlc3Rz"
KEY = f'key "{KEY_NAME}" {{\n  algorithm hmac-sha256;\n  secret "{SECRET}";\n}};\n'
_APEX = """\
@ {ttl} SOA {server}. hostmaster.{zone}. ( 1 7200 1800 259200 1 )
@ 3600 NS {server}.
ns 3600 A {v4}
ns 3600 AAAA {v6}
"""


def apex(ttl_s: int) -> str:
    return _APEX.format(ttl=ttl_s, server=NAMESERVER, zone=ZONE, v4=OUTSIDE[0], v6=OUTSIDE[1])


def settle_outside(world: World) -> Node:
    """The core, with addresses for a server."""
    core = world["core"]
    v4, v6 = OUTSIDE
    core.ip(f"address replace {v4}/16 dev net0\naddress replace {v6}/48 dev net0 nodad\n")
    return core


def addresses_of(world: World, family: int) -> dict[str, str]:
    """The host's addresses by provider."""
    return {t.provider: t.address for t in world.topology.targets() if t.family == family}


def serve(node: Node, name: str, command: Sequence[str], address: str, port: int) -> None:
    """Start a server; return when it answers for the zone."""
    child = services.start(node, name, command)
    services.answering(node, name, child, socket.SOCK_DGRAM, port, address)
    ask = partial(lookup.resolve_both, address, NAMESERVER, port=port)
    eventually(partial(node.python, ask), what=f"{name} answers")


# --- servers that check addresses -----------------------------------------------------------


def gdnsd_watching(world: World, ttl_s: int, **settings: int) -> None:
    """gdnsd's multifo: connects to port 80 of each address, and answers with those that are up."""
    core = settle_outside(world)
    thresholds = ", ".join(f"{key} => {value}" for key, value in settings.items())
    groups = ", ".join(
        f"addrs_v{family} => {{ {_labels(addresses_of(world, family))} }}" for family in (4, 6)
    )
    extra = f"""\
service_types => {{ web => {{ plugin => tcp_connect, port => 80, {thresholds} }} }}
plugins => {{ multifo => {{ www => {{ service_types => web, {groups} }} }} }}
"""
    zone = f"{apex(ttl_s)}@ {ttl_s}/{ttl_s} DYNA multifo!www\n"
    gdnsd(core, OUTSIDE, 53, zone, extra)


def _labels(addresses: dict[str, str]) -> str:
    return ", ".join(f"{name} => {address}" for name, address in addresses.items())


def powerdns_watching(world: World, ttl_s: int, interval_s: int, timeout_s: int) -> None:
    """PowerDNS's ifportup: the same."""
    core = settle_outside(world)
    home = services.home_of(core, "pdns")
    lines = []
    for family, kind in ((4, "A"), (6, "AAAA")):
        addresses = ", ".join(f"'{it}'" for it in addresses_of(world, family).values())
        call = f"ifportup(80, {{{addresses}}}, {{selector='all', timeout={timeout_s}}})"
        lines.append(f'@ {ttl_s} LUA {kind} "{call}"\n')
    zone = home / "zone"
    zone.write_text(f"$ORIGIN {ZONE}.\n{apex(ttl_s)}{''.join(lines)}", encoding="utf-8")
    named = f'zone "{ZONE}" {{ type master; file "{zone}"; }};\n'
    (home / "named.conf").write_text(named, encoding="utf-8")
    settings = {
        "launch": "bind",
        "bind-config": home / "named.conf",
        "enable-lua-records": "yes",
        "local-address": ", ".join(OUTSIDE),
        "local-port": 53,
        "socket-dir": home,
        "lua-health-checks-interval": interval_s,
        "security-poll-suffix": "",  # otherwise it queries the Internet for security news
    }
    text = "".join(f"{key}={value}\n" for key, value in settings.items())
    (home / "pdns.conf").write_text(text, encoding="utf-8")
    command = ["pdns_server", f"--config-dir={home}", "--daemon=no", "--guardian=no"]
    serve(core, "pdns_server", command, OUTSIDE[1], 53)


# --- servers that take updates --------------------------------------------------------------


def bind_updated(world: World) -> None:
    """BIND; the key may update the zone."""
    core = settle_outside(world)
    update = f'{{ type primary; file "zone"; allow-update {{ key "{KEY_NAME}"; }}; }}'
    bind(core, OUTSIDE, 53, f"$ORIGIN {ZONE}.\n{apex(10)}", update, KEY)


def knot_updated(world: World) -> None:
    """Knot; the same."""
    core = settle_outside(world)
    more = f"""\
key:
  - id: {KEY_NAME}
    algorithm: hmac-sha256
    secret: {SECRET}
acl:
  - id: update
    key: {KEY_NAME}
    action: update
"""
    knot(core, OUTSIDE, 53, f"$ORIGIN {ZONE}.\n{apex(10)}", more, "    acl: update\n")


@contextmanager
def key_file() -> Iterator[Path]:
    """The key, in a file that an unprivileged process can read."""
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o755)
        path = Path(home) / "key"
        path.write_text(KEY, encoding="utf-8")
        yield path


# --- the servers themselves -----------------------------------------------------------------


def gdnsd(node: Node, addresses: Sequence[str], port: int, zone: str, more: str = "") -> None:
    home = services.home_of(node, "gdnsd")
    for part in ("zones", "run"):
        (home / part).mkdir()
    listen = ", ".join(f'"{_with_port(address, port)}"' for address in addresses)
    config = f"options => {{ listen => [ {listen} ], run_dir => {home}/run, "
    config += f"state_dir => {home}/run }}\n{more}"
    (home / "config").write_text(config, encoding="utf-8")
    (home / "zones" / ZONE).write_text(zone, encoding="utf-8")
    serve(node, "gdnsd", ["gdnsd", "-c", str(home), "start"], addresses[-1], port)


def bind(
    node: Node,
    addresses: Sequence[str],
    port: int,
    zone: str,
    kind: str,
    more: str = "",
    views: str = "",
) -> None:
    """`kind` is the body of the zone clause; `views` take its place."""
    home = services.home_of(node, "bind")
    (home / "zone").write_text(zone, encoding="utf-8")
    four = " ".join(f"{address};" for address in addresses if ":" not in address)
    six = " ".join(f"{address};" for address in addresses if ":" in address)
    (home / "named.conf").write_text(
        f"""\
{more}
options {{
  directory "{home}";
  pid-file none;
  session-keyfile "{home}/session.key";
  managed-keys-directory "{home}";
  listen-on port {port} {{ {four or "none;"} }};
  listen-on-v6 port {port} {{ {six or "none;"} }};
  recursion no;
  dnssec-validation no;
  notify no;
}};
controls {{ }};
{views or f'zone "{ZONE}" {kind};'}
""",
        encoding="utf-8",
    )
    command = ["named", "-g", "-c", str(home / "named.conf")]
    serve(node, "bind", command, addresses[-1], port)


def knot(
    node: Node,
    addresses: Sequence[str],
    port: int,
    zone: str,
    more: str = "",
    of_zone: str = "",
) -> None:
    home = services.home_of(node, "knot")
    (home / "zone").write_text(zone, encoding="utf-8")
    listen = ", ".join(f"{address}@{port}" for address in addresses)
    (home / "knot.conf").write_text(
        f"""\
server:
  rundir: {home}
  listen: [ {listen} ]
database:
  storage: {home}
log:
  - target: stderr
    any: warning
{more}
zone:
  - domain: {ZONE}
    storage: {home}
    file: zone
    zonefile-load: difference
{of_zone}
""",
        encoding="utf-8",
    )
    serve(node, "knotd", ["knotd", "-c", str(home / "knot.conf")], addresses[-1], port)


def _with_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
