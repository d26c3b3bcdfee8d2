"""The file with the token that permits others than root to change an uplink's state."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from ifdefault import config
from ifdefault.host.control_token import ControlTokens, read
from ifdefault.model.errors import HostError

TOKEN = "0123456789abcdef"


def write(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_what_is_wrong_with_a_file_and_what_would_be_right(tmp_path: Path) -> None:
    path = tmp_path / "token"
    generate = rf"run \(umask 077; head -c 24 /dev/urandom \| base64 > {path}\)"
    assert read("") == ""
    with pytest.raises(HostError, match=rf"control_token_file: {path} doesn't exist; {generate}"):
        read(str(path))
    assert read(write(path, f"{TOKEN}\n")) == TOKEN
    for text in ("", "short", "x" * 201, f"{TOKEN} {TOKEN}", "\xe9" * 20):
        with pytest.raises(HostError, match=generate):
            read(write(path, text))
    for mode in (0o640, 0o604):
        with pytest.raises(HostError, match=f"is readable by others; run chmod 600 {path}"):
            read(write(path, TOKEN, mode))
    with pytest.raises(HostError, match="is not a file"):
        read(str(tmp_path))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(HostError, match="is not a file"):
        read(str(tmp_path / "fifo"))


def test_the_one_before_stays_until_another_is_read(tmp_path: Path) -> None:
    """A reload that fails changes nothing, and one that is undone returns to what was."""
    plain = config.parse('[uplink.a]\ninterface = "x"', "f")
    one, other = (
        replace(plain, web=replace(plain.web, control_token_file=write(tmp_path / name, name * 16)))
        for name in "ab"
    )
    tokens = ControlTokens()
    assert tokens.of(plain) == ""
    tokens.read(one, plain)
    tokens.read(other, one)
    assert [*map(tokens.of, (plain, one, other))] == ["", "a" * 16, "b" * 16]
    (tmp_path / "b").chmod(0o644)
    with pytest.raises(HostError):
        tokens.read(other, one)
    assert tokens.of(one) == "a" * 16
    write(tmp_path / "a", "c" * 16)
    tokens.read(one, one)
    assert tokens.of(one) == "c" * 16
