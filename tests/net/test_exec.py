"""`ifdefault exec`, and control groups that have an uplink: all that they open leaves by it.

                ┌─ isp-a ── wan0 ┐   the default's
client ── core ─┤                ├ host lan0 ── content
                └─ isp-b ── wan1 ┘   the command's
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ifdefault.ipc.control.client import SOCKET, listener
from ifdefault.ipc.control.protocol import Reload
from ifdefault.kernel.ebpf import attach, cgroups
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.config import FAMILIES, Family
from tests.net import answers, watched
from tests.net.conftest import LabWorld
from tests.net.farend import A, B, Far, configure, far
from tests.net.watched import AS_NOBODY, NOBODY, public_run_dir

PACKAGING = Path(__file__).parents[2] / "packaging"
_CONNECT = """
for _ in $(seq "$5"); do exec 3<>"/dev/tcp/$1/$2" 4<>"/dev/tcp/$3/$4"; done
echo >"/dev/udp/$1/$2"; echo >"/dev/udp/$3/$4"
id -u; grep ^0:: /proc/self/cgroup
exit 7
"""


def exec_argv(world: World, ends: Far, uplink: str, count: int) -> list[str]:
    """A shell that connects so often, and sends a datagram, in each family."""
    ports = {f: str(ends.listeners[f].getsockname()[1]) for f in FAMILIES}
    far_ends = [word for f in FAMILIES for word in (watched.FAR[f], ports[f])]
    shell = ["bash", "-c", _CONNECT, "bash", *far_ends, str(count)]
    return [*world.command, "exec", uplink, "--", *shell]


def groups_of(world: World) -> list[str]:
    """The control groups that the hook knows, as they are now."""
    found = world["host"].python(attach.read)
    return [path for path, *_ in found.cgroups] if found else []


def own(group: str) -> None:
    """Give a control group to a user, as systemd gives users theirs."""
    for name in ("", "/cgroup.procs", "/cgroup.subtree_control"):
        os.chown(f"{group}{name}".lstrip("/"), NOBODY, NOBODY, dir_fd=cgroups.root())


def accepted(ends: Far, count: int) -> dict[Family, set[str]]:
    found: dict[Family, set[str]] = {}
    for family in FAMILIES:
        peers = [ends.listeners[family].accept() for _ in range(count)]
        ends.kept.extend(sock for sock, _ in peers)
        found[family] = {str(peer[0]) for _, peer in peers}
        found[family].add(str(ends.datagrams[family].recvfrom(9)[1][0]))
    return found


@pytest.mark.parametrize("daemon", [True, False])
def test_a_command_keeps_to_an_uplink(lab_world: LabWorld, daemon: bool) -> None:
    """As anybody where the daemon runs, as root where none does."""
    world = lab_world("two")
    configure(world, "")
    host = world["host"]
    with far(world) as ends, public_run_dir(world):
        argv = exec_argv(world, ends, "isp-b", 10)
        if daemon:
            world.daemon()
            argv = [*AS_NOBODY, *argv]
        else:
            answers.apply(world)
        done = host.run(argv, check=False)
        assert (done.returncode, done.stderr) == (7, "")
        uid, cgroup = done.stdout.splitlines()
        assert (uid, os.path.basename(cgroup)) == (
            str(NOBODY) if daemon else "0",
            "ifdefault-isp-b",
        )
        assert accepted(ends, 10) == {f: {B[f]} for f in FAMILIES}
        assert set(ends.connect(20)) == {A[4]}  # others don't
        if daemon:
            for _ in range(6):  # to come and go is no fight, and nothing to report
                host.run([*AS_NOBODY, *world.command, "exec", "isp-b", "--", "true"])
                eventually(lambda: not groups_of(world), what="the group is gone")
            assert not watched.events(world, "repair")
            assert not watched.events(world, "exec")
    if daemon:
        eventually(lambda: world["host"].python(attach.read) is None, what="the group is gone")
    world.ifdefault("down", check=True)
    assert world["host"].python(attach.read) is None


def test_the_rights_of_the_drop_in_are_enough(lab_world: LabWorld) -> None:
    """With those of the unit, also for a command in a control group that its user owns."""
    files = (PACKAGING / "ifdefault.service", PACKAGING / "balance.conf")
    lines = [re.findall(r"^CapabilityBoundingSet=(.+)$", f.read_text(), re.M)[0] for f in files]
    names = [name.removeprefix("CAP_").lower() for line in lines for name in line.split()]
    rights = ",".join(["-all", *(f"+{name}" for name in names)])
    world = lab_world("two")
    configure(world, "")
    group = f"/ifdefault-test-{world.name}"
    with far(world) as ends, public_run_dir(world), shell_in(world, group) as shell:
        confined = ["setpriv", "--nnp", "--inh-caps=-all", f"--bounding-set={rights}", "--"]
        run = [*confined, *world.command, "run"]
        child = world["host"].popen(run, stderr=subprocess.DEVNULL)
        eventually(lambda: listener(world.run_dir / SOCKET))
        watched.await_states(world, ["up"])
        own(group)
        said = tell(shell, shlex.join([*AS_NOBODY, *exec_argv(world, ends, "isp-b", 3)]))
        assert said.splitlines() == [str(NOBODY), f"0::{group}/ifdefault-isp-b"]
        assert accepted(ends, 3) == {f: {B[f]} for f in FAMILIES}
        # balancing works with them as well, from the start
        configure(world)
        watched.request(world, Reload())
        eventually(lambda: not groups_of(world), what="the group is gone")
        found = world["host"].python(attach.read)
        assert found is not None
        assert found.marks
        child.terminate()
        child.wait()


def test_what_an_uplink_has_no_way_for_takes_none(lab_world: LabWorld) -> None:
    """A control group's rule, from the config, whose group comes later than the rule does. Its
    uplink has no IPv6; what is in the LAN is reached all the same."""
    world = lab_world("two")
    group = f"/ifdefault-test-{world.name}"
    configure(world, f'[[outgoing.rule]]\ncgroups = ["{group}"]\nvia = ["isp-b"]\n')
    world.config.write_text(world.config.read_text().replace(', "2001:db8:b::1"', ""))
    host = world["host"]
    host.run(["ip", "-6", "address", "flush", "dev", "wan1"])
    world.daemon()
    watched.await_states(world, ["up"])

    with far(world) as ends, shell_in(world, group) as shell:
        eventually(lambda: groups_of(world) == [group], what="it is seen")
        port = ends.listeners[4].getsockname()[1]
        tell(shell, f"exec 3<>/dev/tcp/{watched.FAR[4]}/{port}")
        sock, peer = ends.listeners[4].accept()
        ends.kept.append(sock)
        assert peer[0] == B[4]
        port = ends.listeners[6].getsockname()[1]
        assert "unreachable" in tell(shell, f"exec 3<>/dev/tcp/{watched.FAR[6]}/{port}").lower()
        assert "refused" in tell(shell, "exec 3<>/dev/tcp/fd00:1::10/9").lower()


@contextmanager
def shell_in(world: World, group: str) -> Iterator[subprocess.Popen[str]]:
    """A shell of the host's in a control group, which goes with it."""
    pipe = subprocess.PIPE
    with world["host"].popen(["bash"], stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT) as child:
        try:
            cgroups.enter(child.pid, group)
            yield child
        finally:
            assert child.stdin is not None
            child.stdin.close()
            child.wait()
            cgroups.remove_empty(f"{group}/ifdefault-isp-b")
            eventually(lambda: cgroups.remove_empty(group), what="it is empty")


def tell(shell: subprocess.Popen[str], line: str) -> str:
    """Let a shell do something; what it says."""
    assert shell.stdin is not None
    assert shell.stdout is not None
    shell.stdin.write(f"{{ {line}; }} 2>&1\necho done\n")
    shell.stdin.flush()
    return "".join(iter(shell.stdout.readline, "done\n"))


def test_refusals_of_exec(lab_world: LabWorld) -> None:
    world = lab_world("two")
    configure(world, "")

    def refused(*arguments: str) -> tuple[int, str]:
        done: subprocess.CompletedProcess[str] = world.ifdefault("exec", *arguments)
        return done.returncode, done.stderr.strip()

    assert refused("isp-b", "--", "true") == (
        1,
        "ifdefault: uplink.isp-b: isn't applied; run ifdefault apply first",
    )
    world.daemon()
    assert refused("isp-x", "--", "true") == (
        1,
        'ifdefault: no uplink "isp-x"; there are isp-a, isp-b',
    )
    assert refused("isp-b")[0] == 2
    assert refused("isp-b", "--", "/nowhere/at-all") == (
        127,
        "ifdefault: /nowhere/at-all: no such file or directory",
    )
    assert refused("isp-b", "/etc/passwd")[0] == 126
    eventually(lambda: world["host"].python(attach.read) is None, what="the group is gone")
