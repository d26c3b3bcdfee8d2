"""The countdown of `apply --confirm` on a terminal: Enter keeps the changes, Ctrl-C undoes them.

    Changes are in place. Press Enter to keep them, Ctrl-C to undo them now.
    They are undone in 57 s

Rules: it shows, and decides nothing: what undoes the changes doesn't depend on it, nor on the
terminal. Only an empty line that was typed after the changes were made confirms them. There are no
control codes but the carriage return, so any terminal will do.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time

from ifdefault.cli import daemon_client, unconfirmed
from ifdefault.cli.options import Options
from ifdefault.cli.show.output import echo_styled
from ifdefault.model.changes import undone_in
from ifdefault.model.errors import HostError

_INTERRUPTED = 130  # 128 + SIGINT
_IN_PLACE = "Changes are in place. Press Enter to keep them, Ctrl-C to undo them now."
_ENTER_ALONE = "Press Enter alone to keep them, Ctrl-C to undo them now."
_POLL_S = 0.5


def is_possible() -> bool:
    """Whether somebody can read it and answer: standard input and error are a terminal, and this
    process may read it now."""
    try:
        fd = sys.stdin.fileno()
        if not (os.isatty(fd) and sys.stderr.isatty()):
            return False
        return os.tcgetpgrp(fd) == os.getpgrp()  # otherwise it is in the background
    except (AttributeError, OSError, ValueError):
        return False


def run(options: Options) -> int:
    """Wait for an answer, or for the changes to be undone; return the exit status."""
    countdown = _Countdown(options)
    try:
        return countdown.run()
    except HostError:
        countdown.end_line()
        raise
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _say("\nUndoing the changes …")
        unconfirmed.undo(options)
        _say("The changes were undone.")
        return _INTERRUPTED


class _Countdown:
    def __init__(self, options: Options) -> None:
        self._options, self._until_s = options, 0.0
        self._daemon = daemon_client.runs(options)
        self._fd = sys.stdin.fileno()
        self._shown = ""

    def run(self) -> int:
        termios.tcflush(self._fd, termios.TCIFLUSH)
        _say(_IN_PLACE)
        while (left_s := unconfirmed.left_s(self._options)) is not None:
            self._until_s = time.monotonic() + left_s
            self._show()
            typed = self._typed()
            if typed == "\n":
                unconfirmed.confirm(self._options)
                return self._end("kept", 0)
            if typed == "":
                return self._end(undone_in(self._left_s), 0)
            if typed is not None:
                self.end_line()
                _say(_ENTER_ALONE)
        if unconfirmed.is_confirmed(self._options):
            return self._end("kept: confirmed by another command", 0)
        if self._daemon and not daemon_client.runs(self._options):
            return self._end("Not confirmed: the daemon ended, and undoes them when it starts.", 1)
        if self._left_s > 0:
            return self._end("Removed by ifdefault down.", 1)
        return self._end("Not confirmed: the changes were undone.", 1)

    @property
    def _left_s(self) -> float:
        return max(0.0, self._until_s - time.monotonic())

    def _typed(self) -> str | None:
        """The line that was typed in a moment, "" at the end of input, None if there is none."""
        wait_s = min(_POLL_S, self._left_s % 1 + 0.01)  # to the next second
        if not select.select([self._fd], [], [], wait_s)[0]:
            return None
        try:
            typed = os.read(self._fd, 4096).decode(errors="replace")
        except OSError:  # the terminal is gone
            return ""
        if typed.endswith("\n"):  # the terminal shows what is typed
            self._shown = ""
        return typed

    def _show(self) -> None:
        left_s = round(self._left_s)
        text = f"They are undone in {left_s} s" if left_s else "Undoing the changes …"
        if text != self._shown:
            _say("\r" + text.ljust(len(self._shown)), nl=False)
            self._shown = text

    def end_line(self) -> None:
        if self._shown:
            _say("")
        self._shown = ""

    def _end(self, text: str, status: int) -> int:
        self.end_line()
        _say(text)
        return status


def _say(text: str, *, nl: bool = True) -> None:
    echo_styled(text, err=True, nl=nl)
