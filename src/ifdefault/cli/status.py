"""`ifdefault status`: the interface defaults, as the talk's netstat showed them, and the state of
the uplinks.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from ifdefault.cli.options import Options
from ifdefault.cli.show.table import table

if TYPE_CHECKING:
    from ifdefault.daemon.status import DaemonStatus
    from ifdefault.host.status import Status

_WATCH_S = 1.0
_HOME, _REST_OF_LINE, _REST = "\x1b[H", "\x1b[K", "\x1b[J"  # ECMA-48: CUP, EL, ED
_NO_DAEMON = "no daemon runs: nothing is probed"


@click.command()
@click.option("--watch", is_flag=True, help="Repeat every second until interrupted.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(options: Options, watch: bool, as_json: bool) -> int:
    """Show the state of the uplinks and compare the kernel with the configuration.

    Exits 1 if the kernel differs, an uplink is pending or down, a name can't be published, a
    service has no server left, or the daemon can't do its work.
    """
    if watch and not as_json and sys.stdout.isatty():
        click.clear()
    while True:
        snapshot = _read(options)
        if as_json:
            click.echo(_as_json(snapshot))
        elif watch and sys.stdout.isatty():
            _redraw(_lines(snapshot))
        else:
            click.echo("\n".join(_lines(snapshot)))
        if not watch:
            return 0 if snapshot.is_ok else 1
        time.sleep(_WATCH_S)  # the interval of the display


@dataclass(frozen=True, slots=True)
class _Snapshot:
    host: Status
    daemon: DaemonStatus | None
    no_response: str = ""  # why a running daemon doesn't respond

    @property
    def is_ok(self) -> bool:
        from ifdefault.cli.show import paths, servers

        has_problem = self.daemon is not None and paths.has_problem(self.daemon)
        has_problem = has_problem or servers.has_problem(self.host.forward)
        return self.host.holds and not has_problem and not self.no_response


def _read(options: Options) -> _Snapshot:
    from ifdefault.cli import daemon_client
    from ifdefault.host.status import read_status
    from ifdefault.host.store import Store
    from ifdefault.host.transaction import prepare
    from ifdefault.model.errors import HostError

    daemon, no_response = None, ""
    try:
        daemon = daemon_client.status(options)
    except HostError as error:
        no_response = str(error)
    decision = daemon.decision if daemon else None
    store = Store(options.state_dir)
    host = read_status(prepare(options.config, store, thorough=False, decision=decision))
    return _Snapshot(host, daemon, no_response)


def _redraw(lines: Sequence[str]) -> None:
    """Overwrite the screen without clearing it first, which would flicker; cut what doesn't fit."""
    columns, rows = shutil.get_terminal_size()
    shown = [line[:columns] + _REST_OF_LINE for line in lines[: rows - 1]]
    sys.stdout.write(_HOME + "\n".join([*shown, _REST]))
    sys.stdout.flush()


def _as_json(snapshot: _Snapshot) -> str:
    from dataclasses import asdict

    from ifdefault.ipc import codec

    daemon = codec.to_json(snapshot.daemon) if snapshot.daemon else None
    holds = snapshot.host.holds
    return json.dumps({**asdict(snapshot.host), "holds": holds, "daemon": daemon}, indent=1)


def _lines(snapshot: _Snapshot) -> list[str]:
    status = snapshot.host
    lines = [*_defaults(status), "", *_paths(snapshot), *_names(snapshot), *_services(snapshot)]
    return lines + _uplinks(status)


def _paths(snapshot: _Snapshot) -> list[str]:
    from ifdefault.cli.show import paths

    if snapshot.daemon:
        return paths.lines(snapshot.daemon)
    no_response = snapshot.no_response
    return [f"the daemon doesn't respond: {no_response}" if no_response else _NO_DAEMON]


def _names(snapshot: _Snapshot) -> list[str]:
    from ifdefault.cli.show import names

    lines = names.brief(snapshot.daemon) if snapshot.daemon else []
    return ["", *lines] if lines else []


def _services(snapshot: _Snapshot) -> list[str]:
    from ifdefault.cli.show import servers

    lines = servers.lines(snapshot.host.forward, snapshot.daemon)
    return ["", *lines] if lines else []


def _defaults(status: Status) -> list[str]:
    if not status.applied:
        return ["not applied: run ifdefault apply"]
    heads = ("Destination", "Gateway", "Source", "Mark", "Table", "Uplink", "")
    rows = [
        (d.destination, d.gateway, d.source, d.mark, str(d.table), d.uplink, "" if d.holds else "!")
        for d in status.defaults
    ]
    return table(heads, rows)


def _uplinks(status: Status) -> list[str]:
    """The traffic of each uplink, then all problems of the host."""
    if not status.applied:
        return _pending(status)
    return ["", *_traffic(status), *_pending(status), *_problems(status)]


def _traffic(status: Status) -> list[str]:
    heads = ("Uplink", "Interface", "In", "Out", "Misrouted", "By", "Addresses")
    rows = [
        (
            u.name,
            u.interface + ("" if u.carrier else " (no carrier)"),
            f"{u.traffic.packets_in} p",
            f"{u.traffic.packets_out} p",
            "-" if u.misrouted is None else f"{u.misrouted} p",
            u.mechanism,
            " ".join(u.addresses),
        )
        for u in status.uplinks
        if not u.pending
    ]
    return table(heads, rows)


def _problems(status: Status) -> list[str]:
    lines: list[str] = []
    if status.redirected_udp:
        ports = ", ".join(map(str, status.redirected_udp))
        lines += [
            "",
            f"wildcard UDP servers on port {ports}: redirected with conntrack, which therefore",
        ]
        lines += ["tracks every connection (to avoid that, bind them to addresses)"]
    for title, counts in (
        ("sources that no uplink owns left by an uplink", status.strangers),
        ("unknown routers", status.unknown_macs),
    ):
        if counts:
            items = ", ".join(f"{name} ({packets} p)" for name, packets in counts.items())
            lines += ["", f"{title}: {items}"]
    if status.astray and not status.differs:
        lines += ["", "packets don't go where they are meant to go:"]
        lines += [f"  {problem}" for problem in status.astray]
    if status.differs:
        lines += ["", "the kernel differs; apply would:"]
        lines += [f"  {operation}" for operation in status.differs]
    return lines


def _pending(status: Status) -> list[str]:
    return [f"{u.name:<10} pending: {u.pending}" for u in status.uplinks if u.pending]
