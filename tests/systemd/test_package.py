"""The life of the package on a host of each release: from `apt install` to `apt purge`.

client ── core ─┬─ isp-a ── wan0 ┬─ host: systemd, nginx, sshd
                └─ isp-b ── wan1 ┘

Rules: one host for each release, which is booted twice. What an administrator does is counted. A
second boot is in a new world: nothing of the first one's kernel is left.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from ifdefault.lab.dns_load import DnsLoad
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from tests.net import answers
from tests.net.test_dns_daemon import A6, B6, NAME, A, B, addresses
from tests.net.test_dns_restart import asked
from tests.systemd import CACHE, figures, folder, package, traces
from tests.systemd.booted import Booted
from tests.systemd.conftest import Boot
from tests.systemd.load import TcpLoad
from tests.systemd.test_dns_restart import has_taken_over
from tests.systemd.test_login import login

DAEMON = "ifdefault.service"
SITE = """\
server {
    listen 80 default_server;
    listen [::]:80 default_server;
    location / { return 200 "$server_addr\\n"; }
}
"""
FILES = {"etc/nginx/sites-enabled/default": SITE}
ENABLED = ["nginx.service", "ssh.service"]
FIRST = [
    f"ifdefault init --zone {NAME}",
    "ifdefault apply --confirm 60",
    "ifdefault confirm",
    "systemctl enable --now ifdefault",
]
CONNECTIONS, RATE = 100, 100.0


@pytest.mark.parametrize("release", folder.RELEASES)
def test_its_life(boot: Boot, tmp_path: Path, release: str) -> None:
    def start() -> Booted:
        kept = tmp_path / "kept"
        host = boot("two", release=release, fresh=True, here=kept, files=FILES, enable=ENABLED)
        for name in ("former", "ifdefault"):
            shutil.copy(
                package.path(Path(os.environ[CACHE]), release, name), host.path(f"srv/{name}.deb")
            )
        return host

    host = start()
    before = traces.Traces.of(host)
    install_and_set_up(host, release)
    hide_its_files(host)
    upgrade_under_load(host, release)
    downgrade(host, release)
    host.power_off()

    host = start()
    await_site(host)
    assert host.main_pid(DAEMON)
    remove_and_install_again(host)
    refuse_to_purge(host, tmp_path)
    kernel, files = traces.compare(before, traces.Traces.of(host))
    assert kernel
    assert files
    said = host.run(["apt-get", "-y", "-q", "purge", "ifdefault"]).stdout
    assert "its part of the kernel is removed" in said
    assert traces.compare(before, traces.Traces.of(host)) == ([], [])
    figures.record(release, "lines that differ after the purge", 0, target=0)


def former_version(release: str) -> str:
    return package.former_version(Path(os.environ[CACHE]), release)


def install(host: Booted, name: str, *options: str) -> str:
    return host.run(["apt-get", "-y", "-q", *options, "install", f"/srv/{name}.deb"]).stdout


def install_and_set_up(host: Booted, release: str) -> None:
    """From a fresh root to a site and a zone that answer by both uplinks."""
    kernel = traces.kernel(host)
    start_s = time.monotonic()
    said = install(host, "former")
    figures.record(release, "time of the install", time.monotonic() - start_s, "s")
    assert "Nothing has been started" in said
    assert all(
        command.split(" --zone")[0] in said for command in FIRST if command != "ifdefault confirm"
    )
    assert traces.kernel(host) == kernel
    assert host.state(DAEMON) == "inactive"
    assert host.run(["systemctl", "is-enabled", DAEMON], check=False).stdout == "disabled\n"

    start_s = time.monotonic()
    for command in FIRST:
        host.run(command.split())
    await_site(host)
    figures.record(release, "time to site and zone", time.monotonic() - start_s, "s")
    figures.record(release, "commands to site and zone", len(FIRST), target=5)
    figures.record(release, "daemon ready", ready_s(host), "s", target=1.5)
    disk = int(host.shell(f"du -sxk /{package.HOME} | cut -f1")) / 1024
    figures.record(release, "installed size", disk, "MiB", target=60)
    assert disk <= 60


def ready_s(host: Booted) -> float:
    """From the start of its process until the unit is active, by systemd's clock."""
    times = host.show(DAEMON, "ExecMainStartTimestampMonotonic", "ActiveEnterTimestampMonotonic")
    began_us, ready_us = map(int, times.values())
    return abs(ready_us - began_us) / 1e6


def await_site(host: Booted) -> None:
    """Web page and zone by each address, from the client."""
    world = host.world
    eventually(lambda: host.state(DAEMON) == "active", what="the daemon runs")
    eventually(lambda: has_taken_over(host), what="it answers DNS")
    what = "the unit's DNS server, and no other"
    eventually(lambda: "dns_main" not in host.shell("ps -eo args"), what=what)
    eventually(lambda: are_up(host), what="all paths are up")
    for at in (A, B, A6, B6):
        eventually(partial(is_served, world, at), what=f"the zone at {at}")
    answers.assert_answered(world, ["http"], (A, B, A6, B6))


def are_up(host: Booted) -> bool:
    """By its own command: the former version's daemon isn't understood by this one."""
    said = host.ifdefault("status", check=False).stdout
    return len(re.findall(r"\bIPv[46] +up\b", said)) == 4


def is_served(world: World, at: str) -> bool:
    return addresses(world, at=at) == {A, B}


@contextmanager
def loaded(host: Booted) -> Iterator[tuple[TcpLoad, DnsLoad]]:
    """Connections and queries all the time; in the end none may have failed."""
    load = TcpLoad(host.world["client"], (A, B, A6, B6), connections=CONNECTIONS, rate=RATE)
    load.start()
    try:
        with asked(host.world) as queries:
            yield load, queries
    finally:
        load.stop()
    assert load.failed == []


def hide_its_files(host: Booted) -> None:
    """dpkg replaces them while the daemon runs: it has read all that it needs."""
    pid = host.main_pid(DAEMON)
    enter = ["nsenter", "-t", str(pid), "-m"]
    host.run([*enter, "mount", "-t", "tmpfs", "none", f"/{package.HOME}"])
    assert host.run([*enter, "ls", f"/{package.HOME}"]).stdout == ""
    for command in ("reload", "uplink isp-b drain", "uplink isp-b auto", "apply", "status", "dns"):
        host.ifdefault(*command.split())
    assert host.main_pid(DAEMON) == pid
    await_site(host)


def upgrade_under_load(host: Booted, release: str) -> None:
    was = host.main_pid(DAEMON)
    before = traces.kernel(host)
    with loaded(host) as (load, queries):
        start_s = time.monotonic()
        install(host, "ifdefault")
        took_s = time.monotonic() - start_s
        eventually(lambda: host.main_pid(DAEMON) not in (0, was), what="another process")
        await_site(host)
    assert traces.kernel(host) == before
    assert not [line for line in host.journal(DAEMON) if "repaired" in line]
    print(f"upgraded from {former_version(release)}")
    figures.record(release, "time of the upgrade", took_s, "s")
    figures.record(release, "connections that stayed in the upgrade", CONNECTIONS)
    figures.record(release, "blocks of 1,000 bytes on them", load.blocks)
    figures.record(release, "new connections", load.requests)
    figures.record(release, "DNS queries", sum(outcome.asked for outcome in queries.outcomes))
    failed = len(load.failed) + sum(len(outcome.failed) for outcome in queries.outcomes)
    figures.record(release, "failed in the upgrade", failed, target=0)


def downgrade(host: Booted, release: str) -> None:
    was = host.main_pid(DAEMON)
    with asked(host.world):
        install(host, "former", "--allow-downgrades")
        eventually(lambda: host.main_pid(DAEMON) not in (0, was), what="another process")
        await_site(host)
    assert host.ifdefault("--version").stdout == f"ifdefault {former_version(release)}\n"


def remove_and_install_again(host: Booted) -> None:
    kernel = traces.kernel(host)
    said = host.run(["apt-get", "-y", "-q", "remove", "ifdefault"]).stdout
    assert "The kernel keeps what ifdefault installed" in said
    assert traces.kernel(host) == kernel
    assert host.run(["pgrep", "-f", "ifdefault"], check=False).stdout == "", "a process is left"
    answers.assert_answered(host.world, ["http"], (A, B, A6, B6))
    install(host, "ifdefault")
    assert host.systemctl("is-enabled", DAEMON).stdout == "enabled\n"
    host.systemctl("start", DAEMON)
    await_site(host)


def refuse_to_purge(host: Booted, tmp_path: Path) -> None:
    """A login by isp-b would be cut: it is named, and nothing changes, nor is anything stopped."""
    before, daemon = traces.kernel(host), host.main_pid(DAEMON)
    ssh = login(host, tmp_path, "apt-get -y -q purge ifdefault 2>&1; echo status $?")
    assert ssh.stdout is not None
    said = ssh.stdout.read()
    assert (
        "nothing was removed from the kernel: the login from 198.18.1.10 (sshd, process " in said
    ), said
    assert "or cut it with: ifdefault down\n" in said
    assert said.endswith("status 100\n")
    assert traces.kernel(host) == before
    assert host.main_pid(DAEMON) == daemon
    assert "ii " in host.shell("dpkg -l ifdefault")
    answers.assert_answered(host.world, ["http"], (A, B, A6, B6))
