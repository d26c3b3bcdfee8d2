"""The token that permits other users than root to force the state of an uplink.

Rules: it is in a file that only root may read, so that whoever knows it was given it by root. What
is wrong with the file is an error, since it would otherwise permit too much, or nothing.
"""

from __future__ import annotations

import os
import stat

from ifdefault.model import token as tokens
from ifdefault.model.config import Config
from ifdefault.model.errors import HostError, Problem, reason

_WHERE = "web.control_token_file"


class ControlTokens:
    """The token of the config in use, and of one that is being tried."""

    def __init__(self) -> None:
        self._tokens: dict[str, str] = {}  # by file

    def read(self, config: Config, current: Config) -> None:
        """Read that of a config. HostError if its file can't be used; that of the `current` config,
        which may be returned to, is kept in any case."""
        new, old = (c.web.control_token_file for c in (config, current))
        self._tokens = {old: self.of(current), new: read(new)}

    def of(self, config: Config) -> str:
        return self._tokens.get(config.web.control_token_file, "")


def read(path: str) -> str:
    """The token in a file, "" for no file; HostError says what is wrong with it."""
    if not path:
        return ""
    generate = tokens.remedy(path)
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # it may be a FIFO
        try:
            status = os.fstat(file)
            data = os.read(file, tokens.LONGEST) if stat.S_ISREG(status.st_mode) else b""
        finally:
            os.close(file)
    except FileNotFoundError:
        raise _fault(path, "doesn't exist", generate) from None
    except OSError as error:
        raise _fault(path, f"can't be read: {reason(error)}", "run as root") from None
    if not stat.S_ISREG(status.st_mode):
        raise _fault(path, "is not a file", generate)
    if status.st_mode & 0o077:
        raise _fault(path, "is readable by others", f"run chmod 600 {path}")
    if status.st_uid not in (0, os.geteuid()):
        raise _fault(path, "doesn't belong to root", f"run chown root {path}")
    token = data.decode("ascii", "replace").strip()
    if what := tokens.fault(token):
        raise _fault(path, what, generate)
    return token


def _fault(path: str, what: str, remedy: str) -> HostError:
    return HostError(Problem(_WHERE, f"{path} {what}", remedy))
