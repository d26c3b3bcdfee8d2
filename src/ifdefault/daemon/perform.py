"""Performs the controller's effects: on the host, by the frontend, in the DNS, by hooks, in the
log.

Rules: one kind of effect, one performer. What answers at once is returned as an event; what answers
later is told. Nothing here decides, and nothing waits for anything outside.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import astuple, replace
from typing import Any

from ifdefault.daemon import probes
from ifdefault.daemon.controller import effects as f
from ifdefault.daemon.controller import events as e
from ifdefault.daemon.dns.dynamic_update import Updates
from ifdefault.daemon.dns.embedded import Nameserver
from ifdefault.daemon.dns.programs import Programs
from ifdefault.daemon.dns.public_address import Discovery
from ifdefault.daemon.dns.publisher import Publisher
from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.host import Host
from ifdefault.daemon.passive_monitor import PassiveMonitor
from ifdefault.daemon.process import frontend
from ifdefault.daemon.process.frontend import FrontendProcess
from ifdefault.daemon.process.hooks import Hooks
from ifdefault.daemon.requests import Requests
from ifdefault.daemon.silent_changes import SilentChanges
from ifdefault.daemon.status import DaemonStatus
from ifdefault.host.store import Store
from ifdefault.ipc.messages import Outcome, Reply, Resolved, Served
from ifdefault.kernel.kill_connections import kill
from ifdefault.kernel.watch import Watch
from ifdefault.model.config import Config, Family
from ifdefault.model.errors import IfdefaultError, reason

_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_log = logging.getLogger("ifdefault")
Perform = Callable[[Any], e.Event | None]


class Performers:
    def __init__(
        self,
        config: Config,
        store: Store,
        event_log: EventLog,
        watch: Watch,
        tell: Callable[[e.Event], None],
    ) -> None:
        self._tell, self._event_log, self._watch = tell, event_log, watch
        self.host = Host(store, watch)
        self.monitor = PassiveMonitor()
        self.silent = SilentChanges()
        self.frontend = FrontendProcess(config.daemon, event_log, self._hear)
        post = self.frontend.post
        self._requests = Requests(post)
        self._updates = Updates(self._requests, store, event_log)
        self._discovery = Discovery(self._requests, event_log, store, self._found)
        outlets = (Nameserver(store, post, event_log), self._updates, Programs(event_log, store))
        self._publisher = Publisher(event_log, outlets)
        self._hooks = Hooks(config)
        self._hosts: tuple[str, ...] = ()  # of probes' targets
        self._ending: set[asyncio.Task[None]] = set()
        self._performers: dict[type, Perform] = {
            f.Look: self.host.look,
            f.Converge: self.host.converge,
            f.Commit: self._commit,
            f.Watch: self._follow,
            f.EndConnections: self._end_connections,
            f.OpenProbeSocket: lambda effect: probes.open_socket(effect, post),
            f.CloseProbeSocket: lambda effect: probes.close_socket(effect, post),
            f.SendProbe: lambda effect: probes.send(effect, post),
            f.ResolveNames: self._resolve,
            f.Publish: self._publish,
            f.RunHook: self._run_hook,
            f.Log: self._note,
            f.Save: self._save,
            f.SaveForced: self.host.save_forced,
            f.EnterGroup: self.host.enter_group,
            f.LeaveGroup: self.host.leave_group,
        }

    def started(self, config: Config) -> e.Started:
        """The daemon's first event: what is known of an earlier one."""
        kept = self._event_log.load(self.host.routers)
        found = self._discovery.known.items()
        public = tuple(e.PublicAddressFound(*key, address) for key, address in found)
        forced = self.host.load_forced()
        return e.Started(config, forced, kept.memories, kept.candidates, public)

    def perform(self, effect: f.Effect) -> e.Event | None:
        return self._performers[type(effect)](effect)

    async def close(self) -> None:
        await self._hooks.close()
        await self._discovery.close()
        await self._publisher.close()
        await self.frontend.close()
        await asyncio.gather(*self._ending, return_exceptions=True)

    # --- effects --------------------------------------------------------------------------

    def _commit(self, effect: f.Commit) -> e.Committed | e.CommitFailed:
        done = self.host.commit(effect)
        if isinstance(done, e.Committed) and effect.prepared.uplinks:  # else all was taken down
            self._hooks.config = effect.prepared.config
        return done

    def _follow(self, effect: f.Watch) -> None:
        self._watch.interfaces = frozenset(effect.interfaces)
        self.silent.follow(effect)
        self.monitor.follow(effect)

    def _end_connections(self, effect: f.EndConnections) -> None:
        task = asyncio.create_task(self._end(effect))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end(self, effect: f.EndConnections) -> None:
        uplink, family, *what = astuple(effect)
        begun_s = time.monotonic()
        try:
            killed = await asyncio.to_thread(kill, *what)
        except OSError as error:
            self._tell(e.ConnectionsEnded(uplink, family, error=reason(error)))
            return
        took_s = time.monotonic() - begun_s
        self._tell(e.ConnectionsEnded(uplink, family, killed.sockets, killed.flows, took_s))

    def _resolve(self, effect: f.ResolveNames) -> None:
        self._hosts = effect.hosts

    def _publish(self, effect: f.Publish) -> None:
        self._publisher.publish(time.monotonic(), effect)
        self._discovery.follow(effect.config, effect.ways)

    def _run_hook(self, effect: f.RunHook) -> None:
        self._hooks.fire(
            effect.event,
            uplink=effect.uplink,
            family=str(effect.family),
            was=effect.was,
            state=effect.state,
            cause=effect.cause,
        )

    def _note(self, effect: f.Log) -> None:
        self._event_log.note(effect.kind, effect.text, effect.uplink, _LEVELS[effect.level])

    def _save(self, effect: f.Save) -> None:
        try:
            self._event_log.save(effect, self.host.routers)
        except IfdefaultError as error:
            self._event_log.note("engine", str(error), level=logging.WARNING)

    # --- what is heard --------------------------------------------------------------------

    def _hear(self, news: frontend.News) -> None:
        match news:
            case Outcome(path, seq, verdict, rtt_us, detail):
                if verdict != "answered":
                    _log.debug("path %d, probe %d: %s (%s)", path, seq, verdict, detail)
                self._tell(e.ProbeOutcome(path, seq, verdict, rtt_us, detail))
            case Resolved(host, addresses, error):
                self._updates.resolved(host, addresses, error)
                self._discovery.resolved(host, addresses, error)
                self._tell(e.NameResolved(host, addresses, error))
            case Reply():
                self._requests.hear(news)
            case Served():
                self._publisher.hear(news)
            case frontend.Started():
                self._tell(e.FrontendStarted())
                self._publisher.frontend_started()
                self._discovery.frontend_started()
            case frontend.Ended():
                self._tell(e.FrontendEnded())
                self._requests.forget()
                self._publisher.frontend_ended()

    def _found(self, uplink: str, family: Family, address: str) -> None:
        self._tell(e.PublicAddressFound(uplink, family, address))

    # --- chores ---------------------------------------------------------------------------

    def refresh_names(self) -> None:
        """See to it that all names that anybody needs are known."""
        wanted: tuple[Iterable[str], ...] = (
            self._hosts,
            self._updates.hosts(),
            self._discovery.hosts(),
        )
        for hosts in wanted:
            self.frontend.resolve(hosts)

    def status(self, known: DaemonStatus) -> DaemonStatus:
        """What the controller knows of how all stands, and what is known here."""
        problems = (*known.dns.problems, *self._discovery.problems)
        dns = replace(
            known.dns,
            outlets=self._publisher.standings(),
            queries=self._publisher.queries,
            problems=problems,
        )
        return replace(
            known,
            dns=dns,
            problems=(*known.problems, *self.frontend.problems),
            rates=dict(self.monitor.rates),
        )
