"""The controller: one look, one plan and one publication per turn, and decisions that depend on the
current state only."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from ifdefault.daemon.controller import adopt, controller
from ifdefault.daemon.controller import effects as f
from ifdefault.daemon.controller import events as e
from ifdefault.daemon.controller.controller import SETTLE_S
from ifdefault.health.states import Memory
from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.dns import DnsConfig
from ifdefault.model.kernel import PROTOCOL
from ifdefault.model.kernel_events import LinkChanged, ObjectChanged, Overrun
from ifdefault.plan import prepare as planning
from ifdefault.plan.prepare import Prepared
from tests.unit.controlled import ADDRESSES, CONFIG, FAR, NAMES, Host, facts, kinds

A = set(ADDRESSES["wan0"])
B = set(ADDRESSES["wan1"])
STEPS = (f.Save, f.Look, f.Publish, f.Converge, f.EndConnections)


@pytest.fixture
def host() -> Host:
    return Host().start()


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Prepared]:
    """All plans that are made."""
    made: list[Prepared] = []

    def prepare(*given: object, **keys: object) -> Prepared:
        made.append(planning.prepare(*given, **keys))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(controller, "prepare", prepare)
    monkeypatch.setattr(adopt, "prepare", prepare)
    return made


def steps(host: Host) -> list[type[f.Effect]]:
    """The important effects, in order; repeated ones only once."""
    return [kind for kind, _ in itertools.groupby(k for k in kinds(host.done) if k in STEPS)]


# --- one turn -----------------------------------------------------------------------------


def _black_hole(host: Host) -> None:
    host.black_hole("wan0")
    host.run(2.0)


def _one_family(host: Host) -> None:
    host.black_hole("wan0", 4)
    host.run(2.0)


def _carrier(host: Host) -> None:
    host.set_carrier("wan0", False)
    host.run(1.0)


def _operator(host: Host) -> None:
    host.receive(e.UplinkRequested(7, "isp-a", "down"))
    host.run(1.0)


@pytest.mark.parametrize(
    ("die", "families"),
    [(_black_hole, FAMILIES), (_one_family, (4,)), (_carrier, FAMILIES), (_operator, FAMILIES)],
)
def test_a_failover_is_one_look_one_plan_and_one_publication(
    host: Host,
    plans: list[Prepared],
    die: Callable[[Host], None],
    families: tuple[Family, ...],
) -> None:
    plans.clear()
    die(host)
    assert [host.leaves_by(family) for family in families] == ["wan1"] * len(families)
    for kind in (f.Look, f.Publish, f.Converge):
        assert len(host.every(kind)) == 1, kind
    assert len(plans) == 1
    assert len(host.every(f.EndConnections)) == len(families)
    assert steps(host) == [step for step in STEPS if step != f.Save or die is not _operator]
    [turn] = [turn for turn in host.turns if f.Converge in kinds(turn)]
    assert f.Look in kinds(turn)
    assert f.EndConnections in kinds(turn)


def test_the_kernels_echo_of_a_dead_carrier_is_one_look_more_at_most(host: Host) -> None:
    host.set_carrier("wan0", False)
    host.change(ObjectChanged("route"))
    host.change(ObjectChanged("route"), Overrun())
    host.run(1.0)
    assert len(host.every(f.Converge)) == 1
    assert len(host.every(f.Look)) <= 2


def test_what_a_look_alone_tells_is_planned_from_that_look(host: Host) -> None:
    """The notification of a lost carrier was missed, on an uplink that wasn't primary."""
    links = (replace(k, carrier=k.carrier and k.name != "wan1") for k in host.facts.links)
    host.facts = replace(host.facts, links=tuple(links))
    host.change(Overrun())
    host.run(1.0)
    assert host.names() == A
    assert len(host.every(f.Look)) == 1
    assert len(host.every(f.Publish)) == 1


def test_a_recovery_is_one_look_one_plan_and_one_publication(
    host: Host, plans: list[Prepared]
) -> None:
    host.black_hole("wan0")
    host.run(5.0)
    host.forget()
    plans.clear()
    host.revive("wan0")
    host.run(10.0)
    assert {host.leaves_by(family) for family in FAMILIES} == {"wan0"}
    assert host.names() == A | B
    [turn] = [turn for turn in host.turns if f.Converge in kinds(turn)]
    for kind in (f.Look, f.Publish, f.Converge):
        assert kinds(turn).count(kind) == 1, kind
    assert len(host.every(f.Converge)) == 1
    assert f.EndConnections not in kinds(host.done)
    assert len(plans) == len(host.every(f.Look))


def test_names_go_out_before_the_kernel_is_changed_and_the_path_is_kept_before_that(
    host: Host,
) -> None:
    host.black_hole("wan0")
    host.run(2.0)
    [published] = host.every(f.Publish)
    told = {record.address for each in published.published for record in each.addresses}
    assert told == B
    [saved] = [s for s in host.every(f.Save) if ("isp-a", 4, "down") in _states(s)]
    assert ("isp-a", 6, "down") in _states(saved)
    logged = [log for log in host.logged("path") if "-> down" in log]
    assert len(logged) == 2
    assert host.logged("primary") == [f"primary IPv{n}: isp-a -> isp-b" for n in FAMILIES]
    hooks = [(hook.event, hook.family, hook.was, hook.state) for hook in host.every(f.RunHook)]
    assert ("down", 4, "up", "down") in hooks
    assert ("primary", 6, "isp-a", "isp-b") in hooks


def _states(save: f.Save) -> set[tuple[str, int, str]]:
    return {(name, family, memory.state) for name, family, memory in save.memories}


def test_without_names_nothing_is_published() -> None:
    host = Host(config=replace(CONFIG, dns=DnsConfig()))
    host.receive(e.Started(host.config))
    host.receive(e.FrontendStarted())
    host.run(5.0)
    host.black_hole("wan0")
    host.run(2.0)
    assert host.leaves_by() == "wan1"
    assert host.every(f.Publish) == []


def test_all_dead_moves_nothing(host: Host) -> None:
    host.black_hole("wan0")
    host.run(5.0)
    before = host.facts
    host.forget()
    host.black_hole("wan1")
    host.run(5.0)
    assert host.facts == before
    assert host.every(f.Converge) == []
    assert host.leaves_by() == "wan1"
    assert host.names() == A | B, "nobody knows better than to try all"


def test_what_is_quiet_is_left_alone(host: Host) -> None:
    host.run(24.0)
    assert {*kinds(host.done)} <= {f.SendProbe, f.Save}
    host.run(10.0)
    assert len(host.every(f.Look)) == 1, "the backstop"


# --- what is decided from -----------------------------------------------------------------


def test_uplinks_that_come_late_are_decided_on_by_what_is_known_of_them() -> None:
    """A start without any uplink ready; one of those that appear later is known to be dead."""
    down = Memory("down", 500.0, "7 rounds lost", seen=((f"icmp://{FAR[4]}", 0.01),))
    six = replace(down, seen=((f"icmp://[{FAR[6]}]", 0.01),))
    host = Host(facts=facts(up=()))
    host.black_hole("wan0")
    host.start(e.Started(CONFIG, memories=(("isp-a", 4, down), ("isp-a", 6, six))))
    assert host.default() == ""
    own = [rule for rule in host.facts.rules if rule.protocol == PROTOCOL]
    came = facts()
    host.facts = replace(came, rules=(*came.rules, *own))
    host.change(LinkChanged("wan0", 10, True, True), LinkChanged("wan1", 11, True, True))
    host.run(1.0)
    for family in FAMILIES:
        assert host.default(family) == "wan1"
        assert host.leaves_by(family) == "wan1"
    assert host.names() == B


def test_the_cause_of_a_path_follows_what_is_there() -> None:
    """A link is reset: its addresses come back, its IPv4 default route doesn't."""
    host = Host().start()
    whole, reset = facts(), facts(up=("wan1",))

    def causes() -> list[str]:
        health = host.controller.status(host.now).health
        assert [(h.uplink, h.family) for h in health] == [
            (name, family) for name in NAMES for family in FAMILIES
        ]
        return [h.cause for h in health if (h.uplink, h.state) == ("isp-a", "down")]

    host.facts = replace(reset, rules=host.facts.rules)
    host.change(LinkChanged("wan0", 10, up=False))
    host.run(3.0)
    assert causes() == 2 * ["interface wan0 is down"]
    left = tuple(r for r in whole.routes if (r.family, r.hops[0].gateway) != (4, "203.0.113.1"))
    host.facts = replace(whole, routes=left, rules=host.facts.rules)
    host.change(LinkChanged("wan0", 10, up=True, carrier=True))
    host.run(5.0)
    assert causes() == ["no IPv4 default route on wan0"]
    host.black_hole("wan0")
    host.facts = replace(whole, rules=host.facts.rules)
    host.change(ObjectChanged("route"))
    host.run(1.0)
    assert "no answers since the link is back" in causes()


def test_late_uplinks_of_which_nothing_is_known() -> None:
    host = Host(facts=facts(up=()))
    host.black_hole("wan0")
    host.start()
    host.facts = replace(facts(), rules=host.facts.rules)
    host.change(ObjectChanged("route"))
    host.run(3.0)
    assert host.leaves_by() == "wan1", "what answers comes before what never did"


def test_a_restart_goes_on_with_what_was_known() -> None:
    first = Host().start()
    first.black_hole("wan0")
    first.run(5.0)
    memories = first.controller.saved().memories
    host = Host(facts=first.facts, state=first.state, loaded=first.loaded, now=first.now)
    host.black_hole("wan0")
    began = host.receive(e.Started(CONFIG, memories=memories))
    [commit] = [effect for effect in began if isinstance(effect, f.Commit)]
    assert commit.prepared.operations == (), "rules and routes stay"
    assert host.leaves_by() == "wan1"
    assert host.names() == B
    assert [end.uplink for end in host.every(f.EndConnections)] == ["isp-a", "isp-a"]
    host.receive(e.FrontendStarted())
    host.run(3.0)
    assert host.every(f.Converge) == []


def test_a_restart_goes_on_with_what_was_forced() -> None:
    host = Host()
    host.start(e.Started(CONFIG, forced=(("isp-a", "drain"),)))
    assert host.leaves_by() == "wan1"
    assert host.controller.status(host.now).forced == {"isp-a": "drain"}


@pytest.mark.parametrize("order", [*itertools.permutations(range(4))])
def test_first_answers_in_any_order_move_nothing(order: tuple[int, ...]) -> None:
    host = Host()
    host.receive(e.Started(CONFIG))
    host.receive(e.FrontendStarted())
    host.receive(e.Woke())
    first: dict[int, e.Event] = {}
    for at_s, _, event in sorted(host.take_due()):
        assert isinstance(event, e.ProbeOutcome)
        assert at_s < host.now + SETTLE_S
        first.setdefault(event.path, event)
    answers = list(first.values())
    assert len(answers) == 4
    for place in order:
        host.now += 0.1
        host.receive(answers[place])
    host.run(3.0)
    assert host.every(f.Converge) == []
    assert len([hook for hook in host.every(f.RunHook) if hook.event == "primary"]) == 0
    assert host.leaves_by() == "wan0"


def test_a_start_finds_out_that_the_first_is_dead_and_moves_once() -> None:
    host = Host()
    host.black_hole("wan0")
    host.receive(e.Started(CONFIG))
    host.receive(e.FrontendStarted())
    host.run(SETTLE_S / 2)
    assert host.leaves_by() == "wan0"
    host.run(5.0)
    assert host.leaves_by() == "wan1"
    assert len(host.every(f.Converge)) == 1


# --- stale connections --------------------------------------------------------------------


def test_connections_end_only_after_the_kernel_follows(host: Host) -> None:
    host.locked = 5
    host.black_hole("wan0")
    host.run(4.0)
    turns = [kinds(turn) for turn in host.turns if f.Look in kinds(turn)]
    assert len(turns) >= 4, "another ifdefault is at work for a while"
    for turn in turns[:-1]:
        assert f.EndConnections not in turn
        assert f.Converge not in turn
    assert turns[-1].index(f.EndConnections) > turns[-1].index(f.Converge)
    assert len(host.every(f.EndConnections)) == 2


def test_connections_that_have_nowhere_to_go_are_left(host: Host) -> None:
    host.black_hole("wan1")
    host.run(5.0)
    assert {end.uplink for end in host.every(f.EndConnections)} == {"isp-b"}
    host.forget()
    host.black_hole("wan0")
    host.run(5.0)
    assert host.every(f.EndConnections) == []
    host.revive("wan1")
    host.run(10.0)
    ends = [(end.uplink, end.family) for end in host.every(f.EndConnections)]
    assert ends == [("isp-a", 4), ("isp-a", 6)], "now they have"


def test_no_connections_end_while_held(host: Host) -> None:
    host.receive(e.DownRequested(1))
    host.set_carrier("wan0", False)
    host.run(1.0)
    assert host.every(f.EndConnections) == []


def test_config_may_keep_connections() -> None:
    config = replace(CONFIG, health=replace(CONFIG.health, on_down="keep"))
    host = Host(config=config).start()
    host.black_hole("wan0")
    host.run(2.0)
    assert host.leaves_by() == "wan1"
    assert host.every(f.EndConnections) == []


def test_ended_connections_are_logged(host: Host) -> None:
    host.receive(e.ConnectionsEnded("isp-a", 4, 3, 2, 0.01, udp_sockets=1))
    host.receive(e.ConnectionsEnded("isp-a", 6))
    host.receive(e.ConnectionsEnded("isp-b", 4, error="no memory"))
    assert host.logged("ended") == [
        "isp-a IPv4: ended 3 TCP connections, 1 connected UDP socket, 2 tracked flows in 10 ms",
        "isp-b IPv4: can't end connections: no memory",
    ]
