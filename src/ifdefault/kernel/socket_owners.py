"""The processes that have sockets open, by /proc (proc(5)).

Rules: reads only. Processes of other network namespaces have none of this one's sockets; those
whose files may not be read aren't found.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from ifdefault.model.text import from_bytes

PROC = Path("/proc")


def owners(inodes: Collection[int]) -> Iterator[tuple[int, int]]:
    """(inode, process) for each process that has one of these sockets."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    for entry in PROC.glob("[0-9]*") if wanted else ():
        with suppress(OSError):
            for file in wanted.keys() & set(_open_files(entry)):
                yield wanted[file], int(entry.name)


def _open_files(entry: Path) -> Iterator[str]:
    for fd in (entry / "fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            yield os.readlink(fd)


def command_name(pid: int) -> str:
    """The name of a process; "" if it has ended."""
    with suppress(OSError):
        return from_bytes((PROC / str(pid) / "comm").read_bytes()).strip()
    return ""
