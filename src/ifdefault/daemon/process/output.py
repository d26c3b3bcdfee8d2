"""The lines that a process writes to its standard output and error, through a pipe."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from ifdefault.ipc.messages import printable

LINE_CHARS = 500
_READ_BYTES, _READS = 65536, 16  # the latter: as much as a pipe can hold (pipe(7), pipe-max-size)
_LINES = 100  # of one read that are passed on


class Output:
    """Calls `receive` with each line, made printable and cut off at LINE_CHARS, and for how many
    it stands: where there are very many, most are left out."""

    def __init__(self, receive: Callable[[str, int], None]) -> None:
        self._receive, self._rest = receive, b""
        self._pipe, self.write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(self.write_fd, True)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._pipe, self._read)

    def started(self) -> None:
        """The process has its end now."""
        os.close(self.write_fd)

    def drain(self) -> None:
        """Read the rest, after the process has ended, and close the pipe."""
        for _ in range(_READS):  # children that it left may go on writing
            if not self._read():
                break
        self.close()
        if self._rest:
            self._line(self._rest)

    def close(self) -> None:
        if self._pipe >= 0:
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = -1

    def _read(self) -> bool:
        """Whether there may be more."""
        try:
            data = os.read(self._pipe, _READ_BYTES) if self._pipe >= 0 else b""
        except BlockingIOError:
            return False
        if not data:
            self.close()
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[: 4 * LINE_CHARS]
        for line in lines[:_LINES]:
            self._line(line)
        if rest := lines[_LINES:]:
            self._line(rest[-1], len(rest))
        return True

    def _line(self, line: bytes, lines: int = 1) -> None:
        text = printable(line[: 4 * LINE_CHARS].decode(errors="replace"), LINE_CHARS)
        self._receive(text, lines)
