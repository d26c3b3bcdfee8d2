"""The daemon under measurement, as a process on a lab's host.

Rules: it is started as a user starts it, by `ifdefault run`, with the state and run directories of
its world. Its status is read over its control socket, as `ifdefault status` does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bench.subject import config
from ifdefault.ipc.control import client
from ifdefault.ipc.control.protocol import Status
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.errors import HostError
from ifdefault.model.report import DaemonStatus

_START_S = 60.0
_END_S = 20.0
_ANSWER_S = 60.0  # an engine that is busy


class Daemon:
    """`ifdefault run` on the host of a world. `prefix`: a program that runs it, as env(1)."""

    def __init__(self, world: World, text: str, prefix: Sequence[str] = ()) -> None:
        self.world, self._prefix = world, prefix
        self._child: subprocess.Popen[str] | None = None
        world.config.write_text(text, encoding="utf-8")

    @property
    def child(self) -> subprocess.Popen[str]:
        """The engine's process."""
        assert self._child is not None
        return self._child

    def launch(self) -> None:
        """Return at once."""
        with (self.world.dir / "daemon.log").open("a") as out:
            argv = [*self._prefix, *self.world.command, "run"]
            self._child = self.world["host"].popen(argv, stdout=out, stderr=out)

    def start(self) -> None:
        """Return when every path is up."""
        self.launch()
        eventually(self.is_well, _START_S, what="every path is up", poll_s=0.1)

    def stop(self) -> None:
        self.child.terminate()
        self.child.wait(_END_S)

    def start_afresh(self) -> None:
        """Restart without state. An uplink that failed recently is kept down for longer (damping);
        each trial must be the first."""
        self.stop()
        self.forget()
        self.start()

    def forget(self) -> None:
        """Remove its state; it doesn't run."""
        shutil.rmtree(self.world.dir / "state", ignore_errors=True)

    def status(self) -> DaemonStatus:
        return client.ask(self.world.run_dir, Status(), timeout_s=_ANSWER_S)

    def states(self) -> dict[tuple[str, int], str]:
        """The state of each path, as the daemon sees it."""
        health = self.status().health
        return {(path.uplink, path.family): path.state for path in health}

    def is_well(self) -> bool:
        """Whether it runs and every path is up."""
        return set(self._states_now().values()) == {"up"}

    def knows_paths(self) -> bool:
        """Whether it runs and has planned: its status lists the paths."""
        return bool(self._states_now())

    def _states_now(self) -> dict[tuple[str, int], str]:
        """Empty while it doesn't answer yet."""
        if self.child.poll() is not None:
            raise HostError(f"the daemon ended: {self.log_tail()}")
        with suppress(client.NotRunning):
            return self.states()
        return {}

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

    def rss_mib(self) -> float:
        """The resident memory of all its processes."""
        return sum(map(rss_mib, self.pids()))

    def processor_s(self) -> float:
        """The processor time of the engine, from its start."""
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def rss_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


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
