"""When to look at the kernel, and what to do about what is found there.

    look_s ─> Look ─> Observed ─> plan ─> Converge ─> Applied      or nothing to do, or not yet

Rules: every change is planned from what the kernel holds at that moment, so that what others did
meanwhile is followed or put back, whichever is right. Repairs are paced (`repair_backoff`), and so
are looks that nobody waits for: they take at most one part in `_SHARE` of the time. A new decision
never waits. While `State.held` says why, nothing is changed.
"""

from __future__ import annotations

from math import inf

from ifdefault.daemon.controller.effects import Converge, Look
from ifdefault.daemon.controller.events import Applied, LookFailed
from ifdefault.daemon.controller.repair_backoff import RepairBackoff
from ifdefault.daemon.controller.state import State
from ifdefault.model.errors import Problem
from ifdefault.model.host import Observation
from ifdefault.plan.describe import describe
from ifdefault.plan.prepare import Prepared

BACKSTOP_S = 30.0  # the kernel is looked at so often without any event
RETRY_S, RETRY_LONGEST_S = 0.1, 10.0  # after a refusal, or while another ifdefault is at work
_SHARE = 4
_TOLD = 3  # operations that a line of the log names


class Reconciler:
    """`awaited`: an answer of the engine's is to come before all else. `observed`: what the kernel
    was found to be, until it is planned from."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.backoff = RepairBackoff()
        self.awaited = False
        self.observed: Observation | None = None
        self._look_s = inf
        self._looked_s, self._cost_s = -inf, 0.0  # when it was done last, and what it took
        self._retry_s = RETRY_S
        self._repairs = False  # whether what is being performed was asked for by nobody

    @property
    def wake_s(self) -> float:
        return min(self._look_s, self._looked_s + BACKSTOP_S)

    def look_at(self, at_s: float) -> None:
        """Look at the kernel at a time."""
        self._look_s = min(self._look_s, self.paced_s(at_s))

    def paced_s(self, at_s: float) -> float:
        """That time, or so much later that looking leaves time for all else."""
        return max(at_s, self._looked_s + _SHARE * self._cost_s)

    def look_now(self, now: float) -> None:
        self._look_s = now

    def look_if_due(self, now: float) -> bool:
        if now < self.wake_s:
            return False
        self._state.out.append(Look(self._state.config))
        self.awaited = True
        return True

    def took(self, now: float, took_s: float) -> None:
        """The kernel was looked at, or the attempt failed, which took so long."""
        self.awaited = False
        self._look_s, self._looked_s, self._cost_s = inf, now, took_s

    def look_failed(self, now: float, failed: LookFailed) -> None:
        self.took(now, 0.0)
        self.look_at(now + (RETRY_S if failed.locked else self._later_s()))
        if not failed.locked:
            self._tell_refused(failed.problems)

    def unresolved(self, now: float, problems: tuple[Problem, ...]) -> None:
        """The config can't be followed as the host is now: two uplinks have come to be alike."""
        self.observed = None
        self._tell_refused(problems)
        self.look_at(now + self._later_s())

    # --- what is to be done ---------------------------------------------------------------

    def reconcile(self, now: float, prepared: Prepared) -> bool:
        """Bring the kernel to what was planned, unless there is nothing to do, or it is to wait;
        whether an answer is to come."""
        state = self._state
        before, state.prepared = state.prepared, prepared
        if state.held:
            return False
        state.fought = False
        if not prepared.operations:
            self._retry_s, state.owed = RETRY_S, False
            self._tell_refused(())
            return False
        groups = before.observation.groups if before else ()
        self._repairs = not state.owed and groups == prepared.observation.groups
        state.fought = self._repairs and self.backoff.holds(now, _described(prepared))
        if state.fought:
            self.look_at(self.backoff.until_s)
            return False
        state.out.append(Converge(prepared))
        self.awaited = True
        return True

    def applied(self, now: float, applied: Applied, performed: Prepared) -> None:
        """What was performed has become of the kernel what it is now."""
        self.took(now, self._cost_s + applied.took_s)
        self._state.owed = False
        operations = _described(performed)
        if self._repairs:
            rest = len(operations) - _TOLD
            more = f" and {rest} more" if rest > 0 else ""
            self._state.log("repair", f"put right: {'; '.join(operations[:_TOLD])}{more}")
        self._tell_refused(applied.refused)
        if applied.refused:  # no fight: the kernel itself won't have it
            self.look_at(now + self._later_s())
            return
        self._retry_s = RETRY_S
        for operation in self.backoff.note(now, operations) if self._repairs else ():
            text = f"another program keeps undoing: {operation}"
            self._state.log("repair", text, level="warning")

    def _tell_refused(self, problems: tuple[Problem, ...]) -> None:
        refused = tuple(map(str, problems))
        if refused != self._state.refused:
            self._state.refused = refused
            for text in refused:
                self._state.log("repair", f"the kernel refused: {text}", level="warning")

    def _later_s(self) -> float:
        self._retry_s = min(2 * self._retry_s, RETRY_LONGEST_S)
        return self._retry_s


def _described(prepared: Prepared) -> tuple[str, ...]:
    return tuple(map(describe, prepared.operations))
