"""`ifdefault demo`: show on real traffic what this is for."""

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
from ifdefault.lab.demo_scenario import COUNT, Row, Story, UplinkShare, tell
from ifdefault.lab.topology import load

_PROBLEM = """\
A web host buys transit from two providers and has an address of each, no BGP. It has one
default route, through isp-a. So what comes in through isp-b is answered through isp-a, and
isp-a drops the answer: its source isn't one of isp-a's (BCP 38). Half of all visitors hang."""
_TRICK = """\
The trick (Paul Vixie, NANOG 1997): each uplink has a default route of its own, and every
connection is answered through the uplink that it came in on."""

_OTHER_HALF = """\
The talk's other half: DNS hands out the addresses of both uplinks. When a provider dies, a name
that goes on naming it leads half of all visitors nowhere, and a name that `ifdefault` serves
leads them to the uplink that works."""

_BY_SOURCE = re.compile(r" rule add .*from (?!all)")
_BARS = "·▁▂▃▄▅▆▇█"
_TOLD = ("path", "dns")  # kinds of events


@click.command(name="demo")
@click.option("--json", "as_json", is_flag=True, help="Print the measurements as JSON.")
def command(as_json: bool) -> int:
    """Show clients before and after apply, with real traffic in a lab; then clients that connect
    by name while a provider fails.

    Real servers are used if they are installed. Without root, user namespaces are needed. Exits 1
    if something hung or was misrouted after apply.
    """
    rootless.enter_alone()
    for ending in (signal.SIGTERM, signal.SIGHUP):  # take the world away first
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    topology = load("two")
    started = time.monotonic()

    def progress(what: str) -> None:
        click.secho(f"{time.monotonic() - started:5.1f} s  {what}", fg="cyan", err=True)

    if not as_json:
        click.echo(f"{_PROBLEM}\n\n{topology.drawing}\n")
        sys.stdout.flush()
    story = tell(topology, progress)
    if as_json:
        click.echo(json.dumps(asdict(story) | {"ok": story.ok}, ensure_ascii=False))
    else:
        click.echo("\n".join(_render(story)))
    return 0 if story.ok else 1


def _render(story: Story) -> Iterator[str]:
    yield ""
    yield from _table("before", story.before)
    yield f"  of {COUNT} tries each; ok: answered; hung: not answered, or from a wrong address;"
    yield "  mis: packets that the providers dropped, since their source isn't the provider's"
    yield ""
    yield _TRICK
    yield ""
    yield click.style("$ ifdefault plan", bold=True)
    yield from _heart(story.plan.splitlines())
    yield click.style("$ ifdefault apply && ifdefault status", bold=True)
    yield story.status
    yield ""
    yield from _table("after", story.after)
    if story.rotation:
        yield ""
        yield from _rotation(story.rotation)
    if story.outage:
        yield ""
        yield from _outage(story.outage)
    yield ""
    yield from story.notes
    yield _verdict(story)


def _heart(plan: Sequence[str]) -> Iterator[str]:
    """The lines of a plan that are the trick itself; the others prepare and guard it."""
    shown = [line for line in plan if " default via " in line or _BY_SOURCE.search(line)]
    yield from shown
    yield f"… and {len(plan) - len(shown)} more"


def _table(title: str, rows: Sequence[Row]) -> Iterator[str]:
    """A line for each kind, a group of columns for each uplink and family."""
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
    yield "A resolver hands out both addresses in turn; new connections rotate over the uplinks:"
    total = sum(share.tried for share in shares)
    for share in shares:
        bar = "█" * round(40 * share.tried / total)
        yield f"  {share.uplink:<8} {bar:<28} {share.tried:>4} tried, {share.answered:>4} answered"


def _outage(outage: Outage) -> Iterator[str]:
    yield _OTHER_HALF
    yield ""
    pace = f"     {PER_S:g} connections a second by each name"
    yield click.style("$ ifdefault run", bold=True) + pace
    yield from _timeline(outage)
    for what, fate in (("in a static zone", outage.static), ("served by us", outage.ours)):
        yield f"  {fate.name:<14}  {what}: {_fate(fate, outage)}"
    yield ""
    yield click.style("$ ifdefault events", bold=True) + "     seconds after the cut"
    yield from (f"{at:7.3f}  {text}" for at, kind, text in outage.events if kind in _TOLD)


def _timeline(outage: Outage) -> Iterator[str]:
    """A bar for each span: how many of the connections that were begun in it were answered."""
    begin_s = outage.static.spans[0].at_s
    cut, mend = (round((at_s - begin_s) / SPAN_S) for at_s in (0.0, outage.dead_s))
    told = f"┌ {outage.provider} forwards nothing "
    head = " " * cut + told.ljust(mend - cut - 7, "─") + f" {outage.dead_s:.1f} s ┐"
    yield f"  {'':<14}  {head}"
    for fate in (outage.static, outage.ours):
        yield f"  {fate.name:<14}  " + "".join(map(_bar, fate.spans))


def _bar(span: Span) -> str:
    bar = _BARS[round((len(_BARS) - 1) * span.answered / span.tried)]
    return click.style(bar, fg="green" if span.answered == span.tried else "red")


def _fate(fate: VisitSummary, outage: Outage) -> str:
    if fate.last_failed_s is None:
        return f"of {fate.tried} connections none failed"
    over = outage.dead_s - fate.last_failed_s < CONNECT_S  # a second SYN may get through
    until = (
        f"until {outage.provider} was back"
        if over
        else f"the last {fate.last_failed_s:.1f} s after the cut"
    )
    return f"of {fate.tried} connections {fate.failed} failed, {until}"


def _verdict(story: Story) -> str:
    before, after = _lost(story.before), _lost(story.after)
    tried = sum(row.tried for row in story.after)
    text = (
        f"{'all is well' if story.ok else 'NOT all is well'}: of {tried} tries {before} hung before"
        f" and {after} after, {story.misrouted_after} packets misrouted after"
    )
    return click.style(text, fg="green" if story.ok else "red", bold=True)


def _lost(rows: Sequence[Row]) -> int:
    return sum(row.tried - row.answered for row in rows)
