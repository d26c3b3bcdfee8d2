"""`ifdefault doctor`: what `check` finds, and what only traffic shows, on one screen.

Rules: nothing is changed. Everything runs side by side, and what isn't finished after LIMIT_S is
said to be so. Problems come first, each with its remedy; then the facts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import click

from ifdefault import config as config_file
from ifdefault.cli import hostcheck
from ifdefault.cli.hostcheck import HostCheck
from ifdefault.cli.options import Options, root_option
from ifdefault.cli.show.output import echo_json, echo_lines, echo_styled
from ifdefault.cli.show.style import Line, Style, fold, is_terminal, width
from ifdefault.cli.show.table import table
from ifdefault.dns.exchange import QueryResult, Question
from ifdefault.model.config import Config
from ifdefault.model.errors import Problem
from ifdefault.model.findings import Finding, Level, from_problem, sorted_findings
from ifdefault.model.report_text import budget_used
from ifdefault.model.text import escaped

if TYPE_CHECKING:
    from ifdefault.host.doctor.tasks import Check

LIMIT_S = 9.0
_QUERY_S = 3.5  # one query, with its repetitions
_DNS_CHECK = "run `ifdefault dns check`"
_INDENT = "  "
_NEEDS_ROOT = "nftables"  # the problem that it can't be read
_STYLES: dict[Level, Style | None] = {"error": "bad", "warning": "warn", "note": "note"}


@click.command("doctor")
@click.option(
    "--from",
    "other_host",
    metavar="[USER@]HOST",
    default="",
    help="Try ports 53, 80 and 443 from this host as well, by ssh.",
)
@click.option(
    "--stun",
    metavar="HOST[:PORT]",
    default="",
    help="Ask this STUN server for the public address and port of each uplink.",
)
@root_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(
    options: Options, other_host: str, stun: str, roots: tuple[str, ...], as_json: bool
) -> int:
    """Find out what is wrong: check the host, and try each uplink by traffic.

    Each problem comes with what it means, and the command that solves it. Nothing is changed.
    Exits 1 if something is wrong.
    """
    from ifdefault.host.doctor import tasks
    from ifdefault.host.doctor.checks import host_checks

    deadline = time.monotonic() + LIMIT_S
    server = _endpoint(stun)
    if other_host.startswith("-"):
        raise click.UsageError(f'--from: "{other_host}" is not a host; write it like user@host')
    config = config_file.read(options.config)
    is_root = os.geteuid() == 0
    host = hostcheck.check_host(options, config, "doctor")
    checks: list[tuple[str, Check]] = []
    if host.prepared:
        checks += host_checks(config, host.prepared, server, other_host)
    if config.dns.server.zones:
        checks.append(("delegation", partial(_delegation, options, roots, deadline - _QUERY_S)))
    found = tasks.run(checks, deadline, _progress if is_terminal(err=True) else _silent)
    known = [problem for problem in host.problems if problem.where != _NEEDS_ROOT or is_root]
    problems = map(from_problem, _not_doubled(known, found))
    findings = sorted_findings(
        (*problems, *_daemon(host, bool(config.dns.names)), *_monitor(options, config), *found)
    )
    if as_json:
        echo_json(_as_json(findings))
    else:
        echo_lines(_lines(findings))
    return int(any(finding.is_wrong for finding in findings))


def _endpoint(text: str) -> tuple[str, int] | None:
    from ifdefault.host.doctor.public_address import STUN_PORT

    if not text:
        return None
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        return text.strip("[]"), STUN_PORT
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536 or not host:
        raise click.UsageError(f"--stun: {text} has no valid port; use 1 to 65535")
    return host.strip("[]"), int(port)


# --- what is found ------------------------------------------------------------------------


def _delegation(options: Options, roots: Sequence[str], until: float) -> Iterator[Finding]:
    """What `dns check` finds, if that takes no longer than there is."""
    from ifdefault.cli import dnscheck

    host = dnscheck.read(options)
    send, out_of_time = dnscheck.sender(host), False

    def send_in_time(question: Question) -> QueryResult:
        nonlocal out_of_time
        out_of_time = out_of_time or time.monotonic() > until
        return QueryResult("no time left", is_local=True) if out_of_time else send(question)

    result = dnscheck.check(host, send_in_time, roots, ())
    if out_of_time:
        yield Finding("note", "delegation", "not checked, for want of time", _DNS_CHECK)
        return
    yield from map(from_problem, result.problems)
    if not result.problems:
        zones = ", ".join(survey.zone for survey in result.zones)
        yield Finding("fact", "delegation", f"{zones}: every server answers over every uplink")


def _daemon(host: HostCheck, has_names: bool) -> Iterator[Finding]:
    daemon = host.daemon
    if host.is_silent:  # one of the problems
        return
    if daemon is None:
        means = "No name is published." if has_names else "No uplink that fails is replaced."
        remedy = "run `systemctl enable --now ifdefault`"
        yield Finding("warning" if has_names else "note", "daemon", "doesn't run", remedy, means)
        return
    yield Finding("fact", "daemon", f"runs (pid {daemon.pid})")
    for uplink, state in daemon.forced.items():
        what = f"{uplink} is forced {state}" if state != "drain" else f"{uplink} is drained"
        yield Finding("note", "daemon", what, f"`ifdefault uplink {uplink} auto` ends that")
    for usage in daemon.usage:
        if usage.is_low:
            what = f"{usage.uplink}: {budget_used(usage)}"
            yield Finding("warning" if usage.used_up else "note", "budget", what)
    for text in (*daemon.conflicts, *daemon.astray, *daemon.problems, *daemon.dns.problems):
        yield Finding("warning", "daemon", text)


def _monitor(options: Options, config: Config) -> Iterator[Finding]:
    from ifdefault.monitor.status_file import read_status

    monitor = read_status(options.run_dir, time.time())
    if monitor is None:
        remedy, what = "run `systemctl start ifdefault-monitor`", "doesn't run"
        means = "There is no history." if not config.notify else "Nobody is notified."
        yield Finding("warning" if config.notify else "note", "monitor", what, remedy, means)
        return
    yield Finding("fact", "monitor", f"runs (pid {monitor.pid})")
    for trouble in monitor.troubles:
        yield Finding("warning", "monitor", f"{trouble.what}: {trouble.text}")


def _not_doubled(problems: Iterable[Problem], found: Sequence[Finding]) -> Iterator[Problem]:
    """The problems of `check` of which nothing more is known: an interface that is down and a lost
    default route have a remedy in `found`."""
    known = {f"pending: {each.what}" for each in found}
    subjects = {each.subject for each in found if "has no default route" in each.what}
    for problem in problems:
        uplink = problem.where.rpartition("uplink.")[2]
        lost = any(
            f"has no {subject.rpartition(' ')[2]} default route" in problem.what
            and subject.rpartition(" ")[0] == uplink
            for subject in subjects
        )
        if not lost and problem.what not in known:
            yield problem


# --- output -------------------------------------------------------------------------------


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    """Each problem with its remedy below; then what is as it should be, a row for each subject."""
    wrong = [finding for finding in findings if finding.is_wrong]
    for finding in wrong:
        subject = f"{finding.subject}: " if finding.subject else ""
        head = escaped(f"{finding.level}: {subject}{finding.what}")
        yield from (Line(text, _STYLES[finding.level]) for text in fold(head, width(), _INDENT))
        for text in filter(None, (finding.means, finding.advice)):
            yield from fold(escaped(f"{_INDENT}{text}"), width(), _INDENT)
        yield from (f"  # {command}" for command in finding.commands)
    if wrong:
        yield ""
    subjects: dict[str, list[str]] = {}
    for finding in sorted(findings, key=lambda each: each.level):  # facts before notes
        if not finding.is_wrong:
            remedy = f"; {finding.remedy}" if finding.remedy else ""
            subjects.setdefault(finding.subject, []).append(f"{finding.what}{remedy}")
    rows = [(subject, "\n".join(texts)) for subject, texts in subjects.items()]
    if rows:
        yield from table(("Subject", "Found"), rows)
    yield ""
    count = len(wrong)
    verdict = f"{count} problem{'s' if count > 1 else ''}" if count else "nothing is wrong"
    yield Line(verdict, "bad" if count else "good")


def _as_json(findings: Sequence[Finding]) -> dict[str, object]:
    rows = [{**asdict(finding), "commands": list(finding.commands)} for finding in findings]
    return {"ok": not any(finding.is_wrong for finding in findings), "findings": rows}


def _progress(done: int, count: int) -> None:
    text = f"{done} of {count} checks done" if done < count else ""
    echo_styled(f"\r{text.ljust(min(30, width() - 1))}\r", err=True, nl=False)


def _silent(done: int, count: int) -> None:
    pass
