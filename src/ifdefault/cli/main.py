"""The command `ifdefault`: global options, the table of subcommands, and the exit status.

Rules: a subcommand's module is imported when it runs, so that `--help` is quick. It has a click
command named `command`; if that returns an int, it is the exit status. Errors end here: a line for
each problem on stderr, never a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import click

from ifdefault import __version__
from ifdefault.cli.options import Options
from ifdefault.model.errors import ConfigError, IfdefaultError

SUBCOMMANDS = {
    "init": "find the uplinks of this host and write a config",
    "check": "find what is wrong with the config, or stands in its way",
    "plan": "show what apply would do",
    "apply": "bring the kernel to what the config says",
    "confirm": "keep what apply --confirm did",
    "down": "take all that is ours out of the kernel",
    "run": "be the daemon: judge the uplinks, move the default, mend the kernel",
    "reload": "let the daemon take in a changed config",
    "uplink": "show or force the state of an uplink",
    "status": "show the uplinks and the interface defaults, and whether they hold",
    "dns": "show what is published in the DNS, and check that it is so",
    "events": "show what the daemon saw and did lately",
    "replay": "show what the daemon made of what it recorded",
    "exec": "run a command whose connections all leave by one uplink",
    "explain": "tell which uplink a packet takes, and why",
    "lab": "build a multihomed world in network namespaces",
    "demo": "show on real traffic what this is for",
}
EXIT_INTERNAL = 70  # EX_SOFTWARE, sysexits.h
EXIT_INTERRUPTED = 130  # 128 + SIGINT


class _Subcommands(click.Group):
    """A group whose subcommands are only rows of SUBCOMMANDS until one runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        if cmd_name not in SUBCOMMANDS:
            raise click.UsageError(f'no subcommand "{cmd_name}"; {_alternative(cmd_name)}', ctx)
        command = import_module(f"ifdefault.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Subcommands"):
            formatter.write_dl(list(SUBCOMMANDS.items()))


def _alternative(name: str) -> str:
    from difflib import get_close_matches

    for near in get_close_matches(name, SUBCOMMANDS, 1):
        return f'did you mean "{near}"?'
    return "ifdefault --help lists them"


@click.group(
    cls=_Subcommands,
    context_settings={"help_option_names": ["-h", "--help"]},
    subcommand_metavar="SUBCOMMAND [ARGUMENTS]…",
)
@click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    default=Options().config,
    envvar="IFDEFAULT_CONFIG",
    show_default=True,
    metavar="FILE",
    help="The config file.",
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    default=Options().state_dir,
    envvar="IFDEFAULT_STATE_DIR",
    show_default=True,
    metavar="DIR",
    help="Where numbers and original sysctls are kept.",
)
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    default=Options().run_dir,
    envvar="IFDEFAULT_RUN_DIR",
    show_default=True,
    metavar="DIR",
    help="Where the daemon listens.",
)
@click.version_option(__version__, "-V", "--version", message="ifdefault %(version)s")
@click.pass_context
def cli(ctx: click.Context, config: Path, state_dir: Path, run_dir: Path) -> None:
    """Answer every connection through the uplink that it came in on."""
    ctx.obj = Options(config, state_dir, run_dir)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; return its exit status."""
    # pydantic looks for plugins in every installed distribution, which takes longer than planning
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        status = cli.main(arguments, prog_name="ifdefault", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except IfdefaultError as error:
        _print_error(error)
        return error.exit_status
    except (KeyboardInterrupt, click.Abort):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # the reader is gone, and the interpreter's last flush must not fail: "Note on SIGPIPE"
        # in the documentation of Python's signal module
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("IFDEFAULT_DEBUG"):
            raise
        what = f"{type(error).__name__}: {error}".rstrip(": ")
        hint = "please report it; IFDEFAULT_DEBUG=1 shows the details"
        click.echo(f"ifdefault: internal error: {what}; {hint}", err=True)
        return EXIT_INTERNAL
    return status if isinstance(status, int) else 0


def _print_error(error: IfdefaultError) -> None:
    """A config error begins with file and line, as a compiler's does."""
    prefix = "" if isinstance(error, ConfigError) else "ifdefault: "
    for problem in error.problems:
        click.echo(f"{prefix}{problem}", err=True)


def main() -> None:
    sys.exit(run())
