"""The engine: hears the kernel, the frontend and the operator, and lets the governor act on it.

    netlink events ─┐
    frontend's outcomes ┼─> paths ── transitions ──> governor ──> kernel, event_log, hooks
    traffic itself ─┘                             └───> publisher ──> DNS

Rules: one thread, and nothing in it waits for anything outside. The engine ends without touching
the kernel: what it laid stays, and the next engine adopts it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from ifdefault.config import read as read_config
from ifdefault.daemon import server_checks
from ifdefault.daemon.control.commands import Operator
from ifdefault.daemon.control.server import Control
from ifdefault.daemon.dns.dynamic_update import Updates
from ifdefault.daemon.dns.embedded import Nameserver
from ifdefault.daemon.dns.programs import Programs
from ifdefault.daemon.dns.public_address import Discovery
from ifdefault.daemon.dns.publisher import Publisher
from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.governor import Governor
from ifdefault.daemon.keeper import Keeper
from ifdefault.daemon.passive_monitor import PassiveMonitor
from ifdefault.daemon.paths import Paths
from ifdefault.daemon.process.frontend import FrontendProcess
from ifdefault.daemon.process.hooks import Hooks
from ifdefault.daemon.requests import Requests
from ifdefault.daemon.sd_notify import Notifier
from ifdefault.host import rollback_timer
from ifdefault.host.store import Store
from ifdefault.ipc import log
from ifdefault.ipc.messages import Message
from ifdefault.kernel.watch import Changed, LinkChanged, NeighbourChanged, Watch
from ifdefault.model.config import Family
from ifdefault.model.errors import ConfigError, HostError, IfdefaultError
from ifdefault.model.health import Transition, Verdict
from ifdefault.plan.prepare import Prepared

_DEBOUNCE_S = 0.015  # kernel events come in groups
_SILENT_S = 0.4  # how often what tells no news is looked at
_SAVE_S = 60.0
_NICE = -10  # it needs little and that at once, however busy the host is
_BACKSTOP_S = 30.0  # the kernel is looked at so often without any event


class Engine:
    def __init__(self, config_path: Path, state_dir: Path, run_dir: Path) -> None:
        """ConfigError if the config can't be used."""
        self.config_path = config_path
        self.store = Store(state_dir)
        self._run_dir = run_dir
        self._config = read_config(config_path)
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._ask_now = asyncio.Event()
        self._asking_until_s = 0.0
        self._fault: BaseException | None = None
        self.event_log = EventLog(self.store)
        self.paths = Paths(self._post)
        self.contents = server_checks.ServerChecks(
            self._post, self.event_log, lambda: self.governor.decide()
        )
        self._exchanges = Requests(self._post)
        self._nameserver = Nameserver(self.store, self._post, self.event_log)
        self._updates = Updates(self._exchanges, self.store, self.event_log)
        self.discovery = Discovery(self._exchanges, self.event_log, self.store, self._seen_as)
        programs = Programs(self.event_log, self.store)
        self.publisher = Publisher(self.event_log, [self._nameserver, self._updates, programs])
        self.frontend_process = FrontendProcess(
            self._config.daemon,
            self.event_log,
            self._heard,
            self._resolved,
            self._exchanges.hear,
            self.publisher.hear,
        )
        self.evidence = PassiveMonitor()
        self.notifier = Notifier()
        self._hooks = Hooks(self._config)
        self.governor = Governor(
            Keeper(self._config, self.store),
            self.paths,
            self.event_log,
            self._hooks,
            self._followed,
            self._publish,
            self._save,
            lambda: self.contents.gone,
        )
        self._operator = Operator(self)

    async def run(self) -> int:
        self._loop.set_exception_handler(self._failed)
        control = Control(self._run_dir, self._operator)
        await control.start()  # also makes sure that no other engine runs
        try:
            with Watch() as self._watch:
                await self._serve()
        finally:
            await control.close()
            await self._hooks.close()
            await self.discovery.close()
            await self.publisher.close()
            await self.frontend_process.close()
            await self.governor.close()
        if self._fault is not None:
            raise self._fault
        return 0

    async def _serve(self) -> None:
        self.governor.forced = self._operator.load_forced()
        rollback_timer.refuse_unconfirmed(self.store)
        self.paths.memories = self.event_log.load(self.governor.keeper.routers)
        try:
            self.governor.adopt(self._config)
        except ConfigError as error:  # of what the host is now, which may pass: to be tried again
            raise HostError(*error.problems) from error
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop.set)
        self._loop.add_signal_handler(signal.SIGHUP, self._operator.reload_by_signal)
        for sock in self._watch.sockets:
            self._loop.add_reader(sock, self._on_kernel)
        self.frontend_process.start(self._frontend_started, self._frontend_ended)
        self.event_log.note("engine", f"started, {len(self.governor.keeper.uplinks)} uplinks")
        self.notifier.ready()
        chores = [
            self._chore(each)
            for each in (self._asking(), self._looking(), self._repairing(), self._saving())
        ]
        await self._stop.wait()
        self.notifier.stopping()
        self.event_log.note("engine", "stopped; what was laid stays")
        for task in chores:
            task.cancel()
        await asyncio.gather(*chores, return_exceptions=True)
        self._save()

    def _chore(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()):
                self._fail(error)

        task = asyncio.create_task(work)
        task.add_done_callback(ended)
        return task

    def _failed(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._fail(context.get("exception") or RuntimeError(str(context.get("message"))))

    def _fail(self, error: BaseException) -> None:
        """A fault of our own: end, and let the next engine adopt what stands."""
        self._fault = self._fault or error
        self._stop.set()

    # --- what is heard --------------------------------------------------------------------

    def _post(self, message: Message, fds: tuple[int, ...]) -> None:
        self.frontend_process.post(message, fds)

    def _frontend_started(self) -> None:
        self.governor.settle()
        self.paths.rebind(time.monotonic())
        self.publisher.frontend_started()
        self.discovery.frontend_started()
        self._ask_now.set()

    def _frontend_ended(self) -> None:
        self._exchanges.forget()
        self.publisher.frontend_ended()

    def _heard(self, path: int, seq: int, verdict: Verdict, rtt_us: int, detail: str) -> None:
        now = time.monotonic()
        if path == server_checks.NUMBER:
            self.contents.hear(now, seq, verdict, detail)
            wake_s = self.contents.wake_s
        else:
            self.governor.take(self.paths.hear(now, path, seq, verdict, rtt_us))
            wake_s = self.paths.wake_of_s(path)
        if wake_s < self._asking_until_s:
            self._ask_now.set()

    def _on_kernel(self) -> None:
        now = time.monotonic()
        told: list[Transition] = []
        look = False
        for event in self._watch.read():
            match event:
                case LinkChanged(name=dev):
                    told += self.paths.link(now, dev, why_not(event))
                case NeighbourChanged():
                    if event.reachable is not None:
                        told += self.paths.neighbour(now, event.dev, event.address, event.reachable)
                    if not event.mac:
                        continue  # a MAC may tell two uplinks apart
                case Changed("nft", ours=False):
                    continue
            look = True
        self.governor.take(told)
        if look:
            self.governor.look_at(now + _DEBOUNCE_S)

    def _followed(self, prepared: Prepared) -> None:
        self._watch.interfaces = frozenset(u.interface for u in prepared.uplinks)
        self.evidence.follow(prepared.facts)
        self.contents.follow(time.monotonic(), self.governor.keeper.config)
        self._wake_asking()

    def _publish(self) -> None:
        """Let the DNS say what follows from the decision."""
        keeper, decision = self.governor.keeper, self.governor.decision
        if decision is not None:
            ways = self.paths.ways(decision)
            health = self.paths.health()
            now = time.monotonic()
            self.discovery.follow(keeper.config, ways)
            self.publisher.take(now, keeper.config, keeper.uplinks, decision, health, ways)

    def _seen_as(self, name: str, family: Family, address: str) -> None:
        """Others see an uplink's address as this one."""
        self.publisher.discovered[name, family] = address
        self._loop.call_soon(self._publish)

    def _resolved(self, host: str, addresses: tuple[str, ...], error: str) -> None:
        for each in (self.paths, self._updates, self.discovery):
            each.resolved(host, addresses, error)

    # --- chores ---------------------------------------------------------------------------

    def _wake_asking(self) -> None:
        if min(self.paths.wake_s, self.contents.wake_s) < self._asking_until_s:
            self._ask_now.set()

    async def _asking(self) -> None:
        """Ask what is due on every path."""
        while True:
            now = time.monotonic()
            # while we rest there may be no way out that is the uplink's own
            asking = self.frontend_process.ready and not self.governor.keeper.held
            if asking:
                self.governor.take(self.paths.ask(now))
                self.contents.ask(now)
            wake_s = min(self.paths.wake_s, self.contents.wake_s)
            self._asking_until_s = wake_s if asking else now + 0.1
            self._ask_now.clear()
            delay_s = max(0.0, min(self._asking_until_s - time.monotonic(), 1.0))
            timer = self._loop.call_later(delay_s, self._ask_now.set)
            await self._ask_now.wait()
            timer.cancel()

    async def _looking(self) -> None:
        """Look at the traffic itself."""
        while True:
            now = time.monotonic()
            uplinks = self.governor.keeper.uplinks
            try:
                told, next_s = self.evidence.look(now, self.paths.by_address())
                self.evidence.measure(now, {u.name: u.interface for u in uplinks})
            except OSError as error:  # a kernel without sock_diag, or short of memory
                text = f"the host's own connections can't be seen: {error.strerror or error}"
                self.event_log.note("engine", text, level=logging.WARNING)
                await asyncio.sleep(_SAVE_S)
                continue
            self.governor.take(told)
            self._wake_asking()
            await asyncio.sleep(max(0.0, next_s - time.monotonic()))

    async def _repairing(self) -> None:
        """Look at what tells no news; also say once more that we live."""
        governor = self.governor
        settled = False
        while True:
            await asyncio.sleep(_SILENT_S)
            now = time.monotonic()
            backstop = now - governor.kept_s > _BACKSTOP_S
            if backstop or (not governor.refused and governor.keeper.differs_silently()):
                governor.look_at(now)
            if not governor.refused and governor.keeper.groups_changed():
                governor.replan()
            if not settled:
                settled = governor.settled
                governor.decide()
            if self.paths.renumbering(now):
                governor.follow()
            if self._nameserver.unwell:
                self._publish()
            for each in (self.paths, self._updates, self.discovery):
                self.frontend_process.resolve(each.hosts())
            if self.frontend_process.answers(now):
                self.notifier.alive(now)

    async def _saving(self) -> None:
        while True:
            await asyncio.sleep(_SAVE_S)
            self._save()

    def _save(self) -> None:
        try:
            self.event_log.save(self.paths.remembered(), self.governor.keeper.routers)
        except IfdefaultError as error:
            self.event_log.note("engine", str(error), level=logging.WARNING)


def why_not(link: LinkChanged) -> str:
    """Why nothing goes over a link; "" if something may."""
    if link.gone:
        return f"interface {link.name} is gone"
    if not link.up:
        return f"interface {link.name} is down"
    return "" if link.carrier else "carrier lost"


def run(config_path: Path, state_dir: Path, run_dir: Path, *, verbose: bool = False) -> int:
    """Be the engine until SIGTERM; the exit status."""

    async def live() -> int:
        return await Engine(config_path, state_dir, run_dir).run()

    log.set_up(verbose=verbose)
    os.umask(0o022)
    with suppress(OSError):  # who may not do it goes on as it is
        if os.getpriority(os.PRIO_PROCESS, 0) == 0:  # else somebody has decided
            os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    return asyncio.run(live())
