"""`ifdefault check`: all problems of the config and of the host.

Rules: nothing is changed. Problems go to stderr, the summary to stdout; `--json` prints everything
to stdout. The exit status is 2 for errors in the config, 1 for errors of the host, 0 for warnings
and hints.
"""

from __future__ import annotations

import click

from ifdefault import config as config_file
from ifdefault.cli import hostcheck
from ifdefault.cli.options import Options
from ifdefault.cli.show.output import echo, echo_json, echo_lines
from ifdefault.cli.show.style import Line
from ifdefault.cli.show.table import print_problems, problems_json
from ifdefault.model.config import Config
from ifdefault.model.errors import ConfigError, Problem
from ifdefault.model.kernel import Uplink


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
    host = hostcheck.check_host(options, config, "check")
    host_problems, uplinks = host.problems, host.uplinks
    if as_json:
        _print_json(config_errors, host_problems, uplinks)
    else:
        _print(config_errors, host_problems, uplinks)
    return 2 if config_errors else int(any(not problem.warning for problem in host_problems))


def _print(
    config_errors: tuple[Problem, ...], host_problems: list[Problem], uplinks: tuple[Uplink, ...]
) -> None:
    if config_errors:
        echo_lines([Line(str(error), "bad") for error in config_errors], err=True)
    print_problems(host_problems)
    errors = len(config_errors) + sum(not problem.warning for problem in host_problems)
    hints = sum(problem.hint for problem in host_problems)
    warnings = sum(problem.warning for problem in host_problems) - hints
    counts = [_count(warnings, "warning")] if warnings else []
    counts += [_count(hints, "hint")] if hints else []
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
