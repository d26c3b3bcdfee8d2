"""The page in a real browser, Debian's Chromium, beside a real daemon.

Rules: one world and one Chromium for all, since both take seconds to start; each step opens the
page anew and leaves the host as it was. `--golden-update` writes the pictures of the docs.
"""

from __future__ import annotations

import sqlite3
import sys
from functools import partial
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from bench import browser
from bench.stats import median
from ifdefault.ipc.control.protocol import Reload
from ifdefault.lab import services
from ifdefault.lab.world import World
from ifdefault.monitor.history.reader import history_dir
from ifdefault.monitor.history.schema import FILE
from tests.net.conftest import LabWorld
from tests.net.watched import request, standing
from tests.suites.page import CAUSE, CONTROL, HOSTILE, SEEN, start, visit

DOCS = Path(__file__).parents[2] / "docs"
MOST_BYTES = 150_000
PHONE = {"width": 390, "height": 844}
EXPLAIN = "/explain?protocol=tcp&source=any&target=198.18.1.10:80"
PAGES = ("/", "/?span=month", "/events", "/outages", EXPLAIN, "/uplinks/isp-b/drain")
AXE = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
CLIENT = "198.18.1.10"
REFUSED = r"status of (400|403|404|421)"
# Another site's page, which tries what it can with a visitor's browser
EVIL = f"""\
<!doctype html><title>evil</title><link rel="icon" href="data:,">
<form method="post" action="{browser.AT}/uplinks/isp-a/down">
<input name="token" value="{CONTROL}"><button>win</button></form>
<iframe src="{browser.AT}/"></iframe><script src="{browser.AT}/api/v1/status"></script>
<script>
window.read = fetch("{browser.AT}/api/v1/status").then(answer => answer.text(), () => "refused");
</script>
"""


def test_the_page_in_chromium(
    lab_world: LabWorld, tmp_path: Path, pytestconfig: pytest.Config, subtests: pytest.Subtests
) -> None:
    world = lab_world("two")
    folder = DOCS if pytestconfig.getoption("--golden-update") else tmp_path
    with browser.opened(world):
        start(world)
        with browser.chromium(world, "--host-resolver-rules=MAP evil.example 127.0.0.1") as it:
            steps: tuple[partial[None], ...] = (
                partial(shows_a_month, it),
                partial(drains, world, it),
                partial(pictures, it, folder),
                partial(shows_a_fault_soon, world, it),
                partial(explains, it),
                partial(reports_an_outage, it),
                partial(is_accessible, it),
                partial(fits, it),
                partial(works_without_scripts, it),
                partial(another_site_gets_nothing, world, it, tmp_path),
                partial(hostile_names_stay_text, world, it),
            )
            for step in steps:
                with subtests.test(step.func.__name__):
                    step()


def shows_a_month(chromium: Browser) -> None:
    for span in ("hour", "day", "month"):
        with visit(chromium, f"/?span={span}") as seen:
            expect(seen.page.locator("figure.chart")).to_have_count(2)
            expect(seen.page.locator(".chart path.rtt")).to_have_count(4)
            expect(seen.page.locator("h1")).to_contain_text("Both uplinks work")
            expect(seen.page.locator(".budget")).to_contain_text("of 2.0 TB used since")


def drains(world: World, chromium: Browser) -> None:
    """By the keyboard alone."""
    with visit(chromium) as seen:
        page = seen.page
        tab_to(page, "do-isp-b-drain")
        enter(page)
        expect(page.locator("h1")).to_have_text("Drain isp-b?")
        for token, limit, answer in (
            ("wrong", "", "wrong token"),
            (CONTROL, "soon", "is not a time"),
            (CONTROL, "30m", ""),
        ):
            tab_to(page, "timeout")
            page.keyboard.type(limit)
            tab_to(page, "token")
            page.keyboard.type(token)
            enter(page)
            if answer:
                expect(page.get_by_role("alert")).to_contain_text(answer)
                assert standing(world).forced.get("isp-b", "auto") == "auto"
                page.goto(f"{browser.AT}/uplinks/isp-b/drain")
        drained = page.locator("#part-uplink-isp-b")
        expect(drained.locator(".drain")).to_contain_text("1 connection left")
        expect(drained.locator(".forced")).to_have_text("forced drain")
        assert page.url == f"{browser.AT}/#uplink-isp-b"
        tab_to(page, "do-isp-b-auto")
        enter(page)
        tab_to(page, "token")
        page.keyboard.type(CONTROL)
        enter(page)
        expect(drained.locator(".drain")).to_have_count(0)
        expect(drained.locator(".forced")).to_have_count(0)
        seen.forgive(REFUSED)
    assert standing(world).forced.get("isp-b", "auto") == "auto"


def focused(page: Page) -> str:
    """The id or the name of what has the focus."""
    return str(page.evaluate("document.activeElement.id || document.activeElement.name || ''"))


def tab_to(page: Page, name: str) -> None:
    for _ in range(60):
        if focused(page) == name:
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"the keyboard doesn't lead to {name}")


def enter(page: Page) -> None:
    with page.expect_navigation():
        page.keyboard.press("Enter")


def pictures(chromium: Browser, folder: Path) -> None:
    wide = {"width": 1100, "height": 800}
    for name, options in (
        ("light", {"viewport": wide}),
        ("dark", {"viewport": wide, "color_scheme": "dark"}),
        ("phone", {"viewport": PHONE, "device_scale_factor": 1.5}),
    ):
        with visit(chromium, "/", **options) as seen:
            expect(seen.page.locator("figure.chart")).to_have_count(2)
            picture = folder / f"page-{name}.png"
            seen.page.screenshot(path=picture)
            assert 10_000 < picture.stat().st_size <= MOST_BYTES, name


def shows_a_fault_soon(world: World, chromium: Browser) -> None:
    with visit(chromium) as seen:
        expect(seen.page.locator("#part-uplink-isp-a .state.up")).to_have_count(3)
        delays_s = browser.delays_s(world, seen.page, "isp-a", 3)
        expect(seen.page).to_have_title("Both uplinks work; new connections use isp-a. – www")
    print("from event to page:", [round(delay_s, 2) for delay_s in delays_s])
    assert median(delays_s) < 1.0
    assert max(delays_s) < 2.0  # beside other tests, on few cores; alone: ./dev bench browser


def explains(chromium: Browser) -> None:
    with visit(chromium, "/explain") as seen:
        seen.page.get_by_label("From").fill("any")
        seen.page.get_by_label("To", exact=True).fill(f"{CLIENT}:80")
        seen.page.get_by_label("To", exact=True).press("Enter")
        expect(seen.page.locator("#answer")).to_contain_text("isp-a: ")


def reports_an_outage(chromium: Browser) -> None:
    with visit(chromium, "/outages") as seen:
        page = seen.page
        rows = page.locator("tbody tr", has_text=CAUSE)
        assert rows.count() == 12  # six, of both families
        rows.first.get_by_role("link", name="page of the report on").click()
        expect(page.locator("h1")).to_contain_text("Outage of isp-a")
        expect(page.locator("pre")).to_contain_text(CAUSE)
        read = "async a => [a.headers.get('Content-Type'), await a.text()]"
        answer = page.evaluate(f"fetch(`${{location}}.txt`).then({read})")
        assert answer == ["text/plain; charset=utf-8", page.locator("pre").text_content()]


def is_accessible(chromium: Browser) -> None:
    for scheme in ("light", "dark"):
        with visit(chromium, "/", color_scheme=scheme, reduced_motion="reduce") as seen:
            for path in (*PAGES, an_outage(seen.page)):
                seen.page.goto(f"{browser.AT}{path}")
                found = Axe().run(seen.page, options=AXE)
                assert found.violations_count == 0, f"{scheme} {path}: {found.generate_report()}"
            moving = "document.getAnimations().length"
            assert seen.page.evaluate(moving) == 0


def an_outage(page: Page) -> str:
    page.goto(f"{browser.AT}/outages")
    path = page.get_by_role("link", name="page of the report on").first.get_attribute("href")
    return str(path)


def fits(chromium: Browser) -> None:
    """On a phone, and at 200 and 400 percent of 1280 pixels: no page scrolls sideways."""
    for width in (640, 390, 320):
        with visit(chromium, "/", viewport={"width": width, "height": 800}) as seen:
            for path in (*PAGES, an_outage(seen.page)):
                seen.page.goto(f"{browser.AT}{path}")
                wide = seen.page.evaluate("document.documentElement.scrollWidth")
                assert wide <= width, f"{path} at {width} pixels"


def works_without_scripts(chromium: Browser) -> None:
    with visit(chromium, "/", java_script_enabled=False) as seen:
        expect(seen.page.locator("h1")).to_contain_text("Both uplinks work")
        expect(seen.page.locator("figure.chart")).to_have_count(2)
        assert '<meta http-equiv="refresh" content="10">' in seen.page.content()
        seen.page.get_by_role("link", name="All events").click()
        seen.page.get_by_label("Severity").select_option("error")
        seen.page.get_by_role("button", name="Filter").click()
        expect(seen.page.locator(".events li.error").first).to_contain_text("down")
        expect(seen.page.locator(".events li:not(.error)")).to_have_count(0)


def another_site_gets_nothing(world: World, chromium: Browser, folder: Path) -> None:
    """A page of another site, in the browser of somebody who may read ours."""
    (folder / "index.html").write_text(EVIL)
    folder.chmod(0o755)
    command = [sys.executable, "-m", "http.server", "8090", "--directory", str(folder)]
    services.answering(
        world["host"], "evil", services.start(world["host"], "evil", command), 1, 8090
    )
    with chromium.new_context() as context:
        page = context.new_page()
        page.goto("http://evil.example:8090/")
        assert page.evaluate("read") == "refused"
        assert not any(frame.url.startswith(browser.AT) for frame in page.frames)
        page.get_by_role("button", name="win").click()
        expect(page.locator("main")).to_contain_text("Its Origin is another site")
        # its name leads to our address (DNS rebinding)
        page.goto(f"http://evil.example:{browser.PORT}/")
        expect(page.locator("main")).to_contain_text("Its Host is none of ours")
    assert standing(world).forced.get("isp-a", "auto") == "auto"


def hostile_names_stay_text(world: World, chromium: Browser) -> None:
    """In what programs and providers say, in the history, and in what a link brings along."""
    program = world.run_dir / "hostile"
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' '{HOSTILE}' >&2\nexit 1\n")
    program.chmod(0o755)
    text = world.config.read_text().replace("[web]", f'[[dns.exec]]\nprogram = "{program}"\n[web]')
    world.config.write_text(text)
    request(world, Reload())
    with sqlite3.connect(history_dir(world.run_dir / "state") / FILE) as db:
        sql = "INSERT INTO event VALUES (NULL, unixepoch(), 'path', ?, ?, 'error', 0)"
        db.execute(sql, (HOSTILE, HOSTILE))
        db.execute("UPDATE span SET cause = ?", (HOSTILE,))
    db.close()
    with visit(chromium) as seen:
        page = seen.page
        expect(page.locator("#part-names")).to_contain_text(SEEN, timeout=20_000)
        for path in ("/events", "/outages", an_outage(page)):
            page.goto(f"{browser.AT}{path}")
            expect(page.locator("main")).to_contain_text(SEEN)
        for path in ("/events?q=", "/explain?source=any&target=", "/explain?target=any&iif="):
            page.goto(f"{browser.AT}{path}{SEEN}")
            assert SEEN in page.locator("input").evaluate_all("all => all.map(one => one.value)")
        for path in (f"/{SEEN}", f"/uplinks/{SEEN}/drain"):
            page.goto(f"{browser.AT}{path}")
            assert page.locator("img").count() == 0
        assert "\x1b" not in page.content()
        assert page.title() != "1"
        seen.forgive(REFUSED)
