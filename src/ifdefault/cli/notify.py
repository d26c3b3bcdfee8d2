"""`ifdefault notify`: the notifiers of the config, and tests of them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from ifdefault.cli import complete
from ifdefault.cli.options import Options
from ifdefault.cli.show.output import echo, echo_json, echo_lines
from ifdefault.cli.show.style import Line
from ifdefault.cli.show.table import table
from ifdefault.model.errors import HostError, Problem

if TYPE_CHECKING:
    from ifdefault.model.config import NotifyConfig
    from ifdefault.monitor.notify.deliver import Deliverer
    from ifdefault.monitor.notify.delivery import Outcome
    from ifdefault.monitor.notify.report import NotifierReport

_HEADS = ("Notifier", "By", "To", "State", "Waiting", "Sent", "Detail")
_NO_MONITOR = "the monitor doesn't run, so nothing is sent: systemctl start ifdefault-monitor"


@click.group(invoke_without_command=True, subcommand_metavar="[COMMAND [ARGUMENT]…]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> int:
    """Show each notifier: how many events it has yet to send, when it sent the last message, and
    why it fails.

    Exits 1 if one fails, or if the monitor doesn't run.
    """
    if ctx.invoked_subcommand:
        return 0
    from ifdefault.ipc import codec
    from ifdefault.monitor.status_file import read_status

    options: Options = ctx.obj
    monitor = read_status(options.run_dir, time.time())
    reports = monitor.notifiers if monitor else _configured(options)
    if not reports:
        raise _none(options)
    if as_json:
        running = monitor is not None
        echo_json({"running": running, "notifiers": [codec.to_json(each) for each in reports]})
    else:
        now = time.time()
        echo_lines(table(_HEADS, [_row(each, now, monitor is not None) for each in reports]))
        if monitor is None:
            echo_lines([Line(_NO_MONITOR, "warn")], err=True)
    return int(monitor is None or any(each.failures for each in reports))


def _none(options: Options) -> HostError:
    remedy = "add one; see ifdefault.toml(5), NOTIFY KEYS"
    return HostError(Problem(str(options.config), "has no [[notify]]", remedy))


def _configured(options: Options) -> tuple[NotifierReport, ...]:
    from ifdefault import config
    from ifdefault.monitor.notify.report import NotifierReport, means_of, recipient

    notify = config.read(options.config).notify
    return tuple(NotifierReport(n.name, means_of(n), recipient(n)) for n in notify)


def _row(report: NotifierReport, now: float, is_running: bool) -> tuple[str, ...]:
    from ifdefault.model.report_text import age

    state = "failing" if report.failures else "pending" if report.waiting else "current"
    return (
        report.name,
        report.means,
        report.to,
        state if is_running else "-",
        str(report.waiting),
        f"{age(now - report.sent_at)} ago" if report.sent_at else "-",
        "\n".join(_details(report, now)),
    )


def _details(report: NotifierReport, now: float) -> Iterator[str]:
    from ifdefault.cli.show.paths import at
    from ifdefault.model.report_text import age

    if report.failures:
        yield report.error
        since = age(now - report.failing_since)
        yield f"failing for {since}, {report.failures} attempts"
    if report.sending_since:
        yield f"sending for {age(now - report.sending_since)}"
    elif report.retry_at > now:
        yield f"next in {age(report.retry_at - now)}"
    elif report.held_until > now:
        yield f"quiet until {at(report.held_until - now)}"
    if report.omitted:
        yield f"{report.omitted} events couldn't be kept"
    if report.said and not report.failures:
        yield report.said


@command.command()
@click.argument("names", nargs=-1, metavar="[NAME]…", shell_complete=complete.notifiers)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def test(options: Options, names: tuple[str, ...], as_json: bool) -> int:
    """Send a test message now, by all notifiers or those that are named, and print what the servers
    said.

    It is sent as the monitor would do it: by the same user, who has to be able to read the files
    that the notifier needs. Exits 1 if one fails.
    """
    from ifdefault import config as config_file
    from ifdefault.ipc import privileges
    from ifdefault.monitor.notify.deliver import Deliverer

    config = config_file.read(options.config)
    if not config.notify:
        raise _none(options)
    known = [notify.name for notify in config.notify]
    if unknown := [name for name in names if name not in known]:
        raise click.UsageError(f'no notifier "{unknown[0]}"; use {", ".join(known)}')
    uid, gid, warning = privileges.choose_user(config.daemon.user)
    user = privileges.possible(uid, gid)
    if warning and user[0] != privileges.KEEP:
        echo_lines([Line(f"warning: {warning}", "warn")], err=True)
    chosen = [notify for notify in config.notify if not names or notify.name in names]
    deliverer = Deliverer(user)
    try:
        outcomes = asyncio.run(_test_all(chosen, deliverer, show=not as_json))
    finally:
        deliverer.close()
    if as_json:
        rows = zip(chosen, outcomes, strict=True)
        echo_json(
            [{"name": n.name, "sent": o.kind == "delivered", "said": o.text} for n, o in rows]
        )
    return int(any(outcome.kind != "delivered" for outcome in outcomes))


async def _test_all(
    configs: list[NotifyConfig], deliverer: Deliverer, *, show: bool
) -> list[Outcome]:
    """All at once, each printed when it has an outcome."""
    from ifdefault.monitor.notify.attempt import attempt
    from ifdefault.monitor.notify.delivery import Delivery
    from ifdefault.monitor.notify.message import compose_test
    from ifdefault.monitor.notify.report import recipient

    host = os.uname().nodename

    async def test(config: NotifyConfig) -> Outcome:
        message = compose_test(config.name, host, time.time())
        outcome = await attempt(Delivery(config, message), deliverer)
        if show and outcome.kind == "delivered":
            echo(f"{config.name}: sent to {recipient(config)}: {outcome.text}", "good")
        elif show:
            echo(f"{config.name}: failed: {outcome.text}", "bad")
        return outcome

    return await asyncio.gather(*map(test, configs))
