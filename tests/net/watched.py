"""What the network tests of the daemon share: a host that it keeps, and what it says of itself.

Rules: where the default goes is asked of the kernel, and never of the daemon.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ifdefault.ipc.control.client import ask
from ifdefault.ipc.control.protocol import Asks, Events, R, Status
from ifdefault.kernel.read import read_facts
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.kernel import PROTOCOL, Route, Rule
from ifdefault.model.report import DaemonStatus
from tests.net import answers

NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
FAR = {4: "198.18.1.10", 6: "2001:db8:f:1::10"}  # the client


@contextmanager
def public_run_dir(world: World) -> Iterator[None]:
    """The world's own directory is closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        world.run_dir = Path(folder)
        world.run_dir.chmod(0o755)
        yield


def standing(world: World) -> DaemonStatus:
    return request(world, Status())


def request(world: World, what: Asks[R]) -> R:
    return ask(world.run_dir, what)


def states(world: World) -> dict[tuple[str, int], str]:
    return {(h.uplink, h.family): h.state for h in standing(world).health}


def events(world: World, kind: str = "") -> list[str]:
    told = request(world, Events(500)).events
    return [event.text for event in told if kind in ("", event.kind)]


def leaves_by(world: World, family: int = 4) -> str:
    """The interface that a new connection of the host takes."""
    said = world["host"].run(["ip", "route", "get", FAR[family]]).stdout.split()
    return said[said.index("dev") + 1]


def start(world: World, more: str = "") -> subprocess.Popen[str]:
    """The daemon runs with some more [health] keys, and all paths that answer are known to. They
    return soon after a failure: how long they are held is `health`'s own to test."""
    answers.configure(world, f"[health]\nrecover_s = 0.3\n{more}")
    daemon = world.daemon()
    await_states(world, ["up"])
    return daemon


def await_states(world: World, wanted: Iterable[str], uplink: str = "") -> None:
    """Until all paths, or all of an uplink, are in one of these states."""

    def are() -> bool:
        found = [state for (name, _), state in states(world).items() if uplink in ("", name)]
        return bool(found) and all(state in wanted for state in found)

    eventually(are, what=f"{uplink or 'all'} {wanted}")


def await_default(world: World, dev: str) -> None:
    families = (4, 6)
    eventually(
        lambda: all(leaves_by(world, family) == dev for family in families),
        what=f"the default goes by {dev}",
    )


def ours(world: World) -> tuple[list[Rule], list[Route]]:
    """Our rules and routes, as the kernel holds them."""
    facts = world["host"].python(read_facts)
    rules = sorted(rule for rule in facts.rules if rule.protocol == PROTOCOL)
    return rules, sorted(route for route in facts.routes if route.protocol == PROTOCOL)
