"""The engine: hears the kernel, the face and the operator; judges, decides, and keeps the kernel.

    netlink events ─┐                                        ┌─ keeper ── kernel
    face's outcomes ┼─> paths ── transitions ──> decision ───┼─ freeing of dead flows
    traffic itself ─┘                                        └─ diary, hooks

Rules: one thread, and nothing in it waits for anything outside. Every reaction to a transition
begins in the turn of the loop that brought it. The engine ends without touching the kernel: what
it laid stays, and the next engine adopts it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ifdefault.config import read as read_config
from ifdefault.daemon import freeing, log
from ifdefault.daemon.control import Control
from ifdefault.daemon.diary import Diary
from ifdefault.daemon.evidence import Evidence
from ifdefault.daemon.hooks import Hooks
from ifdefault.daemon.keeper import Keeper
from ifdefault.daemon.messages import Message
from ifdefault.daemon.notify import Notifier
from ifdefault.daemon.operator import Operator
from ifdefault.daemon.outpost import Outpost
from ifdefault.daemon.paths import Paths
from ifdefault.errors import IfdefaultError
from ifdefault.health.decision import Candidate, decide
from ifdefault.host.apply import Prepared
from ifdefault.host.store import Store
from ifdefault.kernel.free import free
from ifdefault.kernel.watch import Changed, LinkChanged, NeighbourChanged, Watch
from ifdefault.model import FAMILIES, Config, Family, Uplink
from ifdefault.vitals import Decision, Forced, Transition

_SETTLE_S = 1.0  # a start's first answers come in any order, which is no reason to move
_DEBOUNCE_S = 0.015  # kernel events come in groups
_SHARE = 4  # of the time at most one part in so many goes into looking at the kernel
_SILENT_S = 0.3  # how often what tells no news is looked at
_SAVE_S = 60.0
_BACKSTOP_S = 30.0  # the kernel is looked at so often without any event


class Engine:
    def __init__(self, config_path: Path, state_dir: Path, run_dir: Path) -> None:
        self.config_path = config_path
        self.run_dir = run_dir
        self.store = Store(state_dir)
        self.keeper = Keeper(read_config(config_path), self.store)
        self.diary = Diary(self.store)
        self.started_s = time.monotonic()
        self.decision: Decision | None = None
        self.forced: dict[str, Forced] = {}
        self._unfreed: set[tuple[str, Family]] = set()
        self._frees: set[asyncio.Task[None]] = set()
        self._kept_s = 0.0  # when the kernel was looked at last, and how long that took
        self._keep_cost_s = 0.0
        self._keep_at_s = float("inf")
        self._carrier: dict[Family, str] = {}
        self.refused: tuple[str, ...] = ()
        self._asking_until_s = 0.0
        self._save_timer: asyncio.Handle | None = None

    async def run(self) -> int:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._ask_now = asyncio.Event()
        self._fault: BaseException | None = None
        self._loop.set_exception_handler(self._failed)
        with Watch() as self._watch:
            self.paths = Paths(self._post)
            self.outpost = Outpost(
                self.keeper.config.daemon, self.diary, self._heard, self.paths.resolved
            )
            self.evidence = Evidence()
            self.hooks = Hooks(self.keeper.config)
            self.notifier = Notifier()
            self.operator = Operator(self)
            control = Control(self.run_dir, self.operator)
            await control.start()  # also makes sure that no other engine runs
            try:
                await self._serve()
            finally:
                await control.close()
                await self.hooks.close()
                await self.outpost.close()
        if self._fault is not None:
            raise self._fault
        return 0

    async def _serve(self) -> None:
        self.forced = self.operator.load_forced()
        self.paths.memories = self.diary.load()
        self.keeper.adopt(self.keeper.config, self._first_decision)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop.set)
        self._loop.add_signal_handler(signal.SIGHUP, self.operator.reload_by_signal)
        for sock in self._watch.sockets:
            self._loop.add_reader(sock, self._on_kernel)
        self.outpost.start(self._face_started)
        self.follow()
        self.decide()
        self.diary.note("engine", f"started, {len(self.keeper.uplinks)} uplinks")
        self.notifier.ready()
        chores = [
            asyncio.create_task(chore)
            for chore in (self._asking(), self._looking(), self._repairing(), self._saving())
        ]
        await self._stop.wait()
        self.notifier.stopping()
        for task in chores:
            task.cancel()
        await asyncio.gather(*chores, *self._frees, return_exceptions=True)
        self._save()

    def _failed(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A fault of our own: end, and let the next engine adopt what stands."""
        error = context.get("exception")
        self._fault = error or RuntimeError(str(context.get("message")))
        self._stop.set()

    # --- the face -------------------------------------------------------------------------

    def _post(self, message: Message, fds: tuple[int, ...]) -> None:
        self.outpost.post(message, fds)

    def _face_started(self) -> None:
        self.paths.rebind()
        self._ask_now.set()

    # --- from evidence to decision --------------------------------------------------------

    def _heard(self, path: int, seq: int, verdict: Any, rtt_us: int) -> None:
        self._take(self.paths.hear(time.monotonic(), path, seq, verdict, rtt_us))
        self._wake_asking()

    def _on_kernel(self) -> None:
        now = time.monotonic()
        told: list[Transition] = []
        look = False
        for event in self._watch.read():
            match event:
                case LinkChanged():
                    live = event.up and event.carrier and not event.gone
                    told += self.paths.link(now, event.name, live)
                case NeighbourChanged():
                    if event.reachable is not None:
                        told += self.paths.neighbour(now, event.dev, event.address, event.reachable)
                    if not event.mac:
                        continue  # a MAC may tell two uplinks apart
                case Changed("nft", ours=False):
                    continue
            look = True
        self._take(told)
        if look:
            self.look_at(now + _DEBOUNCE_S)

    def _take(self, transitions: Iterable[Transition]) -> None:
        """Tell what changed, and decide anew."""
        told = tuple(transitions)
        if not told:
            return
        if self._save_timer is None:  # a kill may come at any time
            self._save_timer = self._loop.call_soon(self._save)
        for change in told:
            worse = change.state in ("down", "degraded")
            level = logging.WARNING if worse else logging.INFO
            self.diary.note("path", str(change), change.uplink, level)
            self.hooks.fire(
                change.state,
                uplink=change.uplink,
                family=str(change.family),
                was=change.was,
                state=change.state,
                cause=change.cause,
            )
            if change.state == "down":
                self._unfreed.add((change.uplink, change.family))
            else:
                self._unfreed.discard((change.uplink, change.family))
        self.decide()

    def decide(self) -> None:
        """Decide anew, and bring the kernel to it at once if that changes anything."""
        decision = self._decided(self.keeper.prepared)
        if decision != self.decision:
            self.decision = decision
            self.keep(decided=True)
        self._free_dead()

    def adopt(self, config: Config) -> Prepared:
        """Take in another config, or raise and go on with the one that is."""
        prepared = self.keeper.adopt(config, self._decided)
        self.decision = self._decided(prepared)
        self.hooks.config = config
        self.follow()
        self.decide()
        return prepared

    def _first_decision(self, prepared: Prepared) -> Decision:
        """With what the earlier engine knew, so that adopting what it left moves nothing."""
        facts, uplinks = prepared.facts, prepared.uplinks
        self.paths.follow(time.monotonic(), self.keeper.config, uplinks, facts)
        return self._decided(prepared)

    def _decided(self, prepared: Prepared) -> Decision:
        now = time.monotonic()
        candidates = []
        carriers = {link.name for link in prepared.facts.links if link.carrier}
        for uplink in prepared.uplinks:
            for family in FAMILIES:
                if uplink.pending or uplink.gateway(family) is None:
                    continue
                state = self.paths.state(uplink.name, family)
                if state == "unproven" and now - self.started_s < _SETTLE_S:
                    state = "up"
                candidates.append(
                    Candidate(
                        uplink=uplink.name,
                        family=family,
                        rank=uplink.rank,
                        weight=uplink.weight,
                        carrier=uplink.interface in carriers,
                        state=state,
                        forced=self.forced.get(uplink.name, "auto"),
                    )
                )
        return decide(candidates, self.decision)

    # --- what follows from a decision -----------------------------------------------------

    def keep(self, *, decided: bool = False) -> None:
        """Look at the kernel now, mend what differs, and follow what changed."""
        begun_s = time.monotonic()
        self._keep_at_s = float("inf")
        kept = self.keeper.keep(begun_s, self.decision, decided=decided)
        self._kept_s = time.monotonic()
        self._keep_cost_s = self._kept_s - begun_s
        if kept.operations and not decided:
            rest = f" and {len(kept.operations) - 3} more" if len(kept.operations) > 3 else ""
            self.diary.note("repair", f"put right: {'; '.join(kept.operations[:3])}{rest}")
        for operation in kept.fought:
            text = f"another program keeps undoing: {operation}"
            self.diary.note("repair", text, level=logging.WARNING)
        refused = tuple(str(problem) for problem in kept.refused)
        if refused != self.refused:
            self.refused = refused
            for text in refused:
                self.diary.note("repair", f"the kernel refused: {text}", level=logging.WARNING)
        if kept.again_s:
            self.look_at(kept.again_s)
        self.follow()

    def follow(self) -> None:
        """Take in uplinks as they are now; tell where the normal default went."""
        prepared = self.keeper.prepared
        now = time.monotonic()
        told = self.paths.follow(now, self.keeper.config, prepared.uplinks, prepared.facts)
        self.outpost.resolve(self.paths.hosts())
        self.evidence.follow(prepared.facts)
        self._watch.interfaces = frozenset(u.interface for u in prepared.uplinks)
        self._take(told)
        for family in FAMILIES:
            order = self.decision.ranking(family) if self.decision else ()
            name, was = (order[0] if order else ""), self._carrier.get(family, "")
            if name and name != was:
                self._carrier[family] = name
                text = f"default IPv{family}: {was or 'none'} -> {name}"
                self.diary.note("default", text, name)
                self.hooks.fire("default", uplink=name, family=str(family), was=was, state=name)
        self._wake_asking()

    def _free_dead(self) -> None:
        """Free what hangs on dead uplinks, once others can take over."""
        if self.keeper.held or self.decision is None:
            return
        for name, family in sorted(self._unfreed):
            usable = self.decision.usable_in(family)
            if not usable or name in usable:
                continue  # fail static: there is nowhere to go
            self._unfreed.discard((name, family))
            uplink = next((u for u in self.keeper.uplinks if u.name == name), None)
            if uplink and self.keeper.config.health.on_down == "free":
                task = asyncio.create_task(self._free(uplink, family))
                self._frees.add(task)
                task.add_done_callback(self._frees.discard)

    def free_forced(self, name: str) -> None:
        """The operator says that an uplink is down: what hangs on it is freed as well."""
        self._unfreed |= {(name, family) for family in FAMILIES}

    async def _free(self, uplink: Uplink, family: Family) -> None:
        begun_s = time.monotonic()
        assert self.decision is not None
        its = freeing.ends(self.keeper.prepared, self.decision, uplink, family)
        try:
            freed = await asyncio.to_thread(free, its.addresses, its.marks, its.mask, its.spared)
        except OSError as error:
            text = f"{uplink.name} IPv{family}: nothing freed: {error.strerror or error}"
            self.diary.note("freed", text, uplink.name, logging.WARNING)
            return
        if freed.sockets or freed.flows:
            took_ms = (time.monotonic() - begun_s) * 1000
            text = (
                f"{uplink.name} IPv{family}: freed {freed.sockets} TCP connections and"
                f" {freed.flows} tracked flows in {took_ms:.0f} ms"
            )
            self.diary.note("freed", text, uplink.name)

    # --- chores ---------------------------------------------------------------------------

    def look_at(self, at_s: float) -> None:
        """Look at the kernel at a time, but never so often that we do nothing else."""
        at_s = max(at_s, self._kept_s + _SHARE * self._keep_cost_s)
        if at_s < self._keep_at_s:
            self._keep_at_s = at_s
            self._keep_timer = self._loop.call_at(at_s, self._keep_if_due)

    def _keep_if_due(self) -> None:
        if time.monotonic() >= self._keep_at_s - 0.001:
            self.keep()

    def _wake_asking(self) -> None:
        if self.paths.wake_s < self._asking_until_s:
            self._ask_now.set()

    async def _asking(self) -> None:
        """Ask what is due on every path."""
        while True:
            now = time.monotonic()
            if self.outpost.ready:
                self._take(self.paths.ask(now))
            self._asking_until_s = self.paths.wake_s if self.outpost.ready else now + 0.1
            self._ask_now.clear()
            delay_s = max(0.0, min(self._asking_until_s - time.monotonic(), 1.0))
            timer = self._loop.call_later(delay_s, self._ask_now.set)
            await self._ask_now.wait()
            timer.cancel()

    async def _looking(self) -> None:
        """Look at the traffic itself."""
        while True:
            now = time.monotonic()
            told, next_s = self.evidence.look(now, self.paths.by_address())
            self._take(told)
            self.evidence.measure(now, {u.name: u.interface for u in self.keeper.uplinks})
            self._wake_asking()
            await asyncio.sleep(max(0.0, next_s - time.monotonic()))

    async def _repairing(self) -> None:
        """Look at what tells no news; also say once more that we live."""
        while True:
            await asyncio.sleep(_SILENT_S)
            now = time.monotonic()
            if self.keeper.differs_silently() or now - self._kept_s > _BACKSTOP_S:
                self.look_at(now)
            if now - self.started_s < _SETTLE_S + 2 * _SILENT_S:
                self.decide()
            if self.paths.renumbering(now):
                self.follow()
            if self.outpost.answers(now):
                self.notifier.alive(now)

    async def _saving(self) -> None:
        while True:
            await asyncio.sleep(_SAVE_S)
            self._save()

    def _save(self) -> None:
        if self._save_timer is not None:
            self._save_timer.cancel()
            self._save_timer = None
        try:
            self.diary.save({key: track.path.memory() for key, track in self.paths})
        except IfdefaultError as error:
            self.diary.note("engine", str(error), level=logging.WARNING)


def run(config_path: Path, state_dir: Path, run_dir: Path, *, verbose: bool = False) -> int:
    """Be the engine until SIGTERM; the exit status."""
    log.set_up(verbose=verbose)
    os.umask(0o022)
    return asyncio.run(Engine(config_path, state_dir, run_dir).run())
