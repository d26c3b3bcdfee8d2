"""`ifdefault help`: the help of a command, as `ifdefault COMMAND --help` prints it."""

from __future__ import annotations

import click

from ifdefault.cli import complete
from ifdefault.cli.show.output import echo


@click.command()
@click.argument("commands", nargs=-1, metavar="[COMMAND]…", shell_complete=complete.commands)
@click.pass_context
def command(ctx: click.Context, commands: tuple[str, ...]) -> None:
    """Show the help of a command, such as `ifdefault help dns check`; without one, list them."""
    context = ctx.find_root()
    for name in commands:
        group = context.command
        found = group.get_command(context, name) if isinstance(group, click.Group) else None
        if found is None:
            what = f'"{context.command_path}" has no command "{name}"'
            raise click.UsageError(f"{what}; {context.command_path} --help shows what it has", ctx)
        context = click.Context(found, context, name)
    echo(context.get_help())
