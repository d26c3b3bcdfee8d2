"""A replayed record as text: the events that the controller received, and its effects.

    turn 12, 3.412 s
      < probes: 3 answered, 1 lost                   events
      > log path: isp-a IPv4: up -> down (…)         effects
    … 12.4 s: probes: 96 answered                    turns with probes only

Rules: a line for each event and effect, followed by a line for each of its operations. Probes are
counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

from ifdefault.daemon.controller import effects as f
from ifdefault.daemon.controller import events as e
from ifdefault.daemon.replay import Turn
from ifdefault.ipc import codec
from ifdefault.model.kernel_events import KernelChange, LinkChanged, NeighbourChanged, ObjectChanged
from ifdefault.model.text import escaped
from ifdefault.plan.describe import describe

_QUIET_EVENTS = (e.Woke, e.ProbeOutcome, e.TrafficSeen, e.TrafficCounted)
_QUIET_EFFECTS = (f.SendProbe, f.Save)


def folded(turns: Iterable[Turn]) -> Iterator[list[str]]:
    """The lines of each turn; consecutive quiet turns are folded into one line."""
    begun_s = ended_s = 0.0
    quiet: Counter[str] = Counter()
    for turn in turns:
        if _is_quiet(turn):
            begun_s, ended_s = begun_s if quiet else turn.at_s, turn.at_s
            quiet.update(_verdicts(turn))
            quiet["turns"] += 1
            continue
        if quiet:
            yield [_quiet_line(ended_s - begun_s, quiet)]
            quiet.clear()
        yield lines(turn)
    if quiet:
        yield [_quiet_line(ended_s - begun_s, quiet)]


def lines(turn: Turn, *, each_probe: bool = False) -> list[str]:
    """All lines of a turn, escaped, since a record is untrusted."""
    shown = [f"turn {turn.number}, {turn.at_s:.3f} s"]
    shown += [f"  < {event}" for event in _events(turn, each_probe)]
    for first, *more in _effects(turn, each_probe):
        shown += [f"  > {first}", *(f"      {line}" for line in more)]
    return [escaped(line) for line in shown]


def to_json(turn: Turn) -> dict[str, Any]:
    """The same as values, without observations and what is derived from them."""
    encode = codec.encoder(e.Event)
    events = [{k: v for k, v in encode(x).items() if k != "observation"} for x in turn.events]
    effects = [{"type": type(effect).__name__} | _effect_json(effect) for effect in turn.effects]
    return {"turn": turn.number, "at_s": turn.at_s, "events": events, "effects": effects}


def _effect_json(effect: f.Effect) -> dict[str, Any]:
    match effect:
        case f.Converge(prepared) | f.Commit(prepared) | f.Answer(result=f.Changed(prepared)):
            return {"operations": [describe(operation) for operation in prepared.operations]}
        case f.Publish(published=names):
            return {"names": {n.name: [a.address for a in n.addresses] for n in names}}
        case f.Look():
            return {"thorough": effect.thorough}
        case f.RunHook():
            return asdict(effect)
    encoded: dict[str, Any] = codec.to_json(effect)
    return encoded


def _is_quiet(turn: Turn) -> bool:
    return all(isinstance(event, _QUIET_EVENTS) for event in turn.events) and all(
        isinstance(effect, _QUIET_EFFECTS) for effect in turn.effects
    )


def _verdicts(turn: Turn) -> Counter[str]:
    return Counter(event.verdict for event in turn.events if isinstance(event, e.ProbeOutcome))


def _quiet_line(passed_s: float, quiet: Counter[str]) -> str:
    return f"… {passed_s:.1f} s, {quiet.pop('turns')} turns: {_counted(quiet)}"


def _counted(verdicts: Counter[str]) -> str:
    counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
    return f"probes: {counts or 'none'}"


# --- events -------------------------------------------------------------------------------


def _events(turn: Turn, each_probe: bool) -> Iterator[str]:
    if not each_probe and (verdicts := _verdicts(turn)):
        yield _counted(verdicts)
    for event in turn.events:
        if each_probe or not isinstance(event, e.ProbeOutcome):
            yield _EVENTS[type(event)](event)


def _started(event: e.Started) -> str:
    forced = "".join(f", {name} forced {state}" for name, state in event.forced)
    known = f", {len(event.memories)} paths remembered" if event.memories else ""
    return f"started: {len(event.config.uplinks)} uplinks{forced}{known}"


def _kernel(change: KernelChange) -> str:
    match change:
        case LinkChanged(name, _, up, carrier, gone):
            state = (
                "gone" if gone else "no carrier" if up and not carrier else "up" if up else "down"
            )
            return f"link {name} {state}"
        case NeighbourChanged(dev, address, reachable):
            state = {True: "reachable", False: "unreachable", None: "forgotten"}[reachable]
            return f"neighbour {address} on {dev} {state}"
        case ObjectChanged(kind, ours):
            return f"{kind} of ours" if ours else kind
    return "events were lost"


def _kernel_changed(event: e.KernelChanged) -> str:
    counts = Counter(map(_kernel, event.events))
    return "kernel: " + ", ".join(f"{n} × {what}" if n > 1 else what for what, n in counts.items())


def _observed(what: str) -> Callable[[e.Observed | e.Applied | e.Committed], str]:
    return lambda event: f"{what} in {event.took_s * 1000:.1f} ms"


def _refused(event: e.Applied) -> str:
    return _problems(_observed("applied")(event), event.refused)


def _problems(what: str, problems: Iterable[object]) -> str:
    return ": ".join(filter(None, (what, "; ".join(map(str, problems)))))


def _timeout(of: e.UplinkRequested | f.SaveForced) -> str:
    return f", timeout {of.timeout_s} s" if of.timeout_s else ""


def _ended(event: e.ConnectionsEnded) -> str:
    what = event.error or f"{event.sockets} sockets, {event.flows} flows"
    return f"connections of {event.uplink} IPv{event.family} ended: {what}"


_EVENTS: dict[type, Callable[[Any], str]] = {
    e.Started: _started,
    e.Woke: lambda event: "woke",
    e.Observed: _observed("observed"),
    e.LookFailed: lambda event: _problems(
        "locked by another" if event.locked else "look failed", event.problems
    ),
    e.Applied: _refused,
    e.Committed: _observed("committed"),
    e.CommitFailed: lambda event: _problems("commit failed", event.problems),
    e.KernelChanged: _kernel_changed,
    e.SilentlyChanged: lambda event: (
        f"changed silently: {'groups' if event.groups else 'settings'}"
    ),
    e.ConnectionsEnded: _ended,
    e.FrontendStarted: lambda event: "frontend started",
    e.FrontendEnded: lambda event: "frontend ended",
    e.ProbeOutcome: lambda event: (
        f"probe {event.seq} of path {event.path}: {event.verdict},"
        f" {event.rtt_us / 1000:.1f} ms{f' ({event.detail})' if event.detail else ''}"
    ),
    e.SocketFailed: lambda event: f"no probe socket of path {event.path}",
    e.NameResolved: lambda event: (
        f"{event.host} is {' '.join(event.addresses) or event.error or 'no address'}"
    ),
    e.TrafficSeen: lambda event: f"TCP connections seen of {len(event.stats)} addresses",
    e.TrafficCounted: lambda event: f"traffic counted of {len(event.counters)} uplinks",
    e.PublicAddressFound: lambda event: f"{event.uplink} is seen as {event.address}",
    e.UplinkRequested: lambda event: (
        f"request {event.id}: uplink {event.uplink} {event.state}{_timeout(event)}"
    ),
    e.ForcedSaved: lambda event: _problems(f"request {event.id} saved", event.problems),
    e.ReloadRequested: lambda event: f"request {event.id}: reload",
    e.ConfirmRequested: lambda event: f"request {event.id}: confirm",
    e.UndoRequested: lambda event: f"request {event.id}: undo",
    e.DownRequested: lambda event: f"request {event.id}: down",
    e.ExecRequested: lambda event: f"request {event.id}: exec {event.uplink}, process {event.pid}",
    e.GroupEntered: lambda event: _problems(
        f"request {event.id}: entered {event.path or 'nothing'}", event.problems
    ),
}


# --- effects: a line, and those below it ------------------------------------------------------


def _effects(turn: Turn, each_probe: bool) -> Iterator[list[str]]:
    probes = 0
    for effect in turn.effects:
        if isinstance(effect, f.SendProbe) and not each_probe:
            probes += 1
        else:
            yield _EFFECTS[type(effect)](effect)
    if probes:
        yield [f"send {probes} probes"]


def _operations(effect: f.Converge | f.Commit) -> list[str]:
    operations = effect.prepared.operations
    name = type(effect).__name__.lower()
    return [f"{name}: {len(operations)} operations", *map(describe, operations)]


def _publish(effect: f.Publish) -> list[str]:
    names = [
        f"{name.name} -> {' '.join(a.address for a in name.addresses) or 'no address'}"
        for name in effect.published
    ]
    return [f"publish: {len(names)} names", *names]


def _hook(effect: f.RunHook) -> list[str]:
    where = f"{effect.uplink} IPv{effect.family}"
    return [f"run hook {effect.event}: {where}, {effect.was} -> {effect.state}"]


def _send(effect: f.SendProbe) -> list[str]:
    to = f"{effect.kind} {effect.address}" + (f" port {effect.port}" if effect.port else "")
    source = f" from {effect.source.address}" if effect.source else ""
    return [f"send probe {effect.seq} of path {effect.path}: {to}{source}"]


def _answer(effect: f.Answer) -> list[str]:
    done = type(effect.result).__name__ if effect.result else "done"
    result = _problems("refused", effect.problems) if effect.problems else done.lower()
    return [f"answer {effect.id}: {result}"]


_EFFECTS: dict[type, Callable[[Any], list[str]]] = {
    f.Look: lambda effect: ["look, thoroughly" if effect.thorough else "look"],
    f.Converge: _operations,
    f.Commit: _operations,
    f.Watch: lambda effect: [f"watch {' '.join(effect.interfaces) or 'nothing'}"],
    f.EndConnections: lambda effect: [f"end connections of {effect.uplink} IPv{effect.family}"],
    f.ReturnConnections: lambda effect: [
        f"return connections of {effect.uplink} IPv{effect.family} to {' '.join(effect.better)}"
    ],
    f.MoveTunnels: lambda effect: ["move tunnels"],
    f.OpenProbeSocket: lambda effect: [
        f"open probe socket of path {effect.path}: {effect.source.address} on {effect.source.dev}"
    ],
    f.CloseProbeSocket: lambda effect: [f"close probe socket of path {effect.path}"],
    f.SendProbe: _send,
    f.VerifyRouter: lambda effect: [f"verify router {effect.gateway} on {effect.dev}"],
    f.ResolveNames: lambda effect: [f"resolve {' '.join(effect.hosts) or 'nothing'}"],
    f.Publish: _publish,
    f.RunHook: _hook,
    f.Log: lambda effect: [f"log {effect.kind}: {effect.text}"],
    f.Save: lambda effect: [f"save {len(effect.memories)} paths"],
    f.SaveForced: lambda effect: [
        f"save that {effect.uplink} is forced {effect.state}{_timeout(effect)}"
    ],
    f.EnterGroup: lambda effect: [f"process {effect.pid} enters the group of {effect.uplink}"],
    f.LeaveGroup: lambda effect: [f"process {effect.pid} goes back to {effect.was}"],
    f.Answer: _answer,
    f.Stop: lambda effect: [_problems("stop", effect.problems)],
}
