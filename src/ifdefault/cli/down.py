"""`ifdefault down`: take all that is ours out of the kernel."""

from __future__ import annotations

import json

import click

from ifdefault.cli.options import Options


@click.command(short_help="take all that is ours out of the kernel")
@click.option("--wait", is_flag=True, help="Wait while another ifdefault changes this host.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(options: Options, wait: bool, as_json: bool) -> None:
    """Remove our rules, routes and nftables table, and put sysctls and link groups back.

    Needs no config. A waiting `apply --confirm` is called off.
    """
    from ifdefault.cli.report import operations_json
    from ifdefault.host import guard
    from ifdefault.host.apply import commit, prepare_down
    from ifdefault.host.store import Store
    from ifdefault.plan.describe import describe

    store = Store(options.state_dir)
    with store.lock(wait=wait):
        prepared = prepare_down(store)
        commit(prepared, store)
        guard.call_off(store)
    if as_json:
        click.echo(json.dumps(operations_json(prepared), indent=1))
        return
    for operation in prepared.operations:
        click.echo(describe(operation))
    if not prepared.operations:
        click.echo("nothing to do", err=True)
