"""`ifdefault exec`: run a command whose connections all leave by one uplink."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import NoReturn

import click

from ifdefault.cli import complete
from ifdefault.cli.options import Options
from ifdefault.cli.show.output import echo
from ifdefault.model.errors import HostError, Problem, reason

_NOT_FOUND, _NOT_RUN = 127, 126  # as env(1) and shells return


@click.command(
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True},
    options_metavar="",
)
@click.argument("uplink", shell_complete=complete.uplinks)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def command(options: Options, uplink: str, command: tuple[str, ...]) -> int:
    """Run a command whose connections, and those of its child processes, leave by UPLINK.

    Any user may do this if the daemon runs, otherwise only root. The exit status is that of the
    command.
    """
    argv = list(command[1:] if command[:1] == ("--",) else command)
    if not argv:
        raise click.UsageError(f"no command; run ifdefault exec {uplink} -- COMMAND")
    from ifdefault.cli import daemon_client
    from ifdefault.ipc.control.client import NotRunning
    from ifdefault.ipc.control.protocol import Exec

    try:
        daemon_client.ask(options, Exec(uplink, _netns()), daemon_client.CHANGE_S)
    except NotRunning as error:
        if os.geteuid():
            remedy = f"{error.problems[0].remedy}, or run this as root"
            raise HostError(Problem("exec", "no daemon runs", remedy)) from None
        _enter(options, uplink)
    return _become(argv)


def _netns() -> int:
    return Path("/proc/self/ns/net").stat().st_ino


def _enter(options: Options, name: str) -> None:
    """Without a daemon, do its work."""
    from ifdefault.config import read
    from ifdefault.host import exec_groups, transaction
    from ifdefault.host.store import Store
    from ifdefault.plan.resolve import find_uplink

    config, store = read(options.config), Store(options.state_dir)
    with store.lock(wait=True):
        prepared = transaction.prepare_config(config, store, thorough=False)
        uplink = find_uplink(prepared.uplinks, name)
        if not any(rule.mark == uplink.outgoing_mark for rule in prepared.facts.rules):
            raise HostError(Problem(f"uplink.{name}", "isn't applied", "run ifdefault apply first"))
        path, was = exec_groups.enter(store, os.getpid(), os.geteuid(), name)
        try:
            transaction.install_hook(config, store)
            if not exec_groups.is_installed(path):
                what = "the rule for its control group is missing"
                raise HostError(Problem("exec", what, "try again"))
        except BaseException:
            exec_groups.leave(store, os.getpid(), was)
            raise


def _become(argv: list[str]) -> int:
    """Become the command, with the signals and environment that we were started with."""
    # Python ignores these, and execve(2) keeps that
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    if os.environ.get("PYDANTIC_DISABLE_PLUGINS") == "__all__":  # set by cli.main
        del os.environ["PYDANTIC_DISABLE_PLUGINS"]
    try:
        _execute(argv)
    except OSError as error:
        what = f"{argv[0]}: {reason(error)}"
        echo(f"ifdefault: {what}", "bad", err=True)
        return _NOT_FOUND if error.errno in (errno.ENOENT, errno.ENOTDIR) else _NOT_RUN


def _execute(argv: list[str]) -> NoReturn:
    os.execvp(argv[0], argv)
