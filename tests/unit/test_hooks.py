"""The hook of packaging/, called as each of its callers calls it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

PACKAGING = Path(__file__).parents[2] / "packaging"
HOOK = PACKAGING / "hooks" / "ifdefault"

APPLY = "ifdefault apply --quiet --wait --settle 120 --last-good"

IFUPDOWN = {"IFACE": "wan0", "ADDRFAM": "inet", "METHOD": "static", "LOGICAL": "wan0"}
PPP = {"PPP_IFACE": "ppp0", "PPP_TTY": "/dev/pts/1", "PPP_LOCAL": "192.0.2.1", "PPP_IPPARAM": "b"}
NETWORKD = {"IFACE": "wan1", "OperationalState": "routable", "STATE": "routable", "json": "{}"}
NM = {"DEVICE_IFACE": "wan0", "CONNECTION_ID": "isp-a"}
CALLERS = {
    "ifupdown up": (IFUPDOWN | {"MODE": "start", "PHASE": "post-up"}, []),
    "ifupdown down": (IFUPDOWN | {"MODE": "stop", "PHASE": "post-down"}, []),
    "ppp": (PPP, ["ppp0", "/dev/pts/1", "0", "192.0.2.1", "192.0.2.2", "b"]),
    "networkd-dispatcher": (NETWORKD, []),
    "NetworkManager": (NM | {"NM_DISPATCHER_ACTION": "dhcp4-change"}, ["wan0", "dhcp4-change"]),
    "dhclient": ({"reason": "BOUND", "interface": "wan0", "new_ip_address": "192.0.2.1"}, []),
    "by hand": ({}, []),
}


class Host:
    """A folder of fake programs that note how they were called."""

    def __init__(self, root: Path) -> None:
        self.bin, self.config, self.calls = root / "bin", root / "ifdefault.toml", root / "calls"
        self.bin.mkdir()
        self.config.write_text("")
        self.calls.write_text("")
        self.fake("ifdefault")
        self.fake("logger")
        self.fake("systemctl", "echo 'System has not been booted with systemd' >&2; exit 1")

    def fake(self, program: str, then: str = "") -> None:
        path = self.bin / program
        path.write_text(f'#!/bin/sh\necho "{program} $*" >>"{self.calls}"\n{then}\n')
        path.chmod(0o755)

    def units(self, **active: str) -> None:
        """Install units, `daemon` and `once`, each in such an ActiveState."""
        names = {"daemon": "ifdefault.service", "once": "ifdefault-once.service"}
        known = "".join(
            f"{names[unit]}) echo LoadState=loaded; echo ActiveState={state} ;;\n"
            for unit, state in active.items()
        )
        absent = "*) echo LoadState=not-found; echo ActiveState=inactive ;;"
        self.fake("systemctl", f'[ "$1" != show ] || for unit; do :; done\n'
                  f'[ "$1" != show ] || case $unit in\n{known}{absent}\nesac')  # fmt: skip

    def call(self, environment: dict[str, str], arguments: list[str]) -> list[str]:
        """What the hook called, `systemctl show` aside; it must end well and say nothing."""
        path = f"{self.bin}:{os.defpath}"
        run = subprocess.run(
            [HOOK, *arguments],
            env={"PATH": path, "IFDEFAULT_CONFIG": str(self.config)} | environment,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
        return [
            c for c in self.calls.read_text().splitlines() if not c.startswith("systemctl show")
        ]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.parametrize("caller", CALLERS)
def test_every_caller_gets_an_apply(host: Host, caller: str) -> None:
    assert host.call(*CALLERS[caller]) == [APPLY]


@pytest.mark.parametrize("caller", CALLERS)
def test_nothing_happens_without_a_config(host: Host, caller: str) -> None:
    host.config.unlink()
    assert host.call(*CALLERS[caller]) == []


@pytest.mark.parametrize(
    "environment",
    [
        {"IFACE": "lo", "PHASE": "post-up"},
        {"DEVICE_IFACE": "wan0", "NM_DISPATCHER_ACTION": "pre-up"},
        {"NM_DISPATCHER_ACTION": "connectivity-change"},
        {"interface": "wan0", "reason": "PREINIT"},
    ],
)
def test_what_changes_nothing_costs_nothing(host: Host, environment: dict[str, str]) -> None:
    assert host.call(environment, []) == []


@pytest.mark.parametrize("caller", CALLERS)
def test_a_failing_apply_is_logged_and_fails_nobody(host: Host, caller: str) -> None:
    host.fake("ifdefault", "echo 'no such thing' >&2; exit 2")
    environment, _ = CALLERS[caller]
    names = [
        environment[k]
        for k in ("IFACE", "PPP_IFACE", "DEVICE_IFACE", "interface")
        if k in environment
    ]
    _, logged = host.call(*CALLERS[caller])
    assert logged.endswith(f"after a change of {[*names, 'an interface'][0]} failed: no such thing")


def test_a_mistake_in_the_config_is_logged_though_the_last_one_was_applied(host: Host) -> None:
    host.fake("ifdefault", "echo 'error: ifdefault.toml: invalid' >&2")
    _, logged = host.call(*CALLERS["ppp"])
    assert logged.endswith(" reports: error: ifdefault.toml: invalid")


RELOAD = "systemctl --no-block --job-mode=fail reload-or-restart ifdefault-once.service"


@pytest.mark.parametrize(
    ("units", "calls"),
    [
        ({"once": "active"}, [RELOAD]),
        ({"once": "reloading"}, [RELOAD]),
        ({"once": "activating"}, [RELOAD]),
        ({"once": "failed"}, [RELOAD]),
        ({"once": "inactive"}, []),
        ({"once": "deactivating"}, []),
        ({"daemon": "active"}, []),
        ({"daemon": "reloading"}, []),
        ({"daemon": "activating"}, []),
        ({"daemon": "failed"}, []),
        ({"daemon": "inactive"}, []),
        ({"daemon": "active", "once": "inactive"}, []),
        ({"daemon": "active", "once": "active"}, []),
        ({"daemon": "inactive", "once": "active"}, [RELOAD]),
        ({}, [APPLY]),
    ],
)
def test_the_unit_decides_where_one_is_installed(
    host: Host, units: dict[str, str], calls: list[str]
) -> None:
    host.units(**units)
    assert host.call(*CALLERS["ifupdown up"]) == calls


def test_run_parts_accepts_the_name() -> None:
    assert re.fullmatch(r"[a-zA-Z0-9_-]+", HOOK.name)
    assert os.access(HOOK, os.X_OK)


def test_what_packages_install_lets_its_caller_go_on() -> None:
    """Sourced or run, with the program and without it."""
    call = PACKAGING / "hooks" / "call"
    assert os.access(call, os.X_OK)
    text = call.read_text()
    for hook in ("/bin/false", "/nonexistent"):
        script = text.replace("/usr/lib/ifdefault/hook", hook) + "\necho on"
        assert subprocess.run(["sh", "-c", script], capture_output=True, text=True).stdout == "on\n"
