"""A world: a topology that stands, in network namespaces of its own.

Rules: whatever happens, what was made is taken away: every namespace is named `ifd-WORLD-NODE`,
every process is remembered by its id and start time, and a state file lets another process take
the world over (`World.adopt`). We end only what we started.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from ifdefault.errors import HostError, Problem
from ifdefault.lab import build, filters, netns, registry
from ifdefault.lab.topology import NodeSpec, Topology, parse
from ifdefault.lab.waiting import eventually

T = TypeVar("T")
Completed = subprocess.CompletedProcess[str]
Stream = int | IO[str] | None

_DUMP = """\
ip -d address; ip -4 rule; ip -6 rule; ip -4 route show table all; ip -6 route show table all
ip neighbour; nft list ruleset; ss -tuanp"""


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
        """Run a command here; with `check` a failure tells the command and what it said."""
        command = netns.argv(self.netns, argv)
        done = _run(command, input=stdin, timeout=timeout_s, env=_environment(env))
        if check and done.returncode:
            raise CommandFailed(self.name, argv, done)
        return done

    def popen(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = None,
        stderr: Stream = None,
    ) -> subprocess.Popen[str]:
        """Start a command here, which the world ends when it goes down."""
        child: subprocess.Popen[str] = subprocess.Popen(
            netns.argv(self.netns, argv),
            text=True,
            env=_environment(env),
            start_new_session=True,  # the terminal's Ctrl-C is ours to handle
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )
        self.world.remember(child)
        return child

    def enter(self) -> AbstractContextManager[None]:
        """Put the calling thread here for a block; sockets made in it stay here."""
        return netns.entered(self.netns)

    def python(self, func: Callable[[], T]) -> T:
        """Call a function here, in a thread of its own."""
        return netns.call(self.netns, func)

    def script(self, name: str) -> Completed:
        """Run a script that the topology has for this node."""
        return self.run(["sh", "-e", "-c", dict(self.spec.scripts)[name]])

    def ip(self, lines: str, option: str = "") -> None:
        """Give lines to `ip -batch` here; `option` is "-4" or "-6" where it can't tell."""
        if lines:
            _batch(["-n", self.netns, *option.split()], lines)

    def nft(self, text: str) -> None:
        self.run(["nft", "-f", "-"], stdin=text)

    def sysctl(self, name: str, value: str | int | None = None) -> str:
        """Set a sysctl, if a value is given; return what it was."""
        path = Path("/proc/sys") / name.replace(".", "/")

        def change() -> str:
            was = path.read_text().strip()
            if value is not None:
                path.write_text(str(value))
            return was

        return self.python(change)

    def lay(self) -> None:
        """Lay this node's addresses and routes (again)."""
        self.ip(build.address_lines(self.spec))
        for option in build.OPTIONS:
            self.ip(build.route_lines(self.spec, option), option)


class CommandFailed(HostError):
    """A command in a node failed."""

    def __init__(self, node: str, argv: Sequence[str], done: Completed) -> None:
        said = (done.stderr + done.stdout).strip()
        super().__init__(f"{node}: {' '.join(argv)}: exit status {done.returncode}\n{said}")
        self.done = done


class World:
    """Use as a context manager: `with World.up(load("two")) as world: …`."""

    def __init__(self, name: str, topology: Topology) -> None:
        self.name = name
        self.topology = topology
        self.dir = registry.root() / name
        self.config = self.dir / "ifdefault.toml"
        self.keep = False
        self._children: dict[int, subprocess.Popen[str]] = {}
        self._started: list[tuple[int, int]] = []
        self.nodes = {spec.name: Node(self, spec) for spec in topology.nodes}

    @classmethod
    def up(cls, topology: Topology, *, name: str | None = None) -> World:
        world = cls(name or secrets.token_hex(3), topology)
        registry.claim(world.dir)
        try:
            world._build()
        except BaseException:
            world.down()
            raise
        return world

    @classmethod
    def adopt(cls, name: str) -> World:
        """Take over a world that another process made."""
        state = registry.read(name)
        world = cls(name, parse(json.loads(state["topology"])))
        world._started = [(pid, start) for pid, start in state["processes"]]
        return world

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.keep:
            self.down()

    def __getitem__(self, node: str) -> Node:
        return self.nodes[node]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def netns(self, node: str) -> str:
        return f"ifd-{self.name}-{node}"

    def down(self) -> None:
        """End our processes, remove our namespaces, forget the world; safe to call twice."""
        self._end_processes()
        for spec in self.topology.nodes:
            # one at a time: a batch would stop at the first that is gone already
            if (netns.RUN / self.netns(spec.name)).exists():
                _run(["ip", "netns", "del", self.netns(spec.name)])
        registry.forget(self.name)

    def ifdefault(self, *arguments: str, node: str = "host", check: bool = False) -> Completed:
        """Run the program under test on a node, with this world's config and state."""
        return self[node].run([*self.command, *arguments], check=check)

    @property
    def command(self) -> list[str]:
        head = [sys.executable, "-m", "ifdefault", "-c", str(self.config)]
        return [*head, "--state-dir", str(self.dir / "state")]

    def misrouted(self) -> dict[str, int]:
        """Packets that each provider refused because their source isn't its own."""
        command = ["nft", "-j", "list", "counters", "table", "inet", "bcp38"]
        return {
            p.name: filters.parse_count(json.loads(self[p.name].run(command).stdout))
            for p in self.topology.providers
        }

    def refusals(self) -> tuple[filters.Misrouted, ...]:
        """The same by source, protocol and the host's port."""
        command = ["nft", "-j", "list", "table", "inet", "bcp38"]
        return tuple(
            row
            for p in self.topology.providers
            for row in filters.parse_misrouted(p.name, json.loads(self[p.name].run(command).stdout))
        )

    def dump(self) -> str:
        """The whole state of the world, for a failure report."""
        parts = [f"world {self.name} ({self.topology.name})\n{self.topology.drawing}"]
        for node in self:
            done = node.run(["sh", "-c", f"exec 2>&1; set -x; {_DUMP}"], check=False)
            parts.append(f"--- {node.name}\n{done.stdout}")
        return "\n".join(parts)

    def remember(self, child: subprocess.Popen[str]) -> None:
        self._children[child.pid] = child
        self._started.append((child.pid, registry.start_time(child.pid)))
        self._save()

    # --- making and ending ---------------------------------------------------------------

    def _build(self) -> None:
        topology = self.topology
        _check_programs(topology)
        self.config.write_text(topology.config, encoding="utf-8")
        self._save()
        _batch([], build.namespace_lines(topology, self.netns))
        # before there are links: what they inherit must be there when they are made
        late = {node.name: self._set_sysctls(node, must_exist=False) for node in self}
        _batch([], build.link_lines(topology, self.netns))
        for node in self:
            node.ip(build.interface_lines(topology, node.spec))
        for left, right in topology.wires:
            self._start_wire(self[left.node].netns, left.dev, self[right.node].netns, right.dev)
        for node in self:
            node.lay()
            for option in build.OPTIONS:
                node.ip(build.rule_lines(node.spec, option), option)
            if node.spec.nft:
                node.nft(node.spec.nft)
            if late[node.name]:
                self._set_sysctls(node, must_exist=True)
        for node in self:
            if "up" in dict(node.spec.scripts):
                node.script("up")
            if node.spec.radvd:
                self._start_radvd(node)

    def _set_sysctls(self, node: Node, *, must_exist: bool) -> bool:
        """Return whether some aren't there yet: those of interfaces that are still to come."""
        wanted = build.DEFAULT_SYSCTLS | dict(node.spec.sysctls)

        def write() -> bool:
            missing = False
            for name, value in wanted.items():
                path = Path("/proc/sys") / name.removeprefix("-").replace(".", "/")
                if path.exists() or (must_exist and name[0] != "-"):
                    path.write_text(value)
                else:
                    missing = True
            return missing

        return node.python(write)

    def _start_wire(self, *ends: str) -> None:
        command = [sys.executable, "-m", "ifdefault.lab.wire", *ends]
        with self._log("wire") as log:
            child = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
            )
        self.remember(child)
        assert child.stdout is not None
        if child.stdout.readline() != "ready\n":
            said = (self.dir / "wire.log").read_text().strip().rpartition("\n")[2]
            raise HostError(f"a wire between two tun devices can't be laid: {said}")

    def _start_radvd(self, node: Node) -> None:
        config = self.dir / f"radvd-{node.name}.conf"
        config.write_text(node.spec.radvd, encoding="utf-8")
        pid_file = self.dir / f"radvd-{node.name}.pid"
        command = ["radvd", "-n", "-C", str(config), "-p", str(pid_file), "-m", "stderr"]
        with self._log(f"radvd-{node.name}") as log:
            node.popen(command, stdout=log, stderr=log)

    def _log(self, name: str) -> IO[str]:
        """A file for what a process of ours says: our own stderr isn't its to keep open."""
        return (self.dir / f"{name}.log").open("w")

    def _save(self) -> None:
        registry.write(self.name, {"topology": self.topology.table, "processes": self._started})

    def _end_processes(self) -> None:
        for signal_number, patience_s in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
            for pid, _ in filter(self._runs, self._started):
                with suppress(ProcessLookupError):  # gone in between
                    os.kill(pid, signal_number)
            try:
                eventually(lambda: not any(map(self._runs, self._started)), patience_s)
                break
            except TimeoutError:
                continue
        for child in self._children.values():
            for stream in filter(None, (child.stdin, child.stdout, child.stderr)):
                stream.close()
        self._started.clear()
        self._children.clear()

    def _runs(self, process: tuple[int, int]) -> bool:
        pid, start = process
        if child := self._children.get(pid):
            return child.poll() is None
        return registry.start_time(pid) == start


def _check_programs(topology: Topology) -> None:
    needed = {"ip": "iproute2", "nft": "nftables"}
    if any(node.radvd for node in topology.nodes):
        needed["radvd"] = "radvd"
    for program, package in needed.items():
        if not shutil.which(program):
            remedy = f"install the package {package}"
            raise HostError(Problem("", f"the lab needs the program {program}", remedy))


def _run(command: list[str], **options: Any) -> Completed:
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def _batch(options: list[str], lines: str) -> None:
    done = _run(["ip", *options, "-batch", "-"], input=lines)
    if done.returncode:
        raise HostError(f"the lab can't be built: {_failed_line(done.stderr, lines)}")


def _failed_line(said: str, lines: str) -> str:
    """Add the line of the batch to what `ip` said of it ("Command failed -:3")."""
    number = said.strip().rpartition(":")[2]
    line = lines.splitlines()[int(number) - 1] if number.isdigit() else ""
    return f"{' '.join(said.split())} ({line})"


def _environment(env: Mapping[str, str] | None) -> dict[str, str] | None:
    return {**os.environ, **env} if env else None
