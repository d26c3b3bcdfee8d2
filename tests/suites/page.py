"""The page's world: a host with two providers and a month's history, and what a browser saw of it.

                ┌─ isp-a ── wan0 ┐
client ── core ─┤                ├ host: ifdefault run, monitor, web; Chromium
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path as FilePath
from typing import Any

from playwright.sync_api import Browser, Page, Request

from bench import browser
from ifdefault.lab import faults, services
from ifdefault.lab.world import World
from ifdefault.model.config import FAMILIES
from ifdefault.model.report import RTT_BUCKETS_S, Event
from ifdefault.monitor.history.file import HistoryFile
from ifdefault.monitor.history.reader import history_dir
from ifdefault.monitor.history.records import DAY_S, HOUR_S, MINUTE_S, Batch, Path, Span, Tally
from tests.net import test_dns_daemon
from tests.net.watched import await_states

HOST_A, HOST_B = test_dns_daemon.A, test_dns_daemon.B
CONTROL = "0123456789abcdef"
HOSTILE = "<img src=x onerror=document.title=1>\u202e\x1b[31mred"
SEEN = "<img src=x onerror=document.title=1>"  # as it must be on a page, as text
CAUSE = "6 rounds lost in 410 ms, its gateway answers"
KEEP_S = 400 * DAY_S
MONTH_S, MINUTES_S = 30 * DAY_S, 26 * HOUR_S
_OUTAGES = {  # how long ago they began, and how long they lasted
    "isp-a": ((19 * DAY_S, 372.0), (6 * DAY_S, 44.0), (5 * HOUR_S, 96.0), (24 * MINUTE_S, 141.0)),
    "isp-b": ((11 * DAY_S, 2710.0), (15 * HOUR_S, 18.0)),
}
_RTT_S = {"isp-a": 0.012, "isp-b": 0.021}


def start(world: World, more: str = "") -> None:
    """All that runs on the host, in directories that other users may look into."""
    token = world.run_dir / "control.token"
    token.write_text(f"{CONTROL}\n")
    token.chmod(0o600)
    text = world.topology.config.replace("[uplink.isp-a]", '[uplink.isp-a]\nbudget = "2 TB"')
    web = f'[web]\ncontrol_token_file = "{token}"\n'
    text += '[daemon]\nuser = "nobody"\n[health]\nrecover_s = 0.3\n'
    world.config.write_text(f"{text}{test_dns_daemon.DNS}{web}{more}")
    for uplink, rtt_s in _RTT_S.items():
        faults.inject(world, "delay", uplink, round(rtt_s * 500))
    world.daemon()
    await_states(world, ["up"])
    write_history(world.run_dir / "state", time.time())
    download(world)
    browser.serve(world)


def download(world: World) -> None:
    """Visitors of the host's web server: two by isp-a, one by isp-b, for the whole test."""
    services.nginx(world["host"])
    with (world.dir / "nginx-host/large").open("w") as file:
        file.truncate(1 << 40)  # sparse
    for address, bytes_a_second in ((HOST_A, 400_000), (HOST_A, 250_000), (HOST_B, 120_000)):
        limits = ["--silent", "--limit-rate", str(bytes_a_second), "--output", "/dev/null"]
        world["client"].popen(["curl", *limits, f"http://{address}/large"])


def write_history(state_dir: FilePath, now: float) -> None:
    """A month of two uplinks, the last day by the minute."""
    file, random_ = HistoryFile(history_dir(state_dir)), random.Random(18)
    until = int(now) - int(now) % MINUTE_S
    first_minute = until - MINUTES_S
    first_minute -= first_minute % HOUR_S
    batch = Batch(seen=float(until), counters={})
    hours = range(first_minute - MONTH_S, first_minute, HOUR_S)
    for at, step_s in [
        *((at, HOUR_S) for at in hours),
        *((at, MINUTE_S) for at in range(first_minute, until, MINUTE_S)),
    ]:
        for uplink in _OUTAGES:
            _add(batch, random_, uplink, at, step_s, now)
    for uplink, outages in _OUTAGES.items():
        for ago_s, lasted_s in outages:
            _add_outage(batch, uplink, now - ago_s, lasted_s)
    batch.spans.sort(key=lambda span: span.since)
    batch.events.sort(key=lambda event: event.at)
    file.write(batch, now, (), KEEP_S)
    file.close()


def _add(
    batch: Batch, random_: random.Random, uplink: str, at: int, step_s: int, now: float
) -> None:
    busy = 1 + 0.5 * ((at % DAY_S) / DAY_S) + random_.random() * 0.3
    out_s = sum(
        max(0.0, min(now - ago_s + lasted_s, at + step_s) - max(now - ago_s, at))
        for ago_s, lasted_s in _OUTAGES[uplink]
    )
    for family in FAMILIES:
        probes = 2 * step_s
        lost = min(probes, int(2 * out_s) + (random_.random() < 0.04) * random_.randrange(1, 4))
        rtt_s = _RTT_S[uplink] * busy * (1.0 if family == 4 else 1.12)
        counts = [0] * (len(RTT_BUCKETS_S) + 1)
        counts[next(n for n, bound in enumerate(RTT_BUCKETS_S) if rtt_s <= bound)] = probes - lost
        down_ms = int(out_s * 1000)
        rtt_us = int((probes - lost) * rtt_s * 1e6)
        up_ms = step_s * 1000 - down_ms
        tally = Tally(probes - lost, lost, rtt_us, tuple(counts), up_ms=up_ms, down_ms=down_ms)
        batch.add(at, Path(uplink, family), tally)
    moved = int(busy * step_s * (4e5 if uplink == "isp-a" else 1.1e5))
    batch.add_traffic(at, uplink, moved // 7, moved)


def _add_outage(batch: Batch, uplink: str, at: float, lasted_s: float) -> None:
    for family in FAMILIES:
        path = Path(uplink, family)
        for was, state, begin, why in (
            ("up", "down", at, CAUSE),
            ("down", "recovering", at + lasted_s, "1 round answered"),
            ("recovering", "up", at + lasted_s + 30, "answered for 30 s"),
        ):
            batch.spans.append(Span(path, state, begin, None, why))  # type: ignore[arg-type]
            text = f"{path}: {was} -> {state} ({why})"
            severity: Any = "error" if state == "down" else "info"
            batch.events.append(Event(begin, "path", uplink, text, severity))


class Visit:
    """A page, and what it asked for and complained about."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        page.on("console", lambda said: self.complaints.append(f"{said.type}: {said.text}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._note)

    def _note(self, request: Request) -> None:
        if not request.url.startswith(f"{browser.AT}/"):
            self.foreign.append(request.url)

    def forgive(self, pattern: str) -> None:
        """What Chromium itself says of an answer that was meant to be an error."""
        self.complaints = [text for text in self.complaints if not re.search(pattern, text)]


@contextmanager
def visit(chromium: Browser, path: str = "/", **options: Any) -> Iterator[Visit]:
    """Open a page in a browser of its own; nothing foreign may be asked, nothing complained of."""
    with chromium.new_context(**options) as context:
        visited = Visit(context.new_page())
        visited.page.set_default_timeout(10_000)
        visited.page.goto(f"{browser.AT}{path}")
        yield visited
    assert visited.complaints == []
    assert visited.foreign == []
