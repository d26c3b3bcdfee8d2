"""Performs the controller's effects: on the host, by the frontend, in the DNS, by hooks, in the
log.

Rules: one function for each kind of effect. An outcome known at once is returned as an event; a
later one is passed to `receive`. No decisions are made here, and nothing blocks on the network.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import asdict, astuple, replace
from functools import partial
from pathlib import Path
from typing import Any

from ifdefault.daemon import move_tunnels, probes, usage_file
from ifdefault.daemon.controller import effects as f
from ifdefault.daemon.controller import events as e
from ifdefault.daemon.controller.controller import Controller
from ifdefault.daemon.dns.dynamic_update import Updates
from ifdefault.daemon.dns.embedded import Nameserver
from ifdefault.daemon.dns.programs import Programs
from ifdefault.daemon.dns.public_address import Discovery
from ifdefault.daemon.dns.publisher import Publishers
from ifdefault.daemon.drain_monitor import DrainMonitor
from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.host import Host
from ifdefault.daemon.passive_monitor import PassiveMonitor
from ifdefault.daemon.process import frontend
from ifdefault.daemon.process.dns_server import DnsServerProcess
from ifdefault.daemon.process.frontend import FrontendProcess
from ifdefault.daemon.process.hooks import Hooks
from ifdefault.daemon.requests import Requests
from ifdefault.daemon.silent_changes import SilentChanges
from ifdefault.host.store import Store
from ifdefault.ipc import log, tasks
from ifdefault.ipc.messages import Outcome, Reply, Resolved
from ifdefault.kernel.end_returning import end_returning
from ifdefault.kernel.kill_connections import kill
from ifdefault.kernel.perform import verify_neighbour
from ifdefault.kernel.watch import Watch
from ifdefault.model.config import Config, Family
from ifdefault.model.errors import internal, reason
from ifdefault.model.kernel_events import ObjectChanged
from ifdefault.model.report import CounterReport, DaemonStatus

_log = logging.getLogger("ifdefault")
Perform = Callable[[Any], e.Event | None]


class Performers:
    def __init__(
        self,
        config: Config,
        run_dir: Path,
        store: Store,
        event_log: EventLog,
        watch: Watch,
        receive: Callable[[e.Event], None],
    ) -> None:
        self._receive, self._event_log, self._watch = receive, event_log, watch
        self._store, self._started_at = store, time.time()
        self.host = Host(store, watch, receive)
        self.monitor = PassiveMonitor()
        self.silent = SilentChanges()
        self.frontend = FrontendProcess(run_dir, config.daemon, event_log, self._on_frontend)
        post = self.frontend.post
        self.drains = DrainMonitor(self._note_drained, self.frontend.own_uid)
        self._requests = Requests(post)
        self._updates = Updates(self._requests, store, event_log)
        self._discovery = Discovery(self._requests, event_log, store, self._discovered)
        self.dns_server = DnsServerProcess(
            run_dir, config.daemon, event_log, lambda served: self._publishers.receive(served)
        )
        nameserver = Nameserver(store, self.dns_server, event_log)
        publishers = (nameserver, self._updates, Programs(event_log, store))
        self._publishers = Publishers(event_log, publishers)
        self._hooks = Hooks(config)
        self._hosts: tuple[str, ...] = ()  # probe targets given by name
        self._ending: set[asyncio.Task[None]] = set()
        self._moving = asyncio.Lock()
        self._performers: dict[type, Perform] = {
            f.Look: self.host.look,
            f.Converge: self.host.converge,
            f.Commit: self._commit,
            f.Watch: self._monitor,
            f.EndConnections: self._end_connections,
            f.ReturnConnections: self._end_connections,
            f.MoveTunnels: lambda effect: self._follow(self._move_tunnels(effect)),
            f.OpenProbeSocket: lambda effect: probes.open_socket(effect, post),
            f.CloseProbeSocket: lambda effect: probes.close_socket(effect, post),
            f.SendProbe: lambda effect: probes.send(effect, post),
            f.VerifyRouter: self._verify_router,
            f.ResolveNames: self._resolve,
            f.Publish: self._publish,
            f.RunHook: self._run_hook,
            f.Log: self._write_log,
            f.Save: self._save,
            f.SaveForced: self.host.save_forced,
            f.EnterGroup: self.host.enter_group,
            f.LeaveGroup: self.host.leave_group,
        }

    def started(self, config: Config) -> e.Started:
        """The daemon's first event, with what an earlier engine saved."""
        self.dns_server.begin(needed=bool(config.dns.server.zones))
        saved = self._event_log.load(self.host.routers)
        discovered = self._discovery.known.items()
        public = tuple(e.PublicAddressFound(*key, address) for key, address in discovered)
        forced, drains = self.host.load_forced(), self.host.load_drains()
        return e.Started(
            config,
            forced,
            saved.memories,
            saved.candidates,
            public,
            drains,
            saved.returned,
            usage_file.load(self._store),
        )

    def perform(self, effect: f.Effect) -> e.Event | None:
        return self._performers[type(effect)](effect)

    async def close(self, linger_s: int | None) -> None:
        """`linger_s`: as in `DnsServerProcess.close`."""
        await self._hooks.close()
        await self._discovery.close()
        await self._publishers.close()
        await self.dns_server.close(linger_s)
        await self.frontend.close()
        if self._ending:  # the kernel is asked in a thread, which can't be cancelled
            await asyncio.wait(self._ending)
        await self.drains.close()

    # --- effects --------------------------------------------------------------------------

    def _commit(self, effect: f.Commit) -> e.Committed | e.CommitFailed:
        outcome = self.host.commit(effect)
        if isinstance(outcome, e.Committed) and effect.prepared.uplinks:  # otherwise: down
            self._hooks.config = effect.prepared.config
        return outcome

    def _monitor(self, effect: f.Watch) -> None:
        self._watch.interfaces = frozenset(effect.interfaces)
        if self._watch.keep_tables(frozenset(effect.tables)):  # they may have changed unheard
            self._receive(e.KernelChanged((ObjectChanged("route"),)))
        self.silent.update(effect)
        self.monitor.update(effect)

    def _end_connections(self, effect: f.EndConnections | f.ReturnConnections) -> None:
        self._follow(self._end(effect))

    def _follow(self, work: Coroutine[Any, Any, None]) -> None:
        task = tasks.start(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end(self, effect: f.EndConnections | f.ReturnConnections) -> None:
        outcome = e.ConnectionsEnded(effect.uplink, effect.family)
        if isinstance(effect, f.ReturnConnections):
            outcome = replace(outcome, better=effect.better)
            end = partial(end_returning, effect.returning)
        else:
            end = partial(kill, *astuple(effect)[2:])
        start_s = time.monotonic()
        try:
            ended = await asyncio.to_thread(end)
        except OSError as error:
            self._receive(replace(outcome, error=reason(error)))
            return
        except Exception as error:
            log.exception(error, f"{effect.uplink}: ending connections")
            self._receive(replace(outcome, error=internal(error)))
            return
        took_s = time.monotonic() - start_s
        self._receive(replace(outcome, **asdict(ended), took_s=took_s))

    async def _move_tunnels(self, effect: f.MoveTunnels) -> None:
        async with self._moving:  # in the order of the decisions
            try:
                moved = await asyncio.to_thread(lambda: [*move_tunnels.move(effect)])
            except Exception as error:
                log.exception(error, "moving tunnels")
                return
        for one in moved:
            if one.error:
                text = f"{one.tunnel}: can't be set to another uplink: {one.error}"
                self._event_log.note("tunnel", text, severity="warning")
            else:
                peers = f"{one.peers} peers" if one.peers > 1 else "its peer"
                text = f"{one.tunnel}: WireGuard reaches {peers} by {one.uplink}"
                self._event_log.note("tunnel", text, one.uplink)

    def _verify_router(self, effect: f.VerifyRouter) -> None:
        try:
            verify_neighbour(effect.gateway, effect.dev)
        except OSError as error:  # the interface was just removed
            _log.debug("%s on %s isn't verified: %s", effect.gateway, effect.dev, error)

    def _resolve(self, effect: f.ResolveNames) -> None:
        self._hosts = effect.hosts

    def _publish(self, effect: f.Publish) -> None:
        self._publishers.publish(time.monotonic(), effect)
        self._discovery.update(effect.config, effect.ways)

    def _run_hook(self, effect: f.RunHook) -> None:
        self._hooks.fire(
            effect.event,
            uplink=effect.uplink,
            family=str(effect.family),
            was=effect.was,
            state=effect.state,
            cause=effect.cause,
        )

    def _write_log(self, effect: f.Log) -> None:
        self._event_log.note(effect.kind, effect.text, effect.uplink, effect.severity)

    def _note_drained(self, uplink: str, text: str) -> None:
        self._event_log.note("uplink", text, uplink)

    def _save(self, effect: f.Save) -> None:
        self._event_log.save(effect, self.host.routers)
        if effect.usage is not None:
            usage_file.save(self._store, effect.usage)

    # --- messages from the frontend ---------------------------------------------------------

    def _on_frontend(self, message: frontend.FrontendEvent) -> None:
        match message:
            case Outcome(path, seq, verdict, rtt_us, detail):
                if verdict != "answered":
                    _log.debug("path %d, probe %d: %s (%s)", path, seq, verdict, detail)
                self._receive(e.ProbeOutcome(path, seq, verdict, rtt_us, detail))
            case Resolved(host, addresses, error):
                self._updates.resolved(host, addresses, error)
                self._discovery.resolved(host, addresses, error)
                self._receive(e.NameResolved(host, addresses, error))
            case Reply():
                self._requests.receive(message)
            case frontend.Started():
                self._receive(e.FrontendStarted())
                self._publishers.frontend_started()
                self._discovery.frontend_started()
            case frontend.Ended():
                self._receive(e.FrontendEnded())
                self._requests.fail_all()
                self._publishers.frontend_ended()

    def _discovered(self, uplink: str, family: Family, address: str) -> None:
        self._receive(e.PublicAddressFound(uplink, family, address))

    # --- for the engine -------------------------------------------------------------------

    def refresh_names(self) -> None:
        """Have the frontend resolve all names that are needed, if it is time to."""
        needed: tuple[Iterable[str], ...] = (
            self._hosts,
            self._updates.hosts(),
            self._discovery.hosts(),
        )
        for hosts in needed:
            self.frontend.resolve(hosts)

    def counters(self, now: float, controller: Controller) -> CounterReport:
        """What controller and performers have counted since the start."""
        state = controller.state
        try:
            uplinks = self.monitor.counters(now, state.uplinks)
        except OSError:  # out of memory or files
            uplinks = ()
        return CounterReport(
            self._started_at,
            controller.paths.counters(),
            uplinks,
            self._publishers.queries,
            self._publishers.updates,
            state.repairs,
            state.refusals,
        )

    def status(self, status: DaemonStatus) -> DaemonStatus:
        """Add to the controller's status what the performers know."""
        problems = (*status.dns.problems, *self._discovery.problems)
        dns = replace(
            status.dns,
            publishers=self._publishers.statuses(),
            queries=self._publishers.queries,
            problems=problems,
        )
        return replace(
            self.drains.add_to(status),
            dns=dns,
            problems=(
                *status.problems,
                *self.drains.problems,
                *self.host.problems,
                *self.frontend.problems,
                *self.dns_server.problems,
            ),
            rates=dict(self.monitor.rates),
        )
