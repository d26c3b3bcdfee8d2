"""What the monitor does before it follows: directories of its own, and no privileges.

Rules: systemd has chosen the user and made the directories (User=, StateDirectory=). Started as
root otherwise, it makes them, gives them to the user of the config, and continues as that user;
links, hard ones too, that others could have laid are not followed.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import resource
from contextlib import suppress
from pathlib import Path

from ifdefault.ipc import privileges
from ifdefault.model.errors import HostError, Problem, reason
from ifdefault.monitor.history.reader import history_dir
from ifdefault.monitor.status_file import status_dir

LOCK = "lock"
_OOM_SCORE = 300  # of a host that is out of memory, it is ended before the engine
_LIMITS = {resource.RLIMIT_NOFILE: 1024}
_log = logging.getLogger("ifdefault")


def prepare(user: str, state_dir: Path, run_dir: Path) -> None:
    """Make the directories, take the lock of the history, and drop all privileges; HostError."""
    uid, gid, warning = privileges.choose_user(user)
    uid, gid = privileges.possible(uid, gid)
    if warning and uid != privileges.KEEP:
        _log.warning("%s", warning)
    for directory in (history_dir(state_dir), status_dir(run_dir)):
        try:
            _own(directory, uid, gid)
        except OSError as error:
            what = f"can't be made: {reason(error)}"
            remedy = "run as root, or use --state-dir and --run-dir"
            raise HostError(Problem(str(directory), what, remedy)) from error
    _lock(history_dir(state_dir) / LOCK, uid, gid)
    os.umask(0o022)  # all users may read the history
    privileges.drop(uid, gid, limits=_LIMITS, parent_death=0, oom_score_adj=_OOM_SCORE)


def _own(directory: Path, uid: int, gid: int) -> None:
    """Make a directory and give it, with its files, to the user."""
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    if uid == privileges.KEEP:
        return
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(folder, uid, gid)
        for name in os.listdir(folder):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with suppress(OSError), open(os.open(name, flags, dir_fd=folder), "rb") as file:
                _require_single(file.fileno())
                os.fchown(file.fileno(), uid, gid)
    finally:
        os.close(folder)


def _require_single(fd: int) -> None:
    """OSError if a file has another name: it may be anybody's (fs.protected_hardlinks = 0)."""
    if os.fstat(fd).st_nlink != 1:
        raise OSError(errno.EMLINK, "it has another name")


def _lock(path: Path, uid: int, gid: int) -> None:
    """Take the lock that one monitor holds until it ends: two would count everything twice."""
    try:
        # for its user alone: whoever can open it can keep it locked
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        _require_single(fd)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if uid != privileges.KEEP:
            os.fchown(fd, uid, gid)
    except BlockingIOError:
        remedy = "stop it first: systemctl stop ifdefault-monitor; or use another --state-dir"
        raise HostError(Problem(str(path), "another monitor is running", remedy)) from None
    except OSError as error:
        remedy = "run as root, or use another --state-dir"
        raise HostError(Problem(str(path), f"can't be locked: {reason(error)}", remedy)) from error
