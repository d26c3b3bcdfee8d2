"""`ifdefault explain`: which uplink a packet takes, and why."""

from __future__ import annotations

import ipaddress
import json
import re

import click

from ifdefault.cli.options import Options

_END = re.compile(r"\[(?P<six>[^]]+)\](?::(?P<six_port>\d+))?|(?P<four>[^:]+):(?P<port>\d+)")


def _read_end(_: click.Context, __: click.Parameter, text: str) -> tuple[str, int]:
    """ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT, or "any"."""
    found = _END.fullmatch(text)
    address = (found["six"] or found["four"]) if found else text
    port = int((found["six_port"] or found["port"] or 0) if found else 0)
    if address in ("any", "-"):
        return "", port
    try:
        return str(ipaddress.ip_address(address)), port
    except ValueError:
        what = f'"{text}" is no address: use 203.0.113.5:443, [2001:db8::5]:443 or any'
        raise click.BadParameter(what) from None


def _read_mark(_: click.Context, __: click.Parameter, text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise click.BadParameter(f'"{text}" is no mark: use a number, as 0x1000000') from None


@click.command()
@click.argument("protocol", type=click.Choice(["tcp", "udp", "icmp", "icmp6"]))
@click.argument("source", callback=_read_end)
@click.argument("target", callback=_read_end)
@click.option(
    "--iif", default="", metavar="DEV", help="The interface a forwarded packet comes in on."
)
@click.option(
    "--mark",
    callback=_read_mark,
    default="0",
    metavar="MARK",
    help="The mark of an outgoing or forwarded packet.",
)
@click.option(
    "--user",
    "uid",
    type=int,
    default=0,
    metavar="UID",
    help="The ID of the user whose socket sends an outgoing packet.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(
    options: Options,
    protocol: str,
    source: tuple[str, int],
    target: tuple[str, int],
    iif: str,
    mark: int,
    uid: int,
    as_json: bool,
) -> int:
    """Show which uplink a packet or connection from SOURCE to TARGET takes, and why.

    Both ifdefault's own lookup and the kernel are asked. Exits 1 if they differ, or if the
    packet leaves by the wrong uplink.

    \b
    ifdefault explain tcp 192.0.2.7:1234 198.51.100.10:443
    ifdefault explain udp any [2001:db8::53]:53
    """
    from dataclasses import asdict

    from ifdefault.cli import daemon_client
    from ifdefault.host.explain import End, explain
    from ifdefault.host.store import Store
    from ifdefault.host.transaction import prepare

    prepared = prepare(
        options.config,
        Store(options.state_dir),
        thorough=False,
        decision=daemon_client.decision(options),
    )
    found = explain(prepared, protocol, End(*source), End(*target), iif, mark, uid)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=1))
    else:
        leaves = "is answered by" if found.direction == "in" else "leaves by"
        rows = (
            ("arrives", found.arrival),
            ("goes to", found.goes_to),
            (leaves, f"{found.uplink or 'no uplink'}: {found.hop}"),
            ("source", found.source),
            ("rule", found.rule),
            ("route", found.route),
            ("mechanism", found.mechanism),
            ("the kernel", found.kernel),
            ("astray", f"{found.astray}: run ifdefault apply" if found.astray else ""),
        )
        click.echo(f"direction       {found.direction}")
        for name, value in rows:
            if value:
                click.echo(f"{name:<15} {value}")
    return 0 if found.agrees and not found.astray else 1
