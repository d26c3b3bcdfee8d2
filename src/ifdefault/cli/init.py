"""`ifdefault init`: find the uplinks of this host and write a config."""

from __future__ import annotations

from pathlib import Path

import click

from ifdefault.cli.options import Options
from ifdefault.cli.show.output import echo, echo_lines
from ifdefault.config.dns import domain
from ifdefault.host import render_config, render_takeover
from ifdefault.host.discover import describe_interfaces
from ifdefault.host.observe_foreign import take_over_host
from ifdefault.host.takeover import Takeover
from ifdefault.model.errors import HostError, Problem, reason


def _zone(_context: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    try:
        return domain(text) if text is not None else None
    except ValueError as error:
        raise click.BadParameter(f'{error}; write it like "www.example.net"') from None


@click.command("init")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write to this file instead of the configuration file.",
)
@click.option("--print", "to_stdout", is_flag=True, help="Print the configuration; write nothing.")
@click.option(
    "--zone",
    metavar="NAME",
    callback=_zone,
    help="Serve this zone: its name leads to the uplinks that work.",
)
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@click.pass_obj
def command(
    options: Options, output: Path | None, to_stdout: bool, zone: str | None, force: bool
) -> None:
    """Detect the uplinks and write a commented configuration file that works as is.

    An uplink is an interface that has a default route, or public addresses only. Other interfaces
    that may be one are named, with the lines to add.
    """
    if output and to_stdout:
        raise click.UsageError("-o and --print exclude each other; use one of them")
    found, facts = take_over_host()
    text = render_config.render(found.discovery, found)
    if not text:
        interfaces = describe_interfaces(facts)
        what = f"no interface has a default route or a public address ({interfaces})"
        what += "".join(f"; {each.interface} {each.why}" for each in found.discovery.passed_over)
        remedy = "bring the uplinks up, or write [uplink.isp-a] by hand, see ifdefault.toml(5)"
        raise HostError(Problem("init", what, remedy))
    if zone:
        text += render_config.zone(zone)
    if to_stdout:
        echo(text, nl=False)
        return
    path = output or options.config
    _write(path, text, force)
    _print_written(path, found)
    if zone:
        echo("for the operator of the parent zone: ifdefault dns delegation")


def _write(path: Path, text: str, force: bool) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        remedy = "use --force to replace it, or --print to see the new config"
        raise HostError(Problem(str(path), "exists already", remedy)) from None
    except OSError as error:
        remedy = "run as root, or write elsewhere with -o"
        raise HostError(Problem(str(path), f"can't be written: {reason(error)}", remedy)) from None


def _print_written(path: Path, takeover: Takeover) -> None:
    found = takeover.discovery
    echo(f"wrote {path}:")
    for uplink in found.uplinks:
        missing = " and ".join(f"IPv{family}" for family in uplink.unknown)
        note = f"; no router known for {missing}, set gateways" if missing else ""
        echo(f"  {uplink.name} on {uplink.interface}{note}")
    if found.balanced:
        interfaces = ", ".join(hop.dev for hop in found.balanced)
        echo(f"  outgoing connections are balanced among {interfaces}, as they are now")
    for index, passed in enumerate(found.passed_over, len(found.uplinks)):
        echo_lines([f"passed over: {passed.interface} {passed.why}"])
        if passed.gateways is not None:
            echo("  if it leads to a provider, add:")
            for line in render_config.lines_to_write(index, passed):
                echo(f"    {line}")
    for line in render_takeover.lines(takeover):
        echo(line)
    echo("next: ifdefault check, then ifdefault apply --confirm 60")
