"""Each unit of packaging/ starts as it is shipped, and does what it is for.

client ── core ─┬─ isp-a ── wan0 ┬─ host, with a systemd of its own
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

import pytest

from ifdefault.lab.waiting import eventually
from tests.net import answers
from tests.systemd.booted import PACKAGING, UNITS
from tests.systemd.conftest import Boot

DAEMON, ONCE = "ifdefault.service", "ifdefault-once.service"
MONITOR = "ifdefault-monitor.service"
BALANCE = {
    f"{UNITS}/{unit}.d/balance.conf": (PACKAGING / "balance.conf").read_text()
    for unit in (DAEMON, ONCE)
}


@pytest.mark.parametrize("files", [{}, BALANCE], ids=["plain", "balance"])
def test_systemd_finds_no_fault(boot: Boot, files: dict[str, str]) -> None:
    """In none of our units; a name that it doesn't know would only be logged."""
    host = boot(files=files)
    units = host.shell("find /usr/lib/systemd/system -name 'ifdefault*'").split()
    # a folder of Debian has no program to read manuals with
    done = host.run(["systemd-analyze", "verify", "--man=no", *units])
    assert done.stdout + done.stderr == ""


def test_the_daemon(boot: Boot) -> None:
    host = boot(enable=[DAEMON])
    host.await_state(DAEMON)
    assert host.state(ONCE) == "inactive"
    answers.assert_answered(host.world)
    users = host.shell("ps -eo user:20,args | grep '[i]fdefault'")
    assert "ifdefault " in users, users

    # the monitor came with it, writes what all may read, and outlives it
    host.await_state(MONITOR)
    as_nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups"
    what = "another user reads the history"
    shown = f"{as_nobody} ifdefault history --outages || true"
    eventually(lambda: "no outage since" in host.shell(shown), what=what)
    owners = host.shell("stat -c '%U %a' /var/lib/ifdefault/history/* /run/ifdefault/monitor/*")
    assert {*owners.split()} <= {"ifdefault", "644", "600"}, owners
    pid = host.show(MONITOR, "MainPID")
    host.systemctl("restart", DAEMON)
    host.systemctl("stop", DAEMON)
    assert host.show(MONITOR, "MainPID") == pid
    assert host.state(MONITOR) == "active"
    assert host.shell(f"journalctl -q -u {MONITOR} -p warning") == ""


@pytest.mark.parametrize("files", [{}, BALANCE], ids=["plain", "balance"])
def test_without_the_daemon(boot: Boot, files: dict[str, str]) -> None:
    """By a filter of system calls that kills, the first bpf(2) of `apply` would be its last."""
    host = boot(enable=[ONCE], files=files)
    host.await_state(ONCE)
    assert host.state(DAEMON) == "inactive"
    answers.assert_answered(host.world)
    host.systemctl("reload", ONCE)
    answers.assert_answered(host.world)
    host.world["host"].ip("address add 198.51.100.20/24 dev wan1\n")
    what = "an address that comes after the unit has started"
    eventually(lambda: "from 198.51.100.20 lookup" in host.shell("ip rule"), what=what)
    assert host.ifdefault("plan").stdout == ""
    host.systemctl("stop", ONCE)
    assert host.run(["pgrep", "-f", "ifdefault"], check=False).stdout == "", "a process is left"
    assert "proto 171" not in host.world["host"].run(["ip", "rule"]).stdout
    result = host.show(ONCE, "Result", "ActiveState")
    assert result == {"Result": "success", "ActiveState": "inactive"}
