"""A kernel without nf_tables: one clear sentence.

Rules: this file comes first, before another test has the kernel load the module.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

MODPROBE = Path("/proc/sys/kernel/modprobe")  # the program that the kernel loads modules by


@pytest.fixture
def no_modules() -> Iterator[None]:
    program = MODPROBE.read_text()
    MODPROBE.write_text("/bin/false\n")
    yield
    MODPROBE.write_text(program)


@pytest.mark.parametrize("command", ["apply", "run"])
def test_without_nf_tables(no_modules: None, tmp_path: Path, command: str) -> None:
    assert "nf_tables " not in Path("/proc/modules").read_text()
    config = tmp_path / "ifdefault.toml"
    config.write_text('[uplink.isp-a]\ninterface = "wan0"\n')
    options = f"-c {config} --state-dir {tmp_path}/state --run-dir {tmp_path}/run".split()
    done = subprocess.run(
        [sys.executable, "-m", "ifdefault", *options, command], capture_output=True, text=True
    )
    assert done.stderr == (
        "ifdefault: nftables: the kernel has no nf_tables; load the module nf_tables, or boot a"
        " kernel that has it\n"
    )
    assert done.returncode == 1
