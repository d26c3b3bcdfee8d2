"""The topology "two" with other links between the host and its providers.

Rules: a world is written as the lab's topologies are, and opens with a drawing.
"""

from __future__ import annotations

import tomllib
from typing import Any

from ifdefault import config
from ifdefault.lab import topology
from ifdefault.lab.topology import Topology
from ifdefault.lab.world import World

_TWO: dict[str, Any] = {
    "extends": "two",
    "without": ["host", "content"],
}


def two(name: str, drawing: str, text: str) -> Topology:
    """The topology whose links and host are written in `text`; the host keeps its addresses."""
    table = topology.extend(_TWO | tomllib.loads(text))
    host = table["nodes"]["host"]
    original = topology.read("two")["nodes"]["host"]
    host = {"addresses": {}, "routes": original["routes"], "sysctls": original["sysctls"]} | host
    for dev in ("wan0", "wan1"):
        host["addresses"].setdefault(dev, original["addresses"][dev])
    table["nodes"]["host"] = host
    return topology.parse(table | {"name": name, "drawing": drawing})


def uplinks_found(world: World) -> list[str]:
    """The interfaces that `init` takes for uplinks."""
    text = world.ifdefault("init", "--print", check=True).stdout
    return [uplink.interface for uplink in config.parse(text, "init").uplinks]
