"""Whether a hook or publisher can be run as its user.

Rules: the file, its interpreter and the directories that lead there are checked by owner, group and
mode; nothing is run. The user has no supplementary groups, as when the daemon runs the program.
"""

from __future__ import annotations

import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from ifdefault.model.errors import reason

_ELF, _SCRIPT = b"\x7fELF", b"#!"
_NOBODY = 65534
Fault = tuple[str, str]  # what is wrong, and what would be right
_NAME_ANOTHER = "name an executable file"


def program_fault(path: Path, user: str) -> Fault | None:
    """Why a program can't, or shouldn't, be run as a user."""
    return next(_faults(path, user), None)


def _faults(path: Path, user: str) -> Iterator[Fault]:
    try:
        mode = path.stat().st_mode
        real = path.resolve(strict=True)
    except OSError as error:
        yield f"can't be run: {reason(error)}", _NAME_ANOTHER
        return
    if not stat.S_ISREG(mode):
        yield "is not a regular file", _NAME_ANOTHER
        return
    if not mode & 0o111:
        yield "isn't executable", f"run chmod a+x {path}"
    if mode & 0o002:
        yield "is writable by everyone", f"run chmod o-w {path}"
    uid, gid = _ids(user)
    for directory in reversed(real.parents):
        if not _permits(directory, uid, gid, stat.S_IXOTH):
            what = f"can't be run by {user}, who may not enter {directory}"
            yield what, "move it, for example to /usr/local/sbin"
    if not _permits(real, uid, gid, stat.S_IXOTH):
        yield f"can't be run by {user}", f"run chmod a+x {path}"
    yield from _content_faults(path, uid, gid, user)


def _content_faults(path: Path, uid: int, gid: int, user: str) -> Iterator[Fault]:
    try:
        with path.open("rb") as file:
            line = file.readline(256)
    except OSError:
        return  # this process isn't root
    if line.startswith(_ELF):
        return
    if not line.startswith(_SCRIPT):
        yield "is neither a program nor a script", "begin it with a line such as #!/bin/sh"
        return
    if not _permits(path, uid, gid, stat.S_IROTH):
        yield f"is a script that {user} can't read", f"run chmod a+r {path}"
    # with the line ends of Windows it is "/bin/sh\r"
    interpreter = line.removeprefix(_SCRIPT).strip(b" \t\n").split(b" ")[0].decode("latin-1")
    if not Path(interpreter).is_file():
        yield f"needs {interpreter!r}, which doesn't exist", "correct its first line"


def _ids(user: str) -> tuple[int, int]:
    """The daemon uses nobody for a user that doesn't exist."""
    for name in (user, "nobody"):
        try:
            entry = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
        except (KeyError, OverflowError):
            continue
        return entry.pw_uid, entry.pw_gid
    return _NOBODY, _NOBODY


def _permits(path: Path, uid: int, gid: int, right: int) -> bool:
    """Whether a user has a right to a file, given as the bit of others."""
    try:
        status = path.stat()
    except OSError:
        return True  # this process isn't root
    shift = 6 if status.st_uid == uid else 3 if status.st_gid == gid else 0
    return bool(status.st_mode >> shift & right)
