"""The frontend runs in a unit of its own, and never without the daemon, under a real systemd.

client ── core ─┬─ isp-a ── wan0 ┬─ host, with a systemd of its own
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

from ifdefault.lab.waiting import eventually
from tests.net.watched import await_states
from tests.systemd.booted import Booted
from tests.systemd.conftest import Boot
from tests.systemd.package import HOME
from tests.systemd.test_service import DAEMON, await_restart, start

UNITS, PROGRAM = "ifdefault-frontend@*.service", "ifdefault-frontend"
CUT = "table inet cut {\nchain c {\ntype filter hook forward priority 0; policy drop\n}\n}\n"


def frontends(host: Booted) -> set[int]:
    """The processes of its unit, by their ids there."""
    rows = host.systemctl("show", "-p", "MainPID", "--value", UNITS).stdout.split()
    return {int(row) for row in rows} - {0}


def await_another(host: Booted, was: set[int]) -> set[int]:
    """One in the unit that is in use, and no other anywhere."""
    what = "a frontend in its unit"
    eventually(lambda: len(frontends(host)) == 1 and not frontends(host) & was, what=what)
    eventually(lambda: "frontend is not running" not in status(host), what="it is ready")
    assert children(host) == []
    return frontends(host)


def status(host: Booted) -> str:
    done = host.ifdefault("status", check=False)
    return done.stdout + done.stderr


def children(host: Booted) -> list[str]:
    return host.run(["pgrep", "-f", "--", "-m ifdefault.frontend.main"], check=False).stdout.split()


def test_it_ends_with_the_daemon_and_comes_back_alone(boot: Boot) -> None:
    host = start(boot)
    was = await_another(host, set())
    for signal in ("KILL", "STOP"):  # the daemon kills one that doesn't respond
        host.run(["kill", f"-{signal}", *map(str, was)])
        was = await_another(host, was)
    assert any("it no longer responds" in line for line in host.journal(DAEMON))
    await_states(host.world, ["up"])
    host.world["isp-b"].nft(CUT)
    await_states(host.world, ["down"], "isp-b")  # by probes
    host.world["isp-b"].nft("delete table inet cut\n")
    await_states(host.world, ["up"])

    host.systemctl("restart", DAEMON)
    was = await_another(host, was)
    engine = host.main_pid(DAEMON)
    host.run(["kill", "-STOP", *map(str, was)])  # it doesn't see that its connection ends
    host.run(["kill", "-KILL", str(engine)])
    await_restart(host, engine)
    was = await_another(host, was)
    assert not [line for line in host.journal(DAEMON) if "can't run in its unit" in line]

    host.run(["kill", "-STOP", *map(str, was)])
    host.systemctl("stop", DAEMON)
    eventually(lambda: not frontends(host), what="none is left")
    assert host.systemctl("list-units", "--all", "--plain", "--no-legend", UNITS).stdout == ""
    assert host.run(["pgrep", "-f", PROGRAM], check=False).stdout == ""


def test_without_its_unit_it_is_a_child(boot: Boot) -> None:
    """Which is said once. The unit is used again when a frontend is next started."""
    host = start(boot)
    was = await_another(host, set())
    program = host.path(f"{HOME}/{PROGRAM}")
    text = program.read_text()
    program.write_text("#!/bin/false\n")
    host.systemctl("restart", DAEMON)
    eventually(lambda: len(children(host)) == 1, what="a child")
    before = children(host)
    host.run(["kill", "-KILL", *before])
    eventually(lambda: len(children(host)) == 1 and children(host) != before, what="another child")
    said = [line for line in host.journal(DAEMON) if "the frontend can't run in its unit" in line]
    assert len(said) == 1, said
    program.write_text(text)
    host.systemctl("restart", DAEMON)
    await_another(host, was)
