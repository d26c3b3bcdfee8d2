"""The engine: the daemon's main loop. It passes events to the controller and performs its effects.

    kernel ────┐                                            ┌──> host: look, converge, commit
    frontend ──┼──> receive ──> turn ──> controller ────────┼──> frontend, DNS server, hooks, log
    operator ──┤                 └<── immediate answers ────┤
    timers ────┘                                            └──> operator: answers

Read it in this order: `run` (start-up and shutdown), `_turn` and `_step` (a turn), `_perform` (one
effect). Decisions are made in `daemon.controller`, effects are performed by `daemon.perform`.

Rules:
- One thread, and nothing in it blocks on the network or on another process.
- All events of one round of the asyncio loop are processed in one turn.
- A turn ends when the controller has no more effects whose outcome is known at once. Between its
  steps the loop goes on, so that a query waits for one look at the kernel and no more; what is
  received meanwhile belongs to the next turn.
- The engine exits without touching the kernel: rules and routes stay, and the next engine adopts
  them.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from contextlib import suppress
from dataclasses import replace
from math import inf
from pathlib import Path

from ifdefault import __version__
from ifdefault.daemon.control.server import Control
from ifdefault.daemon.controller import effects as f
from ifdefault.daemon.controller import events as e
from ifdefault.daemon.controller.controller import Controller
from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.host import require_same_netns
from ifdefault.daemon.passive_monitor import counted
from ifdefault.daemon.perform import Performers
from ifdefault.daemon.process.dns_server import LINGER_S
from ifdefault.daemon.recordings import Recordings
from ifdefault.host import rollback_timer, settle
from ifdefault.host.check_installation import PROGRAM
from ifdefault.host.control_token import ControlTokens
from ifdefault.host.last_config import ConfigFile
from ifdefault.host.store import Store
from ifdefault.ipc import log, privileges, tasks
from ifdefault.ipc.control import protocol as p
from ifdefault.ipc.control.client import Peer
from ifdefault.ipc.sd_notify import Notifier
from ifdefault.kernel.watch import Watch
from ifdefault.model.errors import ConfigError, HostError, IfdefaultError, reason
from ifdefault.model.report import DaemonStatus
from ifdefault.plan.prepare import changes

_POLL_S = 0.4  # how often to poll what the kernel sends no notification of
_SAVE_S = 10.0  # how often to try again to save what couldn't be saved
_TCP_RETRY_S = 60.0  # after TCP statistics couldn't be read
_NICE = -10  # the engine needs little CPU time, but needs it at once on a busy host too


class Engine:
    def __init__(
        self, config_path: Path, state_dir: Path, run_dir: Path, record: Path | None
    ) -> None:
        """Raises ConfigError if the config is not valid, and none has worked before."""
        self._run_dir, self._record = run_dir, record
        self._store = Store(state_dir, daemon=True)
        self._config_file = ConfigFile(config_path, self._store)
        self._config = self._config_file.read_or_last()
        self._event_log = EventLog(self._store)
        self._notifier = Notifier()
        self._controller = Controller()
        self._recordings = Recordings(run_dir, self._event_log)
        self._events: list[e.Event] = []  # for the next turn
        self._turn_is_due = False  # or under way
        self._answers: list[tuple[asyncio.Future[f.Answer], f.Answer]] = []  # after the turn
        self._timer: asyncio.TimerHandle | None = None
        self._ids = itertools.count(1)
        self._requests: dict[int, asyncio.Future[f.Answer]] = {}
        self._loop = asyncio.get_running_loop()
        self._started, self._stop = asyncio.Event(), asyncio.Event()
        self._fault: BaseException | None = None
        self._linger_s: int | None = None  # for the DNS server, after the engine
        self._tokens = ControlTokens()

    # --- start-up and shutdown --------------------------------------------------------------

    async def run(self) -> int:
        """Run until SIGTERM or a fatal error; return the exit status."""
        tasks.guard(self._fail)
        control = Control(self._run_dir, self)
        self._event_log.noted = control.news
        await control.start()  # HostError if another engine is running
        try:
            if self._record is not None:
                self._recordings.begin(self._record)
            with Watch() as self._watch:
                self._performers = Performers(
                    self._config,
                    self._run_dir,
                    self._store,
                    self._event_log,
                    self._watch,
                    self.receive,
                )
                try:
                    await self._serve()
                finally:
                    await control.close()
                    await self._performers.close(self._linger_s)
        finally:
            await control.close()
        if self._fault is not None:
            raise self._fault
        return 0

    async def _serve(self) -> None:
        rollback_timer.refuse_unconfirmed(self._store)
        settle.cancel(self._store)
        self._loop.add_signal_handler(signal.SIGTERM, self._end, LINGER_S)
        self._loop.add_signal_handler(signal.SIGINT, self._end, 0)
        hup = signal.SIGHUP
        self._loop.add_signal_handler(hup, lambda: tasks.start(self._reload_by_signal()))
        self.receive(self._performers.started(self._config))
        self.receive(counted())  # what time it is
        problems = [*self._config_file.errors]
        try:
            self._tokens.read(self._config, self._config)
        except HostError as error:
            problems += error.problems
        for problem in problems:
            self._event_log.note("config", str(problem), severity="error")
        await self._started.wait()  # another ifdefault may hold the lock
        if self._stop.is_set():
            return
        for sock in self._watch.sockets:
            self._loop.add_reader(sock, self._on_kernel)
        self._performers.frontend.start()
        self._notifier.ready()
        polling = [tasks.start(self._read_tcp_stats()), tasks.start(self._poll())]
        await self._stop.wait()
        self._notifier.stopping()
        if self._linger_s:
            await self._performers.dns_server.hand_to_unit()
        lingers = self._linger_s and self._performers.dns_server.is_used
        dns = f"; its DNS server answers for {self._linger_s} s more" if lingers else ""
        self._event_log.note("engine", f"stopped; rules and routes stay in place{dns}")
        await tasks.end(*polling)
        self._event_log.ends = True
        self._performers.perform(self._controller.saved())
        self._store.flush()
        self._event_log.note_state()

    def _end(self, linger_s: int) -> None:
        """SIGTERM may be half of a restart: the DNS server answers until the other half. Ctrl-C is
        an end."""
        self._linger_s = linger_s
        self._started.set()
        self._stop.set()

    def _fail(self, error: BaseException) -> None:
        """Fatal error: exit, and leave the kernel as it is for the next engine to adopt."""
        self._fault = self._fault or error
        self._started.set()
        self._stop.set()

    # --- the turn -------------------------------------------------------------------------

    def receive(self, event: e.Event) -> None:
        """Queue an event for a turn at the end of this round of the asyncio loop."""
        self._events.append(event)
        if not self._turn_is_due:
            self._turn_is_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Begin a turn with all queued events."""
        events, self._events = self._events, []
        self._step(events)

    def _step(self, events: list[e.Event]) -> None:
        """Pass events to the controller and perform the effects it returns. An effect may have an
        outcome at once, which is an event of the next step."""
        try:
            now = time.monotonic()
            self._recordings.write(now, events)
            performed = map(self._perform, self._controller.receive(events, now))
            outcomes = [outcome for outcome in performed if outcome is not None]
        except BaseException:
            self._performers.host.end_turn()
            raise
        if not outcomes or self._stop.is_set():
            self._end_turn()
        elif self._started.is_set():
            self._loop.call_soon(self._step, outcomes)
        else:  # nobody is told of half a start
            self._step(outcomes)

    def _end_turn(self) -> None:
        self._performers.host.end_turn()
        self._turn_is_due = bool(self._events)  # received meanwhile
        if self._turn_is_due:
            self._loop.call_soon(self._turn)
        state = self._controller.state
        if state.unconfirmed is not None:
            self._config_file.tried()
        elif not state.held:
            self._config_file.worked(state.config)
        self._event_log.note_state()
        if state.prepared is not None:
            self._started.set()
        answers, self._answers = self._answers, []
        for request, answer in answers:
            if not request.done():  # the client may have disconnected
                request.set_result(answer)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (wake_s := self._controller.wake_s) < inf:
            self._timer = self._loop.call_at(wake_s, self.receive, e.Woke())

    def _perform(self, effect: f.Effect) -> e.Event | None:
        match effect:
            case f.Answer(id=number):
                self._answers.append((self._requests.pop(number), effect))
            case f.Stop(problems):
                self._fail(HostError(*problems))
            case _:
                return self._performers.perform(effect)
        return None

    # --- kernel notifications, and what has to be polled ------------------------------------

    def _on_kernel(self) -> None:
        if changes := self._watch.read():
            self.receive(e.KernelChanged(tuple(changes)))

    async def _read_tcp_stats(self) -> None:
        """Read the statistics of the host's own TCP connections."""
        monitor, problem = self._performers.monitor, ""
        while True:
            try:
                traffic = monitor.look(time.monotonic())
            except OSError as error:  # a kernel without sock_diag, or short of memory
                before, problem = problem, f"can't read TCP statistics: {reason(error)}"
                if problem != before:
                    self._event_log.note("engine", problem, severity="warning")
                await asyncio.sleep(_TCP_RETRY_S)
                continue
            problem = ""
            if traffic is not None:
                self.receive(traffic)
            await asyncio.sleep(max(0.0, monitor.next_s - time.monotonic()))

    async def _poll(self) -> None:
        """Poll what the kernel sends no notification of, count bytes, have names resolved, and feed
        systemd's watchdog as long as the frontend answers."""
        performers, state, save_s = self._performers, self._controller.state, 0.0
        while True:
            await asyncio.sleep(_POLL_S)
            for change in performers.silent.look():
                self.receive(change)
            performers.refresh_names()
            now = time.monotonic()
            performers.dns_server.look(now)
            performers.drains.look(now, state)
            if counts := performers.monitor.poll(now, state.config, state.uplinks):
                self.receive(counts)
            if now >= save_s:
                save_s = now + _SAVE_S
                self._store.write_again()
            self._event_log.note_state()
            if performers.frontend.answers(now):
                self._notifier.alive(now)

    # --- the operator ---------------------------------------------------------------------

    @property
    def last(self) -> int:
        return self._event_log.last

    @property
    def control_token(self) -> str:
        return self._tokens.of(self._controller.state.config)

    def token_refused(self, uid: int) -> None:
        self._event_log.note("uplink", f"a wrong control token, from uid {uid}", severity="warning")

    def read(self, query: p.Query) -> p.Reply:
        """Answer a query of a control socket (`Answerer`)."""
        match query:
            case p.Status():
                return self._status()
            case p.Events(limit, after):
                return p.EventList(self._event_log.recent(limit, after), self._event_log.last)
            case p.Counters():
                return self._performers.counters(time.monotonic(), self._controller)

    async def perform(self, command: p.Command, peer: Peer) -> p.Reply:
        """Perform a command of a control socket (`Answerer`); IfdefaultError refuses it."""
        await self._started.wait()
        match command:
            case p.SetUplink(name, state, timeout_s, token):
                forced = (name, state, timeout_s, bool(token))
                return await self._ask(e.UplinkRequested(next(self._ids), *forced))
            case p.Reload(confirm_s):
                return await self._reload(confirm_s)
            case p.Confirm():
                return await self._ask(e.ConfirmRequested(next(self._ids)))
            case p.Undo():
                return await self._ask(e.UndoRequested(next(self._ids)))
            case p.Down():
                return await self._ask(e.DownRequested(next(self._ids)))
            case p.Record(seconds):
                return p.Recorded(str(await self._recordings.record(self._controller, seconds)))
            case p.Exec(uplink, netns):
                require_same_netns(netns)
                return await self._ask(e.ExecRequested(next(self._ids), peer.pid, peer.uid, uplink))

    async def _reload(self, confirm_s: int | None) -> p.Reply:
        self._notifier.reloading()
        try:
            config = self._config_file.read()
            self._tokens.read(config, self._controller.state.config)
            self.receive(counted())
            return await self._ask(e.ReloadRequested(next(self._ids), config, confirm_s))
        finally:
            self._notifier.ready()

    async def _ask(self, event: e.Request) -> p.Reply:
        """Pass a request to the controller and wait for its Answer."""
        future: asyncio.Future[f.Answer] = self._loop.create_future()
        self._requests[event.id] = future
        self.receive(event)
        answer = await future
        if answer.problems:
            raise (ConfigError if answer.config else HostError)(*answer.problems)
        match answer.result:
            case f.UplinkChanged(uplink, was, state):
                return p.UplinkChanged(uplink, was, state)
            case f.Changed(prepared, dns):
                return replace(changes(prepared), dns=dns)
            case f.Entered(path):
                return p.Entered(path)
        return p.Confirmed()

    async def _reload_by_signal(self) -> None:
        """The event log has the answer."""
        try:
            await self._reload(None)
        except IfdefaultError as error:
            for problem in error.problems:
                self._event_log.note("reload", f"refused: {problem}", severity="error")

    def _status(self) -> DaemonStatus:
        status = self._controller.status(time.monotonic())
        status = replace(
            status,
            pid=os.getpid(),
            config=str(self._config_file.path),
            config_errors=tuple(map(str, self._config_file.errors)),
            unsaved=self._store.unsaved,
            program=PROGRAM,
            program_version=__version__,
        )
        return self._performers.status(status)


def run(
    config_path: Path,
    state_dir: Path,
    run_dir: Path,
    *,
    verbose: bool = False,
    record: Path | None = None,
) -> int:
    """`ifdefault run`: run the engine in the foreground; return the exit status."""

    async def run_engine() -> int:
        return await Engine(config_path, state_dir, run_dir, record).run()

    log.set_up(verbose=verbose)
    os.umask(0o022)
    privileges.allow_files()
    with suppress(OSError):  # not permitted: continue at the default priority
        if os.getpriority(os.PRIO_PROCESS, 0) == 0:  # otherwise it was chosen on purpose
            os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    try:
        return asyncio.run(run_engine())
    except IfdefaultError:
        raise
    except Exception as error:
        log.exception(error, "the engine ends", fatal=True)
        raise
