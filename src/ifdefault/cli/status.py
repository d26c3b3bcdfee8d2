"""`ifdefault status`: the interface defaults, as the talk's netstat showed them, and the state of
the uplinks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ifdefault.cli.options import Options
from ifdefault.cli.show.output import echo_json, echo_lines
from ifdefault.cli.show.style import Line
from ifdefault.cli.show.table import table

if TYPE_CHECKING:
    from ifdefault.host.last_config import ConfigFile
    from ifdefault.host.status import Status
    from ifdefault.host.store import Store
    from ifdefault.model.errors import Problem
    from ifdefault.model.report import DaemonStatus
    from ifdefault.monitor.status_file import MonitorStatus

_WATCH_S = 1.0  # the interval of the display
_ADDRESSES = 16  # of an uplink that are shown
_NO_DAEMON = "no daemon runs: nothing is probed"


@click.command()
@click.option(
    "--watch", is_flag=True, help="Repeat every second until interrupted; the keys of less scroll."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(options: Options, watch: bool, as_json: bool) -> int:
    """Show the state of the uplinks and compare the kernel with the configuration.

    Exits 1 if the kernel differs, an uplink is pending or down, a name can't be published, a
    service has no server left, an apply is unconfirmed, the configuration is invalid, or the daemon
    can't do its work. Without root, what only root can read is left out.
    """
    if watch and not as_json and sys.stdout.isatty():
        return _watch(options)
    while True:
        snapshot = _read(options)
        if as_json:
            echo_json(_as_json(snapshot))
        else:
            echo_lines(_lines(snapshot))
        if not watch:
            return 0 if snapshot.is_ok else 1
        time.sleep(_WATCH_S)


def _watch(options: Options) -> int:
    from ifdefault.cli.show.screen import Screen

    with Screen() as screen:
        while True:
            screen.show(_lines(_read(options)))
            if not screen.wait(_WATCH_S):
                return 0


@dataclass(frozen=True, slots=True)
class _Snapshot:
    host: Status
    daemon: DaemonStatus | None
    no_response: str = ""  # why a running daemon gives no status
    unconfirmed: str = ""  # an apply without the daemon that waits for confirmation
    config_errors: tuple[Problem, ...] = ()  # why the last config that worked is shown
    damaged: tuple[Problem, ...] = ()  # state files that are or were damaged
    left: str = ""  # of a DNS server that answers without a daemon
    monitor: MonitorStatus | None = None  # None: it doesn't run

    @property
    def is_ok(self) -> bool:
        from ifdefault.cli.show import paths, servers

        has_problem = self.daemon is not None and paths.has_problem(self.daemon)
        has_problem = has_problem or servers.has_problem(self.host.forward)
        waits = self.no_response or self.unconfirmed or self.config_errors or self.left
        return self.host.holds and not has_problem and not waits


def _read(options: Options) -> _Snapshot:
    from ifdefault.cli import daemon_client
    from ifdefault.host import rollback_timer
    from ifdefault.host.last_config import ConfigFile
    from ifdefault.host.left_dns_server import left_dns_server
    from ifdefault.host.store import Store
    from ifdefault.model.changes import undone_in
    from ifdefault.model.errors import HostError

    daemon, no_response = None, ""
    try:
        daemon = daemon_client.status(options)
    except HostError as error:
        no_response = str(error)
    store = Store(options.state_dir)
    file = ConfigFile(options.config, store)
    host, left_s = _read_host(file, store, daemon), rollback_timer.left_s(store)
    unconfirmed = "" if left_s is None else undone_in(left_s)
    damaged = tuple(store.examine())
    left = "" if daemon or no_response else left_dns_server(options.run_dir)
    monitor = _read_monitor(options)
    return _Snapshot(host, daemon, no_response, unconfirmed, file.errors, damaged, left, monitor)


def _read_monitor(options: Options) -> MonitorStatus | None:
    from ifdefault.monitor import status_file

    return status_file.read_status(options.run_dir, time.time())


def _read_host(file: ConfigFile, store: Store, daemon: DaemonStatus | None) -> Status:
    """The host as far as this user may read it; if that is nothing, the daemon's view remains."""
    from ifdefault.host.status import Status, read_status
    from ifdefault.host.transaction import prepare_file
    from ifdefault.kernel import nft
    from ifdefault.model.errors import IfdefaultError

    rights, decision = nft.has_rights(), daemon.decision if daemon else None
    try:
        prepared = prepare_file(
            file, store, last_good=True, thorough=False, decision=decision, rights=rights
        )
    except IfdefaultError as error:
        if rights or daemon is None:
            raise
        return Status(True, (), (), {}, {}, (), (), unread=f"this host ({error})")
    health = daemon.health if daemon else ()
    down = {(path.uplink, path.family) for path in health if path.state == "down"}
    return read_status(prepared, down, rights=rights)


def _as_json(snapshot: _Snapshot) -> dict[str, Any]:
    from dataclasses import asdict

    from ifdefault.ipc import codec

    host, daemon = snapshot.host, snapshot.daemon
    return {
        **asdict(host),
        "holds": host.holds,
        "unconfirmed": snapshot.unconfirmed,
        "config_errors": list(map(str, snapshot.config_errors)),
        "damaged": list(map(str, snapshot.damaged)),
        "left": snapshot.left,
        "daemon": codec.to_json(daemon) if daemon else None,
        "monitor": codec.to_json(snapshot.monitor) if snapshot.monitor else None,
    }


# --- sections -----------------------------------------------------------------------------


def _lines(snapshot: _Snapshot) -> list[str]:
    """The sections that have something to show, with an empty line between them."""
    lines: list[str] = []
    for section in _SECTIONS:
        if shown := section(snapshot):
            lines += ["", *shown] if lines else shown
    return lines


def _defaults(snapshot: _Snapshot) -> list[str]:
    status = snapshot.host
    if not status.applied:
        return [Line("not applied: run ifdefault apply", "warn")]
    rows = [
        (d.destination, d.uplink, d.gateway, d.source + ("" if d.holds else "  !"))
        for d in status.defaults
    ]
    return table(("Destination", "Uplink", "Gateway", "Source"), rows) if rows else []


def _paths(snapshot: _Snapshot) -> list[str]:
    from ifdefault.cli.show import paths

    if snapshot.daemon:
        return paths.lines(snapshot.daemon)
    no_response = snapshot.no_response
    said = f"no status from the daemon: {no_response}" if no_response else _NO_DAEMON
    lines: list[str] = [Line(said, "warn")]
    if snapshot.left:
        from ifdefault.host.left_dns_server import LEFT_REMEDY

        lines += [f"{snapshot.left}:", f"  {LEFT_REMEDY}"]
    return lines + ([Line(snapshot.unconfirmed, "warn")] if snapshot.unconfirmed else [])


def _names(snapshot: _Snapshot) -> list[str]:
    from ifdefault.cli.show import names

    return names.brief(snapshot.daemon) if snapshot.daemon else []


def _services(snapshot: _Snapshot) -> list[str]:
    from ifdefault.cli.show import servers

    return servers.lines(snapshot.host.forward, snapshot.daemon) if snapshot.host.applied else []


def _uplinks(snapshot: _Snapshot) -> list[str]:
    status = snapshot.host
    pending = [f"{u.name:<10} pending: {u.pending}" for u in status.uplinks if u.pending]
    ready = [u for u in status.uplinks if not u.pending]
    if not status.applied or not ready:
        return pending
    rows = [
        (
            u.name,
            u.interface + ("" if u.carrier else " (no carrier)"),
            u.mechanism,
            str(u.table),
            u.mark,
            "\n".join(_some(u.addresses)),
        )
        for u in ready
    ]
    return [*table(("Uplink", "Interface", "By", "Table", "Mark", "Addresses"), rows), *pending]


def _some(addresses: Sequence[str]) -> Sequence[str]:
    """Addresses, a line for each; of very many, the first ones (--json has all)."""
    left = len(addresses) - _ADDRESSES
    return addresses if left <= 1 else (*addresses[:_ADDRESSES], f"and {left} more")


def _traffic(snapshot: _Snapshot) -> list[str]:
    from ifdefault.model.report_text import filling, rate

    status, rates = snapshot.host, snapshot.daemon.rates if snapshot.daemon else {}
    ready = [u for u in status.uplinks if not u.pending]
    if not status.applied or not ready:
        return []
    rates_heads = ("In", "Out") if rates else ()
    rows = [
        (
            u.name,
            *map(rate, rates.get(u.name, (0.0, 0.0)) if rates else ()),
            str(u.traffic.packets_in),
            str(u.traffic.packets_out),
            "-" if u.misrouted is None else str(u.misrouted),
        )
        for u in ready
    ]
    lines = snapshot.daemon.lines if snapshot.daemon else ()
    return [
        *table(("Uplink", *rates_heads, "Packets in", "Packets out", "Misrouted"), rows),
        *(Line(f"{load.uplink}: {filling(load)}", "warn" if load.full else None) for load in lines),
    ]


def _mptcp(snapshot: _Snapshot) -> list[str]:
    status = snapshot.host.mptcp
    if status is None or not snapshot.host.applied:
        return []
    announced: dict[str, list[str]] = {}
    for a in status.announced:
        announced.setdefault(a.uplink, []).append(f"{a.address}{' as backup' if a.backup else ''}")
    rows = [(name, "\n".join(addresses)) for name, addresses in announced.items()]
    lines = table(("Uplink", "Announced by MPTCP"), rows) if rows else ["MPTCP announces nothing"]
    if status.count is not None and (total := status.count.connections):
        mptcp, redundant = status.count.mptcp, status.count.redundant
        share = f"{redundant:,} ({redundant * 100 // total} %)"
        use = f"{mptcp:,} of {total:,} connections use MPTCP"
        lines.append(f"{use}, {share} could go on over another uplink")
    return lines


def _redirected(snapshot: _Snapshot) -> list[str]:
    if not snapshot.host.redirected_udp or not snapshot.host.applied:
        return []
    ports = ", ".join(map(str, snapshot.host.redirected_udp))
    return [
        f"wildcard UDP servers on port {ports}: redirected with conntrack,",
        "which therefore tracks every connection (to avoid that, bind them to addresses)",
    ]


def _strays(snapshot: _Snapshot) -> list[str]:
    """What leaves or arrives by no uplink's address or router."""
    lines: list[str] = []
    for title, counts in (
        ("sources that no uplink owns left by an uplink", snapshot.host.strangers),
        ("unknown routers", snapshot.host.unknown_macs),
    ):
        if counts:
            items = ", ".join(f"{name} ({packets} p)" for name, packets in counts.items())
            lines.append(f"{title}: {items}")
    return lines


def _astray(snapshot: _Snapshot) -> list[str]:
    status = snapshot.host
    if not status.applied or status.differs or not status.astray:
        return []
    problems = [f"  {problem}" for problem in status.astray]
    return [Line("packets don't go where they are meant to go:", "bad"), *problems]


def _differences(snapshot: _Snapshot) -> list[str]:
    if not snapshot.host.applied or not snapshot.host.differs:
        return []
    operations = [f"  {operation}" for operation in snapshot.host.differs]
    return [Line("the kernel differs; apply would:", "bad"), *operations]


def _monitor(snapshot: _Snapshot) -> list[str]:
    """What the monitor can't do: notifiers that fail, a history that can't be written."""
    troubles = snapshot.monitor.troubles if snapshot.monitor else ()
    return [Line(f"{trouble.what}: {trouble.text}", "warn") for trouble in troubles]


def _config(snapshot: _Snapshot) -> list[str]:
    """Errors of the config file, and what a running daemon was started with."""
    errors = [Line(str(error), "bad") for error in snapshot.config_errors]
    if snapshot.daemon and snapshot.daemon.config_errors and not errors:
        path = snapshot.daemon.config
        text = f"{path}: the daemon uses the last config that worked; run ifdefault reload"
        return [Line(text, "bad")]
    return [*errors]


def _damaged(snapshot: _Snapshot) -> list[str]:
    return [Line(str(problem), "bad") for problem in snapshot.damaged]


def _unread(snapshot: _Snapshot) -> list[str]:
    unread = snapshot.host.unread
    return [f"not read without root's rights: {unread}"] if unread else []


_SECTIONS: Sequence[Callable[[_Snapshot], list[str]]] = (
    _defaults,
    _paths,
    _names,
    _services,
    _uplinks,
    _traffic,
    _mptcp,
    _redirected,
    _strays,
    _astray,
    _differences,
    _monitor,
    _config,
    _damaged,
    _unread,
)
