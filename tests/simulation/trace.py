"""The trace of a run, shown when it fails, and a digest by which two runs are compared."""

from __future__ import annotations

import hashlib
from collections import deque

from ifdefault.daemon.controller import effects as f
from ifdefault.daemon.controller import events as e
from ifdefault.plan.describe import describe

_KEPT = 60  # lines
_OPERATIONS = 6


class Trace:
    """Probes are part of the digest, but not kept."""

    def __init__(self) -> None:
        self._digest = hashlib.blake2b(digest_size=16)
        self._last: deque[str] = deque(maxlen=_KEPT)

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    def lines(self) -> tuple[str, ...]:
        return tuple(self._last)

    def event(self, now: float, event: e.Event) -> None:
        match event:
            case e.ProbeOutcome(path, seq, verdict):
                self._digest.update(f"{now} {path} {seq} {verdict}".encode())
            case e.Woke() | e.TrafficSeen() | e.TrafficCounted():
                pass
            case _:
                self.note(now, f"-> {_event_text(event)}")

    def effect(self, now: float, effect: f.Effect) -> None:
        if isinstance(effect, f.SendProbe):
            self._digest.update(f"{now} {effect.path} {effect.seq} {effect.address}".encode())
        elif not isinstance(effect, f.Save | f.RunHook):
            self.note(now, f"   {_effect_text(effect)}")

    def note(self, now: float, text: str) -> None:
        line = f"{now:12.3f}  {text}"
        self._digest.update(line.encode())
        self._last.append(line)


def _event_text(event: e.Event) -> str:
    match event:
        case e.Observed() | e.Applied() | e.Committed():
            refused = getattr(event, "refused", ())
            return type(event).__name__ + "".join(f"; refused {problem}" for problem in refused)
        case e.Started(forced=forced, memories=memories):
            states = [f"{name} IPv{family} {memory.state}" for name, family, memory in memories]
            return f"Started, forced {dict(forced)}, remembered {', '.join(states)}"
        case e.ReloadRequested(id, _, confirm_s):
            return f"ReloadRequested({id}, confirm_s={confirm_s})"
    return str(event)


def _effect_text(effect: f.Effect) -> str:
    match effect:
        case f.Log(kind, text):
            return f"log: {kind}: {text}"
        case f.Commit(prepared) | f.Converge(prepared):
            todo = [describe(each) for each in prepared.operations]
            more = [f"and {len(todo) - _OPERATIONS} more"] * (len(todo) > _OPERATIONS)
            return f"{type(effect).__name__}: {'; '.join(todo[:_OPERATIONS] + more)}"
        case f.Publish(published=published):
            said = [
                f"{each.name} {','.join(a.address for a in each.addresses)}" for each in published
            ]
            return f"Publish: {'; '.join(said)}"
        case f.Look(_, thorough, wait):
            return f"Look{' thorough' * thorough}{' wait' * wait}"
        case f.Watch():
            return "Watch"
        case f.Answer(id, result, problems):
            return f"Answer({id}, {type(result).__name__}, {'; '.join(map(str, problems))})"
    return str(effect)
