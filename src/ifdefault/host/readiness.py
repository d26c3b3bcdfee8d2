"""What the daemon will need of this host and may not find: users, executables, targets.

Rules: warnings, since nothing of it stands in the way of the return path; looks, changes nothing.
"""

from __future__ import annotations

import pwd
import stat
from collections.abc import Iterator, Sequence
from dataclasses import astuple, fields
from ipaddress import ip_address
from pathlib import Path

from ifdefault.errors import Problem
from ifdefault.model import FAMILIES, Config, DaemonConfig, Probe, Uplink

_DEFAULT = DaemonConfig()


def find_lacks(config: Config, uplinks: Sequence[Uplink]) -> Iterator[Problem]:
    yield from _users(config)
    yield from _hooks(config)
    yield from _targets(config, uplinks)


def _users(config: Config) -> Iterator[Problem]:
    """Those that somebody chose, or that hooks need; `run` itself tells of the others."""
    chosen = {"user": config.daemon.user, "hook_user": config.daemon.hook_user}
    has_hooks = any(path for _, path in _executables(config))
    for key, name in chosen.items():
        wanted = name != getattr(_DEFAULT, key) or (key == "hook_user" and has_hooks)
        if wanted and not _exists(name):
            what = f'there is no user "{name}"'
            remedy = f"useradd --system --no-create-home {name}"
            yield Problem(f"daemon.{key}", what, remedy, warning=True)


def _exists(user: str) -> bool:
    if user.isdigit():
        return True  # a number needs no name
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _executables(config: Config) -> Iterator[tuple[str, str]]:
    names = (field.name for field in fields(config.hooks))
    for name, value in zip(names, astuple(config.hooks), strict=True):
        if isinstance(value, str):
            yield name, value


def _hooks(config: Config) -> Iterator[Problem]:
    for key, path in _executables(config):
        if path and (lack := _lack(Path(path))):
            yield Problem(f"hooks.{key}", f"{path} {lack[0]}", lack[1], warning=True)


def _lack(path: Path) -> tuple[str, str] | None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return f"can't be run: {(error.strerror or str(error)).lower()}", "name an executable file"
    if not stat.S_ISREG(mode):
        return "is no file", "name an executable file"
    if not mode & 0o111:
        return "isn't executable", f"chmod a+x {path}"
    if mode & 0o002:
        return "may be changed by anybody", f"chmod o-w {path}"
    return None


def _targets(config: Config, uplinks: Sequence[Uplink]) -> Iterator[Problem]:
    """An uplink that has probes, and none for a family that it carries."""
    own = {uplink.name: uplink.probes for uplink in config.uplinks}
    for uplink in uplinks:
        probes = own[uplink.name]
        if probes is None:
            probes = config.health.probes
        for family in FAMILIES:
            if probes and uplink.source(family) and not any(_may_be(p, family) for p in probes):
                what = f"none of its probes is IPv{family}, so that its gateway alone decides there"
                remedy = f"add an IPv{family} target, or a name that has one"
                yield Problem(f"uplink.{uplink.name}", what, remedy, warning=True)


def _may_be(probe: Probe, family: int) -> bool:
    try:
        return ip_address(probe.host).version == family
    except ValueError:
        return True  # a name may have addresses of both
