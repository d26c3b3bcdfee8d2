"""`ifdefault dns`: the published names, and checks of their delegation."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from ifdefault.cli import complete
from ifdefault.cli.options import Options, root_option
from ifdefault.cli.show.output import echo, echo_json, echo_lines
from ifdefault.model.errors import HostError, Problem

if TYPE_CHECKING:
    from ifdefault.model.report import DaemonStatus


@click.group(invoke_without_command=True, subcommand_metavar="[COMMAND [ARGUMENT]…]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> int:
    """Show each name with its addresses, and each publisher with its state.

    Exits 1 if a name can't be published.
    """
    if ctx.invoked_subcommand:
        return 0
    from ifdefault.cli import daemon_client
    from ifdefault.cli.show import names

    status = daemon_client.status(ctx.obj)
    if status is None:
        from ifdefault.host.left_dns_server import left_dns_server

        remedy = "start ifdefault run, which publishes the names"
        what = ", but ".join(filter(None, ("no daemon runs", left_dns_server(ctx.obj.run_dir))))
        raise HostError(Problem("dns", what, remedy))
    if as_json:
        echo_json(_as_json(status))
    else:
        echo_lines(names.all_lines(status))
    return int(any(publisher.state == "failing" for publisher in status.dns.publishers))


def _as_json(status: DaemonStatus) -> dict[str, Any]:
    from ifdefault.ipc import codec

    return {"now_s": status.now_s, **codec.to_json(status.dns)}


@command.command()
@click.argument("names", nargs=-1, metavar="[NAME]…", shell_complete=complete.names)
@root_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def check(options: Options, names: tuple[str, ...], roots: tuple[str, ...], as_json: bool) -> int:
    """Follow the delegation of each zone from the root, query all its name servers over every
    working uplink, and report problems.

    Without NAMEs, all names of the configuration are checked. A NAME that isn't in it should be a
    CNAME to one that is.
    """
    from ifdefault.cli import dnscheck
    from ifdefault.cli.show.table import print_problems

    root_servers, only = _addresses(roots), [_name(text) for text in names]
    host = dnscheck.read(options)
    result = dnscheck.check(host, dnscheck.sender(host), root_servers, only)
    if as_json:
        echo_json(dnscheck.to_json(result))
    else:
        echo_lines(dnscheck.lines(result))
        print_problems(result.problems)
    return 0 if result.is_ok else 1


def _name(text: str) -> str:
    name = text.lower().removesuffix(".")
    if not re.fullmatch(r"[a-z0-9_*-]{1,63}(\.[a-z0-9_-]{1,63})*", name) or len(name) > 253:
        raise click.UsageError(f'"{text}" is not a domain name; write it like www.example.net')
    return name


def _addresses(texts: tuple[str, ...]) -> list[str]:
    from ipaddress import ip_address

    try:
        return [str(ip_address(text)) for text in texts]
    except ValueError as error:
        raise click.UsageError(f"--root: {error}; use an IPv4 or IPv6 address") from None


@command.command()
@click.argument("zones", nargs=-1, metavar="[ZONE]…", shell_complete=complete.zones)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def delegation(options: Options, zones: tuple[str, ...], as_json: bool) -> int:
    """Print the NS records and glue that the parent of each ZONE must have."""
    from ifdefault.cli import dnscheck
    from ifdefault.dns.delegation import delegate, zone_file

    host = dnscheck.read(options)
    ours = {zone.zone: zone for zone in host.wanted if zone.embedded}
    given = [_name(zone) for zone in zones] or list(ours)
    if unknown := [zone for zone in given if zone not in ours]:
        remedy = f"use one of {', '.join(ours)}" if ours else "set zones in [dns.server]"
        what = f'"{unknown[0]}" is not a zone of the embedded server'
        raise HostError(Problem("dns delegation", what, remedy))
    if not given:
        what = "the embedded server has no zone"
        raise HostError(Problem("dns delegation", what, "set zones in [dns.server]"))
    if as_json:
        delegations = {zone: delegate(ours[zone]) for zone in given}
        echo_json(delegations)
    else:
        for zone in given:
            echo(f"; {zone}: records for the parent zone")
            echo("\n".join(zone_file(delegate(ours[zone]))))
    return 0
