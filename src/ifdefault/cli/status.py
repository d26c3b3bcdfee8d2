"""`ifdefault status`: the interface defaults, as the talk's netstat showed them."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ifdefault.cli.options import Options

if TYPE_CHECKING:
    from ifdefault.host.status import Status

_WATCH_S = 1.0


@click.command(short_help="show the interface defaults, and whether they hold")
@click.option("--watch", is_flag=True, help="Show it again every second, until interrupted.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(options: Options, watch: bool, as_json: bool) -> int:
    """Show each interface's default and what it carries, and compare all with the kernel.

    Exits 1 if the kernel differs from the config, or an uplink is pending.
    """
    while True:
        status = _read(options)
        if watch and not as_json:
            click.clear()
        click.echo(_as_json(status) if as_json else "\n".join(_lines(status)))
        if not watch:
            return 0 if status.holds else 1
        time.sleep(_WATCH_S)  # the pace of the display


def _read(options: Options) -> Status:
    from ifdefault.host.apply import prepare
    from ifdefault.host.status import read_status
    from ifdefault.host.store import Store

    return read_status(prepare(options.config, Store(options.state_dir), thorough=False))


def _as_json(status: Status) -> str:
    from dataclasses import asdict

    return json.dumps({**asdict(status), "holds": status.holds}, indent=1)


def _lines(status: Status) -> list[str]:
    if not status.applied:
        return ["not applied: run ifdefault apply", *_pending(status)]
    heads = ("Destination", "Gateway", "Source", "Mark", "Table", "Uplink", "")
    rows = [
        (d.destination, d.gateway, d.source, d.mark, str(d.table), d.uplink, "" if d.holds else "!")
        for d in status.defaults
    ]
    lines = [*_table(heads, rows), ""]
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
    lines += _table(heads, rows)
    lines += _pending(status)
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


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[n]) for row in (heads, *rows)) for n in range(len(heads))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (heads, *rows)
    ]
