"""`ifdefault completion`: print the completion script of a shell."""

from __future__ import annotations

import click

from ifdefault.cli.show.output import echo


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script by which SHELL completes commands, options, uplinks, zones and the like.

    For bash: ifdefault completion bash > /etc/bash_completion.d/ifdefault
    """
    from click.shell_completion import ShellComplete, get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(ctx.find_root().command, {}, "ifdefault", "_IFDEFAULT_COMPLETE")
    text = ShellComplete.source(script)  # bash's own looks for a bash
    # click's script for fish cuts a description at its first comma
    echo(text.replace('string split ","', 'string split --max 1 ","'))
