"""A file that processes lock (flock(2)), signed by the one that holds it."""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO


def private(path: Path) -> IO[str]:
    """Open a lock file that other users can't open: locking needs no write permission."""
    file = open(  # noqa: SIM115
        path, "a+", errors="replace", opener=lambda name, flags: os.open(name, flags, 0o600)
    )
    if stat.S_IMODE(os.fstat(file.fileno()).st_mode) != 0o600:
        os.fchmod(file.fileno(), 0o600)
    return file


def acquired(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def holder(file: IO[str]) -> str:
    """Who holds a lock: the process that the kernel names, with the command that it has signed
    with. The kernel names none that is in another pid namespace."""
    file.seek(0)
    signed = file.read().strip()
    inode = os.fstat(file.fileno()).st_ino
    pids = []
    with suppress(OSError):
        for line in Path("/proc/locks").read_text("ascii", "replace").splitlines():
            _, kind, _, _, pid, place, *_ = line.split()
            if kind == "FLOCK" and place.rpartition(":")[2] == str(inode):
                pids.append(pid)
    if pids and not signed.startswith(f"pid {pids[0]} "):
        return f"pid {pids[0]}"
    return signed or "another ifdefault"


def sign(file: IO[str], text: str) -> None:
    """Write who holds a lock. The daemon takes the lock each time it reads the kernel: an unchanged
    text isn't written again, since a write may block for a tenth of a second. Nothing is buffered,
    which would fail again when the file is closed."""
    fd, data = file.fileno(), text.encode()
    if os.pread(fd, len(data) + 1, 0) != data:
        os.ftruncate(fd, 0)
        os.pwrite(fd, data, 0)  # opened for appending, so it is at the end anyway
