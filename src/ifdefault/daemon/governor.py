"""From transitions to a decision, and from the decision to the kernel.

    transitions ──> decide ──> keep (keeper ── kernel) ──> follow ──> transitions …
                      └─────> free what hangs on the dead

Rules: all of it happens in the turn of the loop that brought the transition. Following what the
kernel holds may bring transitions of its own, and so ends where nothing changes any more.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from ifdefault.daemon import stale_connections
from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.keeper import Keeper
from ifdefault.daemon.paths import Paths
from ifdefault.daemon.process.hooks import Hooks
from ifdefault.health.selection import Candidate, decide
from ifdefault.host.transaction import Prepared
from ifdefault.kernel.kill_connections import free
from ifdefault.model.config import FAMILIES, Config, Family
from ifdefault.model.health import Decision, Forced, Transition
from ifdefault.model.kernel import Uplink

_SETTLE_S = 1.0  # a start's first answers come in any order, which is no reason to move
_SHARE = 4  # of the time at most one part in so many goes into looking at the kernel
_log = logging.getLogger("ifdefault")
_TOLD = 3  # operations that a line of the log names


class Governor:
    """`followed` is called when uplinks were taken in as they are now, `decided` when the decision,
    or what it was made of, may have changed; `save` before anything is done about a transition, so
    that whoever starts after a kill knows why it was done. `gone` names content servers."""

    def __init__(
        self,
        keeper: Keeper,
        paths: Paths,
        event_log: EventLog,
        hooks: Hooks,
        followed: Callable[[Prepared], None],
        decided: Callable[[], None],
        save: Callable[[], None],
        gone: Callable[[], tuple[tuple[str, int], ...]],
    ) -> None:
        self.keeper, self._paths, self._event_log, self._hooks = keeper, paths, event_log, hooks
        self._followed, self._tell_decided, self._save = followed, decided, save
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self.started_s = time.monotonic()
        self.settling_s = float("inf")  # until when the first answers come in any order
        self.kept_s = 0.0  # when the kernel was looked at last
        self.decision: Decision | None = None
        self.forced: dict[str, Forced] = {}
        self.refused: tuple[str, ...] = ()
        self._carrier: dict[Family, str] = {}
        self._usable: dict[str, Uplink] = {}  # uplinks as they were when they could be used last
        self._unfreed: set[tuple[str, Family]] = set()
        self._owed = False  # a decision that didn't reach the kernel yet
        self._frees: set[asyncio.Task[None]] = set()
        self._keep_cost_s = 0.0
        self._keep_at_s = float("inf")

    async def close(self) -> None:
        await asyncio.gather(*self._frees, return_exceptions=True)

    # --- deciding -------------------------------------------------------------------------

    def take(self, transitions: Iterable[Transition]) -> None:
        """Tell what changed, and decide anew."""
        told = tuple(transitions)
        if not told:
            return
        for change in told:
            worse = change.state in ("down", "degraded")
            level = logging.WARNING if worse else logging.INFO
            self._event_log.note("path", str(change), change.uplink, level)
            self._hooks.fire(
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
        self._save()
        self.decide()

    def force(self, forced: dict[str, Forced]) -> None:
        """The operator's word changed; what hangs on an uplink forced down is freed as well."""
        for name, state in forced.items():
            if state == "down" and self.forced.get(name) != "down":
                self._unfreed |= {(name, family) for family in FAMILIES}
        self.forced = forced
        self.decide()

    def decide(self) -> None:
        """Decide anew, and bring the kernel to it at once if that changes anything."""
        decision = self._decided(self.keeper.prepared)
        if decision != self.decision:
            self.decision = decision
            self._owed = True
            self._tell_decided()  # the DNS first: it is told in no time, and others do the rest
            self.keep()
        self._tell_decided()
        self._free_dead()

    def settle(self) -> None:
        """Probes are asked from now on: soon it is known what answers."""
        self.settling_s = min(self.settling_s, time.monotonic() + _SETTLE_S)

    @property
    def settled(self) -> bool:
        return time.monotonic() > self.settling_s

    def _decided(self, prepared: Prepared) -> Decision:
        carriers = {link.name for link in prepared.facts.links if link.carrier}
        candidates = []
        for uplink in prepared.uplinks:
            for family in FAMILIES:
                if uplink.pending or uplink.gateway(family) is None:
                    continue
                state = self._paths.state(uplink.name, family)
                if state == "unproven" and not self.settled:
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
                        down_since_s=self._paths.down_since_s(uplink.name, family),
                    )
                )
        return replace(decide(candidates), gone=self._gone())

    # --- to the kernel, and what it tells -------------------------------------------------

    def adopt(self, config: Config) -> Prepared:
        """Take in a config, or raise and go on with the one that is. The first time, with what
        the earlier engine knew, so that adopting what it left moves nothing."""
        early: list[Transition] = []

        def decided(prepared: Prepared) -> Decision:
            if self.decision is None:
                now, facts = time.monotonic(), prepared.facts
                early.extend(self._paths.follow(now, config, prepared.uplinks, facts))
            return self._decided(prepared)

        prepared = self.keeper.adopt(config, decided)
        for problem in prepared.lacks:
            self._event_log.note("config", str(problem), level=logging.WARNING)
        self.decision, self._owed = self._decided(prepared), False
        self._hooks.config = config
        # what died before us may have been left hanging
        self._unfreed |= {key for key, _ in self._paths if self._paths.state(*key) == "down"}
        self.follow()
        self.take(early)
        self.decide()
        return prepared

    def replan(self) -> None:
        """Bring the kernel to what was just asked for, or follows from it; it is no repair."""
        self._owed = True
        self.keep()

    def look_at(self, at_s: float) -> None:
        """Look at the kernel at a time, but never so often that we do nothing else."""
        at_s = max(at_s, self.kept_s + _SHARE * self._keep_cost_s)
        if at_s < self._keep_at_s:
            self._keep_at_s = at_s
            self._loop.call_at(at_s, self._keep_if_due)

    def _keep_if_due(self) -> None:
        if time.monotonic() >= self._keep_at_s - 0.001:
            self.keep()

    def keep(self) -> None:
        """Look at the kernel now, mend what differs, and follow what changed."""
        begun_s = time.monotonic()
        self._keep_at_s = float("inf")
        decided = self._owed or self.keeper.groups_changed()
        kept = self.keeper.keep(begun_s, self.decision, decided=decided)
        self.kept_s = time.monotonic()
        self._keep_cost_s = self.kept_s - begun_s
        self._owed = decided and not kept.looked
        for operation in kept.operations:
            _log.debug("performed: %s", operation)
        if kept.operations and not decided:
            rest = len(kept.operations) - _TOLD
            more = f" and {rest} more" if rest > 0 else ""
            self._event_log.note("repair", f"put right: {'; '.join(kept.operations[:_TOLD])}{more}")
        for operation in kept.fought:
            text = f"another program keeps undoing: {operation}"
            self._event_log.note("repair", text, level=logging.WARNING)
        refused = tuple(str(problem) for problem in kept.refused)
        if refused != self.refused:
            self.refused = refused
            for text in refused:
                self._event_log.note("repair", f"the kernel refused: {text}", level=logging.WARNING)
        if kept.again_s:
            self.look_at(kept.again_s)
        if kept.looked:
            self.follow()
            self._free_dead()

    def follow(self) -> None:
        """Take in uplinks as they are now; tell where the normal default went."""
        prepared = self.keeper.prepared
        self._usable |= {u.name: u for u in prepared.uplinks if not u.pending}
        self._followed(prepared)
        now = time.monotonic()
        told = self._paths.follow(now, self.keeper.config, prepared.uplinks, prepared.facts)
        self.take(told)
        for family in FAMILIES:
            order = self.decision.ranking(family) if self.decision else ()
            name, was = (order[0] if order else ""), self._carrier.get(family, "")
            if name and name != was and not self._owed and not self.keeper.held:
                self._carrier[family] = name
                text = f"default IPv{family}: {was or 'none'} -> {name}"
                self._event_log.note("default", text, name)
                if was:  # else we have just started, and nothing moved
                    fields = {"uplink": name, "family": str(family), "was": was, "state": name}
                    self._hooks.fire("default", **fields)
        self._tell_decided()

    def take_down(self) -> Prepared:
        """Take all of ours away and rest."""
        self._unfreed.clear()
        return self.keeper.take_down()

    # --- freeing --------------------------------------------------------------------------

    def _free_dead(self) -> None:
        """Free what hangs on dead uplinks, once others can take over."""
        if self.keeper.held or self.decision is None or self._owed:
            return
        for name, family in sorted(self._unfreed):
            if "down" not in (self.forced.get(name), self._paths.state(name, family)):
                self._unfreed.discard((name, family))  # it was forced down, and isn't any more
                continue
            usable = self.decision.usable_in(family)
            if not usable or name in usable:
                continue  # fail static: there is nowhere to go
            self._unfreed.discard((name, family))
            uplink = self._usable.get(name)
            if uplink and self.keeper.config.health.on_down == "free":
                task = asyncio.create_task(self._free(uplink, family, self.decision))
                self._frees.add(task)
                task.add_done_callback(self._frees.discard)

    async def _free(self, uplink: Uplink, family: Family, decision: Decision) -> None:
        begun_s = time.monotonic()
        its = stale_connections.ends(self.keeper.prepared, decision, uplink, family)
        try:
            freed = await asyncio.to_thread(free, *dataclasses.astuple(its))
        except OSError as error:
            text = f"{uplink.name} IPv{family}: nothing freed: {error.strerror or error}"
            self._event_log.note("freed", text, uplink.name, logging.WARNING)
            return
        if freed.sockets or freed.flows:
            took_ms = (time.monotonic() - begun_s) * 1000
            text = (
                f"{uplink.name} IPv{family}: freed {freed.sockets} TCP connections and"
                f" {freed.flows} tracked flows in {took_ms:.0f} ms"
            )
            self._event_log.note("freed", text, uplink.name)
