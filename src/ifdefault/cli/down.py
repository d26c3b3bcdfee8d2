"""`ifdefault down`: remove everything of ours from the kernel."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import click

from ifdefault.cli.options import Options
from ifdefault.cli.show.output import echo, echo_json

if TYPE_CHECKING:
    from ifdefault.model.changes import Changes


@click.command()
@click.option(
    "--wait",
    is_flag=True,
    help="Wait up to a minute while another ifdefault changes this host, instead of failing.",
)
@click.option(
    "--script",
    is_flag=True,
    help="Change nothing; print a shell script that does the same without ifdefault.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(options: Options, wait: bool, script: bool, as_json: bool) -> None:
    """Remove everything that ifdefault installed, and restore link groups and sysctls.

    This needs no configuration, and cancels a pending `apply --confirm`. The daemon, if it runs, is
    then paused until `apply`, `reload` or its restart.
    """
    from ifdefault.cli import daemon_client
    from ifdefault.cli.show.table import print_problems

    if script:
        echo(_script(options))
        return
    if daemon_runs := daemon_client.runs(options):
        from ifdefault.ipc.control.protocol import Down

        changes = daemon_client.ask(options, Down(), daemon_client.CHANGE_S)
    else:
        changes = _down(options, wait=wait)
    if as_json:
        from ifdefault.ipc import codec

        echo_json(codec.to_json(changes))
        return
    print_problems(changes.problems)
    for operation in changes.operations:
        echo(operation)
    if not changes.operations:
        echo("nothing to do", err=True)
    if daemon_runs:
        echo("the daemon changes nothing until you run: ifdefault apply", err=True)


def _down(options: Options, *, wait: bool) -> Changes:
    from ifdefault.cli.show.table import print_problems
    from ifdefault.daemon.process import dns_server
    from ifdefault.host import rollback_timer, settle
    from ifdefault.host.store import Store
    from ifdefault.host.transaction import commit, prepare_down
    from ifdefault.plan.prepare import changes

    store = Store(options.state_dir)
    try:
        with store.tolerating(), store.lock(wait=wait):
            prepared = prepare_down(store)
            commit(prepared, store)
            rollback_timer.cancel(store)
            settle.cancel(store)
    finally:
        print_problems(store.take_news())
    dns_server.end_all(options.run_dir)
    return changes(prepared)


def _script(options: Options) -> str:
    from ifdefault import __version__
    from ifdefault.host import rollback_timer
    from ifdefault.host.store import Store
    from ifdefault.host.transaction import prepare_down
    from ifdefault.kernel import netns
    from ifdefault.kernel.ebpf import attach
    from ifdefault.plan import undo_script

    store = Store(options.state_dir)
    rollback_timer.refuse_unconfirmed(store)
    path, programs = str(options.state_dir / undo_script.NAME), ""
    with suppress(OSError):  # a kernel that can't have any
        programs = attach.name()
    host = undo_script.Host(path, __version__, netns.boot(), programs)
    return undo_script.render(prepare_down(store), host)
