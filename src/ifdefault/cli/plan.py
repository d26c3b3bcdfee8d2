"""`ifdefault plan`: the operations that apply would perform."""

from __future__ import annotations

import click

from ifdefault.cli.options import Options
from ifdefault.cli.show.output import echo, echo_json

EXIT_CHANGES = 2  # as Terraform's -detailed-exitcode


@click.command()
@click.option(
    "--detailed-exitcode", is_flag=True, help="Exit with status 2 if there is something to do."
)
@click.option("--ruleset", is_flag=True, help="Print the nftables ruleset too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(options: Options, detailed_exitcode: bool, ruleset: bool, as_json: bool) -> int:
    """Print the operations that apply would perform, in order; change nothing.

    If the daemon runs, its decisions are used.
    """
    from ifdefault.cli import daemon_client
    from ifdefault.cli.show.table import print_problems
    from ifdefault.host.store import Store
    from ifdefault.host.transaction import prepare
    from ifdefault.plan.describe import describe
    from ifdefault.plan.prepare import changes

    prepared = prepare(
        options.config, Store(options.state_dir), decision=daemon_client.decision(options)
    )
    if as_json:
        from ifdefault.ipc import codec

        echo_json(codec.to_json(changes(prepared)))
    else:
        print_problems(prepared.problems)
        for operation in prepared.operations:
            echo(describe(operation))
        for _, text in prepared.desired.tables if ruleset else ():
            echo(text, nl=False)
        count = len(prepared.operations)
        echo(f"{count} operations" if count else "nothing to do", err=True)
    if any(not problem.warning for problem in prepared.problems):
        return 1
    return EXIT_CHANGES if detailed_exitcode and prepared.operations else 0
