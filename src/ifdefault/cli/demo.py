"""`ifdefault demo`: show with real traffic what this is for."""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import click

from ifdefault.cli.show.output import echo, echo_json, echo_styled
from ifdefault.lab import rootless
from ifdefault.lab.clients_by_name import CONNECT_S
from ifdefault.lab.demo_outage import PER_S, SPAN_S, Outage, Span, VisitSummary
from ifdefault.lab.demo_scenario import COUNT, DemoResult, Row, UplinkShare, run_demo
from ifdefault.lab.topology import load
from ifdefault.model.text import escaped

_PROBLEM = """\
A web host has two providers and an address from each, without BGP. It has one default route,
through isp-a. So a connection that comes in on isp-b is answered through isp-a, and isp-a drops
the replies: their source isn't an address of isp-a (BCP 38). Half of all visitors hang."""
_SOLUTION = """\
The solution (Paul Vixie, NANOG 1997): each uplink has its own default route, and every
connection is answered through the uplink that it came in on."""

_OTHER_HALF = """\
The talk's other half: the DNS has the addresses of both uplinks. When a provider fails, a static
name keeps sending half of all visitors to it, and a name served by `ifdefault` sends all of them
to the uplink that works."""

_BY_SOURCE = re.compile(r" rule add .*from (?!all)")
_BARS = "·▁▂▃▄▅▆▇█"
_SHOWN_EVENTS = ("path", "dns")  # kinds of events


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
        echo(f"{time.monotonic() - started:5.1f} s  {what}", "note", err=True)

    if not as_json:
        echo(f"{_PROBLEM}\n\n{topology.drawing}\n")
        sys.stdout.flush()
    scenario = run_demo(topology, progress)
    if as_json:
        echo_json(asdict(scenario) | {"ok": scenario.ok}, indent=None)
    else:
        echo_styled("\n".join(_render(scenario)))
    return 0 if scenario.ok else 1


def _render(scenario: DemoResult) -> Iterator[str]:
    yield ""
    yield from _table("before", scenario.before)
    yield f"  of {COUNT} connections each; ok: answered; hung: no answer, or from a wrong address;"
    yield "  mis: packets that the providers dropped because of their source address"
    yield ""
    yield _SOLUTION
    yield ""
    yield click.style("$ ifdefault plan", bold=True)
    yield from _key_operations(scenario.plan.splitlines())
    yield click.style("$ ifdefault apply && ifdefault status", bold=True)
    yield scenario.status
    yield ""
    yield from _table("after", scenario.after)
    if scenario.rotation:
        yield ""
        yield from _rotation(scenario.rotation)
    if scenario.outage:
        yield ""
        yield from _outage(scenario.outage)
    yield ""
    yield from scenario.notes
    yield _result(scenario)


def _key_operations(plan: Sequence[str]) -> Iterator[str]:
    """The lines of a plan that are the solution itself; the others prepare and protect it."""
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
    yield "A resolver returns both addresses in turn; connections alternate between the uplinks:"
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
    for what, visits in (("in a static zone", outage.static), ("served by us", outage.ours)):
        yield f"  {visits.name:<14}  {what}: {_summary(visits, outage)}"
    yield ""
    yield click.style("$ ifdefault events", bold=True) + "     seconds after the cut"
    for at, kind, text in outage.events:
        if kind in _SHOWN_EVENTS:
            yield f"{at:7.3f}  {escaped(text)}"


def _timeline(outage: Outage) -> Iterator[str]:
    """A bar for each time span: the share of its connections that was answered."""
    begin_s = outage.static.spans[0].at_s
    cut, repair = (round((at_s - begin_s) / SPAN_S) for at_s in (0.0, outage.dead_s))
    label = f"┌ {outage.provider} forwards nothing "
    head = " " * cut + label.ljust(repair - cut - 7, "─") + f" {outage.dead_s:.1f} s ┐"
    yield f"  {'':<14}  {head}"
    for visits in (outage.static, outage.ours):
        yield f"  {visits.name:<14}  " + "".join(map(_bar, visits.spans))


def _bar(span: Span) -> str:
    bar = _BARS[round((len(_BARS) - 1) * span.answered / span.tried)]
    return click.style(bar, fg="green" if span.answered == span.tried else "red")


def _summary(visits: VisitSummary, outage: Outage) -> str:
    if visits.last_failed_s is None:
        return f"none of {visits.tried} connections failed"
    over = outage.dead_s - visits.last_failed_s < CONNECT_S  # a second SYN may get through
    until = (
        f"until {outage.provider} was back"
        if over
        else f"the last {visits.last_failed_s:.1f} s after the cut"
    )
    return f"{visits.failed} of {visits.tried} connections failed, {until}"


def _result(scenario: DemoResult) -> str:
    before, after = _lost(scenario.before), _lost(scenario.after)
    tried = sum(row.tried for row in scenario.after)
    text = (
        f"{'passed' if scenario.ok else 'FAILED'}: of {tried} connections {before} hung before"
        f" and {after} after, {scenario.misrouted_after} packets misrouted after"
    )
    return click.style(text, fg="green" if scenario.ok else "red", bold=True)


def _lost(rows: Sequence[Row]) -> int:
    return sum(row.tried - row.answered for row in rows)
