"""Taking a config in, whole or not at all: at the start, at a reload, back again, or none at all.

    Adoption ─> Look (thorough) ─> Observed ─> plan ─> Commit ─> Committed ─> Answer
                   └─> refused         └─> refused       └─> CommitFailed: as it was ─> Answer

Rules: one at a time, in the order in which they were asked for. Until all of it stands in the
kernel the config that was goes on; who asked is answered when it is known what became of it.
"""

from __future__ import annotations

from dataclasses import replace

from ifdefault.daemon.controller.effects import Answer, Changed, Commit, Look, Stop
from ifdefault.daemon.controller.state import Adoption, State, Unconfirmed
from ifdefault.model.errors import Problem
from ifdefault.model.health import Decision
from ifdefault.model.host import Observation
from ifdefault.plan.prepare import Prepared, Resolved, prepare, prepare_down

UNDO_AGAIN_S = 1.0
DOWN = "taken down by ifdefault down, until ifdefault apply"
_WAITS = Problem(
    "reload",
    "an apply waits for its confirmation",
    "run ifdefault confirm to keep it, or ifdefault down, or wait until it is undone",
)


class Adopter:
    """`current` is what is being taken in."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.current: Adoption | None = None
        self._prepared: Prepared | None = None

    def begin(self, now: float) -> bool:
        """Take up the next, if there is one; whether an answer is to come."""
        state = self._state
        while self.current is None and state.adoptions:
            self.current = state.adoptions.popleft()
            if self.current.why == "undo" and state.unconfirmed is None:
                self.current = None  # what was asked for meanwhile has called it off
            elif self.current.why == "reload" and state.unconfirmed is not None:
                self.failed(now, (_WAITS,))
            else:
                thorough = not self.current.held
                state.out.append(Look(self.current.config, thorough=thorough, wait=True))
        return self.current is not None

    def plan(self, now: float, resolved: Resolved, decision: Decision) -> bool:
        """Go on with the host as it is; whether an answer is to come."""
        prepared = prepare(resolved, decision, thorough=True)
        if self.current and self.current.why == "start":
            # a service's fault mustn't keep us from all else
            spared = tuple(p for p in prepared.problems if not p.where.startswith("forward["))
            prepared = replace(prepared, problems=spared)
        return self._commit(now, prepared)

    def plan_down(self, now: float, observation: Observation) -> bool:
        return self._commit(now, prepare_down(observation))

    def _commit(self, now: float, prepared: Prepared) -> bool:
        if errors := tuple(p for p in prepared.problems if p.blocks and not p.warning):
            self.failed(now, errors)
            return False
        self._prepared = prepared
        self._state.out.append(Commit(prepared))
        return True

    def committed(self, now: float, observation: Observation) -> Prepared:
        """It stands: what was planned, with what the host is now."""
        adoption, prepared, state = self.current, self._prepared, self._state
        assert adoption is not None
        assert prepared is not None
        self.current = self._prepared = None
        before = Unconfirmed(now + (adoption.confirm_s or 0), state.config, state.held)
        if adoption.why == "reload" and before.config.daemon.user != adoption.config.daemon.user:
            state.log("reload", "daemon.user is taken in at the next start")
        state.config, state.held, state.unconfirmed = adoption.config, adoption.held, None
        if not adoption.held:
            state.decision, state.owed = prepared.decision, False
        for problem in prepared.lacks:
            state.log("config", str(problem), level="warning")
        kind, text = _told(adoption, prepared)
        state.log(kind, text)
        if adoption.confirm_s is not None and prepared.operations:
            state.unconfirmed = before
        if adoption.id:
            state.out.append(Answer(adoption.id, Changed(prepared)))
        return replace(prepared, observation=observation, operations=())

    def failed(self, now: float, problems: tuple[Problem, ...], *, config: bool = False) -> None:
        """It can't be: all is as it was. `config`: for what the config says."""
        adoption, state = self.current, self._state
        assert adoption is not None
        self.current = self._prepared = None
        if adoption.id:
            state.out.append(Answer(adoption.id, problems=problems, config=config))
        elif adoption.why == "start":
            state.out.append(Stop(problems))
        elif adoption.why == "reload":
            for problem in problems:
                state.log("reload", f"refused: {problem}", level="error")
        elif state.unconfirmed:
            text = "; ".join(map(str, problems))
            state.log("reload", f"undoing, will be tried again: {text}", level="error")
            state.unconfirmed = replace(state.unconfirmed, due_s=now + UNDO_AGAIN_S)


def _told(adoption: Adoption, prepared: Prepared) -> tuple[str, str]:
    match adoption.why:
        case "start":
            return "engine", f"started, {len(prepared.uplinks)} uplinks"
        case "reload":
            return "reload", f"config taken in, {len(prepared.operations)} operations"
        case "undo":
            return "reload", "not confirmed: all is as it was before"
        case "down":
            return "down", "all of ours was taken out of the kernel"
