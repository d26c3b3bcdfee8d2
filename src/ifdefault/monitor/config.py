"""The part of the config file that concerns the monitor, read in a process of its own.

    python -m ifdefault.monitor.config FILE

Rules: what parses the file takes more memory than all else that the monitor does, so it is loaded
in a process that ends when it has printed the result. All errors come in one run, as ever.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ifdefault.ipc import codec
from ifdefault.model.config import Config, HistoryConfig, NotifyConfig, WebConfig
from ifdefault.model.errors import ConfigError, HostError, IfdefaultError, Problem, reason

_PATIENCE_S = 30.0
_WHOLE = Config(())


@dataclass(frozen=True, slots=True)
class UplinkPart:
    name: str
    budget_bytes: int = 0
    reset_day: int = 1


@dataclass(frozen=True, slots=True)
class MonitorConfig:
    uplinks: tuple[UplinkPart, ...] = ()
    user: str = _WHOLE.daemon.user
    web: WebConfig = _WHOLE.web
    history: HistoryConfig = _WHOLE.history
    notify: tuple[NotifyConfig, ...] = ()


@dataclass(frozen=True, slots=True)
class _Invalid:
    problems: tuple[Problem, ...]
    kind: Literal["config", "host"] = "config"


_Reply = MonitorConfig | _Invalid
_decode = codec.decoder(_Reply)


def read(path: Path) -> MonitorConfig:
    """Read it in this process."""
    from ifdefault import config

    whole = config.read(path)
    uplinks = (UplinkPart(u.name, u.budget_bytes, u.reset_day) for u in whole.uplinks)
    return MonitorConfig(tuple(uplinks), whole.daemon.user, whole.web, whole.history, whole.notify)


def read_apart(path: Path) -> MonitorConfig:
    """Read it in another process; the same errors."""
    try:
        process = subprocess.run(
            [sys.executable, "-P", "-s", "-m", __name__, str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYDANTIC_DISABLE_PLUGINS": "__all__"},
            timeout=_PATIENCE_S,
            check=True,
        )
        reply: _Reply = _decode(codec.read(process.stdout))
    except (OSError, subprocess.SubprocessError, codec.DecodeError) as error:
        raise HostError(_unread(path, error)) from None
    if isinstance(reply, _Invalid):
        raise (ConfigError if reply.kind == "config" else HostError)(*reply.problems)
    return reply


def _unread(path: Path, error: Exception) -> Problem:
    match error:
        case OSError():  # as of a Python below /root
            why = f"{error.filename or sys.executable} can't be run: {reason(error)}"
            return Problem(str(path), why, "restart the monitor, as root")
        case subprocess.TimeoutExpired():
            why = f"can't be read in {_PATIENCE_S:g} s"
        case subprocess.CalledProcessError():
            why = f"can't be read: its reader ended with status {error.returncode}"
        case _:
            why = f"can't be read: {error}"
    return Problem(str(path), why, "see the log")


def main(path: Path) -> None:
    reply: _Reply
    try:
        reply = read(path)
    except ConfigError as error:
        reply = _Invalid(error.problems)
    except IfdefaultError as error:
        reply = _Invalid(error.problems, "host")
    sys.stdout.buffer.write(codec.write(codec.encoder(_Reply)(reply)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
