"""`ifdefault explain`: which uplink a packet takes, and why."""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress

import click

from ifdefault.cli import complete
from ifdefault.cli.options import Options
from ifdefault.cli.show.output import echo_json, echo_lines, echo_styled
from ifdefault.cli.show.style import Line, Style, fold, is_terminal, paint, width
from ifdefault.model.text import escaped

_LABEL, _NARROWEST = 16, 40
_LAST_PORT, _LAST_MARK, _LAST_UID = 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFE
_IIF = re.compile(r"[^\s/\x00-\x1f\x7f]{1,15}")
_END = re.compile(r"\[(?P<six>[^]]+)\](?::(?P<six_port>\d+))?|(?P<four>[^:]+):(?P<port>\d+)")


def _rows(name: str, value: str) -> list[str]:
    """A name and its value, folded beside it on a terminal."""
    if not value:
        return []
    style: Style | None = "bad" if name == "astray" else None
    columns = max(width() if is_terminal() else 0, _NARROWEST) - _LABEL
    text = escaped(value)
    first, *others = fold(text, columns) if is_terminal() else [text]
    label = paint(name.ljust(_LABEL), "head")
    return [label + paint(first, style), *(" " * _LABEL + paint(row, style) for row in others)]


def _read_end(_: click.Context, __: click.Parameter, text: str) -> tuple[str, int]:
    """ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT, or "any"."""
    match = _END.fullmatch(text)
    address = (match["six"] or match["four"]) if match else text
    port = int((match["six_port"] or match["port"] or 0) if match else 0)
    if port > _LAST_PORT:
        raise click.BadParameter(f'"{text}": not a port; use one up to {_LAST_PORT}')
    if address in ("any", "-"):
        return "", port
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        what = f'"{text}" is not an address; use 203.0.113.5:443, [2001:db8::5]:443 or any'
        raise click.BadParameter(what) from None
    if ip.version == 6 and ip.scope_id is not None:
        what = f'"{text}" has a zone, and link-local packets take no uplink'
        raise click.BadParameter(f"{what}; use a global address")
    return str(ip), port


def _read_mark(_: click.Context, __: click.Parameter, text: str) -> int:
    with suppress(ValueError):
        if 0 <= (mark := int(text, 0)) <= _LAST_MARK:
            return mark
    what = f'"{text}" is not a mark; use a number up to {_LAST_MARK:#x}, such as 0x1000000'
    raise click.BadParameter(what)


def _read_iif(_: click.Context, __: click.Parameter, text: str) -> str:
    if text and not _IIF.fullmatch(text):
        raise click.BadParameter(f'"{escaped(text)}" is not the name of an interface; see ip link')
    return text


@click.command()
@click.argument("protocol", type=click.Choice(["tcp", "udp", "icmp", "icmp6"]))
@click.argument("source", callback=_read_end)
@click.argument("target", callback=_read_end)
@click.option(
    "--iif",
    callback=_read_iif,
    default="",
    metavar="DEV",
    help="The interface a forwarded packet comes in on.",
    shell_complete=complete.interfaces,
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
    type=click.IntRange(0, _LAST_UID),
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
    from ifdefault.host.status import UNREAD
    from ifdefault.host.store import Store
    from ifdefault.host.transaction import prepare
    from ifdefault.kernel import nft

    prepared = prepare(
        options.config,
        Store(options.state_dir),
        thorough=False,
        decision=daemon_client.decision(options),
        rights=(rights := nft.has_rights()),
    )
    explanation = explain(prepared, protocol, End(*source), End(*target), iif, mark, uid)
    if as_json:
        echo_json(asdict(explanation))
    else:
        leaves = "is answered by" if explanation.direction == "in" else "leaves by"
        rows = (
            ("arrives", explanation.arrival),
            ("goes to", explanation.goes_to),
            (leaves, f"{explanation.uplink or 'no uplink'}: {explanation.hop}"),
            ("source", explanation.source),
            ("rule", explanation.rule),
            ("route", explanation.route),
            ("mechanism", explanation.mechanism),
            ("on return", explanation.returns),
            ("MPTCP", explanation.mptcp),
            ("the kernel", explanation.kernel),
            ("astray", explanation.astray),
            ("remedy", explanation.remedy),
        )
        lines = [("direction", explanation.direction), *rows]
        echo_styled("\n".join(row for line in lines for row in _rows(*line)))
    if not rights:
        unread = f"not read without root's rights: {UNREAD}"
        echo_lines([Line(unread, "warn")], err=True)
    return 0 if explanation.agrees and not explanation.astray else 1
