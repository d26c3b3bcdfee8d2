"""The oldest kernel, and what is said on an older one."""

from __future__ import annotations

from pathlib import Path

import pytest

from ifdefault.cli.main import NEED_KERNEL, SUBCOMMANDS, run
from ifdefault.host import kernel_version
from ifdefault.model.errors import HostError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("release", ["5.8.0", "5.10.0-32-amd64", "6.1", "12.0-rc1", "unknown"])
def test_new_enough(release: str) -> None:
    kernel_version.require(release)


@pytest.mark.parametrize("release", ["5.7.19", "4.19.0-27-amd64", "3.10.0-1160.el7.x86_64"])
def test_too_old(release: str) -> None:
    with pytest.raises(HostError, match=f"version {release} is too old"):
        kernel_version.require(release)


@pytest.mark.parametrize("command", sorted(NEED_KERNEL))
def test_a_command_that_would_change_the_kernel_says_so(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command in SUBCOMMANDS
    monkeypatch.setattr(kernel_version, "OLDEST", (999, 0))
    assert run([command]) == HostError.exit_status
    error = capsys.readouterr().err
    assert error.startswith("ifdefault: kernel: version ")
    assert error.count("\n") == 1
    assert run([command, "--help"]) == 0
    assert f"ifdefault {command} [OPTIONS]" in capsys.readouterr().out


def test_the_documents_name_it() -> None:
    oldest = "Linux {}.{} or newer".format(*kernel_version.OLDEST)
    assert oldest in (ROOT / "docs/coverage.md").read_text()
