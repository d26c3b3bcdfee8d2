"""The screen of `status --watch`: a text that is drawn over the last one, and scrolled with keys.

Rules: the terminal is restored however the program ends or stops (Ctrl-C, Ctrl-Z, SIGTERM), except
by SIGKILL. Nothing is cut: a long line is continued on the next row. The keys are those of less.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import sys
import termios
import time
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

from ifdefault.cli.show.style import shown

_CLEAR, _HOME = "\x1b[2J", "\x1b[H"  # ECMA-48: ED, CUP
_REST_OF_LINE, _REST = "\x1b[K", "\x1b[J"  # EL, ED
_STYLE = re.compile(r"\x1b\[[0-9;]*m")  # SGR
_KEY = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|\x1bO[A-Z]|.", re.DOTALL)
_DOWN, _UP = {"j", "\n", "\r", "\x1b[B", "\x1bOB"}, {"k", "\x1b[A", "\x1bOA"}
_PAGE_DOWN, _PAGE_UP = {" ", "f", "\x1b[6~"}, {"b", "\x1b[5~"}
_TOP = {"g", "<", "\x1b[H", "\x1bOH", "\x1b[1~"}
_BOTTOM = {"G", ">", "\x1b[F", "\x1bOF", "\x1b[4~"}
_ENDS = (signal.SIGTERM, signal.SIGHUP)


class Screen:
    """Use as a context. Without a terminal to read keys from, nothing can be scrolled."""

    def __init__(self) -> None:
        self._keyboard = sys.stdin.fileno() if sys.stdin and sys.stdin.isatty() else -1
        self._lines: Sequence[str] = ()
        self._handlers: dict[signal.Signals, Any] = {}
        self._top = 0  # the first row that is shown

    def __enter__(self) -> Screen:
        self._resized, self._tell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._handlers[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, self._resize)
        if self._keyboard >= 0:
            self._original = termios.tcgetattr(self._keyboard)
            self._handlers |= {number: signal.signal(number, _exit) for number in _ENDS}
            self._handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._stop)
            self._read_keys()
        sys.stdout.write(_CLEAR)
        return self

    def __exit__(self, *_: object) -> None:
        if self._keyboard >= 0:
            self._restore()
            sys.stdout.write("\r" + _REST)
            sys.stdout.flush()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self._resized)
        os.close(self._tell)

    def show(self, lines: Sequence[str]) -> None:
        self._lines = list(shown(lines))
        self._draw()

    def wait(self, seconds: float) -> bool:
        """Scroll with the keys that are pressed in this time; False if it is the one to quit. It
        ends early if the terminal has another size, which lines were made for."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            keyboard = [self._keyboard] if self._keyboard >= 0 else []
            ready = select.select([*keyboard, self._resized], [], [], left)[0]
            if self._resized in ready:
                os.read(self._resized, 1024)
                return True
            if not ready:
                return True
            pressed = os.read(self._keyboard, 1024).decode(errors="replace")
            if not pressed:  # the terminal is gone
                return False
            for key in _KEY.findall(pressed):
                if key in ("q", "Q"):
                    return False
                self._scroll(key)
            self._draw()
        return True

    def _scroll(self, key: str) -> None:
        page = max(_height() - 1, 1)
        for keys, rows in (
            (_DOWN, 1),
            (_UP, -1),
            (_PAGE_DOWN, page),
            (_PAGE_UP, -page),
            (_TOP, -self._top),
            (_BOTTOM, len(self._rows())),
        ):
            if key in keys:
                self._top = self._within(self._top + rows, self._rows())

    def _rows(self) -> list[str]:
        columns = shutil.get_terminal_size().columns
        return [row for line in self._lines for row in _cut(line, columns)]

    def _within(self, top: int, rows: Sequence[str]) -> int:
        return max(0, min(top, len(rows) - _height()))

    def _draw(self) -> None:
        """Overwrite the screen without clearing it first, which would flicker."""
        rows = self._rows()
        top = self._top = self._within(self._top, rows)
        shown = rows[top : top + _height()]
        last = ""
        if len(shown) < len(rows):
            keys = "; j, k, space and b scroll, q quits" if self._keyboard >= 0 else ""
            last = f"lines {top + 1}-{top + len(shown)} of {len(rows)}{keys}"
        last = last[: shutil.get_terminal_size().columns]
        text = "\n".join([*(row + _REST_OF_LINE for row in shown), _REST + last])
        sys.stdout.write(_HOME + text)
        sys.stdout.flush()

    # --- the terminal ---------------------------------------------------------------------

    def _read_keys(self) -> None:
        """Get keys as they are pressed, without showing them; Ctrl-C still is a signal."""
        mode = termios.tcgetattr(self._keyboard)
        mode[3] &= ~(termios.ECHO | termios.ICANON)  # c_lflag, termios(3)
        termios.tcsetattr(self._keyboard, termios.TCSANOW, mode)

    def _restore(self) -> None:
        termios.tcsetattr(self._keyboard, termios.TCSANOW, self._original)

    def _resize(self, _: int, __: FrameType | None) -> None:
        with suppress(BlockingIOError):  # it is told already
            os.write(self._tell, b"\0")

    def _stop(self, number: int, _: FrameType | None) -> None:
        """Ctrl-Z: stop with the terminal restored, and go on here."""
        self._restore()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.signal(number, self._stop)
        self._read_keys()


def _cut(line: str, columns: int) -> list[str]:
    """A line as rows of so many characters; only one that fits has styles, which take no room."""
    plain = _STYLE.sub("", line)
    if len(plain) <= columns:
        return [line]
    return [plain[start : start + columns] for start in range(0, len(plain), columns)]


def _height() -> int:
    """How many rows of text are shown; the last row of the terminal is for the cursor."""
    return max(shutil.get_terminal_size().lines - 1, 1)


def _exit(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)
