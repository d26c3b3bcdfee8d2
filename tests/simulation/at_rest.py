"""Invariants of a settled state: nothing is unapplied, held, refused or in conflict.

Rules: as in `invariants`; each tells what is wrong, or nothing.
"""

from __future__ import annotations

from ifdefault.daemon.controller import events as e
from ifdefault.daemon.controller.controller import Controller
from ifdefault.daemon.controller.effects import Commit, Publish
from ifdefault.daemon.controller.state import Key
from ifdefault.dns.publish import publish
from ifdefault.model.flow import Flow
from ifdefault.model.health import Decision, PathState
from ifdefault.model.host import Observation
from ifdefault.plan.prepare import prepare, resolve
from tests.simulation.kernel import FAR
from tests.simulation.world import World


def replies_leave_by_their_uplink(world: World, controller: Controller) -> str:
    """A reply from an uplink's address leaves by its device and gateway, dead or alive."""
    for uplink in (world.uplink(u.name) for u in controller.state.config.uplinks):
        for family in uplink.families:
            if not world.complete(uplink, family):
                continue
            way = world.kernel.way(Flow(family, FAR[family], uplink.address(family)))
            if way != uplink.way(family):
                return f"{uplink.address(family)} of {uplink.name} leaves by {way}"
    return ""


def decision_is_that_of_now(controller: Controller, observation: Observation, now: float) -> str:
    """A daemon that started now, with the same knowledge, would decide the same."""
    state, fresh = controller.state, Controller()
    memories = tuple((*key, m) for key, m in controller.paths.remembered().items())
    fresh.receive((e.Started(state.config, tuple(state.forced.items()), memories),), now)
    fresh.state.settled = state.settled
    fresh.state.usage, fresh.state.minute = state.usage, state.minute
    effects = fresh.receive((e.Observed(observation, 0.0),), now)
    planned = [effect.prepared.decision for effect in effects if isinstance(effect, Commit)]
    if not planned or _states(fresh) != _states(controller):
        return ""  # what its carrier brought down is another's to prove
    mine = state.decision or Decision()
    there, here = (planned[0].order, planned[0].usable), (mine.order, mine.usable)
    return f"decided {here}, and now {there}" if there != here else ""


def kernel_is_as_desired(controller: Controller, observation: Observation) -> str:
    """A plan from the current state has no operations."""
    state = controller.state
    left = prepare(resolve(state.config, observation), state.decision).operations
    return f"it lacks {left[0]}" if left else ""


def names_follow(controller: Controller, said: Publish | None) -> str:
    """What is published is what follows from the decision, the config and the addresses."""
    state = controller.state
    if said is None:
        return "nothing was published"
    degraded = [h.uplink for h in controller.paths.health() if h.state == "degraded"]
    decision = state.decision or Decision()
    if said.published != publish(state.config.dns, said.candidates, decision, degraded):
        return f"published {said.published} for {decision}"
    offered = {each.uplink: each.addresses for each in said.candidates}
    for uplink in state.uplinks:
        own = tuple(address for _, address in uplink.sources)
        if not uplink.pending and offered.get(uplink.name) != own:
            return f"{uplink.name} is known by {offered.get(uplink.name)}, and has {own}"
    return ""


def _states(controller: Controller) -> dict[Key, tuple[PathState, float]]:
    """For paths that are down also since when, since they are ranked by that."""
    there = {uplink.name for uplink in controller.state.uplinks}
    return {
        key: (path, since_s if path == "down" else 0.0)
        for key, (path, since_s) in controller.paths.states().items()
        if path != "unproven" or key[0] in there
    }
