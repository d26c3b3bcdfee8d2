"""The command `ifdefault`: global options, the table of subcommands, and the exit status.

Rules: a subcommand's module is imported when it runs, so that `--help` and completion are quick. It
has a click command named `command`; if that returns an int, it is the exit status. Errors end here:
a line for each problem on stderr, never a traceback.
"""

from __future__ import annotations

import copy
import errno
import functools
import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ifdefault import __version__
from ifdefault.cli.options import Options
from ifdefault.model.errors import ConfigError, IfdefaultError, internal, reason

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

SUBCOMMANDS = {
    "init": "detect the uplinks and write a configuration file",
    "check": "report problems of the configuration and the host",
    "plan": "print the operations that apply would perform",
    "apply": "install the configuration in the kernel",
    "confirm": "keep the changes made by apply --confirm",
    "down": "remove everything that ifdefault installed",
    "run": "run the daemon: probe the uplinks, fail over, repair",
    "monitor": "follow the daemon: keep the history, notify",
    "web": "serve a page that shows the uplinks, an API and metrics",
    "reload": "make the daemon load the changed configuration",
    "uplink": "show or force the state of an uplink",
    "status": "show the state of the uplinks, and compare the kernel",
    "top": "show the uplinks on the whole terminal, live",
    "events": "print the daemon's latest events",
    "history": "show outages, availability, loss and traffic",
    "dns": "show the published names, and check the DNS",
    "notify": "show the notifiers, or send a test",
    "doctor": "find what is wrong, by trying each uplink",
    "explain": "show which uplink a packet takes, and why",
    "exec": "run a command whose connections leave by one uplink",
    "replay": "print the daemon's decisions from a record",
    "report": "collect in one archive what a bug report needs",
    "lab": "build test networks in network namespaces",
    "demo": "show the effect of apply on real traffic",
    "completion": "print the completion script of a shell",
    "version": "show the version of ifdefault and of what it uses",
    "help": "show the help of a command",
}
# a new enough one, before anything else
NEED_KERNEL = {"init", "check", "plan", "apply", "run", "doctor"}
EXIT_INTERNAL = 70  # EX_SOFTWARE, sysexits.h
EXIT_INTERRUPTED = 130  # 128 + SIGINT


class _Subcommands(click.Group):
    """A group whose subcommands are only rows of SUBCOMMANDS until one runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        if cmd_name not in SUBCOMMANDS:
            raise click.UsageError(f'no command "{cmd_name}"; {_alternative(cmd_name)}', ctx)
        command = import_module(f"ifdefault.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return _with_kernel(command) if cmd_name in NEED_KERNEL else command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        rows = [(name, text) for name, text in SUBCOMMANDS.items() if name.startswith(incomplete)]
        commands = [CompletionItem(name, help=text) for name, text in rows]
        return commands + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(SUBCOMMANDS.items()))


def _with_kernel(command: click.Command) -> click.Command:
    """The command, which first looks whether the kernel is new enough; its help doesn't."""
    from ifdefault.host import kernel_version

    do = command.callback
    assert do is not None

    @functools.wraps(do)
    def checked(*arguments: Any, **options: Any) -> Any:
        kernel_version.require()
        return do(*arguments, **options)

    command = copy.copy(command)
    command.callback = checked
    return command


def _alternative(name: str) -> str:
    from difflib import get_close_matches

    for near in get_close_matches(name, SUBCOMMANDS, 1):
        return f'did you mean "{near}"?'
    return "ifdefault help lists them"


@click.group(
    cls=_Subcommands,
    context_settings={"help_option_names": ["-h", "--help"]},
    subcommand_metavar="COMMAND [ARGUMENT]…",
)
@click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    default=Options().config,
    envvar="IFDEFAULT_CONFIG",
    show_default=True,
    metavar="FILE",
    help="Use this configuration file.",
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    default=Options().state_dir,
    envvar="IFDEFAULT_STATE_DIR",
    show_default=True,
    metavar="DIR",
    help="Keep uplink numbers and original sysctl values here.",
)
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    default=Options().run_dir,
    envvar="IFDEFAULT_RUN_DIR",
    show_default=True,
    metavar="DIR",
    help="The directory of the daemon's control sockets.",
)
@click.version_option(__version__, "-V", "--version", message="ifdefault %(version)s")
@click.pass_context
def cli(ctx: click.Context, config: Path, state_dir: Path, run_dir: Path) -> None:
    """Answer every connection through the uplink it came in on."""
    ctx.obj = Options(config, state_dir, run_dir)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; return its exit status."""
    # pydantic looks for plugins in every installed distribution, which takes longer than planning
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        status = cli.main(arguments, prog_name="ifdefault", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        from ifdefault.cli.show.output import echo_usage

        echo_usage(error)
        return error.exit_code
    except IfdefaultError as error:
        _print_error(error)
        return error.exit_status
    except (KeyboardInterrupt, click.Abort):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _drop_output()  # the reader is gone
        return 1
    except Exception as error:
        if os.environ.get("IFDEFAULT_DEBUG"):
            raise
        from ifdefault.cli.show.output import echo

        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            _drop_output()
            echo(f"ifdefault: output can't be written: {reason(error)}", err=True)
            return 1
        hint = "please report it; IFDEFAULT_DEBUG=1 shows the details"
        echo(f"ifdefault: {internal(error)}; {hint}", err=True)
        return EXIT_INTERNAL
    return status if isinstance(status, int) else 0


def _drop_output() -> None:
    """The interpreter's last flush must not fail: "Note on SIGPIPE" in the documentation of
    Python's signal module."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_error(error: IfdefaultError) -> None:
    """A config error begins with file and line, as a compiler's does."""
    from ifdefault.cli.show.output import echo_lines
    from ifdefault.cli.show.style import Line

    prefix = "" if isinstance(error, ConfigError) else "ifdefault: "
    echo_lines([Line(f"{prefix}{problem}", "bad") for problem in error.problems], err=True)


def main() -> None:
    # most commands end before there is garbage worth a search, which is a tenth of their time
    gc.set_threshold(50_000)
    sys.exit(run())
