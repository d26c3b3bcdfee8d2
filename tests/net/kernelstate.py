"""All that a host's kernel holds of its network, to compare before and after; and the core of the
program run inside a world, without a process for each run.

Rules: what changes by itself is left out (counters, timers). Sysctls that a kernel module brings
along when it is first used are no difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ifdefault.config import read as read_config
from ifdefault.host import transaction
from ifdefault.host.store import LOCK, Store
from ifdefault.host.transaction import commit, prepare_config, prepare_down
from ifdefault.lab.node import Node
from ifdefault.lab.world import World
from ifdefault.model.config import Config
from ifdefault.model.kernel import Operation
from ifdefault.plan.prepare import Prepared

State = Counter[str]

_TABLES = """\
ip -o link
ip -d -4 rule; ip -d -6 rule
ip -d -4 route show table all; ip -d -6 route show table all
ip mptcp endpoint show; ip mptcp limits show
nft -s list ruleset"""
_SYSCTLS = Path("/proc/sys")
_COUNTERS = {"net/netfilter/nf_conntrack_count"}
_OF_MODULES = ("net/netfilter/", "net/nf_conntrack_max")


def read_state(node: Node) -> State:
    """Every line of links, rules, routes and rulesets, MPTCP's endpoints and limits, and
    every sysctl that can be read."""
    tables = node.run(["sh", "-e", "-c", _TABLES]).stdout.splitlines()
    return Counter(line.rstrip() for line in tables) + node.python(_sysctls)


def _sysctls() -> State:
    found: State = Counter()
    for path in (_SYSCTLS / "net").rglob("*"):
        name = str(path.relative_to(_SYSCTLS))
        if not path.is_file() or name in _COUNTERS:
            continue
        try:
            found[f"{name} = {path.read_text().strip()}"] = 1
        except OSError:
            continue  # can't be read: it is for writing only, or has no value yet
    return found


def differences(before: State, after: State) -> list[str]:
    """What went ("-") and what came ("+")."""
    known = {line.partition(" = ")[0] for line in before}
    came = [
        line
        for line in (after - before).elements()
        if not line.startswith(_OF_MODULES) or line.partition(" = ")[0] in known
    ]
    return [f"- {line}" for line in (before - after).elements()] + [f"+ {line}" for line in came]


def store_of(world: World) -> Store:
    return Store(world.dir / "state")


def apply(
    world: World, config: Config | None = None, before: Callable[[Operation], None] | None = None
) -> Prepared:
    """What `ifdefault apply` does, in this process."""

    def inside() -> Prepared:
        store = store_of(world)
        with store.lock(wait=True):
            return transaction.apply(
                lambda: prepare_config(config or read_config(world.config), store),
                store,
                *filter(None, [before]),
            )

    return world["host"].python(inside)


def down(world: World) -> Prepared:
    """What `ifdefault down` does, in this process."""

    def inside() -> Prepared:
        store = store_of(world)
        with store.lock(wait=True):
            prepared = prepare_down(store)
            commit(prepared, store)
        return prepared

    return world["host"].python(inside)


def operations_left(world: World, config: Config | None = None) -> tuple[Operation, ...]:
    """What `ifdefault plan` would show."""
    return world["host"].python(
        lambda: prepare_config(config or read_config(world.config), store_of(world)).operations
    )


def waits_for_the_lock(pid: int) -> bool:
    """Whether a process has opened the store's lock, which another one holds."""
    with suppress(OSError):
        return any(path.readlink().name == LOCK for path in Path(f"/proc/{pid}/fd").iterdir())
    return False


def processes(world: World, module: str) -> list[int]:
    """The processes of a world that run a module with its state directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it has ended
        if module in command and str(world.dir / "state") in command:
            found.append(int(path.parent.name))
    return found
