"""What the daemon will need of this host and may not find: users, executables, targets.

Rules: warnings, since nothing of it stands in the way of the return path; looks, changes nothing.
"""

from __future__ import annotations

import importlib.util
import pwd
import stat
from collections.abc import Iterator, Sequence
from dataclasses import astuple, fields
from ipaddress import ip_address
from pathlib import Path

from ifdefault.kernel import open_dns_sockets
from ifdefault.model.address import is_private
from ifdefault.model.config import FAMILIES, Config, DaemonConfig, Probe
from ifdefault.model.dns import DISCOVER, DnsConfig
from ifdefault.model.errors import Problem, reason
from ifdefault.model.kernel import Uplink

_DEFAULT = DaemonConfig()


def find_lacks(config: Config, uplinks: Sequence[Uplink]) -> Iterator[Problem]:
    yield from _users(config)
    yield from _hooks(config)
    yield from _targets(config, uplinks)
    if config.dns != DnsConfig():
        yield from _secrets(config)
        yield from _publishers(config)
        yield from _published(config, uplinks)


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
        return f"can't be run: {reason(error)}", "name an executable file"
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


# --- the DNS ------------------------------------------------------------------------------


def _secrets(config: Config) -> Iterator[Problem]:
    """Keys and tokens are the frontend's to read, and nobody else's."""
    dns = config.dns
    found = [("dns.server.secondaries", each.key) for each in dns.server.secondaries]
    found += [("dns.update", each.key) for update in dns.updates for each in update.servers]
    found += [("dns.provider", each.credentials) for each in dns.providers]
    for where, path in dict.fromkeys((where, path) for where, path in found if path):
        if lack := _unfit_secret(Path(path), config.daemon.user):
            yield Problem(where, f"{path} {lack[0]}", lack[1], warning=True)


def _unfit_secret(path: Path, user: str) -> tuple[str, str] | None:
    try:
        status = path.stat()
    except OSError as error:
        return f"can't be read: {reason(error)}", "write it there"
    if status.st_mode & 0o077:
        return "may be read by others", f"chmod 0400 {path}"
    if _exists(user) and status.st_uid != (int(user) if user.isdigit() else _uid(user)):
        return f"isn't {user}'s, who needs it", f"chown {user} {path}"
    return None


def _uid(user: str) -> int:
    return pwd.getpwnam(user).pw_uid


def _publishers(config: Config) -> Iterator[Problem]:
    for each in config.dns.execs:
        if lack := _lack(Path(each.program)):
            yield Problem("dns.exec", f"{each.program} {lack[0]}", lack[1], warning=True)
    if config.dns.providers and importlib.util.find_spec("lexicon") is None:
        remedy = "install ifdefault[providers]"
        yield Problem("dns.provider", "dns-lexicon isn't installed", remedy, warning=True)


def _published(config: Config, uplinks: Sequence[Uplink]) -> Iterator[Problem]:
    """What names would lead to, and who holds the port there."""
    public = {uplink.name: uplink.public for uplink in config.uplinks}
    server = config.dns.server
    for uplink in uplinks:
        for family in FAMILIES:
            address = uplink.source(family)
            if not address:
                continue
            if is_private(address) and not public[uplink.name]:
                what = f"the Internet can't reach {address}, so that no name leads there"
                remedy = f'set public, to "{DISCOVER}" or to what it is seen as'
                yield Problem(f"uplink.{uplink.name}", what, remedy, warning=True)
            for transport in ("udp", "tcp") if server.zones else ():
                holder = open_dns_sockets.holder(transport, address, server.port)
                if holder and not holder.startswith("ifdefault "):
                    what = f"port {server.port} of {address} ({transport}) is taken by {holder}"
                    remedy = "stop it, or let it listen elsewhere"
                    yield Problem("dns.server.port", what, remedy, warning=True)
