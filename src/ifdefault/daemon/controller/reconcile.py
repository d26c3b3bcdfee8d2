"""When to read the kernel, and whether to change it.

    look_s ─> Look ─> Observed ─> plan ─> Converge ─> Applied      or nothing to do, or not yet

Rules: every change is planned from what the kernel holds at that moment, so changes by others are
either adopted or reverted. Repairs are paced (`repair_backoff`). So are looks that nobody waits
for: they take at most 1/`_SHARE` of the time. A new decision is applied at once. While `State.held`
is set, nothing is changed.
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

BACKSTOP_S = 30.0  # the kernel is read this often even without any event
RETRY_S, RETRY_LONGEST_S = 0.1, 10.0  # after a refusal, or while another ifdefault holds the lock
_SHARE = 4
_LOGGED = 3  # operations named in one log line


class Reconciler:
    """`awaited`: a Look, Converge or Commit hasn't been answered yet. `observed`: the answer to a
    Look, until it is planned from."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.backoff = RepairBackoff()
        self.awaited = False
        self.observed: Observation | None = None
        self._look_s = inf
        self._looked_s, self._cost_s = -inf, 0.0  # when it was read last, and how long that took
        self._retry_s = RETRY_S
        self._repairs = False  # whether the operations under way repair what others changed

    @property
    def wake_s(self) -> float:
        return min(self._look_s, self._looked_s + BACKSTOP_S)

    def look_at(self, at_s: float) -> None:
        """Look at the kernel at this time, or later if it was looked at a moment ago."""
        self._look_s = min(self._look_s, self.paced_s(at_s))

    def paced_s(self, at_s: float) -> float:
        """This time, or as much later as keeps looks below 1/`_SHARE` of the time."""
        return max(at_s, self._looked_s + _SHARE * self._cost_s)

    def look_now(self, now: float) -> None:
        self._look_s = now

    def look_if_due(self, now: float) -> bool:
        if now < self.wake_s:
            return False
        state = self._state
        questions = state.prepared.questions if state.prepared and not state.held else ()
        state.out.append(Look(state.config, questions=questions))
        self.awaited = True
        return True

    def looked(self, now: float, took_s: float) -> None:
        """A look ended, successful or not, and took this long."""
        self.awaited = False
        self._look_s, self._looked_s, self._cost_s = inf, now, took_s

    def look_failed(self, now: float, failed: LookFailed) -> None:
        self.looked(now, 0.0)
        self.look_at(now + (RETRY_S if failed.locked else self._next_retry_s()))
        if not failed.locked:
            self._report_refused(failed.problems)

    def unresolved(self, now: float, problems: tuple[Problem, ...]) -> None:
        """The config can't be resolved on the host as it is now, as when two uplinks can no longer
        be distinguished."""
        self.observed = None
        self._report_refused(problems)
        self.look_at(now + self._next_retry_s())

    # --- changes --------------------------------------------------------------------------

    def reconcile(self, now: float, prepared: Prepared) -> bool:
        """Issue a Converge for a plan, unless there is nothing to do or the repair has to wait.
        True if one was issued."""
        state = self._state
        before, state.prepared = state.prepared, prepared
        if state.held:
            return False
        state.conflicted = False
        if not prepared.operations:
            self._retry_s, state.unapplied = RETRY_S, False
            self._report_refused(())
            return False
        groups = before.observation.groups if before else ()
        self._repairs = not state.unapplied and groups == prepared.observation.groups
        state.conflicted = self._repairs and self.backoff.holds(now, prepared.operations)
        if state.conflicted:
            self.look_at(self.backoff.until_s)
            return False
        state.out.append(Converge(prepared))
        self.awaited = True
        return True

    def applied(self, now: float, applied: Applied, performed: Prepared) -> None:
        """Process the outcome of a Converge: log repairs, refusals and conflicts."""
        self.looked(now, self._cost_s + applied.took_s)
        self._state.unapplied = False
        self._state.refusals += len(applied.refused)
        if self._repairs:
            self._state.repairs += len(performed.operations)
            operations = tuple(map(describe, performed.operations))
            rest = len(operations) - _LOGGED
            more = f" and {rest} more" if rest > 0 else ""
            self._state.log("repair", f"repaired: {'; '.join(operations[:_LOGGED])}{more}")
        self._report_refused(applied.refused, "the kernel refused: ")
        if applied.refused:  # refused by the kernel, so no other program is involved
            self.look_at(now + self._next_retry_s())
            return
        self._retry_s = RETRY_S
        repairs = performed.operations if self._repairs else ()
        for operation in self.backoff.note(now, repairs):
            text = f"another program keeps undoing: {operation}"
            self._state.log("repair", text, severity="warning")

    def _report_refused(self, problems: tuple[Problem, ...], by: str = "") -> None:
        refused = tuple(map(str, problems))
        if refused != self._state.refused:
            self._state.refused = refused
            for text in refused:
                self._state.log("repair", f"{by}{text}", severity="warning")

    def _next_retry_s(self) -> float:
        self._retry_s = min(2 * self._retry_s, RETRY_LONGEST_S)
        return self._retry_s
