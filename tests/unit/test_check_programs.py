"""Whether hooks and publishers can be run as their user, as `check` finds out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ifdefault.host.check_programs import program_fault

USER, OTHER = "4712", "4713"  # users that don't exist count as nobody


def program(folder: Path, text: str = "#!/bin/sh\n", mode: int = 0o755) -> Path:
    path = folder / "hook"
    path.write_text(text)
    path.chmod(mode)
    return path


def what(path: Path, user: str = USER) -> str:
    fault = program_fault(path, user)
    return fault[0] if fault else ""


def test_programs_and_scripts(folder: Path) -> None:
    assert what(Path("/bin/sh")) == ""
    assert what(program(folder)) == ""
    assert what(program(folder, "#! /usr/bin/env sh\n")) == ""


@pytest.mark.parametrize(
    ("text", "mode", "fault"),
    [
        ("#!/bin/sh\n", 0o644, "isn't executable"),
        ("#!/bin/sh\n", 0o757, "is writable by everyone"),
        ("#!/bin/sh\n", 0o700, f"can't be run by {USER}"),
        ("#!/bin/sh\n", 0o711, f"is a script that {USER} can't read"),
        ("echo\n", 0o755, "is neither a program nor a script"),
        ("", 0o755, "is neither a program nor a script"),
        ("#!\n", 0o755, "needs '', which doesn't exist"),
        ("#!/no/such/shell -e\n", 0o755, "needs '/no/such/shell', which doesn't exist"),
        ("#!/bin/sh\r\n", 0o755, r"needs '/bin/sh\r', which doesn't exist"),
    ],
)
def test_what_would_fail(folder: Path, text: str, mode: int, fault: str) -> None:
    assert what(program(folder, text, mode)) == fault


def test_what_is_no_file(folder: Path) -> None:
    assert what(folder / "none") == "can't be run: no such file or directory"
    assert what(folder) == "is not a regular file"
    loop = folder / "loop"
    loop.symlink_to(loop)
    assert what(loop).startswith("can't be run: too many")


def test_a_directory_that_its_user_may_not_enter(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    link = folder / "link"
    link.symlink_to(program(closed))
    for path in (closed / "hook", link):
        assert what(path) == f"can't be run by {USER}, who may not enter {closed}"
    assert what(closed / "hook", str(os.getuid())) == "", "its owner may"


def test_the_rights_of_owner_and_group_count(folder: Path) -> None:
    path = program(folder, mode=0o500)
    assert what(path, str(os.getuid())) == ""
    assert what(path, OTHER) == f"can't be run by {OTHER}"
