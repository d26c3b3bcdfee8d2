"""`reports`: what it costs the engine to be watched.

Rules: the engine's time on a processor is the kernel's count (/proc/PID/schedstat). What it uses
without being watched is measured first, and subtracted.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.clock import log
from bench.daemon import Daemon
from bench.idle import topology
from bench.results import Figure, Report, Table
from bench.subject import config
from ifdefault.daemon.control.endpoint import MOST_OF_A_USER
from ifdefault.daemon.control.server import Control
from ifdefault.ipc.control.client import SOCKET, Peer, ask
from ifdefault.ipc.control.protocol import (
    LONGEST_WAIT_S,
    Asks,
    Command,
    Counters,
    EventList,
    Events,
    Query,
    Reply,
    Status,
    encode_request,
)
from ifdefault.lab.world import World
from ifdefault.plan.numbers import UPLINKS_MAX

_CALM_S = 10.0  # after the start
_SPAN_S = 15.0
_REQUESTS = 300
_HOW = f"""\
The lab's Internet with 2 and {UPLINKS_MAX} providers, each an uplink with IPv4 and IPv6; `ifdefault
run` with default settings. The cost of a request is that of {_REQUESTS}, each on a connection of
its own and none of them cached. Only the engine's time on a processor is counted, without what it
uses anyway. That of waiting is too small to be told from what the engine does meanwhile: it is
measured at a control socket alone, with {MOST_OF_A_USER} clients, as many as a user may have, for
{_SPAN_S:g} s without events."""


@dataclass(frozen=True, slots=True)
class Costs:
    """`usual`: the engine's share of a core when it isn't watched; the others are of a request."""

    usual: float
    status_s: float
    counters_s: float


def run() -> Report:
    by_uplinks = {uplinks: _measure(uplinks) for uplinks in (2, UPLINKS_MAX)}
    figures = [
        Figure(
            f"{uplinks} uplinks: Status and Counters, once a second",
            round((costs.status_s + costs.counters_s) * 100, 3),
            "% of a core",
            1.0,
        )
        for uplinks, costs in by_uplinks.items()
    ]
    waiting = asyncio.run(_waiting())
    what = f"{MOST_OF_A_USER} clients that wait for events"
    figures.append(Figure(what, round(waiting * 100, 3), "% of a core"))
    rows = tuple(
        (
            f"{uplinks} uplinks",
            f"{costs.usual:.2%}",
            f"{costs.status_s * 1000:.2f} ms",
            f"{costs.counters_s * 1000:.2f} ms",
        )
        for uplinks, costs in by_uplinks.items()
    )
    table = Table("By request", ("", "not watched", "Status", "Counters"), rows)
    samples: dict[str, Any] = {str(n): asdict(costs) for n, costs in by_uplinks.items()}
    samples["waiting"] = waiting
    return Report("Cost of being watched", _HOW, tuple(figures), (table,), samples)


def _measure(uplinks: int) -> Costs:
    log(f"{uplinks} uplinks")
    with World.up(topology(uplinks)) as world:
        names = [(f"isp-{n}", f"up{n}") for n in range(1, uplinks + 1)]
        daemon = Daemon(world, config({"name": n, "interface": dev} for n, dev in names))
        daemon.start()
        time.sleep(_CALM_S)
        pid = daemon.pids()[0]
        usual = _share(pid)

        def cost_s(request: Asks[Any]) -> float:
            def send() -> None:
                for _ in range(_REQUESTS):
                    ask(world.run_dir, request)

            used_s, span_s = _used_s(pid, send)
            return max(0.0, used_s - usual * span_s) / _REQUESTS

        return Costs(usual, cost_s(Status()), cost_s(Counters()))


class _Answerer:
    """An engine that does nothing."""

    last, control_token = 0, ""

    def token_refused(self, uid: int) -> None:
        raise NotImplementedError

    def read(self, query: Query) -> Reply:
        return EventList((), self.last)

    async def perform(self, command: Command, peer: Peer) -> Reply:
        raise NotImplementedError


async def _waiting() -> float:
    """The share of a core that a control socket uses while clients wait at it."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        control = Control(Path(folder), _Answerer())
        await control.start()
        line = encode_request(Events(1, 0, LONGEST_WAIT_S))
        for _ in range(MOST_OF_A_USER):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(Path(folder) / SOCKET))
            sock.sendall(line)
        await asyncio.sleep(1.0)  # all have asked
        before_s = time.process_time()
        await asyncio.sleep(_SPAN_S)
        used_s = time.process_time() - before_s
        await control.close()
    return used_s / _SPAN_S


def _share(pid: int) -> float:
    """Of a core, that the process uses."""
    used_s, span_s = _used_s(pid, lambda: time.sleep(_SPAN_S))
    return used_s / span_s


def _used_s(pid: int, work: Callable[[], None]) -> tuple[float, float]:
    """The process's time on a processor during some work, and how long that took."""
    before, start_s = _on_processor_s(pid), time.monotonic()
    work()
    return _on_processor_s(pid) - before, time.monotonic() - start_s


def _on_processor_s(pid: int) -> float:
    """Of its main thread, which runs the loop."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
