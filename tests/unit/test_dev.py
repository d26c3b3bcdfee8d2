"""The front door, on a copy of the tree that lacks everything, with no right to install."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = "sh cat cut dirname echo env flock grep id mktemp printf rm tr xargs cksum".split()


def dev(folder: Path, *arguments: str, path: str = os.defpath) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [folder / "dev", *arguments],
        env={"PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A checkout on a host with the basic tools alone: no Python, no nft, and no root."""
    text = (ROOT / "dev").read_text()
    (tmp_path / "dev").write_text(text.replace("PATH=$PATH:/usr/sbin:/sbin", "PATH=$PATH"))
    (tmp_path / "dev").chmod(0o755)
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        if found := shutil.which(tool):
            (tmp_path / "bin" / tool).symlink_to(found)
    (tmp_path / "bin" / "id").unlink()
    fake(tmp_path, "id", "echo 1000")
    return tmp_path


def fake(folder: Path, program: str, then: str) -> None:
    path = folder / "bin" / program
    path.write_text(f"#!/bin/sh\n{then}\n")
    path.chmod(0o755)


def test_usage_lists_every_command() -> None:
    shown = dev(ROOT)
    rows = re.findall(r"^  (\S+) ", shown.stdout, re.MULTILINE)
    cases = re.findall(r"^    ([a-z-]+)\)$", (ROOT / "dev").read_text(), re.MULTILINE)
    assert shown.returncode == 0
    assert sorted(rows) == sorted(cases)
    unknown = dev(ROOT, "tset")
    assert (unknown.returncode, unknown.stdout, unknown.stderr) == (2, "", shown.stdout)


@pytest.mark.parametrize("command", ["demo", "test", "setup", "bench"])
def test_without_root_it_says_what_to_run(bare: Path, command: str) -> None:
    fake(bare, "apt-get", 'echo called >>"$0.calls"')
    run = dev(bare, command, path=f"{bare}/bin")
    bench = " bench" if command == "bench" else ""
    assert run.returncode == 1
    assert re.search(r"^  caddy +their HTTP/3 server$", run.stderr, re.MULTILINE)
    assert ("wrk" in run.stderr) == bool(bench)
    assert f"as root, run: ./dev setup{bench} (" in run.stderr
    assert not (bare / "bin" / "apt-get.calls").exists()


def test_elsewhere_than_on_debian_it_names_the_programs(bare: Path) -> None:
    run = dev(bare, "demo", path=f"{bare}/bin")
    assert run.returncode == 1
    assert "install what provides venv nft ip ping nginx caddy unbound named radvd" in run.stderr
