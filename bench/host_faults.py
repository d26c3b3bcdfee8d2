"""Faults of the host itself, one at a time: what restarts the daemon, and what others do to it.

Rules: HOST_FAULTS lists all, and says what each may cost. They go on beside the faults of uplinks,
in a thread of their own, at random; an error in it fails the bench.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench import others
from bench.chaos_host import HOST_FAULTS, HostPeriod
from bench.clock import log
from bench.hostile_user import HostileUser
from bench.replaced import ReplacedDaemon

FROZEN_S = 3.0
_SHORTEST_S, _LONGEST_S = 5.0, 15.0  # a storm
_PAUSE_S = 5.0  # on average
_FLUSH_S = 0.5
_STORMS = {
    "route storm": (others.routes(10_000), others.lan_routes(1000)),
    "link storm": (others.links(200),),
    "address storm": (others.addresses(1000),),
    "rule storm": (others.rules(1000),),
}


@dataclass(slots=True)
class HostFaults:
    """Random faults of a host from `run` to the end of the block. `made`: how often each was
    made, and what the hostile user reached."""

    daemon: ReplacedDaemon
    port: int  # of its DNS server
    uplink: str
    random: random.Random
    periods: list[HostPeriod] = field(default_factory=list)
    made: Counter[str] = field(default_factory=Counter)
    _stop: threading.Event = field(default_factory=threading.Event)
    _error: BaseException | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()
        self.verify()

    def verify(self) -> None:
        """Raise what ended the thread."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            due: list[str] = []
            while not self._stop.wait(self.random.expovariate(1 / _PAUSE_S)):
                due = due or self.random.sample(list(HOST_FAULTS), len(HOST_FAULTS))
                self.make(due.pop())
        except BaseException as error:  # noqa: BLE001  # raised in the bench's own thread
            self._error = error

    def make(self, kind: str) -> None:
        """Make one fault, and wait for its end."""
        log(f"{kind} …")
        begin_s = time.monotonic()
        self._maker(kind)()
        self.periods.append(HostPeriod(kind, begin_s, time.monotonic()))

    def _maker(self, kind: str) -> Callable[[], object]:
        makers: dict[str, Callable[[], object]] = {
            "restart": self.daemon.restart,
            "kill -9": self.daemon.kill,
            "upgrade": self.daemon.upgrade,
            "freeze": lambda: self.daemon.freeze(FROZEN_S),
            "flush": self._flush,
            "hostile user": self._be_hostile,
        }
        return makers.get(kind) or (lambda: self._rage(kind))

    def _until(self) -> float:
        return time.monotonic() + self.random.uniform(_SHORTEST_S, _LONGEST_S)

    def _flush(self) -> None:
        """`nft flush ruleset`, as many a firewall's start does."""
        until_s = self._until()
        while time.monotonic() < until_s and not self._stop.wait(_FLUSH_S):
            self.daemon.world["host"].run(["nft", "flush", "ruleset"])
            self.made["flush"] += 1

    def _rage(self, kind: str) -> None:
        over = threading.Event()
        timer = threading.Timer(self._until() - time.monotonic(), over.set)
        timer.start()
        try:
            self.made[kind] += others.storm(self.daemon.world["host"], _STORMS[kind], over)
        finally:
            timer.cancel()

    def _be_hostile(self) -> None:
        user = HostileUser(self.daemon.world["host"], self.port, self.uplink)
        self._stop.wait(self._until() - time.monotonic())
        self.made.update(user.stop())
