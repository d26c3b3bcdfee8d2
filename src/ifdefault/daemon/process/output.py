"""The lines that a process writes to its standard output and error, through a pipe."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from ifdefault.ipc.messages import printable

LINE_CHARS = 500
_READ_BYTES = 65536


class Output:
    """Calls `receive` with each line, made printable and cut off at LINE_CHARS."""

    def __init__(self, receive: Callable[[str], None]) -> None:
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
        while self._read():
            pass
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
        for line in lines:
            self._line(line)
        return True

    def _line(self, line: bytes) -> None:
        self._receive(printable(line[: 4 * LINE_CHARS].decode(errors="replace"), LINE_CHARS))
