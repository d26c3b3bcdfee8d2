"""The daemon under measurement, as a process on a lab's host.

Rules: it is started as a user starts it, by `ifdefault run`, with the state and run directories of
its world. Its status is read over its control socket, as `ifdefault status` does.
"""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from bench.subject import config
from ifdefault.daemon.control import client
from ifdefault.daemon.control.protocol import Status
from ifdefault.daemon.status import DaemonStatus
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.errors import HostError

_START_S = 60.0
_END_S = 20.0


class Daemon:
    """`ifdefault run` on the host of a world."""

    def __init__(self, world: World, text: str) -> None:
        self.world = world
        self._child: subprocess.Popen[str] | None = None
        world.config.write_text(text, encoding="utf-8")

    @property
    def child(self) -> subprocess.Popen[str]:
        """The engine's process."""
        assert self._child is not None
        return self._child

    def start(self) -> None:
        """Return when every path is up."""
        self._child = self.world.daemon()
        eventually(self.is_well, _START_S, what="every path is up", poll_s=0.1)

    def stop(self) -> None:
        self.child.terminate()
        self.child.wait(_END_S)

    def start_afresh(self) -> None:
        """Restart without state. An uplink that failed recently is kept down for longer (damping);
        each trial must be the first."""
        self.stop()
        shutil.rmtree(self.world.dir / "state", ignore_errors=True)
        self.start()

    def status(self) -> DaemonStatus:
        return client.ask(self.world.run_dir, Status(), timeout_s=10)

    def states(self) -> dict[tuple[str, int], str]:
        """The state of each path, as the daemon sees it."""
        health = self.status().health
        return {(path.uplink, path.family): path.state for path in health}

    def is_well(self) -> bool:
        """Whether it runs and every path is up."""
        if self.child.poll() is not None:
            raise HostError(f"the daemon ended: {self.log_tail()}")
        with suppress(client.NotRunning):
            states = self.states()
            return bool(states) and set(states.values()) == {"up"}
        return False

    def log_tail(self) -> str:
        """The last lines of its log."""
        return " / ".join((self.world.dir / "daemon.log").read_text().strip().splitlines()[-5:])

    def pids(self) -> list[int]:
        """The engine and its descendants; the frontend is the first of them."""
        pids = [self.child.pid]
        for pid in pids:
            tasks = Path(f"/proc/{pid}/task").glob("*/children")
            pids += [int(child) for task in tasks for child in task.read_text().split()]
        return pids


def two_uplinks() -> str:
    """The world `two` with default settings except ranks: the first uplink is primary."""
    return config(
        [
            {"name": "isp-a", "interface": "wan0"},
            {
                "name": "isp-b",
                "interface": "wan1",
                "gateways": ["198.51.100.1", "2001:db8:b::1"],
                "rank": 1,
            },
        ]
    )
