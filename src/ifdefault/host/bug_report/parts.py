"""The parts of a bug report: programs that are run, and files that are read.

Rules: nothing on the host is changed. A part that can't be had raises Missing, which says why, and
the others go on. A program has a time limit, and no terminal.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ifdefault.model.errors import reason
from ifdefault.model.kernel import FORWARD_TABLE, NFT_TABLE

_TIMEOUT_S = 30.0
_MOST_BYTES = 8 << 20  # of a part
_MOST_LINES = 5000  # of the journal
_UNITS = "ifdefault*"
_UNIT_PROPERTIES = (
    *("Id", "LoadState", "ActiveState", "SubState", "UnitFileState", "Result", "NRestarts"),
    *("ExecMainPID", "ExecMainStatus", "ActiveEnterTimestamp", "InactiveEnterTimestamp"),
    *("MemoryCurrent", "MemoryPeak", "CPUUsageNSec", "TasksCurrent", "FragmentPath", "DropInPaths"),
)
_SECRET_STATE = ("cookies", "secret")  # in names of state files that are one
_SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/ipv4/fib_multipath_*",
    "net/ipv4/fwmark_reflect",
    "net/ipv4/tcp_fwmark_accept",
    "net/ipv4/tcp_l3mdev_accept",
    "net/ipv4/udp_l3mdev_accept",
    "net/ipv4/ip_nonlocal_bind",
    "net/ipv4/ping_group_range",
    *(f"net/ipv4/conf/*/{name}" for name in ("rp_filter", "arp_ignore", "arp_announce")),
    *(f"net/ipv4/conf/*/{name}" for name in ("arp_filter", "forwarding", "src_valid_mark")),
    *(f"net/ipv4/conf/*/{name}" for name in ("accept_local", "accept_source_route")),
    *(f"net/ipv4/conf/*/{name}" for name in ("promote_secondaries", "ignore_routes_with_linkdown")),
    "net/ipv6/fwmark_reflect",
    "net/ipv6/fib_multipath_*",
    *(f"net/ipv6/conf/*/{name}" for name in ("accept_ra", "accept_ra_defrtr", "autoconf")),
    *(f"net/ipv6/conf/*/{name}" for name in ("disable_ipv6", "forwarding", "use_tempaddr")),
    *(f"net/ipv6/conf/*/{name}" for name in ("keep_addr_on_down", "accept_ra_rt_info_max_plen")),
    "net/mptcp/*",
)
_COUNTS = (
    "/proc/sys/net/netfilter/nf_conntrack_count",
    "/proc/sys/net/netfilter/nf_conntrack_max",
    "/proc/net/stat/nf_conntrack",
    "/proc/net/sockstat",
    "/proc/net/sockstat6",
)


class Missing(Exception):
    """Why there is no such part."""


@dataclass(frozen=True, slots=True)
class Output:
    """`problem`: what a program said on failing, "" if it didn't."""

    text: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """A file of the archive. `fails`: its program's exit status says whether it failed."""

    name: str
    read: Callable[[], Output]


@dataclass(frozen=True, slots=True)
class Where:
    """The files and directories in use."""

    config: Path
    state_dir: Path
    run_dir: Path


def parts(where: Where, own: Sequence[tuple[str, ...]], *, all_rules: bool) -> Iterator[Part]:
    """The parts, in the order of the archive. `own`: commands of ours; `all_rules`: also the packet
    filter rules of others."""
    yield Part("config/ifdefault.toml", partial(_file, where.config))
    for arguments in own:
        name = "-".join(word for word in arguments if word.isalpha())
        suffix = "json" if "--json" in arguments else "txt"
        yield Part(f"ifdefault/{name}.{suffix}", partial(_own, where, arguments))
    for name, command in _kernel_commands():
        yield Part(f"kernel/{name}.txt", partial(_run, command))
    yield Part(
        "kernel/nft.txt", _nft if not all_rules else partial(_run, ("nft", "list", "ruleset"))
    )
    if all_rules:
        for program in ("iptables-save", "ip6tables-save"):
            yield Part(f"kernel/{program}.txt", partial(_run, (program,)))
    yield Part("kernel/sysctl.txt", _sysctls)
    yield Part("kernel/counts.txt", _counts)
    yield Part("host/os-release.txt", partial(_file, Path("/etc/os-release")))
    yield Part("host/state-dir.txt", partial(_listing, where.state_dir))
    for path in _state_files(where.state_dir):
        yield Part(f"state/{path.name}", partial(_file, path))
    yield Part("host/run-dir.txt", partial(_listing, where.run_dir))
    show = ("systemctl", "show", _UNITS, "-p", ",".join(_UNIT_PROPERTIES))
    yield Part("systemd/units.txt", partial(_run, show))
    yield Part("systemd/unit-files.txt", unit_files)
    journal = ("journalctl", "-u", _UNITS, "-n", str(_MOST_LINES), "--no-pager", "--no-hostname")
    yield Part("systemd/journal.txt", partial(_run, (*journal, "-o", "short-iso-precise")))


def unit_files() -> Output:
    """Our units, with drop-ins."""
    return _run(("systemctl", "cat", "--no-pager", _UNITS))


def variables(units: str) -> Iterator[tuple[str, str]]:
    """The environment variables that unit files set, themselves and by files, and credentials."""
    for line in units.splitlines():
        key, _, value = line.strip().partition("=")
        try:
            words = shlex.split(value)
        except ValueError:
            words = value.split()
        if key == "Environment":
            yield from _assignments(words)
        elif key == "SetCredential":
            yield "credential", value.partition(":")[2]
        elif key == "EnvironmentFile":
            for path in words:
                try:
                    text = Path(path.removeprefix("-")).read_text("utf-8", "replace")
                except OSError:
                    continue
                yield from _assignments(line.strip() for line in text.splitlines())


def _assignments(words: Any) -> Iterator[tuple[str, str]]:
    for word in words:
        name, equals, value = word.partition("=")
        if equals:
            yield name, value.strip("\"'")


def _kernel_commands() -> Iterator[tuple[str, tuple[str, ...]]]:
    yield "link", ("ip", "-d", "-s", "link", "show")
    yield "address", ("ip", "-d", "address", "show")
    yield "nexthop", ("ip", "-d", "nexthop", "show")
    for what in ("endpoint", "limits"):
        yield f"mptcp_{what}", ("ip", "mptcp", what, "show")
    for family in ("4", "6"):
        yield f"rule{family}", ("ip", f"-{family}", "-d", "rule", "show")
        yield f"route{family}", ("ip", f"-{family}", "-d", "route", "show", "table", "all")
        yield f"neighbour{family}", ("ip", f"-{family}", "-s", "neighbour", "show")


# --- how they are read --------------------------------------------------------------------


def _run(command: Sequence[str], *, fails: bool = True) -> Output:
    """A program's output. `fails`: its exit status says whether it failed."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    env = {**os.environ, "PATH": path, "LC_ALL": "C.UTF-8", "NO_COLOR": "1", "SYSTEMD_COLORS": "0"}
    try:
        done = subprocess.run(
            command, env=env, capture_output=True, stdin=subprocess.DEVNULL, timeout=_TIMEOUT_S
        )
    except FileNotFoundError:
        raise Missing(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise Missing(f"{command[0]} took longer than {_TIMEOUT_S:g} s") from None
    except OSError as error:
        raise Missing(f"{command[0]} can't be run: {reason(error)}") from None
    output, said = _text(done.stdout), _text(done.stderr)
    failed = fails and done.returncode
    if failed and not output:
        raise Missing(f"{command[0]}: {(said.splitlines() or ['no output'])[0][:200]}")
    text = f"$ {shlex.join(command)}\n{output}"
    text += f"\n--- standard error\n{said}" if said else ""
    text += f"\n--- exit status {done.returncode}\n" if done.returncode else ""
    return Output(text, f"exit status {done.returncode}" if failed else "")


def _own(where: Where, arguments: Sequence[str]) -> Output:
    """A command of ours, in a process of its own: what is wrong with it ends only that."""
    options = ("--config", where.config, "--state-dir", where.state_dir, "--run-dir", where.run_dir)
    module = (sys.executable, "-P", "-s", "-m", "ifdefault")
    output = _run([*module, *map(str, options), *arguments], fails=False)
    _, _, text = output.text.partition("\n")
    return Output(text if "--json" in arguments else f"$ ifdefault {shlex.join(arguments)}\n{text}")


def _nft() -> Output:
    texts, problems = [], []
    for table in (NFT_TABLE, FORWARD_TABLE):
        try:
            texts.append(_run(("nft", "-a", "list", "table", "inet", table)).text)
        except Missing as missing:
            problems.append(str(missing))
    if not texts:
        raise Missing(problems[0])
    return Output("\n".join(texts))


def _file(path: Path) -> Output:
    try:
        with path.open("rb") as file:
            return Output(_text(file.read(_MOST_BYTES + 1)))
    except OSError as error:
        raise Missing(f"{path}: {reason(error)}") from None


def _listing(directory: Path) -> Output:
    return _run(("ls", "-lanR", "--time-style=full-iso", str(directory)))


def _state_files(directory: Path) -> Iterator[Path]:
    """Those that are no secret themselves; the history is only listed."""
    try:
        paths = sorted(directory.glob("*.json*"))
    except OSError:
        return
    for path in paths:
        if path.is_file() and not any(word in path.name for word in _SECRET_STATE):
            yield path


def _sysctls() -> Output:
    root, lines = Path("/proc/sys"), []
    for pattern in _SYSCTLS:
        for path in sorted(root.glob(pattern)):
            try:
                value = path.read_text("utf-8", "replace").strip()
            except OSError:
                continue
            lines.append(f"{path.relative_to(root)} = {value}")
    if not lines:
        raise Missing("/proc/sys/net can't be read")
    return Output("".join(f"{line}\n" for line in lines))


def _counts() -> Output:
    texts = []
    for name in _COUNTS:
        try:
            texts.append(f"{name}:\n{Path(name).read_text('utf-8', 'replace')}")
        except OSError as error:
            texts.append(f"{name}: {reason(error)}\n")
    return Output("\n".join(texts))


def _text(data: bytes) -> str:
    """At most so much of it: the end of a log says most."""
    cut = f"[{len(data) - _MOST_BYTES} bytes left out]\n" if len(data) > _MOST_BYTES else ""
    return cut + data[-_MOST_BYTES:].decode("utf-8", "backslashreplace")


def configs_in(text: str) -> Iterator[str]:
    """The config texts in a state file: the last one that worked may have had other secrets."""
    try:
        yield from _strings(json.loads(text))
    except (ValueError, RecursionError):
        yield text


def _strings(value: Any) -> Iterator[str]:
    match value:
        case dict():
            for inner in value.values():
                yield from _strings(inner)
        case list():
            for inner in value:
                yield from _strings(inner)
        case str() if "\n" in value:
            yield value
