"""Errors that are reported to users.

Rules: a message says where the error is, what is wrong, and what would be right; lower case, no
full stop. Problems of one kind are collected and reported together. The command line turns
exceptions into messages and an exit status; users never see a traceback.
"""

from __future__ import annotations

from dataclasses import dataclass

from ifdefault.model.text import escaped


def reason(error: OSError) -> str:
    """The system's text of an error, in lower case."""
    text = (error.strerror or str(error)).lower()
    return text.partition(" (while attempting")[0]  # what socket.create_server adds


def internal(error: BaseException) -> str:
    """An exception that is a fault of ours, in words."""
    return f"internal error: {type(error).__name__}: {error}"[:300].rstrip(": ")


@dataclass(frozen=True, slots=True)
class Problem:
    """An error, a warning or a hint, and its remedy."""

    where: str  # "ifdefault.toml:12: uplink.isp-a.weight", "rule 4998", "sysctl net.ipv4…"
    what: str
    remedy: str = ""
    warning: bool = False
    blocks: bool = True  # whether the error prevents apply
    hint: bool = False  # a warning of which nothing is wrong: something could be better

    def __str__(self) -> str:
        head = f"{self.where}: " if self.where else ""
        tail = f"; {self.remedy}" if self.remedy else ""
        return escaped(f"{head}{self.what}{tail}")  # others' names may be in it


class IfdefaultError(Exception):
    """Base of all errors that end a command; `exit_status` is the process's."""

    exit_status = 1

    def __init__(self, *problems: Problem | str) -> None:
        self.problems = tuple(p if isinstance(p, Problem) else Problem("", p) for p in problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class ConfigError(IfdefaultError):
    """The config is invalid; nothing was changed."""

    exit_status = 2


class HostError(IfdefaultError):
    """The host lacks something required (root, nft, a kernel feature), or doesn't permit it."""


class KernelError(IfdefaultError):
    """The kernel refused an operation."""


class LockError(IfdefaultError):
    """Another ifdefault is changing this host right now."""
