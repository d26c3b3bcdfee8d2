"""The operator's requests are answered once, when their outcome is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ifdefault.daemon.controller import effects as f
from ifdefault.daemon.controller import events as e
from ifdefault.daemon.controller.adopt import DOWN, UNDO_AGAIN_S
from ifdefault.model.config import FAMILIES, Config
from ifdefault.model.dns import NameConfig
from ifdefault.model.errors import Problem
from ifdefault.model.health import Forced
from ifdefault.model.kernel import PROTOCOL, PutHook
from tests.unit.controlled import CONFIG, UPLINKS, Host, kinds

SWAPPED = replace(CONFIG, uplinks=(replace(UPLINKS[0], rank=2), UPLINKS[1]))
WAITS = (
    "reload: an apply is waiting for confirmation; run ifdefault confirm to keep it, or ifdefault"
    " down, or wait until it is undone"
)


@pytest.fixture
def host() -> Host:
    return Host().start()


def ours(host: Host) -> int:
    rules = [rule.protocol for rule in host.facts.rules]
    return [*rules, *(route.protocol for route in host.facts.routes)].count(PROTOCOL)


def refusal(host: Host, request: int) -> str:
    [problem] = host.answer(request).problems
    return str(problem)


# --- an uplink's forced state -------------------------------------------------------------


def test_a_forced_state_is_saved_before_it_is_answered(host: Host) -> None:
    done = host.receive(e.UplinkRequested(7, "isp-a", "drain"))
    assert host.answer(7).result == f.UplinkChanged("isp-a", "auto", "drain")
    assert kinds(done).index(f.SaveForced) < kinds(done).index(f.Answer)
    assert host.logged("uplink") == ["isp-a: forced auto -> drain by the operator"]
    assert host.leaves_by() == "wan1", "it is so when the turn ends"
    host.receive(e.UplinkRequested(8, "isp-a", "auto"))
    assert host.answer(8).result == f.UplinkChanged("isp-a", "drain", "auto")
    assert host.leaves_by() == "wan0"
    assert host.controller.status(host.now).forced == {}


def test_an_unchanged_state_is_answered_and_not_logged(host: Host) -> None:
    host.receive(e.UplinkRequested(7, "isp-a", "auto"))
    assert host.answer(7).result == f.UplinkChanged("isp-a", "auto", "auto")
    assert host.logged("uplink") == []
    assert host.every(f.Look) == []


def test_a_forced_state_that_cannot_be_saved_is_refused(host: Host) -> None:
    host.unsaved = (Problem("state.json", "no space left on device"),)
    host.receive(e.UplinkRequested(7, "isp-a", "down"))
    host.run(1.0)
    assert refusal(host, 7) == "state.json: no space left on device"
    assert host.leaves_by() == "wan0"
    assert host.controller.status(host.now).forced == {}


def test_an_uplink_that_is_not_there_is_refused(host: Host) -> None:
    host.receive(e.UplinkRequested(7, "isp-c", "down"))
    assert refusal(host, 7) == 'no uplink "isp-c"; use one of isp-a, isp-b'
    assert host.every(f.SaveForced) == []


@pytest.mark.parametrize("state", ["auto", "up", "down"])
def test_only_a_drain_has_a_timeout(host: Host, state: Forced) -> None:
    host.receive(e.UplinkRequested(7, "isp-a", state, 60))
    assert refusal(host, 7) == "only a drain has a timeout; leave out timeout_s"
    assert host.every(f.SaveForced) == []


def test_an_unconfigured_uplink_may_be_set_to_auto() -> None:
    host = Host().start(e.Started(CONFIG, forced=(("isp-c", "down"),)))
    host.receive(e.UplinkRequested(7, "isp-c", "auto"), e.UplinkRequested(8, "isp-c", "down"))
    assert host.answer(7).result == f.UplinkChanged("isp-c", "down", "auto")
    assert host.answers(8)


def test_many_requests_in_one_turn_are_each_answered_once_and_one_look(host: Host) -> None:
    host.receive(
        e.UplinkRequested(1, "isp-a", "drain"),
        e.UplinkRequested(2, "isp-b", "down"),
        e.UplinkRequested(3, "isp-b", "auto"),
    )
    host.run(1.0)
    for request in (1, 2, 3):
        assert not host.answer(request).problems
    assert len(host.every(f.Converge)) == 1
    assert host.leaves_by() == "wan1"


# --- reload -------------------------------------------------------------------------------


def test_a_reload_is_applied(host: Host) -> None:
    host.receive(e.ReloadRequested(7, SWAPPED))
    result = host.answer(7).result
    assert isinstance(result, f.Changed)
    assert result.prepared.operations
    assert host.leaves_by() == "wan1"
    [told] = host.logged("reload")
    assert told == f"config reloaded, {len(result.prepared.operations)} operations"
    assert kinds(host.done).index(f.Commit) < kinds(host.done).index(f.Answer)
    [look] = host.every(f.Look)
    assert look.thorough
    assert look.wait


def test_a_reload_says_what_of_the_dns_changed(host: Host) -> None:
    names = tuple(NameConfig(f"{n}.example.net") for n in range(12))
    host.receive(e.ReloadRequested(7, replace(CONFIG, dns=replace(CONFIG.dns, names=names))))
    result = host.answer(7).result
    assert isinstance(result, f.Changed)
    assert set(result.dns) >= {f"dns.name {name.name}: added" for name in names}
    assert host.logged("reload") == [
        "config reloaded, 0 operations",
        *result.dns[:10],
        f"and {len(result.dns) - 10} more changes of the DNS",
    ]


def test_a_reload_that_the_kernel_refuses_leaves_all_as_it_was(host: Host) -> None:
    before = host.facts
    host.refuses = lambda _: True
    host.receive(e.ReloadRequested(7, SWAPPED))
    assert refusal(host, 7) == "rule: operation not permitted"
    host.refuses = lambda _: False
    host.run(1.0)
    assert (host.facts, host.controller.state.config) == (before, CONFIG)
    assert host.every(f.Converge) == []
    host.receive(e.UplinkRequested(8, "isp-a", "drain"))
    assert host.leaves_by() == "wan1", "and it goes on"


def test_a_reload_that_the_host_contradicts_is_the_configs_fault(host: Host) -> None:
    shared = replace(UPLINKS[0], addresses=("203.0.113.10",), gateways=("203.0.113.1",))
    clash = (shared, replace(shared, name="isp-c", gateways=("203.0.113.2",)))
    host.receive(e.ReloadRequested(7, replace(CONFIG, uplinks=clash)))
    answer = host.answer(7)
    assert answer.problems
    assert answer.config
    assert host.controller.state.config == CONFIG
    assert host.every(f.Commit) == []


def test_another_user_waits_for_the_next_start(host: Host) -> None:
    daemon = replace(CONFIG.daemon, user="nobody")
    host.receive(e.ReloadRequested(7, replace(CONFIG, daemon=daemon)))
    assert "daemon.user: the new value takes effect at the next start" in host.logged("reload")


def test_a_start_that_the_kernel_refuses_is_none() -> None:
    host = Host()
    host.refuses = lambda _: True
    host.receive(e.Started(CONFIG))
    [stop] = host.every(f.Stop)
    assert [str(problem) for problem in stop.problems] == ["rule: operation not permitted"]


def forced(host: Host) -> dict[str, Forced]:
    return host.controller.status(host.now).forced


def test_a_drain_is_down_when_its_timeout_is_over(host: Host) -> None:
    host.receive(e.UplinkRequested(7, "isp-a", "drain", 60))
    assert host.every(f.SaveForced)[-1] == f.SaveForced(7, "isp-a", "drain", 60)
    [drain] = host.controller.status(host.now).drains
    assert (drain.uplink, drain.until_s) == ("isp-a", host.now + 60)
    host.run(50.0)
    host.receive(e.UplinkRequested(8, "isp-a", "drain", 60))
    assert host.answer(8).result == f.UplinkChanged("isp-a", "drain", "drain")
    host.run(50.0)
    assert forced(host) == {"isp-a": "drain"}, "the timeout was replaced"
    host.run(11.0)
    assert forced(host) == {"isp-a": "down"}
    assert host.every(f.SaveForced)[-1] == f.SaveForced(0, "isp-a", "down")
    assert host.controller.status(host.now).drains == ()
    text = "isp-a: forced drain -> down, since its timeout is over"
    assert host.logged("uplink")[-1] == text


@pytest.mark.parametrize("state", ["auto", "up", "drain"])
def test_another_state_ends_the_timeout(host: Host, state: Forced) -> None:
    host.receive(e.UplinkRequested(7, "isp-a", "drain", 60))
    host.receive(e.UplinkRequested(8, "isp-a", state))
    host.run(61.0)
    assert host.controller.state.forced["isp-a"] == state
    said = "its drain has no timeout any more" if state == "drain" else f"drain -> {state}"
    assert said in host.logged("uplink")[-1]


# --- commit-confirm -----------------------------------------------------------------------


def test_an_unconfirmed_apply_is_undone(host: Host) -> None:
    before = host.facts
    host.receive(e.ReloadRequested(7, SWAPPED, confirm_s=10))
    assert host.answer(7).result
    assert host.leaves_by() == "wan1"
    assert (
        host.controller.status(host.now).held == "undone in 10 s unless you run: ifdefault confirm"
    )
    host.run(9.9)
    assert host.leaves_by() == "wan1"
    host.run(0.2)
    assert host.leaves_by() == "wan0"
    assert host.controller.state.config == CONFIG
    assert set(host.facts.rules) == set(before.rules)
    assert host.logged("reload")[-1] == "not confirmed: returned to the previous config"
    assert host.controller.status(host.now).held == ""
    host.receive(e.ConfirmRequested(8))
    text = (
        "confirm: nothing is waiting for confirmation; it may have been undone: see ifdefault plan"
    )
    assert refusal(host, 8) == text


def test_a_confirmed_apply_stays(host: Host) -> None:
    host.receive(e.ReloadRequested(7, SWAPPED, confirm_s=10))
    host.receive(e.ConfirmRequested(8))
    assert not host.answer(8).problems
    host.run(20.0)
    assert host.leaves_by() == "wan1"


def test_what_changes_nothing_waits_for_nothing(host: Host) -> None:
    host.receive(e.ReloadRequested(7, CONFIG, confirm_s=10))
    assert host.controller.status(host.now).held == ""


def test_another_apply_is_refused_while_one_waits(host: Host) -> None:
    host.receive(e.ReloadRequested(7, SWAPPED, confirm_s=10))
    host.receive(e.ReloadRequested(8, CONFIG))
    assert refusal(host, 8) == WAITS


def test_another_apply_is_refused_also_if_it_comes_in_the_same_turn(host: Host) -> None:
    host.receive(e.ReloadRequested(7, SWAPPED, confirm_s=10), e.ReloadRequested(8, CONFIG))
    assert host.answer(7).result
    assert refusal(host, 8) == WAITS
    host.run(11.0)
    assert host.controller.state.config == CONFIG
    assert host.leaves_by() == "wan0"


def test_what_was_down_before_is_down_again(host: Host) -> None:
    host.receive(e.DownRequested(6))
    host.receive(e.ReloadRequested(7, SWAPPED, confirm_s=10))
    assert ours(host)
    host.run(11.0)
    assert ours(host) == 0
    assert host.controller.status(host.now).held == DOWN
    assert host.logged("reload")[-1] == "not confirmed: returned to the previous config"


def test_an_undoing_that_fails_is_tried_again(host: Host) -> None:
    host.receive(e.ReloadRequested(7, SWAPPED, confirm_s=10))
    host.refuses = lambda _: True
    host.run(10.5)
    failed = "undo failed, will be retried: rule: operation not permitted"
    assert host.logged("reload")[-1] == failed
    assert host.leaves_by() == "wan1"
    host.refuses = lambda _: False
    host.run(UNDO_AGAIN_S)
    assert host.leaves_by() == "wan0"
    assert host.logged("reload")[-1] == "not confirmed: returned to the previous config"


def test_down_calls_the_undoing_off(host: Host) -> None:
    host.receive(e.ReloadRequested(7, SWAPPED, confirm_s=10))
    host.receive(e.DownRequested(8))
    host.run(20.0)
    assert ours(host) == 0
    assert "not confirmed: returned to the previous config" not in host.logged("reload")


@pytest.mark.parametrize("request_", [e.DownRequested(8), e.ConfirmRequested(8)])
def test_what_is_asked_when_it_would_be_undone(host: Host, request_: e.Event) -> None:
    host.receive(e.ReloadRequested(7, SWAPPED, confirm_s=10))
    host.now += 10.0
    host.receive(request_)
    host.run(5.0)
    assert not host.answer(8).problems
    assert host.controller.state.config == SWAPPED
    assert "not confirmed: returned to the previous config" not in host.logged("reload")


def test_the_undoing_can_be_asked_for(host: Host) -> None:
    host.receive(e.UndoRequested(6))
    assert refusal(host, 6).startswith("confirm: nothing is waiting for confirmation")
    host.receive(e.ReloadRequested(7, SWAPPED, confirm_s=10))
    assert host.controller.status(host.now).undone_in_s == 10.0
    host.refuses = lambda _: True
    host.receive(e.UndoRequested(8))
    assert refusal(host, 8) == "rule: operation not permitted"
    assert host.controller.status(host.now).undone_in_s == UNDO_AGAIN_S
    host.refuses = lambda _: False
    host.receive(e.UndoRequested(9), e.UndoRequested(10))
    assert isinstance(host.answer(9).result, f.Changed)
    assert refusal(host, 10).startswith("confirm: nothing is waiting for confirmation")
    assert host.leaves_by() == "wan0"
    assert host.controller.status(host.now).undone_in_s is None


# --- down ---------------------------------------------------------------------------------


def test_down_holds_and_apply_resumes(host: Host) -> None:
    host.receive(e.DownRequested(7))
    assert isinstance(host.answer(7).result, f.Changed)
    assert ours(host) == 0
    assert host.logged("down") == ["removed everything of ours from the kernel"]
    assert host.controller.status(host.now).held == DOWN
    host.forget()
    host.change()
    host.set_carrier("wan0", False)
    host.set_carrier("wan0", True)
    host.run(40.0)
    assert not {f.SendProbe, f.Converge, f.Commit, f.EndConnections} & {*kinds(host.done)}
    assert ours(host) == 0
    host.receive(e.ReloadRequested(8, CONFIG))
    assert host.answer(8).result
    host.run(3.0)
    assert host.every(f.SendProbe)
    assert {host.leaves_by(family) for family in FAMILIES} == {"wan0"}
    assert host.controller.status(host.now).held == ""


def test_nothing_is_polled_while_held() -> None:
    host = Host(config=replace(CONFIG, forwards=()))
    host.start()
    host.receive(e.DownRequested(7))
    [watch] = host.every(f.Watch)
    assert (watch.sysctls, watch.udp_servers, watch.groups, watch.runs) == ((), None, (), ())


def test_a_state_forced_while_held_counts_afterwards(host: Host) -> None:
    host.receive(e.DownRequested(7))
    host.receive(e.UplinkRequested(8, "isp-a", "drain"))
    assert host.answer(8).result
    assert ours(host) == 0
    host.receive(e.ReloadRequested(9, CONFIG))
    assert host.leaves_by() == "wan1"


# --- exec ---------------------------------------------------------------------------------


def test_exec_is_answered_when_the_kernel_is_updated(host: Host) -> None:
    host.receive(e.ExecRequested(7, 4321, 1000, "isp-b"))
    assert host.answer(7).result == f.Entered("/ifdefault/isp-b")
    order = [kind for kind in kinds(host.done) if kind in (f.EnterGroup, f.Converge, f.Answer)]
    assert order == [f.EnterGroup, f.Converge, f.Answer]
    [converge] = host.every(f.Converge)
    assert any(isinstance(each, PutHook) for each in converge.prepared.operations)
    assert host.logged() == [], "any user may do this as often as they like"
    assert host.every(f.LeaveGroup) == []


def test_exec_is_undone_if_the_kernel_cannot_be_updated(host: Host) -> None:
    host.refuses = lambda operation: isinstance(operation, PutHook)
    host.receive(e.ExecRequested(7, 4321, 1000, "isp-b"))
    assert refusal(host, 7) == "exec: the kernel couldn't be updated; try again"
    assert host.every(f.LeaveGroup) == [f.LeaveGroup(4321, "/was")]


def test_exec_is_undone_while_another_ifdefault_holds_the_lock(host: Host) -> None:
    host.locked = 3
    host.receive(e.ExecRequested(7, 4321, 1000, "isp-b"))
    assert refusal(host, 7) == "exec: the kernel couldn't be updated; try again"
    assert host.every(f.LeaveGroup) == [f.LeaveGroup(4321, "/was")]


def test_execs_are_started_in_turn_and_roots_first(host: Host) -> None:
    users = [*[1000] * 20, 1001, *[1002] * 2, 0]
    host.receive(*(e.ExecRequested(n, n, uid, "isp-b") for n, uid in enumerate(users)))
    host.run(1.0)
    started = [group.uid for group in host.every(f.EnterGroup)]
    assert started[:8] == [0, 1000, 1001, 1002, 1000, 1002, 1000, 1000]
    assert sorted(started) == sorted(users)
    assert all(isinstance(host.answer(n).result, f.Entered) for n in range(len(users)))


def test_execs_take_a_quarter_of_the_time(host: Host) -> None:
    perform, enter_s, count, start_s = host._perform, 0.02, 40, host.now

    def slowly(effect: f.Effect) -> e.Event | None:
        host.now += enter_s * isinstance(effect, f.EnterGroup)
        return perform(effect)

    host._perform = slowly  # type: ignore[method-assign]
    host.receive(*(e.ExecRequested(n, n, 1000 + n, "isp-b") for n in range(count)))
    while len(host.every(f.EnterGroup)) < count:
        host.run(0.01)
    assert host.now - start_s > 3.9 * (count - 8) * enter_s
    assert len(host.every(f.Look)) <= count / 8 + 1, "one for all that are started together"


def test_refusals_of_exec(host: Host) -> None:
    host.receive(e.ExecRequested(1, 4321, 1000, "isp-c"))
    assert refusal(host, 1) == 'no uplink "isp-c"; there are isp-a, isp-b'
    gone = replace(UPLINKS[1], interface="wan9")
    host.receive(e.ReloadRequested(2, Config((UPLINKS[0], gone))))
    host.receive(e.ExecRequested(3, 4321, 1000, "isp-b"))
    assert refusal(host, 3).startswith("uplink.isp-b: is pending: ")
    host.receive(e.DownRequested(4))
    host.receive(e.ExecRequested(5, 4321, 1000, "isp-a"))
    assert refusal(host, 5) == f"exec: the daemon is paused: {DOWN}"
    assert host.every(f.EnterGroup) == []
