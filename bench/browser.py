"""`browser`: how soon a fault shows on a page that is open in Chromium.

Rules: the page itself notes when a state appears on it (MutationObserver), by the clock that the
engine's events have. Chromium runs on the host, and asks only the page.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from bench.clock import log
from bench.daemon import two_uplinks
from bench.results import Figure, Report, Table
from bench.stats import median
from ifdefault.ipc.control.client import ask
from ifdefault.ipc.control.protocol import Events, Status
from ifdefault.lab import faults, netns, services
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World

PORT = 8053
AT = f"http://localhost:{PORT}"
OPTIONS = (
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_TRIALS = 5  # of an uplink: each time it fails, it is kept down for longer
# When each path of an uplink was first seen in each state, by "4 down".
_NOTE = """uplink => {
  window.seen = {};
  const look = () => {
    for (const row of document.querySelectorAll(`#part-uplink-${uplink} .paths tbody tr`)) {
      const state = row.querySelector(".state");
      if (state) seen[`${row.querySelector("th").textContent.at(-1)} ${state.classList[1]}`] ??= Date.now() / 1000;
    }
  };
  window.noting?.disconnect();
  window.noting = new MutationObserver(look);
  noting.observe(document.body, {subtree: true, childList: true});
}"""  # noqa: E501
_HOW = f"""\
The lab's Internet with 2 providers; `ifdefault run`, `monitor` and `web`; the first page is open in
Chromium. Each provider becomes a black hole and forwards again, {_TRIALS} times: for each of its
two paths, from the event that it is down, or up again, to the page's showing that."""


@contextmanager
def chromium(world: World, *options: str) -> Iterator[Browser]:
    """Debian's Chromium on the host of a world."""
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        program = Path(folder) / "chromium"
        command = shlex.join(netns.argv(world.netns("host"), ["/usr/bin/chromium"]))
        program.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        program.chmod(0o755)
        arguments = [*OPTIONS, *options]
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(world: World) -> Iterator[None]:
    """Config, state and run directory of a world where other users may look into."""
    with TemporaryDirectory() as folder:
        world.run_dir = Path(folder)
        world.run_dir.chmod(0o755)
        world.config = world.run_dir / "ifdefault.toml"
        yield


def serve(world: World, host_name: str = "www") -> list[subprocess.Popen[str]]:
    """Start monitor and web server, on a host of this name."""
    node, state = world["host"], world.run_dir / "state"
    named = ["unshare", "--uts", "sh", "-c", f'hostname {host_name}; exec "$@"', "-"]
    children = []
    for name in ("monitor", "web"):
        command = [*named, *world.command, "--state-dir", str(state), name]
        children.append(services.start(node, name, command))
    services.answering(node, "web", children[-1], 1, PORT)
    return children


def delays_s(world: World, page: Page, uplink: str, trials: int) -> list[float]:
    """From events to the page that shows them, while a provider fails and returns."""
    delays = []
    for _ in range(trials):
        delays += _delays_s(world, page, uplink, "down", faults.inject)
        delays += _delays_s(world, page, uplink, "up", faults.remove)
    return delays


def _delays_s(world: World, page: Page, uplink: str, state: str, change: Any) -> list[float]:
    last = ask(world.run_dir, Events(1)).last
    page.evaluate(_NOTE, uplink)
    change(world, "blackhole", uplink)
    keys = [f"4 {state}", f"6 {state}"]
    seen: dict[str, float] = {}

    def all_are_seen() -> bool:
        # wait_for_function() needs eval(), which the page's policy forbids
        seen.update(page.evaluate("seen"))
        return seen.keys() >= {*keys}

    eventually(all_are_seen, 30.0, what=f"the page shows {keys}", poll_s=0.05)
    at = {}
    for event in ask(world.run_dir, Events(100, last)).events:
        if match := re.match(rf"{uplink} IPv([46]): \S+ -> {state} ", event.text):
            at[f"{match[1]} {state}"] = event.at
    return [seen[key] - at[key] for key in keys]


def _are_up(world: World) -> bool:
    return {path.state for path in ask(world.run_dir, Status()).health} == {"up"}


def run() -> Report:
    from ifdefault.lab.topology import load

    with World.up(load("two")) as world, opened(world):
        world.config.write_text(f"{two_uplinks()}[health]\nrecover_s = 0.3\n")
        world.daemon()
        eventually(lambda: _are_up(world), what="every path is up")
        serve(world)
        with chromium(world) as browser:
            page = browser.new_page()
            page.goto(AT)
            log("faults")
            time.sleep(2.0)
            delays_ms = [
                round(1000 * delay_s)
                for uplink in ("isp-a", "isp-b")
                for delay_s in delays_s(world, page, uplink, _TRIALS)
            ]
            version = browser.version
    figures = (
        Figure("from an event to the page in Chromium, longest", max(delays_ms), "ms", 1000.0),
        Figure("from an event to the page in Chromium, median", round(median(delays_ms)), "ms"),
    )
    table = Table("Besides", ("", ""), (("Chromium", version), ("events", str(len(delays_ms)))))
    return Report("Page in Chromium", _HOW, figures, (table,), {"delays_ms": delays_ms})
