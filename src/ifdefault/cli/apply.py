"""`ifdefault apply`: apply the config to the kernel, or leave the kernel as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ifdefault.cli.options import Options
from ifdefault.model.changes import LONGEST_CONFIRM_S

if TYPE_CHECKING:
    from ifdefault.model.changes import Changes


@click.command()
@click.option(
    "--confirm",
    "confirm_s",
    type=click.IntRange(1, LONGEST_CONFIRM_S),
    metavar="SECONDS",
    help="Undo the changes after this time, unless they are confirmed.",
)
@click.option(
    "--wait",
    is_flag=True,
    help="Wait up to a minute while another ifdefault changes this host, instead of failing.",
)
@click.option(
    "--settle",
    "settle_s",
    type=click.IntRange(1, LONGEST_CONFIRM_S),
    metavar="SECONDS",
    help="For this time, apply again in the background when addresses or routes change.",
)
@click.option(
    "--last-good",
    is_flag=True,
    help="If the configuration is invalid, apply the last one that worked.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print only warnings and errors.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(
    options: Options,
    confirm_s: int | None,
    wait: bool,
    settle_s: int | None,
    last_good: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Check, perform the operations that `plan` shows, and verify the result; undo everything if
    an operation fails or the result differs.

    Run it again to pick up changes, such as a new address or router. If the daemon runs, it does
    the work. On a terminal, --confirm counts down: Enter keeps the changes, Ctrl-C undoes them.
    """
    from ifdefault.cli import countdown, daemon_client
    from ifdefault.cli.show import table

    if daemon_client.runs(options):
        from ifdefault.ipc.control.protocol import Reload

        changes = daemon_client.ask(options, Reload(confirm_s), daemon_client.CHANGE_S)
    else:
        changes = _apply(options, confirm_s, settle_s, wait=wait, last_good=last_good)
    silent = quiet or as_json or not changes.operations
    if confirm_s is None or silent or not countdown.is_possible():
        table.print_applied(changes, confirm_s, quiet=quiet, as_json=as_json)
        return 0
    table.print_applied(changes, None, quiet=quiet, as_json=as_json)
    return countdown.run(options)


def _apply(
    options: Options,
    confirm_s: int | None,
    settle_s: int | None,
    *,
    wait: bool,
    last_good: bool,
) -> Changes:
    from ifdefault.cli.show.table import print_problems
    from ifdefault.host import rollback_timer, settle
    from ifdefault.host.last_config import ConfigFile
    from ifdefault.host.store import Store
    from ifdefault.host.transaction import apply, prepare_file
    from ifdefault.plan.prepare import Prepared, changes

    store = Store(options.state_dir)
    file = ConfigFile(options.config, store)

    def plan() -> Prepared:
        return prepare_file(file, store, last_good=last_good)

    try:
        with store.lock(wait=wait):
            rollback_timer.refuse_unconfirmed(store)
            if confirm_s and (prepared := plan()).operations:
                rollback_timer.commit_with_rollback(prepared, store, confirm_s, config=file.digest)
                with store.tolerating():
                    file.tried()
            else:
                prepared = apply(plan, store)
                with store.tolerating():
                    file.worked()
            if settle_s:
                settle.start(store, options.config, settle_s)
    finally:
        print_problems((*file.errors, *store.take_news()))
    return changes(prepared)
