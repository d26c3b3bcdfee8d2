"""Applies a config, completely or not at all: at the start, on reload, undo and down.

    Adoption ─> Look (thorough) ─> Observed ─> plan ─> Commit ─> Committed ─> Answer
                   └─> refused         └─> refused       └─> CommitFailed: unchanged ─> Answer

Rules: one at a time, in the order of the requests. The previous config stays in effect until the
new one is completely in the kernel. A request is answered when its outcome is known.
"""

from __future__ import annotations

from dataclasses import replace

from ifdefault.daemon.controller.effects import Answer, Changed, Commit, Look, Stop
from ifdefault.daemon.controller.state import Adoption, State, Unconfirmed
from ifdefault.dns.config_changes import config_changes
from ifdefault.model.errors import Problem
from ifdefault.model.health import Decision
from ifdefault.model.host import Observation
from ifdefault.plan.prepare import Prepared, Resolved, prepare, prepare_down

UNDO_AGAIN_S = 1.0
_DNS_LOGGED = 10  # changes of the DNS logged one by one; the rest are counted
DOWN = "taken down by ifdefault down, until ifdefault apply"
NOTHING_WAITS = Problem(
    "confirm",
    "nothing is waiting for confirmation",
    "it may have been undone: see ifdefault plan",
)
_UNCONFIRMED = Problem(
    "reload",
    "an apply is waiting for confirmation",
    "run ifdefault confirm to keep it, or ifdefault down, or wait until it is undone",
)


class Adopter:
    """`current`: the adoption under way."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.current: Adoption | None = None
        self._prepared: Prepared | None = None

    def begin(self, now: float) -> bool:
        """Begin the next adoption, if there is one. True if a Look was issued."""
        state = self._state
        while self.current is None and state.adoptions:
            self.current = state.adoptions.popleft()
            if self.current.why == "undo" and state.unconfirmed is None:
                self.failed(now, (NOTHING_WAITS,))  # confirmed, or taken down, meanwhile
            elif self.current.why == "reload" and state.unconfirmed is not None:
                self.failed(now, (_UNCONFIRMED,))
            else:
                thorough = not self.current.held
                look = Look(self.current.config, thorough=thorough, wait=True, strays=True)
                state.out.append(look)
        return self.current is not None

    def plan(self, now: float, resolved: Resolved, decision: Decision) -> bool:
        """Plan for the host as observed. True if a Commit was issued."""
        prepared = prepare(resolved, decision, thorough=True)
        if self.current and self.current.why == "start":
            # a problem of one service mustn't prevent the start
            problems = tuple(p for p in prepared.problems if not p.where.startswith("forward["))
            prepared = replace(prepared, problems=problems)
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
        """The config is applied; return the plan with the host as it is now."""
        adoption, prepared, state = self.current, self._prepared, self._state
        assert adoption is not None
        assert prepared is not None
        self.current = self._prepared = None
        before = Unconfirmed(now + (adoption.confirm_s or 0), state.config, state.held)
        if adoption.why == "reload" and before.config.daemon.user != adoption.config.daemon.user:
            state.log("reload", "daemon.user: the new value takes effect at the next start")
        state.config, state.held, state.unconfirmed = adoption.config, adoption.held, None
        if not adoption.held:
            state.decision, state.unapplied = prepared.decision, False
        for problem in prepared.lacks:
            state.log("config", str(problem), severity="warning")
        kind, text = _log_text(adoption, prepared)
        state.log(kind, text)
        dns: tuple[str, ...] = ()
        if adoption.why in ("reload", "undo"):
            dns = config_changes(before.config.dns, adoption.config.dns)
            self._log_dns(dns)
        if adoption.confirm_s is not None and prepared.operations:
            state.unconfirmed = before
        if adoption.id:
            state.out.append(Answer(adoption.id, Changed(prepared, dns)))
        return replace(prepared, observation=observation, operations=())

    def _log_dns(self, lines: tuple[str, ...]) -> None:
        for line in lines[:_DNS_LOGGED]:
            self._state.log("reload", line)
        if rest := len(lines[_DNS_LOGGED:]):
            self._state.log("reload", f"and {rest} more changes of the DNS")

    def failed(self, now: float, problems: tuple[Problem, ...], *, config: bool = False) -> None:
        """The config wasn't applied, and nothing changed. `config`: because of errors in it."""
        adoption, state = self.current, self._state
        assert adoption is not None
        self.current = self._prepared = None
        if adoption.id:
            state.out.append(Answer(adoption.id, problems=problems, config=config))
        elif adoption.why == "start":
            state.out.append(Stop(problems))
        if adoption.why == "undo" and state.unconfirmed:
            text = "; ".join(map(str, problems))
            state.log("reload", f"undo failed, will be retried: {text}", severity="error")
            state.unconfirmed = replace(state.unconfirmed, due_s=now + UNDO_AGAIN_S)


def _log_text(adoption: Adoption, prepared: Prepared) -> tuple[str, str]:
    match adoption.why:
        case "start":
            return "engine", f"started, {len(prepared.uplinks)} uplinks"
        case "reload":
            return "reload", f"config reloaded, {len(prepared.operations)} operations"
        case "undo":
            return "reload", "not confirmed: returned to the previous config"
        case "down":
            return "down", "removed everything of ours from the kernel"
