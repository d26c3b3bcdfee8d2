"""The screen of `status --watch`, on a terminal of its own."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from subprocess import Popen
from typing import Any

import pytest

from ifdefault.cli.show.screen import Screen
from ifdefault.cli.show.style import Line
from ifdefault.lab.waiting import PATIENCE_S, eventually

ROWS, COLUMNS = 6, 40
PROGRAM = """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a background job
from ifdefault.cli.show.screen import Screen
with Screen() as screen:
    n = 0
    while True:
        n += 1
        screen.show([f"turn {n}", *(f"line {i}" for i in range(2, 10)), "x" * 50])
        if not screen.wait(float(os.environ.get("PATIENCE", "0.02"))):
            break
"""


@dataclass
class Terminal:
    fd: int  # the user's end
    program_fd: int
    child: Popen[bytes]
    said: str = ""
    decode: Callable[[bytes], str] = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")().decode
    )

    def mode(self) -> list[Any]:
        return termios.tcgetattr(self.program_fd)

    def press(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def read_until(self, pattern: str) -> None:
        """Until the last picture matches."""

        def matches() -> bool:
            self.said += self.decode(os.read(self.fd, 65536)).replace("\r\n", "\n")
            pictures = self.said.split("\x1b[H")[1:-1]  # the last one may be incomplete
            return bool(pictures) and bool(re.search(pattern, pictures[-1], re.DOTALL))

        eventually(matches, poll_s=0.0, what=pattern)

    def has_mode(self, mode: list[Any]) -> Callable[[], bool]:
        return lambda: self.mode() == mode


def resize(fd: int, rows: int, columns: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


Start = Callable[..., Terminal]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a command on a new terminal; the program comes last in it, unless it is without."""
    started: list[Terminal] = []

    def begin(*command: str, program: bool = True) -> Terminal:
        fd, program_fd = pty.openpty()
        resize(program_fd, ROWS, COLUMNS)
        env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        child = Popen(
            [*command, *([sys.executable, "-c", PROGRAM] if program else [])],
            stdin=program_fd,
            stdout=program_fd,
            stderr=program_fd,
            env=env,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        started.append(Terminal(fd, program_fd, child))
        return started[0]

    yield begin
    for terminal in started:
        terminal.child.kill()
        terminal.child.wait()
        os.close(terminal.fd)
        os.close(terminal.program_fd)


def test_it_says_what_is_not_shown_and_scrolls(start: Start) -> None:
    terminal = start()
    before = terminal.mode()
    terminal.read_until(r"turn \d+.*line 5\x1b\[K\n\x1b\[Jlines 1-5 of 11; j, k, ")
    terminal.press("j")
    terminal.read_until(r"^line 2\x1b.*line 6\x1b\[K\n\x1b\[Jlines 2-6 of 11")
    terminal.press("\x1b[B\x1b[Bk")
    terminal.read_until("lines 3-7 of 11")
    terminal.press("G")  # a long line goes on in the next row
    terminal.read_until(rf"line 9\x1b\[K\n{'x' * 40}\x1b\[K\n{'x' * 10}\x1b\[K\n.*lines 7-11 of 11")
    terminal.press(" b")
    terminal.read_until("lines 3-7 of 11")
    resize(terminal.program_fd, 20, COLUMNS)
    terminal.read_until(r"^turn \d+\x1b.*x{10}\x1b\[K\n\x1b\[J$")
    terminal.press("q")
    assert terminal.child.wait(PATIENCE_S) == 0
    assert terminal.mode() == before


def test_another_size_is_followed_at_once(start: Start) -> None:
    terminal = start("env", "PATIENCE=600")
    for turn in ("turn 1\x1b", "turn 2\x1b"):
        while turn not in terminal.said:
            assert select.select([terminal.fd], [], [], PATIENCE_S)[0], terminal.said
            terminal.said += os.read(terminal.fd, 65536).decode()
        resize(terminal.program_fd, 20, 60)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_restored_when_it_is_ended(start: Start, number: int) -> None:
    terminal = start()
    before = terminal.mode()
    terminal.read_until("turn")
    assert terminal.mode() != before
    if number == signal.SIGINT:
        terminal.press("\x03")
    else:
        terminal.child.send_signal(number)
    terminal.child.wait(PATIENCE_S)
    assert terminal.mode() == before


def test_the_terminal_is_restored_while_it_is_stopped(start: Start) -> None:
    """By Ctrl-Z, in a shell that continues it after the next line that is typed."""
    terminal = start("sh", "-m", "-c", '"$@"; read _; fg', "sh")
    before = terminal.mode()
    terminal.read_until("turn")
    during = terminal.mode()
    terminal.press("\x1a")
    eventually(terminal.has_mode(before), what="restored")
    terminal.press("\n")
    eventually(terminal.has_mode(during), what="keys are read again")
    terminal.press("jq")
    assert terminal.child.wait(PATIENCE_S) == 0
    assert terminal.mode() == before


def test_styles_take_no_room(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((9, 5)))
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setenv("CLICOLOR_FORCE", "1")
    with Screen() as screen:
        screen.show([Line("x" * 9, "bad"), Line("y" * 10, "warn")])
    rows = capsys.readouterr().out.removeprefix("\x1b[2J\x1b[H").split("\x1b[K\n")
    assert rows == [f"\x1b[31m{'x' * 9}\x1b[0m", "y" * 9, "y", "\x1b[J"]


def test_without_a_keyboard_it_says_how_much_is_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((80, 3)))
    monkeypatch.setattr(sys, "stdin", None)
    with Screen() as screen:
        screen.show(["1", "2", "3"])
        assert screen.wait(0.0)
    assert capsys.readouterr().out == ("\x1b[2J\x1b[H1\x1b[K\n2\x1b[K\n\x1b[Jlines 1-2 of 3")
