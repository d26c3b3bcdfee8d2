"""`ifdefault apply`: make the kernel what the config says, or leave it as it was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from ifdefault.cli.options import Options

if TYPE_CHECKING:
    from ifdefault.host.apply import Prepared


@click.command(short_help="bring the kernel to what the config says")
@click.option(
    "--confirm",
    "confirm_s",
    type=click.IntRange(1, 86400),
    metavar="SECONDS",
    help="Undo by itself after so long, unless `ifdefault confirm` follows.",
)
@click.option("--wait", is_flag=True, help="Wait while another ifdefault changes this host.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but warnings and errors.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(
    options: Options, confirm_s: int | None, wait: bool, quiet: bool, as_json: bool
) -> None:
    """Check, perform the operations that `plan` shows, re-read, and undo all if anything fails.

    Running it again takes in what has changed: an address, a gateway, a router's MAC.
    """
    from ifdefault.host import guard
    from ifdefault.host.apply import commit, prepare
    from ifdefault.host.store import Store

    store = Store(options.state_dir)
    with store.lock(wait=wait):
        guard.refuse_unconfirmed(store)
        prepared = prepare(options.config, store)
        if confirm_s is None or not prepared.operations:
            commit(prepared, store)
        else:
            guard.commit_on_probation(prepared, store, confirm_s)
    _tell(prepared, confirm_s, quiet=quiet, as_json=as_json)


def _tell(prepared: Prepared, confirm_s: int | None, *, quiet: bool, as_json: bool) -> None:
    from ifdefault.cli.report import operations_json, tell_problems
    from ifdefault.plan.describe import describe

    if as_json:
        click.echo(json.dumps(operations_json(prepared), indent=1))
        return
    tell_problems(prepared.problems)
    if quiet:
        return
    for operation in prepared.operations:
        click.echo(describe(operation))
    count = len(prepared.operations)
    ready = sum(not u.pending for u in prepared.uplinks)
    done = f"{count} operations performed" if count else "nothing to do"
    click.echo(f"{done}; {ready} of {len(prepared.uplinks)} uplinks in use", err=True)
    if confirm_s and count:
        click.echo(f"undone in {confirm_s} s unless you run: ifdefault confirm", err=True)
