"""The host's own settings belong to its interfaces, whatever these are called."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ifdefault.model.config import Config
from ifdefault.model.host import Observation, State
from ifdefault.model.kernel import Desired, Facts, Link
from ifdefault.plan.originals import followed, indexes, settled
from ifdefault.plan.prepare import Prepared, prepare, prepare_down, resolve
from tests.property.fakekernel import steps
from tests.unit.test_lookup import CONFIG, HOST

QUEUE = "net/ipv4/neigh/{}/unres_qlen_bytes"
BEFORE = replace(
    HOST,
    links=tuple(replace(link, group=5 if link.name == "wan1" else 0) for link in HOST.links),
    sysctls=(*HOST.sysctls, (QUEUE.format("wan1"), "212992"), ("net/ipv4/ip_forward", "0")),
)


def rename(facts: Facts, old: str, new: str) -> Facts:
    """As the kernel does: addresses, routes and sysctls go with the interface."""
    links = tuple(replace(k, name=new) if k.name == old else k for k in facts.links)
    sysctls = tuple((n.replace(f"/{old}/", f"/{new}/"), value) for n, value in facts.sysctls)
    addresses = tuple(replace(a, dev=new) if a.dev == old else a for a in facts.addresses)
    routes = tuple(
        replace(r, hops=tuple(replace(h, dev=new) if h.dev == old else h for h in r.hops))
        for r in facts.routes
    )
    return replace(facts, links=links, sysctls=sysctls, addresses=addresses, routes=routes)


class Host:
    def __init__(self) -> None:
        self.facts, self.state = BEFORE, State()

    def do(self, prepared: Prepared) -> None:
        *_, self.facts = (self.facts, *steps(self.facts, prepared.operations))
        self.state = settled(prepared.state, self.facts)

    def apply(self, config: Config = CONFIG) -> None:
        self.do(prepare(resolve(config, Observation(self.facts, self.state))))

    def down(self) -> None:
        self.do(prepare_down(Observation(self.facts, self.state)))

    def settings(self) -> tuple[dict[str, int], dict[str, str]]:
        return {link.name: link.group for link in self.facts.links}, dict(self.facts.sysctls)


@pytest.mark.parametrize("between", ["nothing", "apply"])
def test_a_renamed_interface_gets_its_originals_back(between: str) -> None:
    host = Host()
    host.apply()
    assert host.settings() != Host().settings()
    host.facts = rename(host.facts, "wan1", "lan9")
    if between == "apply":
        host.apply()
    host.down()
    host.facts = rename(host.facts, "lan9", "wan1")
    assert host.settings() == Host().settings()
    assert (host.state.groups, host.state.sysctls, host.state.links) == ({}, {}, {})


def test_two_interfaces_that_change_their_names() -> None:
    host = Host()
    host.apply()
    for old, new in (("wan0", "x"), ("wan1", "wan0"), ("x", "wan1")):
        host.facts = rename(host.facts, old, new)
    host.down()
    groups, _ = host.settings()
    assert (groups["wan0"], groups["wan1"]) == (5, 0)


def test_another_interface_of_the_name_has_originals_of_its_own() -> None:
    host = Host()
    host.apply()
    links = tuple(k for k in host.facts.links if k.name != "wan1")
    fresh = tuple(  # its group and queue are as those that we had set
        (n, "32768" if n == QUEUE.format("wan1") else value) for n, value in host.facts.sysctls
    )
    host.facts = replace(host.facts, links=(*links, Link(99, "wan1", group=171)), sysctls=fresh)
    host.down()
    groups, sysctls = host.settings()
    assert (groups["wan1"], sysctls[QUEUE.format("wan1")]) == (171, "32768")


def test_an_earlier_state_follows_too() -> None:
    was = Desired(
        groups=(("wan0", 0), ("wan1", 5)),
        sysctls=((QUEUE.format("wan1"), "212992"), ("net/ipv4/ip_forward", "0")),
    )
    now = rename(BEFORE, "wan1", "lan9")
    assert followed(was, indexes(BEFORE), now) == Desired(
        groups=(("wan0", 0), ("lan9", 5)),
        sysctls=((QUEUE.format("lan9"), "212992"), ("net/ipv4/ip_forward", "0")),
    )
    gone = replace(now, links=tuple(k for k in now.links if k.name != "lan9"))
    assert followed(was, indexes(BEFORE), gone) == Desired(
        groups=(("wan0", 0),), sysctls=(("net/ipv4/ip_forward", "0"),)
    )
