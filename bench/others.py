"""What other programs do to the host's network, in great number: routes, links, addresses, rules.

Rules: each BULK is two batches for `ip`, of which the second one removes what the first one has
made. Nothing of it concerns an uplink's traffic. A storm makes and removes a bulk again and again,
and removes it in the end, also if it is interrupted.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from ifdefault.lab.node import Node
from ifdefault.model.errors import HostError

TABLE = 4242
_LAN = "via 192.168.1.10 dev lan0"  # in the lab's worlds
_BRIDGE = "ifdbr"
_BATCH_S = 900.0
_LEFT = 3  # containers that run at a time


@dataclass(frozen=True, slots=True)
class Bulk:
    """`add` and `remove` yield the lines of a batch."""

    what: str
    add: Callable[[], Iterator[str]]
    remove: Callable[[], Iterator[str]]

    def lay(self, node: Node) -> float:
        """Make it; return how long that took."""
        return _batch(node, self.add())

    def clear(self, node: Node) -> None:
        _batch(node, self.remove())


def _batch(node: Node, lines: Iterator[str]) -> float:
    """Pass lines to `ip`. Some may fail, since links come and go meanwhile."""
    path = node.world.dir / f"batch-{threading.get_ident()}"
    with path.open("w") as file:
        file.writelines(f"{line}\n" for line in lines)
    start_s = time.monotonic()
    argv = ["ip", "-force", "-batch", str(path)]
    node.run(argv, check=False, timeout_s=_BATCH_S)
    path.unlink()
    return time.monotonic() - start_s


def _prefix(number: int) -> str:
    """A /24 that nobody in the lab uses: 11.0.0.0/24 and the following."""
    return f"{11 + (number >> 16)}.{number >> 8 & 255}.{number & 255}.0/24"


def _routes(verb: str, count: int, way: str) -> Iterator[str]:
    return (f"route {verb} {_prefix(n)} {way} proto 12" for n in range(count))  # BIRD's protocol


def _addresses(verb: str, count: int) -> Iterator[str]:
    return (
        f"addr {verb} 10.{99 + (n >> 16)}.{n >> 8 & 255}.{n & 255}/32 dev lan0"
        for n in range(count)
    )


def _rules(verb: str, count: int) -> Iterator[str]:
    # neither the first priorities nor those of ours
    return (
        f"rule {verb} from 10.{n >> 8}.{n & 255}.0/24 lookup {TABLE} pref {10_000 + n}"
        for n in range(count)
    )


def _links(count: int) -> Iterator[str]:
    return (f"link add ifdv{n} type veth peer name ifdp{n}" for n in range(count))


def _no_links(count: int) -> Iterator[str]:
    return (f"link del ifdv{n}" for n in range(count))


def routes(count: int, way: str = f"{_LAN} table {TABLE}") -> Bulk:
    """`way`: the rest of each route, by default over a LAN and in a table of its own."""
    lines = partial(_routes, count=count, way=way)
    return Bulk(f"{count:,} routes", partial(lines, "add"), partial(lines, "del"))


def lan_routes(count: int) -> Bulk:
    return routes(count, _LAN)


def links(count: int) -> Bulk:
    """So many pairs."""
    return Bulk(f"{count:,} links", partial(_links, count), partial(_no_links, count))


def addresses(count: int) -> Bulk:
    lines = partial(_addresses, count=count)
    return Bulk(f"{count:,} addresses", partial(lines, "add"), partial(lines, "del"))


def rules(count: int) -> Bulk:
    lines = partial(_rules, count=count)
    return Bulk(f"{count:,} rules", partial(lines, "add"), partial(lines, "del"))


def storm(node: Node, bulks: tuple[Bulk, ...], stop: threading.Event, rest_s: float = 0.2) -> int:
    """Make and remove bulks until `stop`; return how often."""
    times = 0
    try:
        while not stop.is_set():
            for bulk in bulks:
                bulk.lay(node)
            times += 1
            stop.wait(rest_s)
            for bulk in bulks:
                bulk.clear(node)
    finally:
        for bulk in bulks:
            bulk.clear(node)
    return times


def changed_routes() -> Iterator[str]:
    """A route that changes, as with BGP or DHCP; without end."""
    number = 0
    while True:
        number = (number + 1) % 250
        yield f"route replace 100.64.0.{number}/32 {_LAN} table {TABLE}"


def containers() -> Iterator[str]:
    """Containers that start and end: a pair of links on a bridge and an address each. An item is
    the batch for one of them."""
    number = 0
    yield f"link add {_BRIDGE} type bridge\nlink set {_BRIDGE} up"
    while True:
        number += 1
        yield (
            f"link add ifdc{number} type veth peer name ifdd{number}\n"
            f"link set ifdc{number} master {_BRIDGE} up\nlink set ifdd{number} up\n"
            f"addr add 172.30.{number >> 8 & 255}.{number & 255}/32 dev ifdd{number}\n"
            f"link del ifdc{number - _LEFT}"
        )


@contextmanager
def churning(node: Node, batches: Iterator[str], every_s: float) -> Iterator[None]:
    """Pass a batch to one `ip` in these intervals, for a block. What it made goes with the
    world."""
    argv = ["ip", "-force", "-batch", "-"]
    with (node.world.dir / "churn.log").open("w") as log:
        child = node.popen(argv, stdin=subprocess.PIPE, stderr=log)
    stop = threading.Event()

    def feed() -> None:
        assert child.stdin is not None
        due_s = time.monotonic()
        for batch in batches:
            if stop.wait(max(0.0, due_s - time.monotonic())):
                return
            child.stdin.write(f"{batch}\n")
            child.stdin.flush()
            due_s += every_s

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
        if child.poll() is not None:
            raise HostError("ip ended early")
    finally:
        stop.set()
        thread.join()
        assert child.stdin is not None
        child.stdin.close()
        child.wait(10)
