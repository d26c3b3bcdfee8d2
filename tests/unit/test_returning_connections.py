"""Connections of a metered uplink return after a grace, once for each return.

wan0  isp-a  203.0.113.10, 2001:db8:a::10
wan1  isp-b  198.51.100.10, 2001:db8:b::10, metered
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from ifdefault.daemon.controller import effects as f
from ifdefault.daemon.controller import events as e
from ifdefault.model.config import Config
from tests.unit.controlled import CONFIG, UPLINKS, Host

GRACE_S = 30
LTE = replace(UPLINKS[1], rank=0, metered=True, on_return="end", grace_s=GRACE_S)
METERED = replace(CONFIG, uplinks=(UPLINKS[0], LTE))
BOTH = [("isp-b", 4), ("isp-b", 6)]


def quiet(config: Config = METERED) -> Host:
    """A daemon that has started, and has returned what may have run over the metered uplink."""
    host = Host(config=config).start()
    host.run(GRACE_S + 1)
    return host.forget()


def returned(host: Host) -> list[tuple[str, int]]:
    return [(effect.uplink, effect.family) for effect in host.every(f.ReturnConnections)]


def fail_and_return(host: Host) -> Host:
    host.black_hole("wan0")
    host.run(5.0)
    assert host.leaves_by() == "wan1"
    host.forget()
    host.revive("wan0")
    return host


def test_the_order_on_return() -> None:
    host = fail_and_return(quiet())
    host.run(GRACE_S)
    steps = (f.Publish, f.Converge, f.ReturnConnections)
    order = [type(effect) for effect in host.done if isinstance(effect, steps)]
    assert order == [f.Publish, f.Converge]
    assert host.leaves_by() == "wan0"
    assert {grace.uplink for grace in host.controller.status(host.now).graces} == {"isp-b"}
    host.run(5.0)
    order = [type(effect) for effect in host.done if isinstance(effect, steps)]
    assert order == [f.Publish, f.Converge, f.ReturnConnections, f.ReturnConnections]
    assert returned(host) == BOTH
    assert {effect.better for effect in host.every(f.ReturnConnections)} == {("isp-a",)}
    assert host.controller.status(host.now).graces == ()
    host.run(600.0)
    assert returned(host) == BOTH, "once for each return"


def test_what_is_ended() -> None:
    host = fail_and_return(quiet())
    host.run(GRACE_S + 5.0)
    four, six = (effect.returning for effect in host.every(f.ReturnConnections))
    assert (four.addresses, six.addresses) == (("198.51.100.10",), ("2001:db8:b::10",))
    uplinks = {uplink.name: uplink for uplink in host.controller.state.uplinks}
    assert four.tables == (uplinks["isp-a"].table,)
    assert four.marks == (uplinks["isp-a"].outgoing_mark,)
    assert four.mark == uplinks["isp-b"].outgoing_mark
    assert not four.balanced
    assert "203.0.113.10" in four.own


def test_another_failure_cancels_the_grace() -> None:
    host = fail_and_return(quiet())
    host.run(GRACE_S - 5.0)
    host.black_hole("wan0")
    host.run(GRACE_S)
    assert (host.leaves_by(), returned(host)) == ("wan1", [])
    host.revive("wan0")
    host.run(GRACE_S - 5.0)
    assert (host.leaves_by(), returned(host)) == ("wan0", []), "it begins anew"
    host.run(15.0)
    assert returned(host) == BOTH


def test_only_the_family_that_returned() -> None:
    host = quiet()
    host.black_hole("wan0", 6)
    host.run(5.0)
    host.revive("wan0")
    host.run(GRACE_S + 10.0)
    assert returned(host) == [("isp-b", 6)]


def test_the_grace_begins_when_the_rules_stand() -> None:
    host = fail_and_return(quiet())
    host.locked = 1000  # another ifdefault is at work
    host.run(2 * GRACE_S)
    assert (host.leaves_by(), returned(host)) == ("wan1", [])
    host.locked = 0
    host.run(GRACE_S - 5.0)
    assert (host.leaves_by(), returned(host)) == ("wan0", [])
    host.run(10.0)
    assert returned(host) == BOTH


def test_nothing_ends_while_held() -> None:
    host = fail_and_return(quiet())
    host.run(GRACE_S - 5.0)
    host.receive(e.DownRequested(1))
    host.run(GRACE_S)
    assert returned(host) == []
    assert host.controller.status(host.now).graces == ()


def test_the_metered_one_fails_meanwhile() -> None:
    host = fail_and_return(quiet())
    host.run(GRACE_S - 5.0)
    host.black_hole("wan1")
    host.run(GRACE_S)
    assert returned(host) == [], "its connections ended as those of a dead uplink"
    assert {end.uplink for end in host.every(f.EndConnections)} == {"isp-b"}


def test_a_drained_uplink_keeps_its_connections() -> None:
    host = fail_and_return(quiet())
    host.run(GRACE_S - 5.0)
    host.receive(e.UplinkRequested(1, "isp-b", "drain"))
    host.run(GRACE_S)
    assert returned(host) == []


@pytest.mark.parametrize(
    ("uplink", "ends"),
    [
        (replace(UPLINKS[1], on_return="end", grace_s=0), True),
        (replace(UPLINKS[1], on_return="stay", grace_s=0), False),
        (replace(UPLINKS[1], rank=0, on_return="end", grace_s=0), False),
    ],
    ids=["of a higher rank", "they stay", "of an equal rank"],
)
def test_which_uplinks_give_back(uplink: object, ends: bool) -> None:
    host = fail_and_return(quiet(replace(CONFIG, uplinks=(UPLINKS[0], uplink))))  # type: ignore[arg-type]
    host.run(10.0)
    assert host.leaves_by() == "wan0"
    assert bool(returned(host)) == ends


def test_an_uplink_that_becomes_metered() -> None:
    free = replace(UPLINKS[1], rank=0, on_return="end")
    host = quiet(replace(CONFIG, uplinks=(UPLINKS[0], free)))
    host.receive(e.ReloadRequested(1, METERED))
    host.run(GRACE_S + 5.0)
    assert returned(host) == BOTH


def test_nothing_returns_to_an_uplink_that_has_not_answered() -> None:
    seldom = replace(METERED.health, rounds_per_s=0.1)
    at_once = (UPLINKS[0], replace(LTE, grace_s=0))
    host = Host(config=replace(METERED, uplinks=at_once, health=seldom))
    for dev in ("wan0", "wan1"):
        host.black_hole(dev)
    host.start().run(3.0)
    assert returned(host) == []
    for dev in ("wan0", "wan1"):
        host.revive(dev)
    host.run(60.0)
    assert returned(host) == BOTH


def test_a_restart_does_not_end_them_again() -> None:
    first = quiet()
    saved = first.controller.saved()
    host = Host(config=METERED, facts=first.facts, state=first.state, loaded=first.loaded)
    host.start(e.Started(METERED, memories=saved.memories, returned=saved.returned))
    host.run(2 * GRACE_S)
    assert returned(host) == []


def test_a_restart_in_a_grace_begins_it_anew() -> None:
    first = fail_and_return(quiet())
    first.run(GRACE_S - 5.0)
    saved = first.controller.saved()
    host = Host(config=METERED, facts=first.facts, state=first.state, loaded=first.loaded)
    host.start(e.Started(METERED, memories=saved.memories, returned=saved.returned))
    host.run(GRACE_S + 5.0)
    assert returned(host) == BOTH


def test_what_is_logged() -> None:
    host = Host().start()
    host.receive(e.ConnectionsEnded("lte", 4, sockets=12, flows=3, took_s=0.004, better=("isp-a",)))
    [text] = host.logged("ended")
    assert text == (
        "lte IPv4: ended 12 TCP connections, 3 tracked flows in 4 ms, which return to isp-a"
    )
