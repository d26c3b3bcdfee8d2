"""The Internet's DNS, in the core: a root, the parents of the host's zones, and a resolver.

    client ──> unbound ──┬─> "."            root.lab     BIND
                         ├─> "example"      parent.lab   BIND: delegates www.example to
                         └─> "www.example"  ns-isp-a.www.example, ns-isp-b.www.example: the host

Rules: the resolver starts at that root and knows nothing else. Each parent also has a name `static`
with all of the host's addresses, as static records. Nothing is signed.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from ifdefault.lab import lookup, services
from ifdefault.lab.node import Node
from ifdefault.lab.topology import DelegatedZone
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World

ROOT = ("198.18.0.53", "2001:db8:f::53")
PARENT = ("198.18.0.54", "2001:db8:f::54")
RESOLVER = ("198.18.0.1", "2001:db8:f::1")  # where a client's provider has it
STATIC = "static"

# negative answers are cached for 1 s
_SOA = "SOA root.lab. hostmaster.lab. 1 7200 1800 259200 1"
_NAMED = """\
options {{
  directory "{home}";
  pid-file none;
  session-keyfile "{home}/session.key";
  managed-keys-directory "{home}";
  listen-on {{ {root4}; {parent4}; }};
  listen-on-v6 {{ {root6}; {parent6}; }};
  recursion no;
  dnssec-validation no;
  notify no;
}};
controls {{ }};
view root {{
  match-destinations {{ {root4}; {root6}; }};
  zone "." {{ type primary; file "root.zone"; }};
}};
view parents {{
  match-destinations {{ {parent4}; {parent6}; }};
{zones}}};
"""
HINTS = f"""\
. 3600 NS root.lab.
root.lab. 3600 A {ROOT[0]}
root.lab. 3600 AAAA {ROOT[1]}
"""


def installed() -> bool:
    return services.installed("named") and services.installed("unbound")


def start(
    world: World,
    *,
    delegations: Sequence[DelegatedZone] = (),
    static_ttl_s: int = 5,
    options: Mapping[str, str] | None = None,
) -> None:
    """Start all servers; `options` are of unbound's `server:` clause. Returns when the names
    `static` resolve."""
    delegations = tuple(delegations) or world.topology.delegations()
    addresses = sorted({target.address for target in world.topology.targets()})
    zones = render_zones(delegations, addresses, static_ttl_s)
    core = world["core"]
    named(core, zones)
    unbound(core, options or {})
    for name in (f"{STATIC}.{parent}" for parent in zones if parent):
        if any(name == delegation.zone for delegation in delegations):
            continue  # the host's own, not served yet
        ask = partial(lookup.resolve_both, RESOLVER[0], name)
        eventually(partial(core.python, ask), what=f"{name} resolves")


def named(node: Node, zones: Mapping[str, str]) -> subprocess.Popen[str]:
    """BIND, with a root and the zones below it, on separate addresses."""
    home = services.home_of(node, "named")
    clauses = []
    for number, (zone, text) in enumerate(zones.items()):
        file = f"{number}.zone" if zone else "root.zone"
        (home / file).write_text(text, encoding="utf-8")
        if zone:
            clauses.append(f'  zone "{zone}" {{ type primary; file "{file}"; }};\n')
    listen = dict(zip(("root4", "root6", "parent4", "parent6"), ROOT + PARENT, strict=True))
    config = home / "named.conf"
    config.write_text(_NAMED.format(home=home, zones="".join(clauses), **listen), encoding="utf-8")
    child = services.start(node, "named", ["named", "-g", "-n", "1", "-c", str(config)])
    return services.answering(node, "named", child, socket.SOCK_DGRAM, 53, PARENT[1])


def unbound(node: Node, options: Mapping[str, str]) -> subprocess.Popen[str]:
    """A resolver that starts at our root, and caches answers for their TTL."""
    hints = node.world.dir / "root.hints"
    hints.write_text(HINTS, encoding="utf-8")
    defaults = {
        "root-hints": f'"{hints}"',
        "rrset-roundrobin": "yes",
        "cache-min-ttl": "0",
        "prefetch": "no",
    }
    lines = "".join(f"  {key}: {value}\n" for key, value in {**defaults, **options}.items())
    return services.resolver(node, RESOLVER, lines)


def render_zones(
    delegations: Sequence[DelegatedZone], addresses: Iterable[str], ttl_s: int
) -> dict[str, str]:
    """The root, called "", and every parent, as zone files."""
    delegated = {delegation.zone for delegation in delegations}
    # a zone below another zone of the host is delegated by that one
    outer = [d for d in delegations if not _above(d.zone) & delegated]
    parents: dict[str, list[str]] = {}
    for delegation in outer:
        parents.setdefault(delegation.zone.partition(".")[2], []).extend(_delegate(delegation))
    root = _records("root.lab.", ROOT, 3600) + _records("parent.lab.", PARENT, 3600)
    root += parents.pop("", [])
    root += [f"{parent}. 3600 NS parent.lab." for parent in parents]
    zones = {"": _zone("", "root.lab.", root)}
    for parent, lines in parents.items():
        name = f"{STATIC}.{parent}"
        static = [] if name in delegated else _records(f"{name}.", addresses, ttl_s)
        zones[parent] = _zone(parent, "parent.lab.", lines + static)
    return zones


def _above(name: str) -> set[str]:
    labels = name.split(".")
    return {".".join(labels[at:]) for at in range(1, len(labels))}


def _delegate(delegation: DelegatedZone) -> list[str]:
    lines = []
    for name, addresses in delegation.nameservers:
        lines += [f"{delegation.zone}. 3600 NS {name}.", *_records(f"{name}.", addresses, 3600)]
    return lines


def _records(name: str, addresses: Iterable[str], ttl_s: int) -> list[str]:
    return [f"{name} {ttl_s} {'AAAA' if ':' in a else 'A'} {a}" for a in addresses]


def _zone(name: str, server: str, lines: Sequence[str]) -> str:
    return "\n".join([f"{name}. 3600 {_SOA}", f"{name}. 3600 NS {server}", *lines, ""])
