"""The units, users and Debian packages of packaging/ against the program that they are for."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from importlib import import_module
from pathlib import Path

import click
import pytest

from ifdefault.cli.main import SUBCOMMANDS
from ifdefault.cli.options import Options
from ifdefault.daemon.process import dns_server, frontend_connection
from ifdefault.model.config import DaemonConfig
from ifdefault.model.errors import ConfigError
from ifdefault.monitor.history.reader import history_dir
from ifdefault.monitor.status_file import status_dir
from ifdefault.plan import undo_script
from ifdefault.web.main import USER

PACKAGING = Path(__file__).parents[2] / "packaging"
DNS = PACKAGING / "ifdefault-dns.service"
FRONTEND = PACKAGING / "ifdefault-frontend@.service"
MONITOR = PACKAGING / "ifdefault-monitor.service"
UNITS = [PACKAGING / "ifdefault.service", PACKAGING / "ifdefault-once.service"]
ALL = sorted([*PACKAGING.glob("*.service"), *PACKAGING.glob("*.socket")])


def settings(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_commands_that_there_are(unit: Path) -> None:
    said = {k: v for k, v in settings(unit).items() if k.startswith("Exec")}
    said.pop("ExecStopPost", None)  # a shell's, about systemd itself
    lines = [line for values in said.values() for line in values]
    assert lines
    for line in lines:
        program, name, *rest = line.split()
        assert (program, name in SUBCOMMANDS) == ("ifdefault", True)
        command = import_module(f"ifdefault.cli.{name}").command
        known = {o for p in command.params if isinstance(p, click.Option) for o in p.opts}
        assert {word for word in rest if not word.isdigit()} <= known


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_may_change_the_kernel(unit: Path) -> None:
    said = settings(unit)
    assert not {"PrivateUsers", "PrivateNetwork", "ProtectKernelTunables"} & said.keys()
    assert said["StateDirectory"] == [Options().state_dir.name]
    # bpf(2), which finds our programs, isn't in @system-service: it must fail, not kill
    assert said["SystemCallErrorNumber"] == ["EPERM"]


@pytest.mark.parametrize("unit", ALL, ids=lambda unit: unit.name)
def test_a_unit_is_sound(unit: Path, tmp_path: Path) -> None:
    """By systemd itself, where it is here."""
    if shutil.which("systemd-analyze"):
        for each in ALL:
            text = re.sub(r"^Documentation=.*\n", "", each.read_text(), flags=re.MULTILINE)
            copy = tmp_path / each.name
            program = r"^(Exec\w+=)ifdefault(-dns|-frontend)?(?= |$)"
            copy.write_text(re.sub(program, r"\1/bin/true", text, flags=re.MULTILINE))
        copy = tmp_path / unit.name
        command = ["systemd-analyze", "verify", "--man=no", str(copy)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert [line for line in done.stderr.splitlines() if unit.name in line] == []


def test_the_dns_server_has_no_rights_and_a_socket_for_the_daemon_alone() -> None:
    said = settings(DNS)
    assert said["ExecStart"] == ["ifdefault-dns"]
    assert said["User"] == [DaemonConfig().user]
    assert said["CapabilityBoundingSet"] == [""]
    assert said["PrivateNetwork"] == ["yes"]
    socket = settings(PACKAGING / "ifdefault-dns.socket")
    assert socket["ListenSequentialPacket"] == [str(Options().run_dir / dns_server.UNIT)]
    assert socket["SocketMode"] == ["0600"]
    daemon = settings(PACKAGING / "ifdefault.service")
    assert DNS.name in daemon["ExecStopPost"][0]
    assert daemon["RuntimeDirectoryPreserve"] == ["yes"], "the socket is in it"


def test_the_frontend_has_no_rights_and_an_instance_for_each_connection() -> None:
    said = settings(FRONTEND)
    assert said["ExecStart"] == ["ifdefault-frontend"]
    assert said["User"] == [DaemonConfig().user]
    assert said["CapabilityBoundingSet"] == [""]
    socket = settings(PACKAGING / "ifdefault-frontend.socket")
    assert socket["ListenSequentialPacket"] == [str(Options().run_dir / frontend_connection.UNIT)]
    assert (socket["SocketMode"], socket["Accept"]) == (["0600"], ["yes"])
    daemon = settings(PACKAGING / "ifdefault.service")
    assert "ifdefault-frontend.socket" in daemon["Wants"][0].split()
    assert daemon["ExecStopPost"][1].endswith(" stop ifdefault-frontend@*.service")
    same = settings(DNS)  # but for the network, and for how much it may use
    others = {
        "PrivateNetwork",
        "RestrictAddressFamilies",
        "MemoryMax",
        "TasksMax",
        "TimeoutStopSec",
    }
    hardening = same.keys() - others - {"Requires", "After", "Restart", "RestartSec"}
    unit = {"Description", "ExecStart", "StartLimitIntervalSec"}
    assert {k: said.get(k) for k in hardening - unit} == {k: same[k] for k in hardening - unit}


def test_the_monitor_has_no_rights_and_two_directories() -> None:
    said, options = settings(MONITOR), Options()
    assert said["ExecStart"] == ["ifdefault monitor"]
    assert said["User"] == [DaemonConfig().user]
    assert said["CapabilityBoundingSet"] == [""]
    own = history_dir(options.state_dir), status_dir(options.run_dir)
    assert [f"/var/lib/{said['StateDirectory'][0]}", f"/run/{said['RuntimeDirectory'][0]}"] == [
        *map(str, own)
    ]
    assert MONITOR.name in settings(PACKAGING / "ifdefault.service")["Wants"]
    same, others = settings(FRONTEND), {"ProcSubset", "UMask", "MemoryMax", "OOMScoreAdjust"}
    begin, end = [*same].index("CapabilityBoundingSet"), [*same].index("TasksMax")
    for key in [*same][begin:end]:
        if key not in others | {"SystemCallFilter"}:
            assert said[key] == same[key], key


def test_the_daemon_has_the_rights_that_it_needs_and_no_more() -> None:
    said = settings(PACKAGING / "ifdefault.service")
    network = "CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE"
    needed = f"{network} CAP_SETUID CAP_SETGID CAP_SETPCAP CAP_KILL"
    assert said["CapabilityBoundingSet"] == [needed]
    assert said["Type"] == ["notify"]
    assert said["RuntimeDirectory"] == [Options().run_dir.name]
    assert said["RestartPreventExitStatus"] == [str(ConfigError.exit_status)]
    assert "ExecStop" not in said  # the kernel's state outlives it


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_drop_in_adds_what_the_hook_needs(unit: Path, tmp_path: Path) -> None:
    """systemd takes the union of both."""
    said = settings(PACKAGING / "balance.conf")
    assert said == {
        "CapabilityBoundingSet": ["CAP_BPF CAP_SYS_ADMIN CAP_DAC_OVERRIDE"],
        "SystemCallFilter": ["bpf"],
        "ProtectControlGroups": ["no"],
    }
    assert said.keys() < settings(unit).keys()
    if shutil.which("systemd-analyze"):
        copy = tmp_path / unit.name
        copy.write_text(re.sub(r"=ifdefault\b(?= )", "=/bin/true", unit.read_text()))
        drop_in = tmp_path / f"{unit.name}.d/balance.conf"
        drop_in.parent.mkdir()
        drop_in.write_text((PACKAGING / "balance.conf").read_text())
        command = ["systemd-analyze", "verify", "--man=no", str(copy)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert [line for line in done.stderr.splitlines() if tmp_path.name in line] == []


@pytest.mark.parametrize(
    ("unit", "most"),
    [
        ("ifdefault-dns.service", 0.6),
        ("ifdefault-frontend@.service", 1.3),
        ("ifdefault-monitor.service", 1.5),
        ("ifdefault.service", 2.9),
        ("ifdefault-once.service", 2.5),
    ],
)
def test_the_exposure_that_security_md_states(unit: str, most: float) -> None:
    """By systemd 252; later versions ask for more."""
    if shutil.which("systemd-analyze"):
        command = ["systemd-analyze", "security", "--offline=yes", str(PACKAGING / unit)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        level = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
        assert level, done.stderr
        assert float(level[1]) <= most


def test_users_are_those_of_the_config() -> None:
    text = (PACKAGING / "ifdefault.sysusers").read_text()
    users = re.findall(r'^u\s+(\S+)\s+-\s+"[^":]+"$', text, re.MULTILINE)
    default = DaemonConfig()
    assert users == [default.user, default.hook_user, USER]
    if shutil.which("systemd-sysusers"):
        command = ["systemd-sysusers", "--dry-run", str(PACKAGING / "ifdefault.sysusers")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr.count("not a valid")) == (0, 0)


def test_the_page_has_no_rights() -> None:
    said = settings(PACKAGING / "ifdefault-web.service")
    assert (said["ExecStart"], said["User"]) == (["ifdefault web"], [USER])
    same = settings(DNS)  # but for what it opens: connections, and routes and sysctls to explain
    own = {"PrivateNetwork", "RestrictAddressFamilies", "ProcSubset", "MemoryMax", "TasksMax"}
    unit = {"Description", "Requires", "After", "ExecStart", "User", "LimitNOFILE"}
    hardening = same.keys() - own - unit
    assert {k: said.get(k) for k in hardening} == {k: same[k] for k in hardening}


# --- the Debian packages ------------------------------------------------------------------

DEBIAN = PACKAGING / "debian"
LOCKS = {"ifdefault": "requirements.lock", "ifdefault-providers": "providers.lock"}
RULES = (DEBIAN / "rules").read_text()


def locked(path: Path) -> set[str]:
    return set(re.findall(r"^[\w.-]+==[^ ]+", path.read_text(), re.MULTILINE))


@pytest.mark.parametrize("lock", LOCKS.values())
def test_the_packages_contain_what_is_tested(lock: str) -> None:
    """The versions of requirements.lock, with what the program depends on, and no tools."""
    tested = locked(PACKAGING.parent / "requirements.lock")
    assert locked(PACKAGING / lock) <= tested
    project = tomllib.loads((PACKAGING.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]["providers"] * (lock == "providers.lock")
    needed = {re.split(r"[^\w.-]", each)[0] for each in (*project["dependencies"], *extras)}
    assert needed <= {each.split("==")[0] for each in locked(PACKAGING / lock)}
    assert lock in RULES


def test_every_unit_is_known_to_systemds_helper() -> None:
    names = {re.split(r"[@.]", unit.name)[0] for unit in ALL}
    listed = re.search(r"^UNITS = (.*)$", RULES, re.MULTILINE)
    assert listed
    assert set(listed[1].split()) == names


def test_units_find_their_programs_in_the_package() -> None:
    """As rules rewrites them: every command has a full path."""
    script = re.findall(r"-e '(s,.*?)'", RULES.replace("$$", "$"))
    home = "usr/lib/ifdefault"
    for unit in PACKAGING.glob("*.service"):
        expressions = [word for each in script for word in ("-e", each.replace("$(HOME)", home))]
        command = ["sed", "-E", *expressions, str(unit)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        programs = re.findall(r"^Exec\w+=-?(\S+)", text, re.MULTILINE)
        assert programs
        known = ("/usr/bin/", f"/{home}/ifdefault-", "/bin/sh")
        assert all(program.startswith(known) for program in programs), programs


def test_installing_neither_enables_nor_starts_a_unit() -> None:
    calls = re.findall(r"^\t\t?dh_installsystemd (.*?)(?:;.*)?$", RULES, re.MULTILINE)
    assert len(calls) == 2
    assert all({"--no-enable", "--no-start"} <= set(call.split()) for call in calls)


def test_a_purge_removes_what_the_program_keeps() -> None:
    text = (DEBIAN / "ifdefault.postrm").read_text()
    options, users = Options(), DaemonConfig()
    removed = text.replace("$state", str(options.state_dir))
    assert f"rm -rf {options.config.parent} {options.state_dir} {options.run_dir} " in removed
    assert f"for user in {users.user} {users.hook_user} {USER};" in text
    undo = str(options.state_dir / undo_script.NAME)
    assert undo in removed
    assert undo in (DEBIAN / "ifdefault.prerm").read_text()
