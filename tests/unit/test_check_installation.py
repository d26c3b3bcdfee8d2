"""Another ifdefault on the host: named, and none that is the same one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ifdefault import __version__
from ifdefault.host import check_installation
from ifdefault.host.check_installation import PROGRAM, find_missing, find_others
from ifdefault.kernel import wireguard
from ifdefault.model.kernel import Link
from ifdefault.model.report import DaemonStatus


@pytest.fixture(autouse=True)
def no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_installation, "_PATH", "")


def command(folder: Path, first_line: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "ifdefault"
    path.write_text(f"{first_line}\n")
    return path


def others(*folders: Path, daemon: DaemonStatus | None = None) -> list[str]:
    return list(map(str, find_others(daemon, ":".join(map(str, folders)))))


def test_a_command_of_the_same_python_is_the_same(tmp_path: Path) -> None:
    command(tmp_path / "a", f"#!{sys.executable} -I")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert others(tmp_path / "a", tmp_path / "b", tmp_path / "none") == []


def test_one_of_another_python_is_named_once(tmp_path: Path) -> None:
    one = command(tmp_path / "a", "#!/opt/venv/bin/python3")
    command(tmp_path / "b", f"#!{sys.executable}")
    two = command(tmp_path / "c", "\x7fELF")
    (tmp_path / "d").symlink_to(tmp_path / "a")
    assert others(*(tmp_path / name for name in "abcd")) == [
        f"{one}: is another ifdefault, which comes first in PATH; remove one of the two",
        f"{two}: is another ifdefault; remove one of the two",
    ]


@pytest.mark.parametrize(
    ("program", "version", "said"),
    [
        (PROGRAM, __version__, []),
        (
            PROGRAM,
            "99.0",
            [
                (
                    f"daemon: is version 99.0, and this command is {__version__}; restart it:"
                    " systemctl restart ifdefault"
                )
            ],
        ),
        (
            "",
            "",
            [
                (
                    f"daemon: is an earlier version, and this command is {__version__}; restart it:"
                    " systemctl restart ifdefault"
                )
            ],
        ),
        (
            "/opt/ifdefault",
            __version__,
            [
                (
                    "daemon: is that of another ifdefault, in /opt/ifdefault; remove one of the"
                    " two, then start the other one's"
                )
            ],
        ),
    ],
)
def test_the_daemon_of_another_is_named(program: str, version: str, said: list[str]) -> None:
    daemon = DaemonStatus(1, 1.0, 1.0, "x", program=program, program_version=version)
    assert others(daemon=daemon) == said


def test_wg_is_missed_where_there_is_a_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    links = (Link(1, "wan0"), Link(2, "wg0", kind="wireguard"))
    monkeypatch.setattr(wireguard, "program", lambda: None)
    (problem,) = find_missing(links)
    assert str(problem).startswith("wg0: wg is missing")
    assert not list(find_missing(links[:1]))
    monkeypatch.setattr(wireguard, "program", lambda: "/usr/bin/wg")
    assert not list(find_missing(links))
