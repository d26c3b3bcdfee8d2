"""`page`: what 1,000 open pages take of the web server and of the engine, and how soon they change.

Rules: as in `reports`. The server is started as a user does, by root, and becomes a user without
privileges, for whom the world's directories are opened.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median

from bench.clock import log
from bench.daemon import Daemon, rss_mib, two_uplinks
from bench.results import Figure, Report, Table
from ifdefault.ipc.control.client import ask
from ifdefault.ipc.control.protocol import Counters, Events
from ifdefault.lab import faults
from ifdefault.lab.topology import load
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World

_PAGES = 1000
_SPAN_S, _CALM_S = 60.0, 5.0
_TRIALS = 10
_AT = ("127.0.0.1", 8053)
_HOW = f"""\
The lab's Internet with 2 providers; `ifdefault run` and `ifdefault web` with default settings, and
no history. {_PAGES:,} clients have the first page's events open, and read them, and one scrapes the
metrics every second, during {_SPAN_S:g} s. Memory is what is resident of the web server; its helper
is stated apart. The engine's share of a core, and the probes that were answered and lost, are
measured for as long before and meanwhile: a late probe would be one less. Then the carrier of
an uplink is taken away and given back, {_TRIALS} times: from the engine's event to its being in
what one of the clients reads."""


class _Pages(threading.Thread):
    """Reads what all pages are sent."""

    def __init__(self, socks: list[socket.socket]) -> None:
        super().__init__(daemon=True)
        self.received, self.over = 0, False
        self._socks = {sock.fileno(): sock for sock in socks}

    def run(self) -> None:
        poll = select.poll()
        for descriptor in self._socks:
            poll.register(descriptor, select.POLLIN)
        while not self.over:
            for descriptor, _ in poll.poll(100):
                self.received += len(self._socks[descriptor].recv(1 << 16))


def run() -> Report:
    with World.up(load("two")) as world, _opened(world):
        daemon = Daemon(world, two_uplinks())
        daemon.start()
        log("the web server, without and with pages")
        with (world.dir / "web.log").open("w") as out:
            argv = [*world.command, "web"]
            web = world["host"].popen(argv, stdout=out, stderr=out)
        try:
            return _measure(world, daemon, web)
        finally:
            web.terminate()
            web.wait(10)


def _measure(world: World, daemon: Daemon, web: subprocess.Popen[str]) -> Report:
    eventually(lambda: _connects(world), what="the web server listens")
    helper = _children(web.pid)[0]
    time.sleep(_CALM_S)
    alone = rss_mib(web.pid)
    usual, usual_probes = _watch(world, daemon)
    with ExitStack() as stack:
        pages = [stack.enter_context(_request(world, "/live")) for _ in range(_PAGES)]
        reader = _Pages(pages)
        reader.start()
        stack.callback(reader.join)
        stack.callback(setattr, reader, "over", True)
        stop = threading.Event()
        scraper = threading.Thread(target=_scrape, args=(world, stop), daemon=True)
        scraper.start()
        stack.callback(stop.set)
        time.sleep(_CALM_S)
        received, before_s = reader.received, _processor_s(web.pid)
        watched, probes = _watch(world, daemon)
        used = (_processor_s(web.pid) - before_s) / _SPAN_S
        rate = (reader.received - received) / _SPAN_S / 1e6
        memory, proportional = rss_mib(web.pid), _pss_mib(web.pid)
    delays = [_delay_ms(world, lost) for _ in range(_TRIALS // 2) for lost in (True, False)]
    figures = (
        Figure(f"memory with {_PAGES:,} pages open", round(memory, 1), "MiB", 60.0),
        Figure("engine, for them and a scrape a second", _percent(watched - usual), "%", 1.0),
        Figure("from an event to the page, at most", round(max(delays)), "ms", 1000.0),
        Figure("probes lost meanwhile", probes[1], "", 0.0),
    )
    rows = (
        ("memory without pages", f"{alone:.1f} MiB"),
        ("with pages, its share of what is mapped twice (PSS)", f"{proportional:.1f} MiB"),
        ("memory of the helper", f"{rss_mib(helper):.1f} MiB"),
        ("web server's share of a core", f"{_percent(used)} %"),
        ("sent to the pages", f"{rate:.2f} MB/s"),
        ("probes answered before", f"{usual_probes[0]:,}"),
        ("probes answered meanwhile", f"{probes[0]:,}"),
        ("from an event to the page, median", f"{median(delays):.0f} ms"),
    )
    samples = {"delays_ms": delays, "usual": usual, "watched": watched}
    table = Table("Besides", ("", ""), rows)
    return Report("Cost of the page", _HOW, figures, (table,), samples)


@contextmanager
def _opened(world: World) -> Iterator[None]:
    """Let other users reach the world's directory."""
    outer = world.dir.parent.stat().st_mode & 0o777
    world.dir.parent.chmod(0o711)
    world.dir.chmod(0o711)
    try:
        yield
    finally:
        world.dir.parent.chmod(outer)


def _request(world: World, path: str) -> socket.socket:
    def connect() -> socket.socket:
        return socket.create_connection(_AT, timeout=30)

    sock = world["host"].python(connect)
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    return sock


def _connects(world: World) -> bool:
    try:
        _request(world, "/").close()
    except OSError:
        return False
    return True


def _scrape(world: World, stop: threading.Event) -> None:
    while not stop.wait(1.0):
        with _request(world, "/metrics") as sock:
            while sock.recv(1 << 16):
                pass


def _delay_ms(world: World, lost: bool) -> float:
    """From an event about a carrier to the page."""
    time.sleep(1.5)  # what was asked for by the event before doesn't count
    with _request(world, "/live") as sock, sock.makefile("rb") as lines:
        _await(lines.readline, lambda parts: "part-uplink-isp-a" in parts)
        change: Callable[..., None] = faults.inject if lost else faults.remove
        change(world, "carrier", "isp-a")
        word = 'class="state down"' if lost else 'class="state recovering"'
        _await(lines.readline, lambda parts: word in parts.get("part-uplink-isp-a", ""))
        shown = time.time()
    events = ask(world.run_dir, Events(20)).events
    of_path = [event for event in events if event.kind == "path" and event.uplink == "isp-a"]
    wanted = "-> down" if lost else "-> recovering"
    first = next(e for e in of_path if wanted in e.text and shown - e.at < 1.4)
    return (shown - first.at) * 1000


def _await(readline: Callable[[], bytes], done: Callable[[dict[str, str]], bool]) -> None:
    while line := readline():
        if line.startswith(b"data: ") and done(json.loads(line[6:])):
            return
    raise RuntimeError("the web server has ended the stream")


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def _watch(world: World, daemon: Daemon) -> tuple[float, tuple[int, int]]:
    """The engine's share of a core, and the probes that were answered and lost meanwhile."""
    answered, lost = _probes(world)
    before_s, start_s = daemon.processor_s(), time.monotonic()
    time.sleep(_SPAN_S)
    share = (daemon.processor_s() - before_s) / (time.monotonic() - start_s)
    now = _probes(world)
    return share, (now[0] - answered, now[1] - lost)


def _probes(world: World) -> tuple[int, int]:
    paths = ask(world.run_dir, Counters()).paths
    return sum(path.answered for path in paths), sum(path.lost for path in paths)


def _pss_mib(pid: int) -> float:
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:")) / 1024


def _processor_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def _percent(share: float) -> float:
    return round(100 * max(share, 0.0), 2)
