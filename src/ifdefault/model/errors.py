"""What can go wrong, told so that a person can mend it.

Rules: a message says where, what is wrong and what would be right; lower case, no full stop. All
problems of one kind are collected and told in one run. The command line turns each of these into
a message and an exit status; no traceback reaches a user.
"""

from __future__ import annotations

from dataclasses import dataclass


def reason(error: OSError) -> str:
    """Why the system refused, in its own words."""
    return (error.strerror or str(error)).lower()


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, or worth a warning, and its remedy."""

    where: str  # "ifdefault.toml:12: uplink.isp-a.weight", "rule 4998", "sysctl net.ipv4…"
    what: str
    remedy: str = ""
    warning: bool = False
    blocks: bool = True  # an error that keeps apply from all else as well

    def __str__(self) -> str:
        head = f"{self.where}: " if self.where else ""
        tail = f", {self.remedy}" if self.remedy else ""
        return f"{head}{self.what}{tail}"


class IfdefaultError(Exception):
    """Base of all errors that end a command; `exit_status` is the process's."""

    exit_status = 1

    def __init__(self, *problems: Problem | str) -> None:
        self.problems = tuple(p if isinstance(p, Problem) else Problem("", p) for p in problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class ConfigError(IfdefaultError):
    """The config can't be used; nothing was touched."""

    exit_status = 2


class HostError(IfdefaultError):
    """The host lacks something we need (root, nft, a kernel feature), or forbids it."""


class KernelError(IfdefaultError):
    """The kernel refused an operation."""


class LockError(IfdefaultError):
    """Another ifdefault is changing this host right now."""
