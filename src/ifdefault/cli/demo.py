"""`ifdefault demo`: show with real traffic what ifdefault does."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import click

from ifdefault.lab import rootless
from ifdefault.lab.clients_by_name import CONNECT_S
from ifdefault.lab.demo_outage import PER_S, SPAN_S, Outage, Span, VisitSummary
from ifdefault.lab.demo_scenario import COUNT, DemoResult, Row, UplinkShare, run_demo
from ifdefault.lab.topology import load

_PROBLEM = """\
A web host has two providers and an address from each, without BGP. It has one default route,
through isp-a. Connections that come in through isp-b are answered through isp-a, which drops
the answers: their source isn't one of isp-a's addresses (BCP 38). Half of all clients hang."""
_SOLUTION = """\
The solution (Paul Vixie, NANOG 1997): each uplink has its own default route, and every
connection is answered through the uplink that it came in on."""

_OTHER_HALF = """\
The other half of the talk: the DNS returns the addresses of both uplinks. When a provider fails,
half of the connections to a name with static records fail. A name that `ifdefault` serves has
only the addresses of uplinks that work."""

_BY_SOURCE = re.compile(r" rule add .*from (?!all)")
_BARS = "·▁▂▃▄▅▆▇█"
_EVENT_KINDS = ("path", "dns")


@click.command(name="demo")
@click.option("--json", "as_json", is_flag=True, help="Print the measurements as JSON.")
def command(as_json: bool) -> int:
    """Show clients before and after apply, with real traffic in a lab; then clients that connect
    by name while a provider fails.

    Real servers are used if they are installed. Without root, user namespaces are needed. Exits 1
    if something hung or was misrouted after apply.
    """
    rootless.enter_alone()
    for ending in (signal.SIGTERM, signal.SIGHUP):  # remove the world first
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    topology = load("two")
    started = time.monotonic()

    def progress(what: str) -> None:
        click.secho(f"{time.monotonic() - started:5.1f} s  {what}", fg="cyan", err=True)

    if not as_json:
        click.echo(f"{_PROBLEM}\n\n{topology.drawing}\n")
        sys.stdout.flush()
    result = run_demo(topology, progress)
    if as_json:
        click.echo(json.dumps(asdict(result) | {"ok": result.ok}, ensure_ascii=False))
    else:
        click.echo("\n".join(_render(result)))
    return 0 if result.ok else 1


def _render(result: DemoResult) -> Iterator[str]:
    yield ""
    yield from _table("before", result.before)
    yield f"  of {COUNT} attempts each; ok: answered; hung: no answer, or from a wrong address;"
    yield "  mis: packets dropped by a provider because the source isn't one of its addresses"
    yield ""
    yield _SOLUTION
    yield ""
    yield click.style("$ ifdefault plan", bold=True)
    yield from _plan_excerpt(result.plan.splitlines())
    yield click.style("$ ifdefault apply && ifdefault status", bold=True)
    yield result.status
    yield ""
    yield from _table("after", result.after)
    if result.rotation:
        yield ""
        yield from _rotation(result.rotation)
    if result.outage:
        yield ""
        yield from _outage(result.outage)
    yield ""
    yield from result.notes
    yield _summary(result)


def _plan_excerpt(plan: Sequence[str]) -> Iterator[str]:
    """The uplinks' default routes and the rules by source; the number of other lines."""
    shown = [line for line in plan if " default via " in line or _BY_SOURCE.search(line)]
    yield from shown
    yield f"… and {len(plan) - len(shown)} more"


def _table(title: str, rows: Sequence[Row]) -> Iterator[str]:
    """A row for each kind, a group of columns for each uplink and family."""
    columns = sorted({(row.uplink, row.family) for row in rows})
    heads = [f"{uplink} IPv{family}" for uplink, family in columns]
    yield click.style(f"{title:<12}", bold=True) + "".join(f"  {head:>14}" for head in heads)
    yield f"{'':12}" + "    ok hung  mis" * len(columns)
    for kind in dict.fromkeys(row.kind for row in rows):
        by_column = {(row.uplink, row.family): row for row in rows if row.kind == kind}
        yield f"{kind:<12}" + "".join(_cell(by_column[column]) for column in columns)


def _cell(row: Row) -> str:
    lost = row.tried - row.answered
    ok = click.style(f"{row.answered or '·':>6}", fg="red" if lost else "green")
    hung = click.style(f"{lost or '·':>5}", fg="red" if lost else None)
    return (
        ok + hung + click.style(f"{row.misrouted or '·':>5}", fg="red" if row.misrouted else None)
    )


def _rotation(shares: Sequence[UplinkShare]) -> Iterator[str]:
    yield "A resolver rotates the addresses; new connections are shared by both uplinks:"
    total = sum(share.tried for share in shares)
    for share in shares:
        bar = "█" * round(40 * share.tried / total)
        yield f"  {share.uplink:<8} {bar:<28} {share.tried:>4} tried, {share.answered:>4} answered"


def _outage(outage: Outage) -> Iterator[str]:
    yield _OTHER_HALF
    yield ""
    rate = f"     {PER_S:g} connections a second to each name"
    yield click.style("$ ifdefault run", bold=True) + rate
    yield from _timeline(outage)
    rows = (("static records", outage.static), ("served by ifdefault", outage.ours))
    for what, visits in rows:
        yield f"  {visits.name:<14}  {what}: {_failures(visits, outage)}"
    yield ""
    yield click.style("$ ifdefault events", bold=True) + "     seconds after the cut"
    yield from (f"{at:7.3f}  {text}" for at, kind, text in outage.events if kind in _EVENT_KINDS)


def _timeline(outage: Outage) -> Iterator[str]:
    """A bar for each span: the share of its connections that were answered."""
    begin_s = outage.static.spans[0].at_s
    cut, restored = (round((at_s - begin_s) / SPAN_S) for at_s in (0.0, outage.dead_s))
    label = f"┌ {outage.provider} forwards nothing "
    head = " " * cut + label.ljust(restored - cut - 7, "─") + f" {outage.dead_s:.1f} s ┐"
    yield f"  {'':<14}  {head}"
    for visits in (outage.static, outage.ours):
        yield f"  {visits.name:<14}  " + "".join(map(_bar, visits.spans))


def _bar(span: Span) -> str:
    bar = _BARS[round((len(_BARS) - 1) * span.answered / span.tried)]
    return click.style(bar, fg="green" if span.answered == span.tried else "red")


def _failures(visits: VisitSummary, outage: Outage) -> str:
    if visits.last_failed_s is None:
        return f"none of {visits.tried} connections failed"
    to_the_end = outage.dead_s - visits.last_failed_s < CONNECT_S  # a second SYN may get through
    until = (
        f"until {outage.provider} was back"
        if to_the_end
        else f"the last {visits.last_failed_s:.1f} s after the cut"
    )
    return f"{visits.failed} of {visits.tried} connections failed, {until}"


def _summary(result: DemoResult) -> str:
    before, after = _lost(result.before), _lost(result.after)
    tried = sum(row.tried for row in result.after)
    text = (
        f"{'passed' if result.ok else 'FAILED'}: {before} of {tried} attempts hung before apply,"
        f" {after} after; {result.misrouted_after} packets misrouted after"
    )
    return click.style(text, fg="green" if result.ok else "red", bold=True)


def _lost(rows: Sequence[Row]) -> int:
    return sum(row.tried - row.answered for row in rows)
