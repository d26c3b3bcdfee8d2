"""`ifdefault check`: every problem of the config and of the host, in one run.

Rules: nothing is changed. Problems go to stderr, the summary to stdout; `--json` prints all to
stdout. The exit status is 2 if the config is at fault, 1 if the host is, 0 for warnings alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import click

from ifdefault import config as config_file
from ifdefault.cli.options import Options
from ifdefault.cli.show.table import problems_json, tell_problems
from ifdefault.model.config import Config
from ifdefault.model.errors import ConfigError, IfdefaultError, Problem
from ifdefault.model.kernel import NFT_TABLE, OWN_TABLES, Uplink


@click.command("check")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--schema", is_flag=True, help="Print the JSON Schema of the configuration file, for editors."
)
@click.pass_obj
def command(options: Options, as_json: bool, schema: bool) -> int:
    """Report all problems of the configuration and the host; change nothing."""
    if schema:
        click.echo(json.dumps(config_file.json_schema(), indent=2))
        return 0
    faults: tuple[Problem, ...] = ()
    config: Config | None = None
    try:
        config = config_file.read(options.config)
    except ConfigError as error:
        faults = error.problems
    found, uplinks = _examine(options, config)
    found.sort(key=lambda problem: problem.warning)
    if as_json:
        _print_json(faults, found, uplinks)
    else:
        _print(faults, found, uplinks)
    return 2 if faults else int(any(not problem.warning for problem in found))


def _examine(options: Options, config: Config | None) -> tuple[list[Problem], tuple[Uplink, ...]]:
    """The host's problems and the uplinks as they resolve; without a config, what needs none."""
    from ifdefault.cli import daemon_client
    from ifdefault.host.check_daemon import find_lacks
    from ifdefault.host.store import Store
    from ifdefault.host.transaction import prepare_config
    from ifdefault.kernel import foreign, nft

    found = list(_rights())
    try:
        if config is None:
            nft.check(NFT_TABLE, "")
            return [*found, *foreign.networkd_problems()], ()
        decision = daemon_client.decision(options)
        prepared = prepare_config(config, Store(options.state_dir), decision=decision)
        found += config_file.placed(options.config, prepared.problems)
        found += find_lacks(config, prepared.uplinks)
        tables = dict(prepared.desired.tables)
        for name in OWN_TABLES:
            nft.check(name, tables.get(name, ""))
    except IfdefaultError as error:
        return [*found, *error.problems], ()
    return found, prepared.uplinks


def _rights() -> Iterator[Problem]:
    if os.geteuid():
        what = "only root sees all that is to be checked"
        yield Problem("not root", what, "run sudo ifdefault check", warning=True)


def _print(faults: tuple[Problem, ...], found: list[Problem], uplinks: tuple[Uplink, ...]) -> None:
    for fault in faults:
        click.echo(fault, err=True)
    tell_problems(found)
    warnings = sum(problem.warning for problem in found)
    errors = len(faults) + len(found) - warnings
    counts = [_count(warnings, "warning")] if warnings else []
    if errors:
        click.echo(", ".join([_count(errors, "error"), *counts]), err=True)
    else:
        click.echo("ok: " + ", ".join([_count(len(uplinks), "uplink"), *counts]))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _print_json(
    faults: tuple[Problem, ...], found: list[Problem], uplinks: tuple[Uplink, ...]
) -> None:
    told = {
        "ok": not faults and all(problem.warning for problem in found),
        "uplinks": {
            uplink.name: {"mechanism": uplink.mechanism, "pending": uplink.pending}
            for uplink in uplinks
        },
        "problems": problems_json((*faults, *found)),
    }
    click.echo(json.dumps(told, indent=1))
