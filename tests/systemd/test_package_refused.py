"""What a package meets that isn't as it should be: one clear sentence each, and nothing half-done.

Rules: in a folder of a release, without systemd, in a network of its own.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ifdefault import __version__
from tests.systemd import CACHE, folder, package

UPLINK = """
ip link add wan0 type veth peer far0
ip link set wan0 up
ip link set far0 up
ip address add 203.0.113.10/24 dev wan0
ip route add default via 203.0.113.1
"""


@pytest.fixture
def cache() -> Path:
    return Path(os.environ[CACHE])


def lines(
    cache: Path, changes: Path, script: str, *, installed: bool = True, size: str = ""
) -> list[str]:
    """What a script says, on a release with ifdefault or without."""
    layers = package.layers(cache, folder.MAIN)[not installed :]
    source = package.path(cache, folder.MAIN).parent
    text = folder.chroot(layers, changes, f"exec 2>&1\n{script}", source=source, size=size)
    return text.splitlines()


def test_without_systemd(cache: Path, tmp_path: Path) -> None:
    """A purge by dpkg itself leaves nothing either."""
    script = f"""
        dpkg -i /mnt/ifdefault.deb
        ifdefault --version
        {UPLINK}
        ifdefault init
        ifdefault apply --quiet
        ip rule | grep 'proto 171'
        dpkg -P ifdefault
        echo "purged: $(ip rule | grep -c 'proto 171')"
        ls /etc/ifdefault /var/lib/ifdefault || true
    """
    said = lines(cache, tmp_path, script, installed=False)
    how, *_ = [line for line in said if "ifdefault run" in line]
    assert "by your supervisor, as root: systemd does not run here" in how
    assert f"ifdefault {__version__}" in said
    assert "ifdefault: its part of the kernel is removed" in said
    assert said[-3] == "purged: 0"
    assert all("No such file" in line for line in said[-2:])


def test_another_that_comes_first(cache: Path, tmp_path: Path) -> None:
    script = "printf '#!/bin/sh\\n' >/usr/local/bin/ifdefault; chmod 755 /usr/local/bin/ifdefault"
    said = lines(cache, tmp_path, f"{script}; dpkg -i /mnt/ifdefault.deb", installed=False)
    (warning,) = [line for line in said if "warning" in line]
    assert warning == (
        "ifdefault: warning: /usr/local/bin/ifdefault is another ifdefault, which comes first in"
        " PATH; remove it"
    )


def test_a_disk_that_is_full_in_mid_upgrade(cache: Path, tmp_path: Path) -> None:
    """The program of before stays, whole; with room, the upgrade is done."""
    script = """
        dpkg -i /mnt/former.deb
        head -c 100M /dev/zero >/full || truncate -s -3M /full
        ! dpkg -i /mnt/ifdefault.deb
        ifdefault --version
        dpkg --verify ifdefault
        echo it is whole
        rm /full
        dpkg -i /mnt/ifdefault.deb
        ifdefault --version
    """
    said = lines(cache, tmp_path, script, installed=False, size="100M")
    failed = next(n for n, line in enumerate(said) if "No space left on device" in line)
    kept = said.index(f"ifdefault {package.former_version(cache, folder.MAIN)}", failed)
    assert said[kept + 1] == "it is whole"
    assert said[-1] == f"ifdefault {__version__}"


def test_a_package_that_is_half_configured(cache: Path, tmp_path: Path) -> None:
    """It runs, and says what it does without; dpkg can go on where it was."""
    script = f"""
        dpkg --unpack /mnt/ifdefault.deb
        {UPLINK}
        ifdefault init
        ifdefault run >/log 2>&1 & daemon=$!
        timeout 60 sh -c 'until grep "daemon.user" /log; do sleep 0.1; done'
        kill $daemon
        dpkg --configure ifdefault
        id ifdefault
    """
    said = lines(cache, tmp_path, script, installed=False)
    assert any("user ifdefault does not exist; using nobody" in line for line in said)
    assert said[-1].startswith("uid=")


def test_without_libnftables(cache: Path, tmp_path: Path) -> None:
    script = f"""
        rm /usr/lib/*/libnftables.so.1*
        {UPLINK}
        ifdefault init
        ! ifdefault apply
        ! ifdefault run
        ip rule
    """
    said = lines(cache, tmp_path, script)
    why = (
        "nftables: libnftables.so.1 is missing; install nftables (on Debian and Ubuntu: apt"
        " install nftables)"
    )
    assert said.count(f"ifdefault: {why}") == 2
    assert not [line for line in said if "kernel refused" in line]
    assert not [line for line in said if "proto 171" in line]
