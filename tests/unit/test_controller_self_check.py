"""The daemon asks the kernel after each look where packets go, and reports what isn't as meant."""

from __future__ import annotations

from dataclasses import replace

from ifdefault.daemon.controller import effects as f
from ifdefault.daemon.controller import events as e
from ifdefault.model.kernel import Hop, Route, Rule
from ifdefault.model.kernel_events import ObjectChanged
from tests.unit.controlled import ADDRESSES, Host

BALANCE = Rule(4, 32765, table=250, protocol=3)
DEFAULT = Route(4, 250, "default", hops=(Hop("wan1", "198.51.100.1"),), protocol=3)


def logged(host: Host) -> list[str]:
    return [effect.text for effect in host.every(f.Log) if effect.kind == "self-check"]


def add_balance(host: Host) -> None:
    """As another program does it: its rule of the same priority precedes ours."""
    rules = sorted((BALANCE, *host.facts.rules), key=lambda rule: (rule.family, rule.priority))
    host.facts = replace(host.facts, rules=tuple(rules), routes=(*host.facts.routes, DEFAULT))
    host.change(ObjectChanged("rule"))
    host.run(2.0)


def test_it_says_when_it_began_and_when_it_ended() -> None:
    host = Host().start()
    add_balance(host)
    [began] = logged(host)
    assert began.startswith("uplink.isp-a: new IPv4 connections are meant to leave by wan0, but")
    assert host.controller.status(host.now).astray == (began,)
    host.run(60.0)
    assert logged(host) == [began], "once"

    host.forget()
    host.facts = replace(host.facts, rules=tuple(r for r in host.facts.rules if r != BALANCE))
    host.change(ObjectChanged("rule"))
    host.run(2.0)
    [ended] = logged(host)
    assert ended.startswith("over: uplink.isp-a: new IPv4 connections are meant to leave by wan0")
    assert host.controller.status(host.now).astray == ()


def test_a_quiet_host_is_asked_with_each_look_and_never_twice() -> None:
    host = Host().start()
    host.run(100.0)
    looks = host.every(f.Look)
    assert 2 <= len(looks) <= 5
    assert all(look.questions for look in looks)
    assert logged(host) == []


def test_an_uplink_that_never_worked_is_not_used_while_its_targets_answer_elsewhere() -> None:
    host = Host()
    host.black_hole("wan1")
    host.start(settle_s=10.0)
    assert host.names() == set(ADDRESSES["wan0"])
    shown = {(h.uplink, h.state, h.cause) for h in host.controller.paths.health()}
    cause = "never answered, but its targets answer over another uplink"
    assert ("isp-b", "unproven", cause) in shown

    host.black_hole("wan0")
    host.run(5.0)
    assert host.names() == set(ADDRESSES["wan1"]), "nothing speaks against it any more"
    host.revive("wan1")
    host.run(5.0)
    assert host.names() == set(ADDRESSES["wan1"])


def test_after_down_names_and_status_follow_what_the_kernel_does() -> None:
    """Main's default leads to isp-a: replies from isp-b's addresses leave by isp-a."""
    host = Host().start()
    assert host.names() == {*ADDRESSES["wan0"], *ADDRESSES["wan1"]}
    host.receive(e.DownRequested(1))
    host.run(1.0)
    assert host.names() == set(ADDRESSES["wan0"])
    status = host.controller.status(host.now)
    assert status.decision.ranking(4)[0] == "isp-a"
    assert {h.cause for h in status.health} == {"not probed"}

    later = (
        replace(r, metric=5000) if (r.dst, r.hops[0].dev) == ("default", "wan0") else r
        for r in host.facts.routes
    )
    host.facts = replace(host.facts, routes=tuple(later))
    host.change(ObjectChanged("route"))
    host.run(1.0)
    assert host.names() == set(ADDRESSES["wan1"])
    assert host.controller.status(host.now).decision.ranking(4)[0] == "isp-b"

    host.receive(e.ReloadRequested(2, host.config))
    host.run(5.0)
    assert host.names() == {*ADDRESSES["wan0"], *ADDRESSES["wan1"]}
