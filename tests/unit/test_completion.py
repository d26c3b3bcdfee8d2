"""Completion: what a shell is told at a press of Tab, and the scripts that ask."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from ifdefault.cli import main
from ifdefault.cli.main import SUBCOMMANDS, cli

CONFIG = """
[uplink.isp-a]
interface = "wan0"
[uplink.isp-b]
interface = "wan1"
[dns.server]
zones = ["example.net"]
[[dns.name]]
name = "www.example.net"
"""


def completed(line: str) -> list[str]:
    *words, incomplete = line.split(" ")
    shell = ShellComplete(cli, {}, "ifdefault", "_IFDEFAULT_COMPLETE")
    return [item.value for item in shell.get_completions(words, incomplete)]


@pytest.fixture
def _config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ifdefault.toml"
    path.write_text(CONFIG)
    monkeypatch.setenv("IFDEFAULT_CONFIG", str(path))


@pytest.mark.usefixtures("_config")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("up", ["uplink"]),
        ("uplink ", ["isp-a", "isp-b"]),
        ("uplink isp-a d", ["down", "drain"]),
        ("exec isp-b", ["isp-b"]),
        ("dns ", ["check", "delegation"]),
        ("dns check w", ["www.example.net"]),
        ("dns delegation ", ["example.net"]),
        ("help dns ", ["check", "delegation"]),
        ("lab up tw", ["two"]),
        ("lab fault black", ["blackhole"]),
        ("completion ", ["bash", "zsh", "fish"]),
    ],
)
def test_values(line: str, expected: list[str]) -> None:
    assert completed(line) == expected


def test_commands_come_with_what_they_do() -> None:
    shell = ShellComplete(cli, {}, "ifdefault", "_IFDEFAULT_COMPLETE")
    assert {item.value: item.help for item in shell.get_completions([], "")} == SUBCOMMANDS


@pytest.mark.parametrize(
    "text", ["[uplink", 'uplink = 1\ndns = "x"', "[dns]\nserver = 1\nname = 2"]
)
def test_a_config_that_is_wrong_completes_nothing(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ifdefault.toml"
    for name in (path, tmp_path / "missing"):
        monkeypatch.setenv("IFDEFAULT_CONFIG", str(name))
        path.write_text(text)
        assert completed("uplink ") == completed("dns delegation ") == completed("dns check ") == []


@pytest.fixture
def scripts(
    _config: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Path:
    """A folder with each shell's script, by its name; the program says how it was called."""
    for shell in ("bash", "zsh", "fish"):
        assert main.run(["completion", shell]) == 0
        (tmp_path / shell).write_text(capsys.readouterr().out)
    program = tmp_path / "ifdefault"
    program.write_text(
        '#!/bin/sh\n[ "$_IFDEFAULT_COMPLETE" ] || exec echo "called: $*"\n'
        f'exec {sys.executable} -m ifdefault "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def shell(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_bash_completes(scripts: Path) -> None:
    press = "COMP_WORDS=(ifdefault uplink isp-a d) COMP_CWORD=3; $(complete -p ifdefault |"
    press += " sed 's/.*-F \\([^ ]*\\).*/\\1/') ifdefault; echo ${COMPREPLY[@]}"
    assert shell("bash", "-c", f". ./bash\n{press}", cwd=scripts).split() == ["down", "drain"]


def test_fish_completes(scripts: Path) -> None:
    def pressed(line: str) -> list[str]:
        script = f"source fish; complete --do-complete '{line}'"
        return shell("fish", "--no-config", "-c", script, cwd=scripts).splitlines()

    assert pressed("ifdefault uplink isp-a d") == ["down", "drain"]
    assert dict(row.split("\t") for row in pressed("ifdefault ")) == SUBCOMMANDS


def test_zsh_completes(scripts: Path) -> None:
    """Its completion needs a terminal; the script is found there as it is when it is installed."""
    (scripts / "_ifdefault").write_text((scripts / "zsh").read_text())
    ours, its = os.openpty()
    command = ["timeout", "--foreground", "60", "zsh", "-f", "-i"]
    with subprocess.Popen(
        command, stdin=its, stdout=its, stderr=its, cwd=scripts, start_new_session=True
    ) as child:
        os.close(its)
        typed = "fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -D\r"
        os.write(ours, f"{typed}ifdefault uplink isp-b dr\t\rexit\r".encode())
        shown = b""
        with suppress(OSError):  # the end
            while printed := os.read(ours, 65536):
                shown += printed
        os.close(ours)
    assert child.returncode == 0
    assert b"called: uplink isp-b drain\r\n" in shown, shown.decode()
