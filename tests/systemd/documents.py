"""Which documents are followed, and what their reader has before he begins."""

from __future__ import annotations

from pathlib import Path

from ifdefault.dns.roots import ROOTS
from ifdefault.lab import dns, services
from ifdefault.lab.node import Node
from ifdefault.lab.topology import DelegatedZone
from ifdefault.lab.world import World
from tests.systemd import howtos
from tests.systemd.reader import Reader

TOP = Path(__file__).parents[2]
_A, _A6 = "203.0.113.10", "2001:db8:a::10"
_B, _B6 = "198.51.100.10", "2001:db8:b::10"
_ZONE = "www.example.net"
_DELEGATION = DelegatedZone(
    _ZONE, ((f"ns-isp-a.{_ZONE}", (_A, _A6)), (f"ns-isp-b.{_ZONE}", (_B, _B6)))
)


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


READERS = {
    "README.md": Reader(releases=("trixie",), installed=False, around=site),
    "docs/tutorial.md": Reader(releases=("bookworm", "trixie"), installed=False, around=site),
    **howtos.READERS,
}
HOSTS = [(name, release) for name, reader in READERS.items() for release in reader.releases]


def paths() -> list[Path]:
    """All documents that may tell a reader to do something."""
    docs = (path for path in (TOP / "docs").rglob("*.md") if path.parent.name != "decisions")
    found = [TOP / "README.md", TOP / "packaging/README.md", *docs]
    return sorted(path.relative_to(TOP) for path in found)
