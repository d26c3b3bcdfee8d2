"""Reports packets that don't go where they are meant to go, while the kernel is as desired.

    Look(questions) ─> Observed(answers) ─> plan ─> nothing to change ─> find ─> log, status

Rules: what isn't as meant in two looks in a row is reported, since the kernel may be changing while
it is read; it is over when a look doesn't show it any more.
"""

from __future__ import annotations

from ifdefault.daemon.controller.state import State
from ifdefault.model.errors import Problem
from ifdefault.model.host import Observation
from ifdefault.plan import self_check
from ifdefault.plan.prepare import Prepared

AGAIN_S = 0.2  # after a look that shows something new, or that didn't ask everything


class SelfCheck:
    """`problems`: those that were reported and aren't over."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.problems: tuple[Problem, ...] = ()
        self._seen: tuple[Problem, ...] = ()  # by the last look
        self._observation: Observation | None = None

    def update(self, prepared: Prepared) -> bool:
        """Process the answers of the last look. True if another one is needed soon."""
        observation = prepared.observation
        if self._state.held:
            self.problems = self._seen = ()
        if self._state.held or prepared.operations or observation is self._observation:
            return False
        self._observation = observation
        answers = dict(observation.answers)
        if not answers.keys() >= set(prepared.questions):
            return True  # the plan has changed since they were asked
        asked = tuple((question, answers[question]) for question in prepared.questions)
        found = self_check.find(
            prepared.config, observation.facts, prepared.uplinks, asked, self._state.decision
        )
        confirmed = tuple(p for p in found if p in self._seen or p in self.problems)
        for problem in confirmed:
            if problem not in self.problems:
                self._state.log("self-check", str(problem), severity="warning")
        for problem in self.problems:
            if problem not in found:
                self._state.log("self-check", f"over: {problem.where}: {problem.what}")
        self.problems, self._seen = confirmed, found
        return len(confirmed) < len(found)
