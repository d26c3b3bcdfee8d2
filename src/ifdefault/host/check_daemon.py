"""What the daemon needs from this host: users, executables, key files, probe targets, ports.

Rules: problems are warnings, since none of them breaks the return path; but a control token that
can't be used is an error, which refuses a reload. Nothing is changed.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
from collections.abc import Iterator, Sequence
from dataclasses import astuple, fields
from ipaddress import ip_address
from pathlib import Path

from ifdefault.config.cross_zone import host_name_warnings
from ifdefault.dns import tsig_key
from ifdefault.host import control_token
from ifdefault.host.check_programs import program_fault
from ifdefault.host.target_names import lacking_families
from ifdefault.ipc.child import find_program
from ifdefault.kernel import open_dns_sockets
from ifdefault.model.address import is_private
from ifdefault.model.config import (
    APPRISE_MISSING,
    APPRISE_REMEDY,
    FAMILIES,
    Config,
    DaemonConfig,
    Family,
    Probe,
)
from ifdefault.model.dns import DISCOVER, LEXICON_REMEDY, DnsConfig
from ifdefault.model.errors import HostError, Problem, reason
from ifdefault.model.kernel import Uplink

_DEFAULT = DaemonConfig()


def find_problems(config: Config, uplinks: Sequence[Uplink]) -> Iterator[Problem]:
    yield from _users(config)
    yield from _hooks(config)
    yield from _notify(config)
    yield from _targets(config, uplinks)
    if not os.geteuid():
        yield from _control_token(config)
    if config.dns != DnsConfig():
        yield from _secrets(config)
        yield from _publishers(config)
        yield from host_name_warnings(config.dns)
        yield from _published(config, uplinks)


def _users(config: Config) -> Iterator[Problem]:
    """Users that are configured or needed by hooks; `run` logs it if a default user is missing."""
    chosen = {"user": config.daemon.user, "hook_user": config.daemon.hook_user}
    has_hooks = any(path for _, path in _executables(config))
    for key, name in chosen.items():
        needed = name != getattr(_DEFAULT, key) or (key == "hook_user" and has_hooks)
        if needed and not _exists(name):
            what = f"user {name} does not exist"
            remedy = f"run useradd --system --no-create-home {name}"
            yield Problem(f"daemon.{key}", what, remedy, warning=True)


def _exists(user: str) -> bool:
    if user.isdigit():
        return True  # a uid needs no entry
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
        if path and (fault := program_fault(Path(path), config.daemon.hook_user)):
            yield Problem(f"hooks.{key}", f"{path} {fault[0]}", fault[1], warning=True)


def _notify(config: Config) -> Iterator[Problem]:
    """Files that a notifier reads, as the user of the monitor, and the program apprise."""
    for notify in config.notify:
        files = (notify.password_file, notify.webhook_file, notify.secret_file, notify.ntfy_file)
        for path in filter(None, (*files, notify.apprise)):
            if fault := _secret_fault(Path(path), config.daemon.user):
                what = f"{notify.name}: {path} {fault[0]}"
                yield Problem("notify", what, fault[1], warning=True)
    if any(notify.apprise for notify in config.notify) and find_program("apprise") is None:
        yield Problem("notify", APPRISE_MISSING, APPRISE_REMEDY, warning=True)


def _control_token(config: Config) -> tuple[Problem, ...]:
    try:
        control_token.read(config.web.control_token_file)
    except HostError as error:
        return error.problems
    return ()


def _targets(config: Config, uplinks: Sequence[Uplink]) -> Iterator[Problem]:
    """Paths whose probes have no target in their address family, and names that have none."""
    own = {uplink.name: uplink.probes for uplink in config.uplinks}
    paths: list[tuple[str, Family, str, tuple[Probe, ...]]] = []
    for uplink in uplinks:
        probes = own[uplink.name]
        where = "health.probes" if probes is None else f"uplink.{uplink.name}.probes"
        probes = config.health.probes if probes is None else probes
        families = (family for family in FAMILIES if uplink.source(family))
        paths += [(uplink.name, family, where, probes) for family in families]
    lacking = lacking_families({p.host for *_, probes in paths for p in probes if _is_name(p)})
    for name, family, _, probes in paths:
        fit = [p for p in probes if _has_family(p, family, lacking)]
        if probes and not fit:
            what = f"no probe is IPv{family}, so that only its gateway is checked in that family"
            remedy = f"add an IPv{family} target, or a name with an IPv{family} address"
            yield Problem(f"uplink.{name}", what, remedy, warning=True)
    yield from dict.fromkeys(
        _lacks(where, probe.host, family, len(lacking[probe.host]) == len(FAMILIES))
        for _, family, where, probes in paths
        for probe in probes
        if family in lacking.get(probe.host, ())
    )


def _lacks(where: str, host: str, family: Family, is_unknown: bool) -> Problem:
    if is_unknown:
        return Problem(where, f"{host} doesn't resolve", "correct or remove it", warning=True)
    record = "AAAA" if family == 6 else "A"
    what = f"{host} has no {record} record, so it isn't probed over IPv{family}"
    return Problem(where, what, f"add another target for IPv{family}", warning=True)


def _is_name(probe: Probe) -> bool:
    try:
        ip_address(probe.host)
    except ValueError:
        return True
    return False


def _has_family(probe: Probe, family: Family, lacking: dict[str, set[Family]]) -> bool:
    if _is_name(probe):
        return family not in lacking[probe.host]
    return ip_address(probe.host).version == family


# --- the DNS ------------------------------------------------------------------------------


def _secrets(config: Config) -> Iterator[Problem]:
    """Key and credential files must be readable by the frontend's user only, and keys valid."""
    dns = config.dns
    keys = [("dns.server.secondaries", server.key) for server in dns.server.secondaries]
    keys += [("dns.update", server.key) for update in dns.updates for server in update.servers]
    files = [("dns.provider", provider.credentials) for provider in dns.providers]
    for where, path in dict.fromkeys((where, path) for where, path in (*keys, *files) if path):
        if fault := _secret_fault(Path(path), config.daemon.user):
            yield Problem(where, f"{path} {fault[0]}", fault[1], warning=True)
    for where, path in dict.fromkeys((where, path) for where, path in keys if path):
        for problem in _key_problems(Path(path)):
            yield Problem(where, f"{path}: {problem.what}", problem.remedy, warning=True)


def _stop(holder: str) -> str:
    """How to stop a process, as `open_dns_sockets.holders` names it."""
    pid = re.search(r"\(pid ([0-9]+)\)$", holder)
    return f"stop its service, or run `kill {pid[1]}`" if pid else "stop that"


def _secret_fault(path: Path, user: str) -> tuple[str, str] | None:
    try:
        status = path.stat()
    except OSError as error:
        return f"can't be read: {reason(error)}", "create it, or correct the path"
    if status.st_mode & 0o077:
        return "is readable by others", f"run chmod 0400 {path}"
    if _exists(user) and status.st_uid != (int(user) if user.isdigit() else _uid(user)):
        return f"isn't owned by {user}, which reads it", f"run chown {user} {path}"
    return None


def _key_problems(path: Path) -> tuple[Problem, ...]:
    """What is wrong with a TSIG key, as far as it can be read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            tsig_key.parse(file.read(tsig_key.MOST_BYTES), str(path))
    except OSError:  # reported already, or a check without root
        return ()
    except tsig_key.BadKey as error:
        return error.problems
    return ()


def _uid(user: str) -> int:
    return pwd.getpwnam(user).pw_uid


def _publishers(config: Config) -> Iterator[Problem]:
    for table in config.dns.execs:
        if fault := program_fault(Path(table.program), config.daemon.hook_user):
            yield Problem("dns.exec", f"{table.program} {fault[0]}", fault[1], warning=True)
    if config.dns.providers and importlib.util.find_spec("lexicon") is None:
        yield Problem("dns.provider", "dns-lexicon isn't installed", LEXICON_REMEDY, warning=True)


def _published(config: Config, uplinks: Sequence[Uplink]) -> Iterator[Problem]:
    """Addresses that can't be published, and ports that another process uses."""
    public = {uplink.name: uplink.public for uplink in config.uplinks}
    server = config.dns.server
    for uplink in uplinks:
        for family in FAMILIES:
            address = uplink.source(family)
            if not address:
                continue
            if is_private(address) and not public[uplink.name]:
                what = f"{address} is private, so that it isn't published"
                remedy = f'set public to its public address, or to "{DISCOVER}"'
                yield Problem(f"uplink.{uplink.name}", what, remedy, warning=True)
            for transport in ("udp", "tcp") if server.zones else ():
                users = open_dns_sockets.holders(transport, [address], server.port)
                holder = users.get(address, "")
                if holder and not holder.startswith("ifdefault "):
                    what = f"port {server.port} of {address} ({transport}) is used by {holder}"
                    remedy = f"{_stop(holder)}, or make it listen on another address or port"
                    yield Problem("dns.server.port", what, remedy, warning=True)
