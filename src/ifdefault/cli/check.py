"""`ifdefault check`: all problems of the config and of the host.

Rules: nothing is changed. Problems go to stderr, the summary to stdout; `--json` prints everything
to stdout. The exit status is 2 for errors in the config, 1 for errors of the host, 0 for warnings.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from ifdefault import config as config_file
from ifdefault.cli.options import Options
from ifdefault.cli.show.output import echo, echo_json, echo_lines
from ifdefault.cli.show.style import Line
from ifdefault.cli.show.table import print_problems, problems_json
from ifdefault.model.changes import undone_in
from ifdefault.model.config import Config
from ifdefault.model.errors import ConfigError, IfdefaultError, Problem
from ifdefault.model.kernel import NFT_TABLE, OWN_TABLES, Uplink

if TYPE_CHECKING:
    from ifdefault.host.store import Store
    from ifdefault.model.report import DaemonStatus


@click.command("check")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--schema", is_flag=True, help="Print the JSON Schema of the configuration file, for editors."
)
@click.pass_obj
def command(options: Options, as_json: bool, schema: bool) -> int:
    """Report all problems of the configuration and the host; change nothing."""
    if schema:
        echo_json(config_file.json_schema(), indent=2)
        return 0
    config_errors: tuple[Problem, ...] = ()
    config: Config | None = None
    try:
        config = config_file.read(options.config)
    except ConfigError as error:
        config_errors = error.problems
    host_problems, uplinks = _check_host(options, config)
    host_problems.sort(key=lambda problem: problem.warning)
    if as_json:
        _print_json(config_errors, host_problems, uplinks)
    else:
        _print(config_errors, host_problems, uplinks)
    return 2 if config_errors else int(any(not problem.warning for problem in host_problems))


def _check_host(
    options: Options, config: Config | None
) -> tuple[list[Problem], tuple[Uplink, ...]]:
    """The host's problems and the resolved uplinks; without a config, only what needs none."""
    from ifdefault.cli import daemon_client
    from ifdefault.host.check_daemon import find_problems
    from ifdefault.host.check_installation import find_others
    from ifdefault.host.left_dns_server import LEFT_REMEDY, left_dns_server
    from ifdefault.host.status import find_astray, find_differences
    from ifdefault.host.store import Store
    from ifdefault.host.transaction import prepare_config
    from ifdefault.kernel import foreign, nft

    store = Store(options.state_dir)
    uplinks: tuple[Uplink, ...] = ()
    problems = [*_missing_privileges(), *store.examine()]
    try:
        daemon = daemon_client.status(options)
        problems += [*_state_problems(daemon), *find_others(daemon)]
        if daemon is None and (left := left_dns_server(options.run_dir)):
            what = f"doesn't run, but {left}"
            problems.append(Problem("daemon", what, LEFT_REMEDY, warning=True))
        if config is None:
            nft.check(NFT_TABLE, "")
            return [*problems, *foreign.networkd_problems()], ()
        problems += _unconfirmed(store, daemon)
        prepared = prepare_config(config, store, decision=daemon.decision if daemon else None)
        uplinks, known = prepared.uplinks, prepared.problems
        if not prepared.operations:  # otherwise they have only what is to be expected
            known += tuple(p for p in find_astray(prepared) if p not in known)
        if daemon is None:  # it repairs
            known += tuple(find_differences(prepared, rights=nft.has_rights()))
        problems += config_file.with_lines(options.config, known)
        tables = dict(prepared.desired.tables)
        for name in OWN_TABLES:
            nft.check(name, tables.get(name, ""))
    except IfdefaultError as error:
        problems += error.problems
    if config is not None:
        problems += config_file.with_lines(options.config, find_problems(config, uplinks))
    return problems, uplinks


def _state_problems(daemon: DaemonStatus | None) -> Iterator[Problem]:
    """What the daemon couldn't read or save."""
    if daemon and daemon.config_errors:
        what = "the daemon uses the last config that worked"
        yield Problem(daemon.config, what, "once this one has no errors, run ifdefault reload")
    for text in daemon.unsaved if daemon else ():
        yield Problem("", text, "free space there, or make it writable")


def _unconfirmed(store: Store, daemon: DaemonStatus | None) -> Iterator[Problem]:
    """An apply that waits for confirmation, and a daemon that changes nothing for now."""
    from ifdefault.host import rollback_timer

    if daemon and daemon.held:
        yield Problem("daemon", daemon.held, warning=True)
    elif (left_s := rollback_timer.left_s(store)) is not None:
        yield Problem("apply --confirm", undone_in(left_s), warning=True)


def _missing_privileges() -> Iterator[Problem]:
    if os.geteuid():
        what = "without root, not everything can be checked"
        yield Problem("check", what, "run sudo ifdefault check", warning=True)


def _print(
    config_errors: tuple[Problem, ...], host_problems: list[Problem], uplinks: tuple[Uplink, ...]
) -> None:
    if config_errors:
        echo_lines([Line(str(error), "bad") for error in config_errors], err=True)
    print_problems(host_problems)
    warnings = sum(problem.warning for problem in host_problems)
    errors = len(config_errors) + len(host_problems) - warnings
    counts = [_count(warnings, "warning")] if warnings else []
    if errors:
        echo(", ".join([_count(errors, "error"), *counts]), "bad", err=True)
    else:
        echo("ok: " + ", ".join([_count(len(uplinks), "uplink"), *counts]), "good")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _print_json(
    config_errors: tuple[Problem, ...], host_problems: list[Problem], uplinks: tuple[Uplink, ...]
) -> None:
    report = {
        "ok": not config_errors and all(problem.warning for problem in host_problems),
        "uplinks": {
            uplink.name: {"mechanism": uplink.mechanism, "pending": uplink.pending}
            for uplink in uplinks
        },
        "problems": problems_json((*config_errors, *host_problems)),
    }
    echo_json(report)
