"""A world: a running topology, in its own network namespaces.

Rules: everything is removed in the end: namespaces are named `ifd-WORLD-NODE`, processes are
recorded by id and start time, and the registry lets another process take over the world
(`World.adopt`). Only processes that the world started are ended.
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
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from ifdefault.lab import build, filters, netns, registry
from ifdefault.lab.node import CommandFailed, Completed, Node, ip_batch
from ifdefault.lab.topology import Topology, parse
from ifdefault.lab.waiting import PATIENCE_S, eventually
from ifdefault.model.errors import HostError, Problem

_PROCESSES = "processes"  # the kind of the registry's entries "PID START"
_DAEMON = "daemon"
_LOG_LINES = 200
_DUMP = """\
ip -d address; ip -4 rule; ip -6 rule; ip -4 route show table all; ip -6 route show table all
ip neighbour; nft list ruleset; ss -tuanp"""


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
        """End the processes, remove the namespaces and the registry entry; safe to call twice."""
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
                output = self._log_tail(_DAEMON)
                raise CommandFailed(node, argv, Completed(argv, status, stdout=output, stderr=""))
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
        """The state of the world, for a failure report."""
        parts = [f"world {self.name} ({self.topology.name})\n{self.topology.drawing}"]
        for node in self:
            done = node.run(["sh", "-c", f"exec 2>&1; set -x; {_DUMP}"], check=False)
            parts.append(f"--- {node.name}\n{done.stdout}")
        if log := self._log_tail(_DAEMON):
            parts.append(f"--- {_DAEMON}.log\n{log}")
        return "\n".join(parts)

    def remember(self, child: subprocess.Popen[str], what: str = "") -> None:
        """Record a process, which ends with the world; `what` names it for `end`."""
        self._children[child.pid] = child
        if start := registry.start_time(child.pid):
            registry.add(self.name, _PROCESSES, f"{child.pid} {start}", what)

    def end(self, what: str | None = None) -> None:
        """End the processes recorded as `what`, also those of other processes; None for all."""
        known = registry.entries(self.name, _PROCESSES)
        ended = [entry for entry, text in known.items() if what in (None, text)]
        for signal_number, patience_s in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
            for entry in filter(_runs, ended):
                with suppress(ProcessLookupError):  # ended in between
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

    # --- building ------------------------------------------------------------------------

    def _build(self) -> None:
        topology = self.topology
        _check_programs(topology)
        self.config.write_text(topology.config, encoding="utf-8")
        registry.write(self.name, {"topology": topology.table})
        ip_batch([], build.namespace_lines(topology, self.netns))
        # before the links, which inherit them
        late = {node.name: self._set_sysctls(node, must_exist=False) for node in self}
        ip_batch([], build.link_lines(topology, self.netns))
        for node in self:
            node.ip(build.interface_lines(topology, node.spec))
        for left, right in topology.wires:
            self._start_wire(self[left.node].netns, left.dev, self[right.node].netns, right.dev)
        for node in self:
            node.configure()
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
        """Return whether some don't exist yet: those of interfaces that are created later."""
        sysctls = build.DEFAULT_SYSCTLS | build.link_sysctls(self.topology, node.name)
        sysctls |= dict(node.spec.sysctls)

        def write() -> bool:
            missing = False
            for name, value in sysctls.items():
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
            reason = self._log_tail("wire").rpartition("\n")[2]
            raise HostError(f"can't connect two tun devices: {reason}")

    def _start_radvd(self, node: Node) -> None:
        config = self.dir / f"radvd-{node.name}.conf"
        config.write_text(node.spec.radvd, encoding="utf-8")
        pid_file = self.dir / f"radvd-{node.name}.pid"
        command = ["radvd", "-n", "-C", str(config), "-p", str(pid_file), "-m", "stderr"]
        with self._log(f"radvd-{node.name}") as log:
            node.popen(command, stdout=log, stderr=log)
        for left, right in self.topology.links:
            peer, router = (left, right) if right.node == node.name else (right, left)
            if router.node == node.name and f"interface {router.dev} " in node.spec.radvd:
                self._await_advertisement(self[peer.node], peer.dev)

    def _await_advertisement(self, node: Node, dev: str) -> None:
        """Wait until a node has the default route that its router advertises."""
        command = ["ip", "-6", "route", "show", "default", "dev", dev, "proto", "ra"]
        eventually(lambda: node.run(command).stdout, what=f"{node.name} gets an advertisement")

    def _log(self, name: str, mode: str = "w") -> IO[str]:
        """A process's log file, so that it doesn't keep our stderr open."""
        return (self.dir / f"{name}.log").open(mode)

    def _log_tail(self, name: str) -> str:
        """The end of a log file, "" if there is none."""
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
    """The process that listens on a socket, 0 if none."""
    with socket.socket(socket.AF_UNIX) as sock, suppress(OSError):
        sock.connect(str(path))
        pid, _, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(pid)
    return 0
