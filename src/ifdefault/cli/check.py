"""`ifdefault check`: every problem of the config and of the host, in one run.

Rules: nothing is touched. Problems go to stderr, the summary to stdout; `--json` prints all to
stdout. The exit status is 2 if the config is at fault, 1 if the host is, 0 for warnings alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence

import click

from ifdefault import config as config_file
from ifdefault.cli.options import Options
from ifdefault.errors import ConfigError, IfdefaultError, Problem
from ifdefault.model import Config, Facts, Uplink


@click.command("check")
@click.option("--json", "as_json", is_flag=True, help="Print the problems as JSON.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of the config file instead.")
@click.pass_obj
def command(options: Options, as_json: bool, schema: bool) -> int:
    """Find what is wrong with the config, and what on this host stands in its way."""
    if schema:
        click.echo(json.dumps(config_file.json_schema(), indent=2))
        return 0
    faults: list[Problem] = []
    config = None
    try:
        config = config_file.read(options.config)
    except ConfigError as error:
        faults += error.problems
    found, uplinks = examine(config)
    found = sorted(found, key=lambda problem: problem.warning)
    if as_json:
        _print_json(faults, found, uplinks)
    else:
        _print(faults, found, uplinks)
    return 2 if faults else int(any(not problem.warning for problem in found))


def examine(config: Config | None) -> tuple[list[Problem], tuple[Uplink, ...]]:
    """The host's problems, and the uplinks as they resolve; without a config, what needs none."""
    from ifdefault.kernel import foreign, nft, read

    found = [*_rights(), *foreign.networkd_problems()]
    try:
        facts = read.read_facts(foreign.foreign_marks(nft.ruleset_json()))
    except IfdefaultError as error:
        return [*found, *error.problems], ()
    if config is None:
        return found, ()
    from ifdefault.plan import conflicts, numbers
    from ifdefault.plan.desired import plan

    numbering = numbers.assign([uplink.name for uplink in config.uplinks], {})
    try:
        wanted = plan(config, facts, numbering)
    except IfdefaultError as error:
        return [*found, *error.problems], ()
    found += conflicts.find_conflicts(config, facts, wanted.uplinks)
    found += _missing(facts, wanted.desired.sysctls)
    try:
        nft.check(wanted.desired.nft)
    except IfdefaultError as error:
        found += error.problems
    return found, wanted.uplinks


def _rights() -> Iterator[Problem]:
    if os.geteuid():
        what = "only root sees all that is to be checked"
        yield Problem("not root", what, "run `sudo ifdefault check`", warning=True)


def _missing(facts: Facts, sysctls: Sequence[tuple[str, str]]) -> Iterator[Problem]:
    present = dict(facts.sysctls)
    for name, value in sysctls:
        if name not in present:
            what = f"this kernel has none, and it is to be {value}"
            yield Problem(f"sysctl {name.replace('/', '.')}", what, "use Linux 4.20 or newer")


def _print(faults: Sequence[Problem], found: Sequence[Problem], uplinks: Sequence[Uplink]) -> None:
    for problem in faults:
        click.echo(problem, err=True)
    for problem in found:
        click.echo(f"{_severity(problem)}: {problem}", err=True)
    warnings = sum(problem.warning for problem in found)
    errors = len(faults) + len(found) - warnings
    counts = [_count(warnings, "warning")] if warnings else []
    if errors:
        click.echo(", ".join([_count(errors, "error"), *counts]), err=True)
    else:
        click.echo("ok: " + ", ".join([_count(len(uplinks), "uplink"), *counts]))


def _severity(problem: Problem) -> str:
    return "warning" if problem.warning else "error"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _print_json(
    faults: Sequence[Problem], found: Sequence[Problem], uplinks: Sequence[Uplink]
) -> None:
    problems = [
        {"severity": _severity(p), "where": p.where, "what": p.what, "remedy": p.remedy}
        for p in (*faults, *found)
    ]
    shown = [
        {
            "name": uplink.name,
            "interface": uplink.interface,
            "mechanism": uplink.mechanism,
            "pending": uplink.pending,
        }
        for uplink in uplinks
    ]
    ok = all(problem["severity"] == "warning" for problem in problems)
    click.echo(json.dumps({"ok": ok, "uplinks": shown, "problems": problems}, indent=2))
