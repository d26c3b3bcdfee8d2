"""`ifdefault status`: the interface defaults, as the talk's netstat showed them, and how the
uplinks fare, as the daemon judges them.
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
        seen = _look(options)
        if as_json:
            click.echo(_as_json(seen))
        elif watch and sys.stdout.isatty():
            _draw(_lines(seen))
        else:
            click.echo("\n".join(_lines(seen)))
        if not watch:
            return 0 if seen.is_well else 1
        time.sleep(_WATCH_S)  # the pace of the display


@dataclass(frozen=True, slots=True)
class _Seen:
    status: Status
    standing: DaemonStatus | None
    silence: str = ""  # why a daemon says nothing that runs

    @property
    def is_well(self) -> bool:
        from ifdefault.cli.show import paths, servers

        ails = self.standing is not None and paths.ails(self.standing)
        ails = ails or servers.ails(self.status.behind)
        return self.status.holds and not ails and not self.silence


def _look(options: Options) -> _Seen:
    from ifdefault.cli import daemon_client
    from ifdefault.host.status import read_status
    from ifdefault.host.store import Store
    from ifdefault.host.transaction import prepare
    from ifdefault.model.errors import HostError

    standing, silence = None, ""
    try:
        standing = daemon_client.standing(options)
    except HostError as error:
        silence = str(error)
    decision = standing.decision if standing else None
    store = Store(options.state_dir)
    status = read_status(prepare(options.config, store, thorough=False, decision=decision))
    return _Seen(status, standing, silence)


def _draw(lines: Sequence[str]) -> None:
    """Over what was there, without clearing it first, which would flicker; as much as fits."""
    columns, rows = shutil.get_terminal_size()
    shown = [line[:columns] + _REST_OF_LINE for line in lines[: rows - 1]]
    sys.stdout.write(_HOME + "\n".join([*shown, _REST]))
    sys.stdout.flush()


def _as_json(seen: _Seen) -> str:
    from dataclasses import asdict

    from ifdefault.ipc import codec

    daemon = codec.to_json(seen.standing) if seen.standing else None
    holds = seen.status.holds
    return json.dumps({**asdict(seen.status), "holds": holds, "daemon": daemon}, indent=1)


def _lines(seen: _Seen) -> list[str]:
    status = seen.status
    return [*_defaults(status), "", *_fare(seen), *_names(seen), *_behind(seen), *_rest(status)]


def _fare(seen: _Seen) -> list[str]:
    from ifdefault.cli.show import paths

    if seen.standing:
        return paths.lines(seen.standing)
    return [f"the daemon says nothing: {seen.silence}" if seen.silence else _NO_DAEMON]


def _names(seen: _Seen) -> list[str]:
    from ifdefault.cli.show import names

    lines = names.brief(seen.standing) if seen.standing else []
    return ["", *lines] if lines else []


def _behind(seen: _Seen) -> list[str]:
    from ifdefault.cli.show import servers

    lines = servers.lines(seen.status.behind, seen.standing)
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


def _rest(status: Status) -> list[str]:
    """What each uplink carries, and all that isn't as it should be."""
    if not status.applied:
        return _pending(status)
    return ["", *_traffic(status), *_pending(status), *_oddities(status)]


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


def _oddities(status: Status) -> list[str]:
    lines: list[str] = []
    if status.redirected_udp:
        ports = ", ".join(map(str, status.redirected_udp))
        lines += ["", f"UDP sockets bound to no address on port {ports}: redirected by conntrack,"]
        lines += ["which now tracks every connection (bind them to addresses to spare it)"]
    for title, found in (
        ("sources that no uplink owns left by an uplink", status.strangers),
        ("unknown routers", status.unknown_macs),
    ):
        if found:
            named = ", ".join(f"{name} ({packets} p)" for name, packets in found.items())
            lines += ["", f"{title}: {named}"]
    if status.differs:
        lines += ["", "the kernel differs; apply would:"]
        lines += [f"  {operation}" for operation in status.differs]
    return lines


def _pending(status: Status) -> list[str]:
    return [f"{u.name:<10} pending: {u.pending}" for u in status.uplinks if u.pending]
