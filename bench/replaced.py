"""A daemon that is restarted, killed, and replaced by other versions."""

from __future__ import annotations

import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import ifdefault
from bench.daemon import Daemon
from ifdefault.host import left_dns_server
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.errors import HostError

RESTART_S = 1.0  # RestartSec= of our unit
_END_S = 20.0


class ReplacedDaemon(Daemon):
    """Each start returns when the engine has the DNS server, of its own version. `packages`: a
    directory for the versions."""

    def __init__(self, world: World, text: str, packages: Path) -> None:
        super().__init__(world, text)
        packages.chmod(0o755)  # the frontend's user reads it
        self._packages, self._number = packages, 0
        self._package = self._copy()

    def _copy(self) -> Path:
        """The package, as another version of its own."""
        self._number += 1
        here = self._packages / str(self._number)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(ifdefault.__file__).parent, here / "ifdefault", ignore=ignored)
        init = here / "ifdefault" / "__init__.py"
        version = f"{ifdefault.__version__}.{self._number}"
        init.write_text(init.read_text().replace(ifdefault.__version__, version))
        return here

    def launch(self) -> None:
        env = {"PYTHONPATH": str(self._package)}
        with (self.world.dir / "daemon.log").open("a") as out:
            argv = [*self.world.command, "run"]
            self._child = self.world["host"].popen(argv, env=env, stdout=out, stderr=out)

    def start(self) -> None:
        self.launch()
        eventually(self._answers, what="the DNS server is the engine's", poll_s=0.02)

    def _answers(self) -> bool:
        if self.child.poll() is not None:
            raise HostError(f"the daemon ended: {self.log_tail()}")
        with suppress(HostError):
            status = self.status()
            states = [publisher.state for publisher in status.dns.publishers]
            return status.pid == self.child.pid and states == ["current"]
        return False

    def end(self, number: int = signal.SIGTERM) -> None:
        self.child.send_signal(number)
        self.child.wait(_END_S)

    def restart(self) -> None:
        self.end()
        self.start()

    def kill(self) -> None:
        """Crash; systemd starts it again after RESTART_S."""
        self.end(signal.SIGKILL)
        time.sleep(RESTART_S)
        self.start()

    def upgrade(self) -> None:
        self._package = self._copy()
        self.restart()

    def freeze(self, time_s: float) -> None:
        """Stop the engine for a while, as a debugger or a starved host does."""
        self.child.send_signal(signal.SIGSTOP)
        try:
            time.sleep(time_s)
        finally:
            self.child.send_signal(signal.SIGCONT)

    def all_pids(self) -> dict[str, int]:
        """The engine, what it started, and the DNS server, which may be older than the engine."""
        engine, *others = self.pids()
        found = {"engine": engine, **{f"process {pid}": pid for pid in others}}
        with suppress(OSError, ValueError):
            dns = int((self.world.run_dir / left_dns_server.DNS_SERVER).read_text())
            found.pop(f"process {dns}", None)
            found["DNS server"] = dns
        return found
