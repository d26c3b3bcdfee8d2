"""The DNS goes on while the engine restarts, dies, or is replaced by one of another version.

Rules: a client asks all the time. Each query must be answered, and within LIMIT_S unless the test's
machine is too busy for that, which `./dev bench dns_restart` is not.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

import ifdefault
from ifdefault.ipc.messages import Leave
from ifdefault.kernel.open_dns_sockets import is_dns_server
from ifdefault.lab import faults, netns, registry
from ifdefault.lab.dns_load import DnsLoad
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from tests.net.conftest import LabWorld
from tests.net.served import serving, until
from tests.net.test_dns_daemon import (
    A6,
    B6,
    NAME,
    A,
    B,
    addresses,
    answered,
    configure,
    end,
    serial,
    serve,
)
from tests.net.watched import await_states, events, standing

RATE = 100  # queries a second


def servers(world: World) -> set[int]:
    """The DNS servers that run on the host."""
    place = (netns.RUN / world["host"].netns).stat().st_ino
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if is_dns_server(int(entry.name)) and (entry / "ns/net").stat().st_ino == place:
                found.add(int(entry.name))
        except OSError:
            continue
    return found


def the_server(world: World) -> int:
    (pid,) = servers(world)
    return pid


def adopted(world: World) -> bool:
    """Whether the engine has a DNS server that answers."""
    return [o.state for o in standing(world).dns.publishers] == ["current"]


@contextmanager
def asked(world: World, killed_s: Sequence[float] = ()) -> Iterator[DnsLoad]:
    """Ask all the time; in the end no query may have failed, but those that a server had read when
    it was killed."""
    load = DnsLoad(world["client"], (A, B, A6, B6), NAME, rate=RATE)
    load.start()
    try:
        yield load
    finally:
        load.stop()
    for outcome in load.outcomes:
        assert outcome.asked
        assert [it for it in outcome.failed if it[0] > max(killed_s, default=0.0)] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_is_not_noticed(lab_world: LabWorld, number: int) -> None:
    world = lab_world("two")
    serve(world)
    pid, before = the_server(world), serial(world)
    with asked(world):
        end(world, number)
        assert addresses(world) == {A, B}, "nobody but the DNS server is left"
        world.daemon()
        await_states(world, ["up"])
        eventually(lambda: adopted(world), what="the new engine has it")
    with faults.injected(world, "blackhole", "isp-b"):
        eventually(lambda: addresses(world) == {A}, what="what it answers follows the uplinks")
    assert the_server(world) == pid
    assert serial(world) > before


def test_it_ends_with_ctrl_c_and_with_down(lab_world: LabWorld) -> None:
    world = lab_world("two")
    serve(world)
    end(world, signal.SIGINT)
    eventually(lambda: not servers(world), what="Ctrl-C ends it")
    world.daemon()
    eventually(lambda: answered(world), what="the next one answers")
    end(world, signal.SIGKILL)
    assert answered(world)
    for command in ("status", "check", "dns"):
        done = world.ifdefault(command)
        left = f"its DNS server (pid {the_server(world)}) still answers"
        assert left in done.stdout + done.stderr, command
    assert world.ifdefault("status").returncode == 1
    world.ifdefault("down", check=True)
    assert "still answers" not in world.ifdefault("status").stdout
    assert not servers(world)


def test_it_lingers_after_a_stop_and_then_ends(lab_world: LabWorld) -> None:
    async def main() -> None:
        async with serving(lab_world("two")) as server:
            await server.settled()
            pid = server.connection.pid
            server.connection.send(Leave(1))
            server.connection.close()
            assert registry.start_time(pid)
            await until(lambda: not registry.start_time(pid), "its end")
            server.ends.append("by itself")

    asyncio.run(main())


def test_a_config_without_zones_ends_it(lab_world: LabWorld) -> None:
    world = lab_world("two")
    serve(world)
    text = world.config.read_text()
    world.config.write_text(text[: text.index("[[dns.name]]")])
    world.ifdefault("reload", check=True)
    eventually(lambda: not servers(world), what="it has ended")
    world.config.write_text(text)
    world.ifdefault("reload", check=True)
    eventually(lambda: answered(world), what="it answers again")
    end(world, signal.SIGKILL)
    world.config.write_text(text[: text.index("[[dns.name]]")])
    world.daemon()
    eventually(lambda: not servers(world), what="an engine that needs none ends it, too")


def test_one_that_hangs_is_replaced(lab_world: LabWorld) -> None:
    world = lab_world("two")
    serve(world)
    os.kill(hung := the_server(world), signal.SIGSTOP)
    end(world, signal.SIGKILL)
    world.daemon()
    eventually(lambda: answered(world), what="another one answers")
    assert hung not in servers(world)


def test_one_that_was_killed_is_replaced_and_no_query_refused(lab_world: LabWorld) -> None:
    world = lab_world("two")
    serve(world)
    before = serial(world)
    killed_s: list[float] = []
    with asked(world, killed_s):
        os.kill(killed := the_server(world), signal.SIGKILL)
        killed_s.append(time.monotonic())
        eventually(lambda: servers(world) - {killed}, what="the next one runs")
        eventually(lambda: answered(world), what="it answers")
    assert serial(world) == before
    assert any(text.startswith("the DNS server ended") for text in events(world, "dns"))


def run_another(world: World, folder: Path, file: str, old: str, new: str) -> None:
    """Run the daemon of a copy of the package, in which something differs."""
    ignored = shutil.ignore_patterns("__pycache__")
    copy = Path(
        shutil.copytree(Path(ifdefault.__file__).parent, folder / "ifdefault", ignore=ignored)
    )
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new))
    command = netns.argv(world["host"].netns, [*world.command, "run"])
    env = world["host"].environment({"PYTHONPATH": str(folder)})
    world.remember(subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL, text=True))


def test_another_version_takes_over(lab_world: LabWorld, tmp_path: Path) -> None:
    """An upgrade of the package, and the restart after it."""
    world = lab_world("two")
    serve(world)
    old = the_server(world)
    with asked(world):
        end(world)
        run_another(world, tmp_path, "__init__.py", ifdefault.__version__, "99.0")
        eventually(lambda: servers(world) - {old}, what="the next one runs")
        eventually(lambda: old not in servers(world), what="the old one has left")
        assert addresses(world) == {A, B}
    assert any("hands over to 99.0" in text for text in events(world, "dns"))


def test_one_that_is_not_understood_leaves(lab_world: LabWorld, tmp_path: Path) -> None:
    world = lab_world("two")
    configure(world)
    field = '    version: Annotated[str, text(r"[!-~]{1,64}")]\n'
    run_another(world, tmp_path, "ipc/messages.py", field, f"{field}    more: _Count = 0\n")
    eventually(lambda: answered(world), what="it answers")
    old = the_server(world)
    end(world)
    world.daemon()
    eventually(lambda: old not in servers(world), what="it has left")
    eventually(lambda: adopted(world), what="another one answers")
    assert any("not exactly the fields" in text for text in events(world, "dns"))
