"""The operator's requests, from the control sockets or by a signal.

Rules: a request is answered when its outcome is known. A new config is applied completely or
refused (`adopt`). An uplink's forced state is on disk before the request is answered, unless
nothing can be saved, so it survives a restart. Any user may request `exec`: a few requests of each
user are performed together, they take at most 1/`_SHARE` of the time, and they cause no events.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import inf

from ifdefault.daemon.controller import events as e
from ifdefault.daemon.controller.adopt import DOWN, NOTHING_WAITS
from ifdefault.daemon.controller.effects import (
    Answer,
    Entered,
    EnterGroup,
    LeaveGroup,
    SaveForced,
    UplinkChanged,
)
from ifdefault.daemon.controller.state import Adoption, State
from ifdefault.model.errors import HostError, Problem
from ifdefault.plan.resolve import find_uplink

_EXECS = 8  # performed together
_SHARE, _LONGEST_S = 4, 0.5


@dataclass(frozen=True, slots=True)
class _Entering:
    """An `exec` request that waits until the kernel knows its control group."""

    request: e.ExecRequested
    entered: e.GroupEntered


class Commands:
    def __init__(self, state: State) -> None:
        self._state = state
        self._forcing: dict[int, e.UplinkRequested] = {}
        self._execs: list[e.ExecRequested] = []  # that wait for their turn
        self._started: dict[int, e.ExecRequested] = {}
        self._started_s = self._next_s = -inf  # when execs were started, and will be again
        self.entering: list[_Entering] = []  # those that need a look at the kernel

    def receive(self, event: e.Event, now: float) -> None:
        """A request, or the outcome of an effect that one needed."""
        match event:
            case e.UplinkRequested():
                self._force(event)
            case e.ForcedSaved(id, problems):
                if request := self._forcing.pop(id, None):
                    self._on_forced(request, problems, now)
            case e.ReloadRequested():
                self._reload(event)
            case e.ConfirmRequested(id):
                self._confirm(id)
            case e.UndoRequested(id):
                self._undo(id)
            case e.DownRequested(id):
                self._state.adoptions.append(Adoption("down", self._state.config, id=id, held=DOWN))
            case e.ExecRequested():
                if self._is_possible(event):
                    self._execs.append(event)
            case e.GroupEntered():
                self._entered(event)
                self._rest(now)

    def _refuse(self, request: int, where: str, what: str, remedy: str = "") -> None:
        problem = Problem(where, what, remedy)
        self._state.out.append(Answer(request, problems=(problem,)))

    # --- an uplink's forced state ---------------------------------------------------------

    def _force(self, request: e.UplinkRequested) -> None:
        state = self._state
        names = [uplink.name for uplink in state.config.uplinks]
        if request.timeout_s and request.state != "drain":
            self._refuse(request.id, "", "only a drain has a timeout", "leave out timeout_s")
        elif request.uplink in names or (
            request.state == "auto" and request.uplink in state.forced
        ):
            self._forcing[request.id] = request
            forced = (request.id, request.uplink, request.state, request.timeout_s)
            state.out.append(SaveForced(*forced))
        else:
            what = f'no uplink "{request.uplink}"'
            self._refuse(request.id, "", what, f"use one of {', '.join(names)}")

    def _on_forced(
        self, request: e.UplinkRequested, problems: tuple[Problem, ...], now: float
    ) -> None:
        state, name = self._state, request.uplink
        if problems:
            state.out.append(Answer(request.id, problems=problems))
            return
        was = state.forced.get(name, "auto")
        due_s = now + request.timeout_s if request.timeout_s else inf
        if was != request.state or due_s < inf:
            limit = f", down in {request.timeout_s} s" if due_s < inf else ""
            by = "with the control token" if request.token else "by the operator"
            text = f"{name}: forced {was} -> {request.state} {by}{limit}"
            state.log("uplink", text, name)
        elif state.drain_until_s.get(name, inf) < inf:
            state.log("uplink", f"{name}: its drain has no timeout any more", name)
        if was != request.state:
            state.force(name, request.state)
        if request.state == "drain":
            state.drain_until_s[name] = due_s
        state.out.append(Answer(request.id, UplinkChanged(name, was, request.state)))

    def _end_drains(self, now: float) -> None:
        state = self._state
        for name in [name for name, due_s in state.drain_until_s.items() if now >= due_s]:
            state.log("uplink", f"{name}: forced drain -> down, since its timeout is over", name)
            state.force(name, "down")
            state.out.append(SaveForced(0, name, "down"))

    # --- the config -----------------------------------------------------------------------

    def _reload(self, request: e.ReloadRequested) -> None:
        adoption = Adoption("reload", request.config, id=request.id, confirm_s=request.confirm_s)
        self._state.adoptions.append(adoption)

    def _confirm(self, request: int) -> None:
        if self._state.unconfirmed is None:
            self._state.out.append(Answer(request, problems=(NOTHING_WAITS,)))
        else:
            self._state.unconfirmed = None
            self._state.out.append(Answer(request))

    def check_timers(self, now: float) -> None:
        """Begin to undo an apply that wasn't confirmed in time, and end drains that took theirs."""
        if (undo := self._state.unconfirmed) and now >= undo.due_s:
            self._undo(0)
        self._end_drains(now)

    def _undo(self, request: int) -> None:
        state = self._state
        if (undo := state.unconfirmed) is None:
            state.out.append(Answer(request, problems=(NOTHING_WAITS,)))
        else:
            state.unconfirmed = undo.undoing()
            adoption = Adoption("undo", undo.config, id=request, held=undo.held)
            state.adoptions.append(adoption)

    # --- exec -----------------------------------------------------------------------------

    @property
    def wake_s(self) -> float:
        """When the next timer expires."""
        undo = self._state.unconfirmed
        undo_s = undo.due_s if undo else inf
        return min(self._exec_s, undo_s, *self._state.drain_until_s.values())

    @property
    def _exec_s(self) -> float:
        """When to start requests that wait."""
        is_free = self._execs and not self._started and not self.entering
        return self._next_s if is_free else inf

    def start_execs(self, now: float) -> None:
        """Start the requests that are next, if it is time: root's, then each user's in turn."""
        if now < self._exec_s:
            return
        earlier: Counter[int] = Counter()  # requests of the same user
        order = {}
        for request in self._execs:
            order[request.id] = (request.uid != 0, earlier[request.uid])
            earlier[request.uid] += 1
        self._execs.sort(key=lambda request: order[request.id])
        due, self._execs = self._execs[:_EXECS], self._execs[_EXECS:]
        self._started_s = now
        for request in filter(self._is_possible, due):
            self._started[request.id] = request
            group = EnterGroup(request.id, request.pid, request.uid, request.uplink)
            self._state.out.append(group)

    def _is_possible(self, request: e.ExecRequested) -> bool:
        """Otherwise it was refused."""
        state = self._state
        if state.held:
            self._refuse(request.id, "exec", f"the daemon is paused: {state.held}")
            return False
        try:
            find_uplink(state.uplinks, request.uplink)
        except HostError as error:
            state.out.append(Answer(request.id, problems=error.problems))
            return False
        return True

    def _rest(self, now: float) -> None:
        self._next_s = now + (_SHARE - 1) * min(now - self._started_s, _LONGEST_S)

    def _entered(self, entered: e.GroupEntered) -> None:
        request = self._started.pop(entered.id, None)
        if request is None:
            return
        if entered.problems:
            self._state.out.append(Answer(entered.id, problems=entered.problems))
        else:
            self.entering.append(_Entering(request, entered))
            self._state.unapplied = True

    def answer_entered(self, now: float) -> None:
        """Answer the `exec` requests that were waiting for the kernel, successful or not."""
        state = self._state
        if self.entering:
            self._rest(now)
        for entering in self.entering:
            request, path = entering.request, entering.entered.path
            hook = state.prepared.observation.facts.hook if state.prepared else None
            if hook and any(path == group for group, *_ in hook.cgroups):
                state.out.append(Answer(request.id, Entered(path)))
            else:
                state.out.append(LeaveGroup(request.pid, entering.entered.was))
                self._refuse(request.id, "exec", "the kernel couldn't be updated", "try again")
        self.entering.clear()
