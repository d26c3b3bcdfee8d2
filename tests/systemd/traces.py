"""What a package may leave on a host: lines of the kernel's state, and files.

Rules: all is listed but what others change by themselves: logs, the lists of apt and dpkg of what
they did, and what a boot leaves.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.systemd.booted import Booted

_COMMANDS = """\
ip -4 rule
ip -6 rule
ip -4 route show table all
ip -6 route show table all
ip -4 nexthop
ip address
nft -s list ruleset
sysctl -a --pattern ^net\\.
"""
# Values that time changes, and numbers that the next interface gets; all interfaces are the lab's.
_VOLATILE = re.compile(
    r"^\d+: |@if\d+| link-netns\S* \S+|^.*(_count|\.random|_key) = .*$|^net.*dentry.*$"
)
_OTHERS = re.compile(
    r"""(srv|tmp|run|var/tmp|var/log|var/cache|var/backups)(/|$)
    |var/lib/(apt|nginx|logrotate|private)(/|$)|var/lib/dpkg/(?!info/)
    |var/lib/systemd/(random-seed|timers|catalog|credential|rfkill|linger|coredump|timesync)
    |etc/(passwd|group|shadow|gshadow)-$|etc/\.pwd\.lock$|etc/\.updated$|var/\.updated$|root/\.""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Traces:
    kernel: list[str]
    files: dict[str, str]

    @classmethod
    def of(cls, host: Booted) -> Traces:
        return cls(kernel(host), files(host))


def compare(before: Traces, after: Traces) -> tuple[list[str], list[str]]:
    """The lines of the kernel and the files that differ."""
    lines = set(before.kernel) ^ set(after.kernel)
    names = {name for name, _ in before.files.items() ^ after.files.items()}
    return sorted(lines), sorted(names)


def kernel(host: Booted) -> list[str]:
    """The lines that its own tools show of the kernel's state."""
    lines = []
    for command in _COMMANDS.splitlines():
        text = host.run(command.split()).stdout
        lines += [f"{command}: {_VOLATILE.sub('', line)}" for line in text.splitlines()]
    for link in json.loads(host.run(["ip", "-j", "-d", "link"]).stdout):
        lines.append(f"{link['ifname']}: {link['group']} {link['flags']} {link['mtu']}")
    return sorted(lines)


def files(host: Booted) -> dict[str, str]:
    """Mode, owner and content of all files that differ from those that the host was made of."""
    upper = host.here / "upper"
    return dict(_changed(upper, host.lower))


def _changed(upper: Path, lower: list[Path]) -> Iterator[tuple[str, str]]:
    for path in sorted(upper.rglob("*")):
        name = str(path.relative_to(upper))
        if _OTHERS.match(name):
            continue
        was = next(
            (root / name for root in lower if (root / name).is_symlink() or (root / name).exists()),
            None,
        )
        if was is None or _describe(was) != _describe(path):
            yield name, _describe(path)


def _describe(path: Path) -> str:
    info = path.lstat()
    content = ""
    if stat.S_ISREG(info.st_mode):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    elif stat.S_ISLNK(info.st_mode):
        content = str(path.readlink())
    return f"{stat.filemode(info.st_mode)} {info.st_uid}:{info.st_gid} {content}"
