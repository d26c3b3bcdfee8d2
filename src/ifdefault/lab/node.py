"""A node: one namespace of a world, and what is run there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from ifdefault.lab import build, netns
from ifdefault.lab.topology import NodeSpec
from ifdefault.model.errors import HostError

if TYPE_CHECKING:
    from ifdefault.lab.world import World

T = TypeVar("T")
Completed = subprocess.CompletedProcess[str]
StdStream = int | IO[str] | None


class Node:
    """One namespace of a world."""

    def __init__(self, world: World, spec: NodeSpec) -> None:
        self.world = world
        self.spec = spec
        self.name = spec.name
        self.netns = world.netns(spec.name)

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        stdin: str | None = None,
        timeout_s: float = 120.0,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run a command here; with `check` a failure raises CommandFailed with its output."""
        pipe = subprocess.PIPE
        with self._popen(
            argv,
            env=self.environment(env),
            stdin=None if stdin is None else pipe,
            stdout=pipe,
            stderr=pipe,
        ) as child:
            try:
                out, err = child.communicate(stdin, timeout_s)
            except BaseException:
                child.kill()
                raise
        done = Completed(argv, child.returncode, out, err)
        if check and done.returncode:
            raise CommandFailed(self.name, argv, done)
        return done

    def popen(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdin: StdStream = subprocess.DEVNULL,
        stdout: StdStream = None,
        stderr: StdStream = None,
        what: str = "",
    ) -> subprocess.Popen[str]:
        """Start a command here, which ends with the world; `what` is for `end`."""
        child = self._popen(
            argv,
            env=self.environment(env),
            start_new_session=True,  # Ctrl-C is handled by this process alone
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )
        self.world.remember(child, what)
        return child

    def _popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            netns.argv(self.netns, argv), text=True, errors="surrogateescape", **options
        )

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of commands: the daemon's run directory is the world's."""
        return {**os.environ, "IFDEFAULT_RUN_DIR": str(self.world.run_dir), **(more or {})}

    def enter(self) -> AbstractContextManager[None]:
        """Put the calling thread here for a block; sockets made in it stay here."""
        return netns.entered(self.netns)

    def python(self, func: Callable[[], T]) -> T:
        """Call a function here, in a new thread."""
        return netns.call(self.netns, func)

    def script(self, name: str) -> Completed:
        """Run one of the topology's scripts for this node."""
        return self.run(["sh", "-e", "-c", dict(self.spec.scripts)[name]])

    def ip(self, lines: str, option: str = "") -> None:
        """Pass lines to `ip -batch` here; `option`: "-4" or "-6" if it can't infer the family."""
        if lines:
            ip_batch(["-n", self.netns, *option.split()], lines)

    def nft(self, text: str) -> None:
        self.run(["nft", "-f", "-"], stdin=text)

    def sysctl(self, name: str, value: str | int | None = None) -> str:
        """Set a sysctl, if a value is given; return the old value."""
        path = Path("/proc/sys") / name.replace(".", "/")

        def change() -> str:
            old = path.read_text().strip()
            if value is not None:
                path.write_text(str(value))
            return old

        return self.python(change)

    def configure(self, spec: NodeSpec | None = None, *, routes: bool = True) -> None:
        """Install this node's addresses and routes (again), or those of another spec."""
        self.ip(build.address_lines(spec or self.spec))
        for option in build.OPTIONS if routes else ():
            self.ip(build.route_lines(spec or self.spec, option), option)


class CommandFailed(HostError):
    """A command in a node failed."""

    def __init__(self, node: str, argv: Sequence[str], done: Completed) -> None:
        output = (done.stderr + done.stdout).strip()
        super().__init__(f"{node}: {' '.join(argv)}: exit status {done.returncode}\n{output}")
        self.done = done


def _run(command: list[str], **options: Any) -> Completed:
    return subprocess.run(
        command, capture_output=True, errors="surrogateescape", check=False, **options
    )


def ip_batch(options: list[str], lines: str) -> None:
    done = _run(["ip", *options, "-batch", "-"], input=lines)
    if done.returncode:
        raise HostError(f"the lab can't be built: {_failed_line(done.stderr, lines)}")


def _failed_line(error: str, lines: str) -> str:
    """Add the line of the batch to `ip`'s error ("Command failed -:3")."""
    number = error.strip().rpartition(":")[2]
    line = lines.splitlines()[int(number) - 1] if number.isdigit() else ""
    return f"{' '.join(error.split())} ({line})"
