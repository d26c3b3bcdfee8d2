"""Bad input: one clear sentence each, nothing touched, what is foreign survives.

client ── core ─┬─ isp-a ── wan0 ┬─ host
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess

import pytest

from ifdefault.cli.main import run
from ifdefault.host.store import LOCK
from ifdefault.kernel import nft
from ifdefault.lab.node import Completed
from ifdefault.lab.traffic import measure
from ifdefault.lab.waiting import PATIENCE_S, eventually
from tests.net.conftest import LabWorld
from tests.net.kernelstate import (
    apply,
    differences,
    operations_left,
    read_state,
    store_of,
    waits_for_the_lock,
)

THIRD = '\n[uplink.isp-c]\ninterface = "wan2"\ngateways = ["192.0.2.1"]\n'
APPEARS = """\
link add wan2 type veth peer name far
link set far up
link set wan2 up
address add 192.0.2.10/24 dev wan2
"""


def assert_sentence(done: Completed, status: int, *words: str) -> None:
    """One line that says what is wrong, and no traceback."""
    assert done.returncode == status, done
    assert len(done.stderr.removesuffix("1 error\n").splitlines()) == 1, done.stderr
    assert "internal error" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_an_interface_that_does_not_exist_yet(lab_world: LabWorld) -> None:
    world = lab_world("two")
    world.config.write_text(world.config.read_text() + THIRD)
    done = world.ifdefault("apply", check=True)
    assert "pending: interface wan2 doesn't exist" in done.stderr
    assert "2 of 3 uplinks in use" in done.stderr
    assert operations_left(world) == ()
    tallies = measure(world["client"], ["icmp"], world.topology.addresses("host"), count=2)
    wan = [tally for tally in tallies if not tally.target.startswith(("192.168", "fd00"))]
    assert len(wan) == 4
    assert all(tally.ok for tally in wan)
    status = world.ifdefault("status")
    assert status.returncode == 1
    assert "pending: interface wan2 doesn't exist" in status.stdout
    assert json.loads(world.ifdefault("apply", "--json").stdout)["pending"] == {
        "isp-c": "interface wan2 doesn't exist"
    }
    world["host"].ip(APPEARS)
    world.ifdefault("apply", check=True)
    assert operations_left(world) == ()
    assert world.ifdefault("status").returncode == 0


@pytest.mark.parametrize(
    "command",
    [
        *("plan", "check", "apply", "down", "init"),
        "apply --confirm 1",
    ],
)
def test_without_rights(lab_world: LabWorld, command: str) -> None:
    world = lab_world("two")
    apply(world)
    before = read_state(world["host"])
    # without capabilities root is as helpless as anybody, and that can be tested without root too
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *world.command]
    assert_sentence(world["host"].run([*powerless, *command.split()], check=False), 1, "root")
    assert differences(before, read_state(world["host"])) == []


def test_no_config(lab_world: LabWorld) -> None:
    world = lab_world("two")
    world.config.unlink()
    assert_sentence(
        world.ifdefault("apply"), 2, f"{world.config}: no such file; run `ifdefault init`"
    )


def test_not_toml(lab_world: LabWorld) -> None:
    world = lab_world("two")
    world.config.write_text("[uplink.isp-a\n")
    assert_sentence(world.ifdefault("apply"), 2, f"{world.config}:1:")


def test_all_errors_at_once_and_nothing_touched(lab_world: LabWorld) -> None:
    world = lab_world("two")
    before = read_state(world["host"])
    world.config.write_text('[uplink.isp-a]\ninterfaces = "wan0"\n[host]\nmark_mask = 5\n')
    done = world.ifdefault("apply")
    assert done.returncode == 2
    assert "interface" in done.stderr
    assert "mark_mask" in done.stderr
    assert differences(before, read_state(world["host"])) == []


@pytest.mark.parametrize(
    ("option", "line", "named"),
    [
        ("-4", "rule add pref 5020 to 192.0.2.0/24 lookup 77", "ip rule pref 5020"),
        ("-6", "rule add pref 5045 to 2001:db8:ff::/48 lookup 77", "ip -6 rule pref 5045"),
        ("-4", "rule add pref 900 to 192.0.2.0/24 lookup 1002", "ip rule pref 900"),
        ("-4", "route add 192.0.2.0/24 dev wan0 table 1001", "table 1001"),
        ("-6", "route add 2001:db8:ff::/48 dev wan0 table 1031", "table 1031"),
    ],
)
def test_foreign_numbers_in_our_range(
    lab_world: LabWorld, option: str, line: str, named: str
) -> None:
    world = lab_world("two")
    world["host"].ip(f"{line}\n", option)
    before = read_state(world["host"])
    assert_sentence(world.ifdefault("apply"), 1, named)
    world.ifdefault("down", check=True)
    assert differences(before, read_state(world["host"])) == []


def test_what_is_foreign_survives_a_whole_life(lab_world: LabWorld) -> None:
    """Rules and routes that came into our range after apply: named, and left by `down`."""
    world = lab_world("two")
    before = read_state(world["host"])
    apply(world)
    world["host"].ip("rule add pref 5030 from 203.0.113.10 lookup 1001\n", "-4")
    world["host"].ip("route add 192.0.2.0/24 dev wan0 table 1001\n")
    assert world.ifdefault("apply").returncode == 1
    world.ifdefault("down", check=True)
    left = differences(before, read_state(world["host"]))
    assert len(left) == 2
    assert left[0].startswith("+ 5030:")
    assert left[1].startswith("+ unicast 192.0.2.0/24 dev wan0 table 1001")


def test_a_foreign_table_of_our_name(lab_world: LabWorld) -> None:
    world = lab_world("two")
    world["host"].nft("table inet ifdefault {\n chain theirs {\n }\n}\n")
    before = read_state(world["host"])
    assert_sentence(world.ifdefault("apply"), 1, "nft table inet ifdefault")
    world.ifdefault("down", check=True)
    assert differences(before, read_state(world["host"])) == []


def test_without_libnftables(
    lab_world: LabWorld, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = lab_world("two")

    def missing(name: str) -> ctypes.CDLL:
        raise OSError(f"{name}: cannot open shared object file")

    nft._library.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", missing)
    arguments = ["-c", str(world.config), "--state-dir", str(world.dir / "state"), "apply"]
    assert world["host"].python(lambda: run(arguments)) == 1
    assert capsys.readouterr().err == (
        "ifdefault: nftables: libnftables.so.1 is missing;"
        " install nftables (on Debian and Ubuntu: apt install nftables)\n"
    )


def test_two_instances_at_once(lab_world: LabWorld) -> None:
    """The first holds the lock and waits for its config, which comes through a pipe."""
    world = lab_world("two")
    pipe = world.dir / "pipe"
    os.mkfifo(pipe)
    command = [str(pipe) if word == str(world.config) else word for word in world.command]
    first = world["host"].popen([*command, "apply", "-q"])
    lock = store_of(world).directory / LOCK
    eventually(lambda: lock.exists() and lock.read_text(), what="the first holds it")
    for subcommand in ("apply", "down"):
        second = world.ifdefault(subcommand)
        assert_sentence(second, 1, f"held by pid {first.pid}", "apply -q", "use --wait")
    third = world["host"].popen(
        [*world.command, "apply", "--wait"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    eventually(lambda: waits_for_the_lock(third.pid), what="the third waits")
    pipe.write_text(world.config.read_text())
    assert first.wait(PATIENCE_S) == 0
    _, said = third.communicate(timeout=PATIENCE_S)
    assert third.returncode == 0
    assert said == "nothing to do; 2 of 2 uplinks in use\n"


def test_names_of_others_are_bytes(lab_world: LabWorld) -> None:
    """An interface whose name is no UTF-8, and that a terminal would obey."""
    world, odd = lab_world("two"), "w\udcff\x1b[31m"
    host = world["host"]
    for line in (
        ("link", "add", odd, "type", "veth", "peer", "name", "far"),
        ("link", "property", "add", "dev", odd, "altname", f"{odd}0"),
        ("link", "set", odd, "up"),
        ("address", "add", "192.0.2.10/24", "dev", odd),
        ("rule", "add", "iif", odd, "priority", "4999", "lookup", "main"),
    ):
        host.run(["ip", *line], check=True)
    apply(world)
    assert operations_left(world) == ()
    daemon = world.daemon()
    for command in ("check", "status", "explain tcp 192.0.2.10 192.0.2.1", "events"):
        done = world.ifdefault(*command.split())
        assert done.returncode == 0, done
        assert "\x1b" not in done.stdout + done.stderr
    assert (
        r"dev w\xff\x1b[31m" in world.ifdefault(*"explain tcp 192.0.2.10 192.0.2.1".split()).stdout
    )
    host.run(["ip", "link", "delete", odd], check=True)
    eventually(lambda: world.ifdefault("status").returncode == 0, what="it looks again")
    assert daemon.poll() is None
    world.ifdefault("down", check=True)
    assert odd in host.run(["ip", "rule"]).stdout
