"""A world: a topology that stands, in network namespaces of its own.

Rules: whatever happens, what was made is taken away: every namespace is named `ifd-WORLD-NODE`,
every process is remembered by its id and start time, and the registry lets another process take
the world over (`World.adopt`). We end only what we started.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from ifdefault.lab import build, filters, netns, registry
from ifdefault.lab.topology import NodeSpec, Topology, parse
from ifdefault.lab.waiting import PATIENCE_S, eventually
from ifdefault.model.errors import HostError, Problem

T = TypeVar("T")
Completed = subprocess.CompletedProcess[str]
StdStream = int | IO[str] | None

_PROCESSES = "processes"  # the kind of the registry's entries "PID START"
_DAEMON = "daemon"
_LOG_LINES = 200
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
        """Start a command here, which the world ends when it goes down; `what` is for `end`."""
        child = self._popen(
            argv,
            env=self.environment(env),
            start_new_session=True,  # the terminal's Ctrl-C is ours to handle
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )
        self.world.remember(child, what)
        return child

    def _popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(netns.argv(self.netns, argv), text=True, **options)

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """What commands here find: a daemon and its clients meet in the world's directory."""
        return {**os.environ, "IFDEFAULT_RUN_DIR": str(self.world.run_dir), **(more or {})}

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

    def lay(self, spec: NodeSpec | None = None, *, routes: bool = True) -> None:
        """Lay this node's addresses and routes (again), or those of another spec."""
        self.ip(build.address_lines(spec or self.spec))
        for option in build.OPTIONS if routes else ():
            self.ip(build.route_lines(spec or self.spec, option), option)


class CommandFailed(HostError):
    """A command in a node failed."""

    def __init__(self, node: str, argv: Sequence[str], done: Completed) -> None:
        said = (done.stderr + done.stdout).strip()
        super().__init__(f"{node}: {' '.join(argv)}: exit status {done.returncode}\n{said}")
        self.done = done


class World:
    """Use as a context manager: `with World.up(load("two")) as world: …`."""

    node_class = Node

    def __init__(self, name: str, topology: Topology) -> None:
        self.name = name
        self.topology = topology
        self.dir = registry.root() / name
        self.config = self.dir / "ifdefault.toml"
        self.run_dir = self.dir / "run"
        self.keep = False
        self._children: dict[int, subprocess.Popen[str]] = {}
        self.nodes = {spec.name: self.node_class(self, spec) for spec in topology.nodes}

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
        return cls(name, parse(json.loads(state["topology"])))

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
        self.end()
        for spec in self.topology.nodes:
            netns.delete(self.netns(spec.name))
        registry.forget(self.name)

    def ifdefault(self, *arguments: str, node: str = "host", check: bool = False) -> Completed:
        """Run the program under test on a node, with this world's config and state."""
        return self[node].run([*self.command, *arguments], check=check)

    @property
    def command(self) -> list[str]:
        head = [sys.executable, "-m", "ifdefault", "-c", str(self.config)]
        return [*head, "--state-dir", str(self.dir / "state")]

    def daemon(self, *options: str, node: str = "host") -> subprocess.Popen[str]:
        """Start `ifdefault run` on a node; return when it listens on its control socket."""
        argv = [*self.command, "run", *options]
        with self._log(_DAEMON, "a") as log:
            child = self[node].popen(argv, stdout=log, stderr=log)

        def listens() -> bool:
            if (status := child.poll()) is not None:
                said = self._said(_DAEMON)
                raise CommandFailed(node, argv, Completed(argv, status, stdout=said, stderr=""))
            return _listener(self.run_dir / "control.sock") == child.pid

        eventually(listens, what=f"the daemon listens ({self.dir}/daemon.log)")
        return child

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
        if said := self._said(_DAEMON):
            parts.append(f"--- {_DAEMON}.log\n{said}")
        return "\n".join(parts)

    def remember(self, child: subprocess.Popen[str], what: str = "") -> None:
        """Have a process ended with the world; `what` names it for `end`."""
        self._children[child.pid] = child
        if start := registry.start_time(child.pid):
            registry.add(self.name, _PROCESSES, f"{child.pid} {start}", what)

    def end(self, what: str | None = None) -> None:
        """End the processes that are remembered as `what`, whoever started them; None for all."""
        known = registry.entries(self.name, _PROCESSES)
        ended = [entry for entry, text in known.items() if what in (None, text)]
        for signal_number, patience_s in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
            for entry in filter(_runs, ended):
                with suppress(ProcessLookupError):  # gone in between
                    os.kill(_pid(entry), signal_number)
            try:
                eventually(lambda: not any(map(_runs, ended)), patience_s)
                break
            except TimeoutError:
                continue
        for entry in ended:
            registry.remove(self.name, _PROCESSES, entry)
        for pid in [*self._children] if what is None else map(_pid, ended):
            if child := self._children.pop(pid, None):
                child.wait(PATIENCE_S)
                for stream in filter(None, (child.stdin, child.stdout, child.stderr)):
                    stream.close()

    # --- making and ending ---------------------------------------------------------------

    def _build(self) -> None:
        topology = self.topology
        _check_programs(topology)
        self.config.write_text(topology.config, encoding="utf-8")
        registry.write(self.name, {"topology": topology.table})
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
        wanted = build.DEFAULT_SYSCTLS | build.link_sysctls(self.topology, node.name)
        wanted |= dict(node.spec.sysctls)

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
            said = self._said("wire").rpartition("\n")[2]
            raise HostError(f"a wire between two tun devices can't be laid: {said}")

    def _start_radvd(self, node: Node) -> None:
        config = self.dir / f"radvd-{node.name}.conf"
        config.write_text(node.spec.radvd, encoding="utf-8")
        pid_file = self.dir / f"radvd-{node.name}.pid"
        command = ["radvd", "-n", "-C", str(config), "-p", str(pid_file), "-m", "stderr"]
        with self._log(f"radvd-{node.name}") as log:
            node.popen(command, stdout=log, stderr=log)

    def _log(self, name: str, mode: str = "w") -> IO[str]:
        """A file for what a process of ours says: our own stderr isn't its to keep open."""
        return (self.dir / f"{name}.log").open(mode)

    def _said(self, name: str) -> str:
        """The end of such a file, "" if there is none."""
        with suppress(FileNotFoundError):
            text = (self.dir / f"{name}.log").read_text(errors="replace")
            return "\n".join(text.splitlines()[-_LOG_LINES:])
        return ""


def _pid(entry: str) -> int:
    return int(entry.split()[0])


def _runs(entry: str) -> bool:
    pid, start = map(int, entry.split())
    return registry.start_time(pid) == start


def _check_programs(topology: Topology) -> None:
    needed = {"ip": "iproute2", "nft": "nftables"}
    if any(node.radvd for node in topology.nodes):
        needed["radvd"] = "radvd"
    for program, package in needed.items():
        if not shutil.which(program):
            remedy = f"install the package {package}"
            raise HostError(Problem("", f"the lab needs the program {program}", remedy))


def _listener(path: Path) -> int:
    """The process that listens on a socket, 0 if none does."""
    with socket.socket(socket.AF_UNIX) as sock, suppress(OSError):
        sock.connect(str(path))
        pid, _, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(pid)
    return 0


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
