"""Records tests/golden/*/facts.json from hosts in the lab: `python -m tests.golden.record [CASE…]`.

Rules: the facts are those of a real kernel, with what differs from run to run (indexes, MACs,
link-local addresses, neighbours, the order of dumps) taken out or made the same; HANDMADE adds what
a case needs and the lab hasn't got at once. Needs root.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter

from ifdefault.config import parse
from ifdefault.kernel.perform import Performer
from ifdefault.kernel.read import read_facts
from ifdefault.lab.topology import load
from ifdefault.lab.world import World
from ifdefault.model.kernel import Facts, Neighbour, NftTable
from ifdefault.plan.desired import plan
from ifdefault.plan.diff import diff
from ifdefault.plan.originals import indexes

HERE = Path(__file__).parent
FACTS = TypeAdapter(Facts)


def strict(world: World) -> None:
    world["host"].sysctl("net.ipv4.conf.all.rp_filter", 1)


def forwarding(world: World) -> None:
    world["host"].sysctl("net.ipv4.ip_forward", 1)
    world["host"].sysctl("net.ipv6.conf.all.forwarding", 1)


def no_ipv4(world: World) -> None:
    world["host"].ip("address del 192.0.2.10/24 dev wan2\n")


def wg_quick_after_apply(world: World) -> None:
    _apply(world)
    world["host"].script("vpn_up")


def _apply(world: World) -> None:
    """As `apply` does, by the topology's own config."""
    config = parse(world.topology.config, "ifdefault.toml")

    def perform() -> None:
        facts = read_facts()
        names = {uplink.name: n for n, uplink in enumerate(config.uplinks, 1)}
        with Performer(indexes(facts)) as performer:
            for operation in diff(facts, plan(config, facts, names).desired, ()):
                performer.perform(operation)

    world["host"].python(perform)


def nothing(_: World) -> None:
    pass


CASES: dict[str, tuple[str, Callable[[World], None]]] = {
    "two": ("two", nothing),
    "dns": ("two", nothing),
    "outgoing": ("two", nothing),
    "three": ("three", no_ipv4),
    "shared-lan": ("shared-lan", nothing),
    "shared-address": ("shared-address", nothing),
    "same-gateway": ("same-gateway", nothing),
    "point-to-point": ("p2p", nothing),
    "link-local-gateways": ("linklocal", nothing),
    "many-addresses": ("many-addresses", nothing),
    "naive-udp": ("many-addresses", nothing),
    "conntrack": ("shared-lan", nothing),
    "mark": ("two", nothing),
    "tailscale": ("vpn", nothing),
    "wg-quick-after": ("fulltunnel-wg", wg_quick_after_apply),
    "uplink-removed": ("three", _apply),
    "strict-rp-filter": ("two", strict),
    "forward": ("lan", nothing),
    "containers": ("containers", nothing),
    "docker": ("docker", strict),
    "balanced-lan": ("lan", nothing),
    "routed": ("two", forwarding),
}
ROUTERS = (
    Neighbour(4, "wan0", "203.0.113.1", "00:00:5e:00:01:01"),  # VRRP's virtual MAC
    Neighbour(4, "wan0", "203.0.113.2", "00:00:5e:00:53:b1"),
    Neighbour(6, "wan0", "2001:db8:a::1", "00:00:5e:00:02:01", router=True),
    Neighbour(6, "wan0", "2001:db8:a::2", "00:00:5e:00:53:b1", router=True),
)
HANDMADE: dict[str, Callable[[Facts], Facts]] = {
    "naive-udp": lambda facts: replace(facts, wildcard_udp=((4, 53), (4, 4433), (6, 4433))),
    "shared-address": lambda facts: replace(facts, neighbours=ROUTERS),
}


def steady(facts: Facts) -> Facts:
    """The same facts on every run."""
    links = tuple(sorted(facts.links, key=lambda k: (not k.loopback, k.name)))
    macs = {link.mac: f"02:00:00:00:00:{n:02x}" for n, link in enumerate(links)}
    lasting = [a for a in facts.addresses if a.scope < 253 or not a.address.startswith("fe80:")]
    return replace(
        facts,
        links=tuple(replace(link, index=n, mac=macs[link.mac]) for n, link in enumerate(links, 1)),
        addresses=tuple(lasting),
        routes=tuple(sorted(facts.routes)),
        neighbours=(),
        tables=tuple((name, NftTable("sha256:of an older one")) for name, _ in facts.tables),
    )


def record(case: str) -> None:
    topology, prepare = CASES[case]
    with World.up(load(topology)) as world:
        prepare(world)
        facts = world["host"].python(read_facts)
    facts = steady(facts)
    if case in HANDMADE:
        facts = HANDMADE[case](facts)
    folder = HERE / case
    folder.mkdir(exist_ok=True)
    text = FACTS.dump_json(facts, indent=1, exclude_defaults=True).decode()
    (folder / "facts.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:] or CASES:
        record(name)
