"""Completion: what a shell is told at a press of Tab, and the scripts that ask."""

from __future__ import annotations

import shutil
import subprocess
import sys
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


@pytest.mark.usefixtures("_config")
def test_bash_completes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The script as it is installed, in a real shell."""
    assert main.run(["completion", "bash"]) == 0
    program = tmp_path / "ifdefault"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m ifdefault "$@"\n')
    program.chmod(0o755)
    press = "COMP_WORDS=(ifdefault uplink isp-a d) COMP_CWORD=3; $(complete -p ifdefault |"
    press += " sed 's/.*-F \\([^ ]*\\).*/\\1/') ifdefault; echo ${COMPREPLY[@]}"
    done = subprocess.run(
        ["bash", "-c", f"PATH={tmp_path}:$PATH\n{capsys.readouterr().out}\n{press}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split() == ["down", "drain"], done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_a_script_is_sound(shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """By the shell itself, where it is here."""
    assert main.run(["completion", shell]) == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    assert "_IFDEFAULT_COMPLETE" in script.read_text()
    if shutil.which(shell):
        subprocess.run([shell, "-n", str(script)], check=True, timeout=60)
