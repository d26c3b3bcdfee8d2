"""The program under measurement, called in process on a lab's host, as by `ifdefault apply`.

Rules: whole stages, as in the command: prepare (read, plan, check) and commit (check with nft,
perform, re-read, verify, save). Each call runs in a thread inside the host's namespace.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bench.clock import time_ms
from ifdefault.host.store import Store
from ifdefault.host.transaction import commit, prepare, prepare_down
from ifdefault.lab.node import Node
from ifdefault.lab.world import World
from ifdefault.plan.prepare import Prepared


@dataclass(frozen=True, slots=True)
class Applied:
    prepare_ms: float
    commit_ms: float
    operations: int

    @property
    def total_ms(self) -> float:
        return self.prepare_ms + self.commit_ms


class Subject:
    """The host of a world, with a config that can be changed."""

    def __init__(self, world: World, node: str = "host") -> None:
        self.world = world
        self.node: Node = world[node]
        self.store = Store(world.dir / "state")

    def apply(self, config: str | None = None) -> Applied:
        """Apply, with a new config if one is given; return how long both stages took."""
        if config is not None:
            self.world.config.write_text(config, encoding="utf-8")

        def work() -> Applied:
            prepared: list[Prepared] = []
            with self.store.lock():
                prepare_ms = time_ms(lambda: prepared.append(self.prepare()))
                commit_ms = time_ms(lambda: commit(prepared[0], self.store))
            return Applied(prepare_ms, commit_ms, len(prepared[0].operations))

        return self.node.python(work)

    def down(self) -> None:
        def work() -> None:
            with self.store.lock():
                commit(prepare_down(self.store), self.store)

        self.node.python(work)

    def prepare(self) -> Prepared:
        return prepare(self.world.config, self.store)


def config(uplinks: Iterable[dict[str, object]], **host: object) -> str:
    """A config file of uplinks, each with its `name`, and `[host]` keys."""
    lines = []
    for uplink in uplinks:
        lines.append(f"[uplink.{uplink['name']}]")
        lines += [f"{key} = {_toml(value)}" for key, value in uplink.items() if key != "name"]
    lines.append("[host]")
    lines += [f"{key} = {_toml(value)}" for key, value in host.items()]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return str(value).lower() if isinstance(value, int) else f'"{value}"'
