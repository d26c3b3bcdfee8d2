"""The terminal of a program that draws over it and reads keys, such as `status --watch` and `top`.

Rules: the terminal is restored however the program ends or stops (Ctrl-C, Ctrl-Z, SIGTERM), except
by SIGKILL. A picture is written over the last one in one piece, so that nothing flickers.
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
from typing import Any, Self

_CLEAR, _HOME = "\x1b[2J", "\x1b[H"  # ECMA-48: ED, CUP
_REST_OF_LINE, _REST = "\x1b[K", "\x1b[J"  # EL, ED
# DECSET, xterm's ctlseqs: the alternate screen, and the cursor, which top has no use for
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_KEY = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|\x1bO[A-Z]|.", re.DOTALL)
_ENDS = (signal.SIGTERM, signal.SIGHUP)
LINE_DOWN, LINE_UP = {"j", "\n", "\r", "\x1b[B", "\x1bOB"}, {"k", "\x1b[A", "\x1bOA"}
PAGE_DOWN, PAGE_UP = {" ", "f", "\x1b[6~"}, {"b", "\x1b[5~"}
TOP = {"g", "<", "\x1b[H", "\x1bOH", "\x1b[1~"}
BOTTOM = {"G", ">", "\x1b[F", "\x1bOF", "\x1b[4~"}


class Terminal:
    """Use as a context. With `alternate` it draws on the alternate screen, so that what was on the
    terminal before is there again afterwards."""

    def __init__(self, *, alternate: bool = False) -> None:
        self.keyboard = sys.stdin.fileno() if sys.stdin and sys.stdin.isatty() else -1
        self.gone = False  # nothing can be read from it any more
        self._alternate = alternate
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._handlers[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, self._resize)
        if self.keyboard >= 0:
            self._original = termios.tcgetattr(self.keyboard)
            self._handlers |= {number: signal.signal(number, _exit) for number in _ENDS}
            self._handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._stop)
        self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self._woken)
        os.close(self._wake)

    def draw(self, rows: Sequence[str], last: str = "") -> None:
        """Rows that fit, one below the other, and `last` on the row below them."""
        text = "\n".join([*(row + _REST_OF_LINE for row in rows), _REST + last])
        sys.stdout.write(_HOME + text)
        sys.stdout.flush()

    def keys(self, deadline_s: float) -> list[str]:
        """Keys as they are pressed, at the latest at this time of the monotonic clock; none if
        there was no key, the terminal has another size, or `wake` was called."""
        keyboard = [self.keyboard] if self.keyboard >= 0 else []
        left = max(0.0, deadline_s - time.monotonic())
        ready = select.select([*keyboard, self._woken], [], [], left)[0]
        if self._woken in ready:
            os.read(self._woken, 1024)
            return []
        if not ready:
            return []
        try:
            pressed = os.read(self.keyboard, 1024).decode(errors="replace")
        except OSError:  # EIO: hung up
            pressed = ""
        self.gone = not pressed
        return _KEY.findall(pressed)

    def wake(self) -> None:
        """Have `keys` return; from a signal handler or a thread."""
        with suppress(OSError):  # it is told already, or over
            os.write(self._wake, b"\0")

    # --- modes ----------------------------------------------------------------------------

    def _begin(self) -> None:
        """Get keys as they are pressed, without showing them; Ctrl-C still is a signal."""
        if self.keyboard >= 0:
            mode = termios.tcgetattr(self.keyboard)
            mode[3] &= ~(termios.ECHO | termios.ICANON)  # c_lflag, termios(3)
            termios.tcsetattr(self.keyboard, termios.TCSANOW, mode)
        self._say(_ENTER * self._alternate + _CLEAR)

    def _restore(self) -> None:
        if self.keyboard >= 0:
            with suppress(termios.error):  # hung up
                termios.tcsetattr(self.keyboard, termios.TCSANOW, self._original)
            with suppress(OSError):
                self._say(_LEAVE if self._alternate else "\r" + _REST)

    def _say(self, text: str) -> None:
        if self.keyboard >= 0:  # a signal handler must not use what it may have interrupted
            os.write(sys.stdout.fileno(), text.encode())
        else:
            sys.stdout.write(text)

    def _resize(self, _: int, __: FrameType | None) -> None:
        self.wake()

    def _stop(self, number: int, _: FrameType | None) -> None:
        """Ctrl-Z: stop with the terminal restored, and go on here."""
        self._restore()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.signal(number, self._stop)
        self._begin()
        self.wake()


def size() -> tuple[int, int]:
    """Rows and columns."""
    columns, lines = shutil.get_terminal_size()
    return lines, columns


def _exit(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)
