"""What the operator asks for, over the control socket or by a signal.

Rules: a request is answered when it is known what became of it. A new config is taken in whole or
refused whole (`adopt`). What is asked for an uplink is on disk before it is answered, and so
outlives a restart.
"""

from __future__ import annotations

from dataclasses import dataclass

from ifdefault.daemon.controller import events as e
from ifdefault.daemon.controller.adopt import DOWN
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

_UNDONE = "it may have been undone: see ifdefault plan"


@dataclass(frozen=True, slots=True)
class _Entering:
    """An `exec` that waits until the kernel has been told of its control group."""

    request: e.ExecRequested
    entered: e.GroupEntered


class Commands:
    def __init__(self, state: State) -> None:
        self._state = state
        self._forcing: dict[int, e.UplinkRequested] = {}
        self._asked: dict[int, e.ExecRequested] = {}
        self.entering: list[_Entering] = []  # for whom the kernel has to be seen

    def take(self, event: e.Event) -> None:
        """A request, or what came of one's effect."""
        match event:
            case e.UplinkRequested():
                self._force(event)
            case e.ForcedSaved(id, problems):
                if asked := self._forcing.pop(id, None):
                    self._forced(asked, problems)
            case e.ReloadRequested():
                self._reload(event)
            case e.ConfirmRequested(id):
                self._confirm(id)
            case e.DownRequested(id):
                self._state.adoptions.append(Adoption("down", self._state.config, id=id, held=DOWN))
            case e.ExecRequested():
                self._exec(event)
            case e.GroupEntered():
                self._entered(event)

    def _refuse(self, request: int, where: str, what: str, remedy: str = "") -> None:
        problem = Problem(where, what, remedy)
        self._state.out.append(Answer(request, problems=(problem,)))

    # --- an uplink's forced state ---------------------------------------------------------

    def _force(self, asked: e.UplinkRequested) -> None:
        state = self._state
        names = [uplink.name for uplink in state.config.uplinks]
        if asked.uplink in names or (asked.state == "auto" and asked.uplink in state.forced):
            self._forcing[asked.id] = asked
            state.out.append(SaveForced(asked.id, asked.uplink, asked.state))
        else:
            what = f'no uplink "{asked.uplink}"'
            self._refuse(asked.id, "", what, f"there are {', '.join(names)}")

    def _forced(self, asked: e.UplinkRequested, problems: tuple[Problem, ...]) -> None:
        state, name = self._state, asked.uplink
        if problems:
            state.out.append(Answer(asked.id, problems=problems))
            return
        was = state.forced.get(name, "auto")
        if was != asked.state:
            text = f"{name}: forced {was} -> {asked.state} by the operator"
            state.log("uplink", text, name)
            state.force(name, asked.state)
        state.out.append(Answer(asked.id, UplinkChanged(name, was, asked.state)))

    # --- the config -----------------------------------------------------------------------

    def _reload(self, asked: e.ReloadRequested) -> None:
        adoption = Adoption("reload", asked.config, id=asked.id, confirm_s=asked.confirm_s)
        self._state.adoptions.append(adoption)

    def _confirm(self, request: int) -> None:
        if self._state.unconfirmed is None:
            self._refuse(request, "confirm", "nothing waits for a confirmation", _UNDONE)
        else:
            self._state.unconfirmed = None
            self._state.out.append(Answer(request))

    def undo_if_due(self, now: float) -> None:
        """What nobody confirmed in time is undone."""
        state = self._state
        if (undo := state.unconfirmed) and now >= undo.due_s:
            state.unconfirmed = undo.begun()
            state.adoptions.append(Adoption("undo", undo.config, held=undo.held))

    # --- exec -----------------------------------------------------------------------------

    def _exec(self, asked: e.ExecRequested) -> None:
        state = self._state
        if state.held:
            self._refuse(asked.id, "exec", f"the daemon rests: {state.held}")
            return
        try:
            find_uplink(state.uplinks, asked.uplink)
        except HostError as error:
            state.out.append(Answer(asked.id, problems=error.problems))
            return
        self._asked[asked.id] = asked
        state.out.append(EnterGroup(asked.id, asked.pid, asked.uid, asked.uplink))

    def _entered(self, entered: e.GroupEntered) -> None:
        asked = self._asked.pop(entered.id, None)
        if asked is None:
            return
        if entered.problems:
            self._state.out.append(Answer(entered.id, problems=entered.problems))
        else:
            self.entering.append(_Entering(asked, entered))
            self._state.owed = True

    def settle(self) -> None:
        """The kernel was brought to what was asked for, or it was tried: tell whoever waits."""
        state = self._state
        for each in self.entering:
            asked, path = each.request, each.entered.path
            hook = state.prepared.observation.facts.hook if state.prepared else None
            if hook and any(path == group for group, *_ in hook.cgroups):
                text = f"process {asked.pid} of uid {asked.uid} keeps to {asked.uplink}"
                state.log("exec", text, asked.uplink)
                state.out.append(Answer(asked.id, Entered(path)))
            else:
                state.out.append(LeaveGroup(asked.pid, each.entered.was))
                self._refuse(asked.id, "exec", "the kernel wasn't told", "try again")
        self.entering.clear()
