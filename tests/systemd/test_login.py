"""`apply --confirm` in a login by an uplink that the new config takes the way from.

client ── core ─┬─ isp-a ── wan0 ┬─ host: sshd, and logind that ends what a login leaves
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ifdefault.lab.waiting import PATIENCE_S, eventually
from tests.net import answers
from tests.net.watched import await_states
from tests.systemd.booted import CONFIG, Booted
from tests.systemd.conftest import Boot

B = "198.51.100.10"
DAEMON = "ifdefault.service"
# root's too
LOGIND = "[Login]\nKillUserProcesses=yes\nKillExcludeUsers=nobody\n"
FILES = {
    "etc/systemd/logind.conf.d/kill.conf": LOGIND,
    "etc/ssh/sshd_config.d/test.conf": "ClientAliveInterval 1\nClientAliveCountMax 2\n",
}
# the host no longer answers by wan1
ONE = '[uplink.isp-a]\ninterface = "wan0"\n'


def login(host: Booted, tmp_path: Path, command: str) -> subprocess.Popen[str]:
    """A login of the client by isp-b, and a command in it."""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    folder = host.path("root/.ssh")
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "authorized_keys").write_text(key.with_suffix(".pub").read_text())
    options = "StrictHostKeyChecking=no UserKnownHostsFile=/dev/null LogLevel=ERROR".split()
    options += ["ConnectTimeout=60", "BatchMode=yes"]
    words = [word for option in options for word in ("-o", option)]
    ssh = ["ssh", "-F", "none", *words, "-i", str(key), f"root@{B}", command]
    return host.world["client"].popen(
        ssh, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, what="ssh"
    )


def sessions(host: Booted) -> list[str]:
    return host.run(["loginctl", "--no-legend", "list-sessions"]).stdout.splitlines()


@pytest.mark.parametrize("daemon", [True, False], ids=["daemon", "once"])
def test_a_login_that_dies_of_it_is_undone(boot: Boot, tmp_path: Path, daemon: bool) -> None:
    """The rollback doesn't depend on the login: its session has ended long before."""
    host = boot(enable=["ssh.service", *([DAEMON] * daemon)], files=FILES)
    if daemon:
        await_states(host.world, ["up"])
    else:
        host.ifdefault("apply", "--quiet")
    host.await_state("ssh.service")
    before = rules(host)
    ssh = login(host, tmp_path, "loginctl session-status; ifdefault apply --confirm 8; sleep 1000")
    assert ssh.stdout is not None
    line = ssh.stdout.readline()
    assert "root" in line, line + ssh.stdout.read()
    host.path(CONFIG).write_text(ONE)
    eventually(lambda: rules(host) != before, what="the new config is applied")
    host.world.end("ssh")
    eventually(lambda: not sessions(host), what="the session ends")
    assert rules(host) != before, "undone too early to tell"
    eventually(lambda: rules(host) == before, PATIENCE_S, what="undone")
    answers.assert_answered(host.world)


def rules(host: Booted) -> str:
    node = host.world["host"]
    return node.run(["ip", "rule"]).stdout + node.run(["ip", "-6", "rule"]).stdout
