"""`down` after `apply` leaves no trace, nor does the script that stands in for it.

client ── core ─┬─ isp-a ── wan0 ┬─ host       (shared-address: both behind one wan0)
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from ifdefault.kernel.ebpf import attach
from ifdefault.lab import services
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.kernel import PROTOCOL
from tests.net import watched
from tests.net.conftest import LabWorld
from tests.net.farend import configure
from tests.net.kernelstate import apply, differences, down, read_state


def strict_filter(world: World) -> None:
    """A sysctl that distributions set, and that requires another one with marks."""
    world["host"].sysctl("net.ipv4.conf.wan0.rp_filter", 1)


def naive_udp(world: World) -> None:
    services.builtin(world["host"])


def own_group(world: World) -> None:
    world["host"].ip("link set wan0 group 7\n")


def odd_sysctl(world: World) -> None:
    world["host"].sysctl("net.ipv4.fwmark_reflect", 2)


def forwarding(world: World) -> None:
    world["host"].sysctl("net.ipv4.ip_forward", 1)


def hardened(world: World) -> None:
    """The kernel sets it when forwarding is enabled or disabled."""
    world["host"].sysctl("net.ipv4.conf.all.accept_redirects", 0)


def advertisements(world: World) -> None:
    world["host"].sysctl("net.ipv6.conf.wan1.accept_ra", 1)


def announcing(world: World) -> None:
    """There is an endpoint of another program, too."""
    world["host"].run(["ip", "mptcp", "endpoint", "add", "192.0.2.7", "id", "7", "signal"])
    world["host"].run(["ip", "mptcp", "limits", "set", "subflows", "3"])
    with world.config.open("a", encoding="utf-8") as config:
        config.write("[mptcp]\nannounce = true\n")


def nothing(world: World) -> None:
    pass


def script(world: World) -> Path:
    """Where the package's removal leaves it."""
    path = world.dir / "undo.sh"
    path.write_text(world.ifdefault("down", "--script", check=True).stdout)
    return path


@pytest.mark.parametrize(
    ("topology", "arrange", "trace"),
    [
        ("two", announcing, "id 250"),
        ("two", forwarding, "misrouted_2"),
        ("two", own_group, "group 171"),
        ("two", naive_udp, "dnat"),
        ("shared-address", nothing, "net/ipv4/tcp_fwmark_accept = 1"),
        ("shared-address", strict_filter, "net/ipv4/conf/wan0/src_valid_mark = 1"),
        ("shared-address", odd_sysctl, "net/ipv4/fwmark_reflect = 1"),
        ("docker", nothing, "chain save_forward"),
        ("containers", strict_filter, "net/ipv4/conf/wan0/rp_filter = 2"),
        ("lan", nothing, "net/ipv4/ip_forward = 1"),
        ("lan", hardened, "snat"),
        ("lan", advertisements, "net/ipv6/conf/wan1/accept_ra = 2"),
    ],
)
def test_down_leaves_everything_as_it_was(
    lab_world: LabWorld, topology: str, arrange: Callable[[World], None], trace: str
) -> None:
    world = lab_world(topology)
    arrange(world)
    before = read_state(world["host"])
    world.ifdefault("apply", check=True)
    assert trace in "\n".join(differences(before, read_state(world["host"])))
    undo = script(world)
    world["host"].run(["sh", str(undo)])
    assert differences(before, read_state(world["host"])) == []
    assert world["host"].run(["sh", str(undo)]).stdout == "", "nothing is left to do"
    world.ifdefault("apply", check=True)
    world.ifdefault("down", check=True)
    assert differences(before, read_state(world["host"])) == []
    again = world.ifdefault("down", check=True)
    assert (again.stdout, again.stderr) == ("", "nothing to do\n")


def test_the_script_detaches_the_programs(lab_world: LabWorld) -> None:
    world = lab_world("two")
    before = read_state(world["host"])
    configure(world)  # balance
    world.ifdefault("apply", check=True)
    assert world["host"].python(attach.read)
    undo = script(world)
    unseen = world["host"].run(["sh", str(undo)], check=False)
    assert "the eBPF programs can't be listed" in unseen.stderr, "no control groups are mounted"
    mounted = f"mount -t cgroup2 none /sys/fs/cgroup && exec sh {undo}"
    said = world["host"].run(["unshare", "--mount", "sh", "-c", mounted]).stdout
    assert said.count("bpftool cgroup detach") == 2
    assert world["host"].python(attach.find) == []
    assert differences(before, read_state(world["host"])) == []


def test_it_restores_what_was_set_under_another_boot_id(lab_world: LabWorld) -> None:
    """As in a container: its manager mounts its own over the kernel's, which not all units see."""
    world = lab_world("shared-address")
    strict_filter(world)
    before = read_state(world["host"])
    (world.dir / "boot_id").write_text(f"{uuid.uuid4()}\n")
    over = f"mount --bind {world.dir}/boot_id /proc/sys/kernel/random/boot_id"
    apply = shlex.join([*world.command, "apply"])
    world["host"].run(["unshare", "--mount", "sh", "-ec", f"{over}; exec {apply}"])
    world.ifdefault("down", check=True)
    assert differences(before, read_state(world["host"])) == []


def test_the_script_restores_nothing_that_someone_changed_since(lab_world: LabWorld) -> None:
    world = lab_world("shared-address")
    apply(world)
    undo = script(world)
    world["host"].sysctl("net.ipv4.fwmark_reflect", 2)
    world["host"].ip("link set wan0 group 9\nroute add 10.77.0.0/24 dev wan0 proto 171\n")
    world["host"].run(["sh", str(undo)])
    assert world["host"].run(["sysctl", "-n", "net.ipv4.fwmark_reflect"]).stdout == "2\n"
    assert "group 9 " in world["host"].run(["ip", "-o", "link", "show", "wan0"]).stdout
    assert "proto 171" not in "\n".join(read_state(world["host"])), "nor is one of ours left"


LOGIN = """\
import pathlib, socket
pathlib.Path("/proc/self/comm").write_text("sshd")
server = socket.create_server(("0.0.0.0", 22))
connections = []
while True:
    connections.append(server.accept())
"""


@pytest.mark.parametrize(("address", "is_cut"), [("203.0.113.10", False), ("198.51.100.10", True)])
def test_a_login_by_another_router_of_an_interface_prevents_the_script(
    lab_world: LabWorld, address: str, is_cut: bool
) -> None:
    """Table main would reach the client by the same interface, but through the wrong provider."""
    world = lab_world("shared-lan")
    world.ifdefault("apply", check=True)
    undo = script(world)
    world["host"].popen([sys.executable, "-c", LOGIN], what="sshd")
    command = (
        f"import socket, sys; s = socket.create_connection(('{address}', 22)); sys.stdin.read()"
    )
    eventually(
        lambda: ":22" in world["host"].run(["ss", "-Htnl"]).stdout, what="the server listens"
    )
    client = world["client"].popen(
        [sys.executable, "-c", command], what="ssh", stdin=subprocess.PIPE
    )
    eventually(
        lambda: address in world["host"].run(["ss", "-Htn", "state", "established"]).stdout,
        what="the login",
    )
    before = read_state(world["host"])
    done = world["host"].run(["sh", str(undo)], check=False)
    assert ("only ifdefault's rules answer it" in done.stderr) is is_cut, done.stderr
    assert (differences(before, read_state(world["host"])) == []) is is_cut
    assert client.poll() is None


def test_a_sysctl_that_someone_changed_since_is_left_alone(lab_world: LabWorld) -> None:
    world = lab_world("shared-address")
    before = read_state(world["host"])
    apply(world)
    world["host"].sysctl("net.ipv4.fwmark_reflect", 2)
    down(world)
    assert differences(before, read_state(world["host"])) == [
        "- net/ipv4/fwmark_reflect = 0",
        "+ net/ipv4/fwmark_reflect = 2",
    ]


def test_a_group_that_someone_changed_since_is_left_alone(lab_world: LabWorld) -> None:
    world = lab_world("two")
    apply(world)
    world["host"].ip("link set wan0 group 9\n")
    down(world)
    assert "group 9 " in world["host"].run(["ip", "-o", "link", "show", "wan0"]).stdout


def test_the_oldest_value_is_the_original(lab_world: LabWorld) -> None:
    """Whatever happened between two applies, `down` restores the state before the first."""
    world = lab_world("shared-address")
    before = read_state(world["host"])
    apply(world)
    world["host"].sysctl("net.ipv4.fwmark_reflect", 0)
    world["host"].ip("link set wan0 group 9\n")
    apply(world)
    down(world)
    assert differences(before, read_state(world["host"])) == []


def test_down_works_when_an_interface_is_gone(lab_world: LabWorld) -> None:
    world = lab_world("two")
    apply(world)
    world["host"].ip("link del wan1\n")
    down(world)
    left = "\n".join(read_state(world["host"]))
    assert "proto 171" not in left
    assert "table inet ifdefault" not in left
    assert "group 171" not in left


@pytest.mark.parametrize("again", [False, True])
def test_down_restores_a_renamed_interface(lab_world: LabWorld, again: bool) -> None:
    world = lab_world("two")
    world["host"].ip("link set wan1 group 7\n")
    queue = world["host"].run(["sysctl", "net.ipv4.neigh.wan1.unres_qlen_bytes"]).stdout
    apply(world)
    world["host"].ip("link set wan1 down\nlink set wan1 name lan9\nlink set lan9 up\n")
    if again:
        apply(world)
    down(world)
    assert "group 7 " in world["host"].run(["ip", "-o", "link", "show", "lan9"]).stdout
    now = world["host"].run(["sysctl", "net.ipv4.neigh.lan9.unres_qlen_bytes"]).stdout
    assert now == queue.replace("wan1", "lan9")


def test_another_interface_of_the_name_is_left_alone(lab_world: LabWorld) -> None:
    """It has the value that we gave to the one before it, but from its owner."""
    world = lab_world("two")
    apply(world)
    world["host"].ip(
        "link del wan1\nlink add wan1 type veth peer name peer\nlink set wan1 group 171\n"
    )
    down(world)
    assert "group 171 " in world["host"].run(["ip", "-o", "link", "show", "wan1"]).stdout


@pytest.mark.parametrize("daemon", [False, True])
def test_down_finds_routes_of_ours_in_any_table(lab_world: LabWorld, daemon: bool) -> None:
    """As an interrupted change of `table_base` leaves them: no rule looks them up any more."""
    world = lab_world("two")
    if daemon:
        watched.start(world)
    else:
        apply(world)
    world["host"].ip(f"route add 10.77.0.0/24 dev wan0 table 4243 protocol {PROTOCOL}\n")
    world.ifdefault("down", check=True)
    left = world["host"].run(["ip", "route", "show", "table", "all", "protocol", str(PROTOCOL)])
    assert left.stdout == ""
