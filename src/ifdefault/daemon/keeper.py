"""Keeps the kernel as planned: at the start, when the decision changes, and when others interfere.

Rules: every change is planned from what the kernel holds at that moment, so that what others did
meanwhile is followed or put back, whichever is right. Repairs are paced (`fights`); a new decision
never waits. While `held` says why, nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ifdefault.daemon.repair_backoff import RepairBackoff
from ifdefault.host import exec_groups
from ifdefault.host.routers import RoutersSeen
from ifdefault.host.store import Store
from ifdefault.host.transaction import Prepared, commit, converge, prepare_config, prepare_down
from ifdefault.kernel import sockdiag, sysctl
from ifdefault.kernel.ebpf import cgroups
from ifdefault.kernel.netlink import Netlink
from ifdefault.kernel.uapi.netlink import NETLINK_SOCK_DIAG
from ifdefault.model.config import Config
from ifdefault.model.errors import IfdefaultError, LockError, Problem
from ifdefault.model.health import Decision
from ifdefault.model.kernel import Uplink
from ifdefault.plan.describe import describe


@dataclass(frozen=True, slots=True)
class Kept:
    """What one look at the kernel led to. Where it couldn't be `looked` at, nothing is new."""

    looked: bool = True
    operations: tuple[str, ...] = ()
    refused: tuple[Problem, ...] = ()
    fought: tuple[str, ...] = ()
    again_s: float = 0.0  # when to look again, 0 if nothing is left to do


_RETRY_S = 0.1  # after a refusal, or while another ifdefault changes the host
_RETRY_LONGEST_S = 10.0


class Keeper:
    def __init__(self, config: Config, store: Store) -> None:
        self.config = config
        self.held = ""
        self.fights = RepairBackoff()
        self._store = store
        self.routers = RoutersSeen()
        self._retry_s = _RETRY_S
        self._prepared: Prepared | None = None
        self._sysctls = sysctl.Watched(())
        self._netlink: Netlink | None = None
        self._turn = False
        self._groups: tuple[int, ...] = ()  # the numbers of those control groups that have rules

    @property
    def prepared(self) -> Prepared:
        assert self._prepared is not None, "adopt() comes first"
        return self._prepared

    @property
    def uplinks(self) -> tuple[Uplink, ...]:
        return self.prepared.uplinks

    def adopt(self, config: Config, decide: Callable[[Prepared], Decision | None]) -> Prepared:
        """Bring the kernel to a config, or leave it as it was and raise. `decide` is shown what
        uplinks that config has."""
        with self._store.lock(wait=True):
            first = self._prepare(config, None, thorough=False)
            decision = decide(first)
            groups = _groups(first)  # as they were before the kernel was looked at
            prepared = self._prepare(config, decision, thorough=True)
            if self._prepared is None:  # at boot a service's fault mustn't keep us from all else
                spared = tuple(p for p in prepared.problems if not p.where.startswith("forward["))
                prepared = replace(prepared, problems=spared)
            commit(prepared, self._store)
        self.config, self._prepared, self.held = config, prepared, ""
        self._groups = groups
        return prepared

    def take_down(self) -> Prepared:
        """Take all of ours out of the kernel and rest."""
        with self._store.lock(wait=True):
            prepared = prepare_down(self._store)
            commit(prepared, self._store)
        self.held = "taken down by ifdefault down, until ifdefault apply"
        return prepared

    def keep(self, now: float, decision: Decision | None, *, decided: bool) -> Kept:
        """Look at the kernel and mend what differs; `decided` if a decision asks for it."""
        try:
            with self._store.lock():
                return self._keep(now, decision, decided)
        except LockError:
            return Kept(False, again_s=now + _RETRY_S)  # another ifdefault changes the host
        except IfdefaultError as error:  # a ConfigError, too: two uplinks have come to be alike
            return Kept(False, refused=error.problems, again_s=now + self._later())
        except (OSError, KeyError) as error:  # short of memory or files; an interface just gone
            problem = Problem("the kernel", f"can't be read or changed: {error}")
            return Kept(False, refused=(problem,), again_s=now + self._later())

    def _keep(self, now: float, decision: Decision | None, decided: bool) -> Kept:
        groups = _groups(self.prepared)  # what comes or goes meanwhile is seen the next time
        prepared = self._prepare(self.config, decision, thorough=False)
        self._prepared, self._groups = prepared, groups
        operations = tuple(describe(operation) for operation in prepared.operations)
        if self.held:
            return Kept()
        if not operations:
            self._retry_s = _RETRY_S
            return Kept()
        if not decided and self.fights.holds(now, operations):
            return Kept(again_s=self.fights.until_s)
        refused = converge(prepared, self._store)
        if refused:  # no fight: the kernel itself won't have it
            return Kept(True, operations, refused, (), now + self._later())
        self._retry_s = _RETRY_S
        return Kept(True, operations, (), () if decided else self.fights.note(now, operations))

    def groups_changed(self) -> bool:
        """Whether control groups that have rules came or went, which is nobody's interference."""
        if self.held:
            return False
        return exec_groups.sweep(self.prepared.state) or self._groups != _groups(self.prepared)

    def _later(self) -> float:
        self._retry_s = min(2 * self._retry_s, _RETRY_LONGEST_S)
        return self._retry_s

    def _prepare(self, config: Config, decision: Decision | None, *, thorough: bool) -> Prepared:
        return prepare_config(
            config,
            self._store,
            thorough=thorough,
            decision=decision,
            routers_seen=self.routers,
        )

    def differs_silently(self) -> bool:
        """Whether something changed of which the kernel sends no word: sysctls that we set, UDP
        sockets that are bound to no address."""
        if self.held:
            return False
        desired, facts = self.prepared.desired, self.prepared.facts
        if self._sysctls.wanted != desired.sysctls or self._sysctls.differ():
            differs = any(sysctl.read(n) not in (value, None) for n, value in desired.sysctls)
            self._sysctls.close()
            self._sysctls = sysctl.Watched(desired.sysctls)
            if differs:
                return True
        if self.config.host.udp_wildcard != "auto":
            return False
        self._turn = not self._turn  # a server that starts is in no such hurry
        try:
            return self._turn and sockdiag.wildcard_udp(self._diag()) != facts.wildcard_udp
        except OSError:  # short of memory or files: we look again soon
            if self._netlink is not None:
                self._netlink.close()
                self._netlink = None
            return False

    def _diag(self) -> Netlink:
        if self._netlink is None:
            self._netlink = Netlink(NETLINK_SOCK_DIAG)
        return self._netlink


def _groups(prepared: Prepared) -> tuple[int, ...]:
    """The numbers of the control groups that have rules, 0 of one that isn't there."""
    hook = prepared.desired.hook
    return tuple(cgroups.number(path) for path, *_ in hook.cgroups) if hook else ()
