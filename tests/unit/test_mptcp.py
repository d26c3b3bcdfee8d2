"""Which addresses MPTCP announces, in which order they change, and what is left afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ifdefault.health import Candidate, decide
from ifdefault.kernel import mptcp as kernel
from ifdefault.kernel.netlink import attributes
from ifdefault.model.config import Config, MptcpConfig
from ifdefault.model.dns import DISCOVER
from ifdefault.model.health import Decision
from ifdefault.model.host import Observation, State
from ifdefault.model.kernel import AddRule, DeleteRule, Facts
from ifdefault.model.mptcp import (
    ENDPOINTS_MAX,
    FIRST_ID,
    LAST_ID,
    DeleteEndpoint,
    Endpoint,
    MptcpState,
    PutEndpoint,
    SetMptcpLimit,
    endpoint_id,
    uplink_number,
)
from ifdefault.plan.describe import describe
from ifdefault.plan.originals import settled
from ifdefault.plan.prepare import Prepared, prepare, prepare_down, resolve, snapshot
from ifdefault.plan.recover import recover
from tests.property.fakekernel import settle, steps
from tests.unit.test_lookup import CONFIG, HOST

ANNOUNCE = replace(CONFIG, mptcp=MptcpConfig(announce=True))
LIMITS = (("add_addr_accepted", 0), ("subflows", 2))
FOREIGN = Endpoint(1, "192.0.2.7", signal=True)
BEFORE = replace(HOST, mptcp=MptcpState(endpoints=(FOREIGN,), limits=LIMITS))
A4, A6, B4, B6 = "203.0.113.10", "2001:db8:a::10", "198.51.100.10", "2001:db8:b::10"


def candidates(**changes: object) -> list[Candidate]:
    """Of both uplinks; `changes` are isp-a's."""
    paths = [Candidate(u.name, f, state="up") for u in CONFIG.uplinks for f in (4, 6)]
    return [replace(c, **changes) if c.uplink == "isp-a" else c for c in paths]  # type: ignore[arg-type]


def planned(
    decision: Decision | None = None,
    config: Config = ANNOUNCE,
    facts: Facts = BEFORE,
    state: State | None = None,
) -> Prepared:
    return prepare(resolve(config, Observation(facts, state or State())), decision)


def announced(prepared: Prepared) -> list[str]:
    return [e.address + (" backup" if e.backup else "") for e in prepared.desired.endpoints]


def after(prepared: Prepared) -> Facts:
    *_, facts = steps(prepared.facts, prepared.operations)
    return facts


def texts(prepared: Prepared) -> list[str]:
    return [describe(op) for op in prepared.operations if "mptcp" in describe(op)]


def test_ids() -> None:
    ids = {endpoint_id(n, f, public=p): n for n in range(1, 32) for f in (4, 6) for p in (0, 1)}  # type: ignore[arg-type]
    assert (len(ids), min(ids), max(ids)) == (124, FIRST_ID, LAST_ID)
    assert {id_: uplink_number(id_) for id_ in ids} == ids


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, [A4, A6, B4, B6]),
        ({"state": "down"}, [B4, B6]),
        ({"state": "recovering"}, [B4, B6]),
        ({"state": "degraded"}, [B4, B6, f"{A4} backup", f"{A6} backup"]),
        ({"state": "degraded", "forced": "up"}, [A4, A6, B4, B6]),
        ({"standby": True}, [B4, B6, f"{A4} backup", f"{A6} backup"]),
        ({"forced": "drain"}, [B4, B6, f"{A4} backup", f"{A6} backup"]),
        ({"forced": "drain", "state": "down"}, [B4, B6]),
        ({"forced": "down"}, [B4, B6, f"{A4} backup", f"{A6} backup"]),
        ({"forced": "down", "state": "down"}, [B4, B6]),
    ],
)
def test_the_decision_says_which(change: dict[str, object], expected: list[str]) -> None:
    assert announced(planned(decide(candidates(**change)))) == expected


def test_a_higher_rank_is_backup_while_the_lower_one_works() -> None:
    a, b = ANNOUNCE.uplinks
    config = replace(ANNOUNCE, uplinks=(replace(a, rank=1), b))
    assert announced(planned(None, config)) == [B4, B6, f"{A4} backup", f"{A6} backup"]
    down = decide([replace(c, state="down") for c in candidates() if c.uplink != "isp-a"])
    [(_, order), _] = decide(candidates(rank=1)).order
    assert order == ("isp-b", "isp-a")
    alone = replace(down, usable=((4, ("isp-a",)), (6, ("isp-a",))), order=((4, order), (6, order)))
    assert announced(planned(alone, config)) == [A4, A6]


def test_when_all_are_down_nothing_is_withdrawn() -> None:
    all_down = decide([replace(c, state="down") for c in candidates()])
    assert sorted(announced(planned(all_down))) == sorted([A4, A6, B4, B6])


def test_behind_a_nat_the_public_address_is_announced() -> None:
    a, b = ANNOUNCE.uplinks
    config = replace(
        ANNOUNCE,
        uplinks=(replace(a, public=("192.0.2.99",)), replace(b, public=(DISCOVER,))),
    )
    observation = Observation(BEFORE, public=(("isp-a", 4, "192.0.2.98"), ("isp-b", 6, "3fff::1")))
    facts = after(prepare(resolve(config, observation)))
    assert facts.mptcp is not None
    assert list(facts.mptcp.endpoints) == [
        FOREIGN,
        Endpoint(248, "3fff::1", signal=True),
        Endpoint(249, B6),
        Endpoint(251, B4),  # its public address isn't known
        Endpoint(253, A6, signal=True),
        Endpoint(254, "192.0.2.99", signal=True),
        Endpoint(255, A4),
    ]


def test_connections_of_the_hosts_own() -> None:
    own = planned(config=replace(CONFIG, mptcp=MptcpConfig(outgoing=True)))
    assert {(e.signal, e.subflow) for e in own.desired.endpoints} == {(False, True)}
    assert announced(own) == [A4, A6, B4, B6]
    both = planned(config=replace(CONFIG, mptcp=MptcpConfig(announce=True, outgoing=True)))
    assert {(e.signal, e.subflow) for e in both.desired.endpoints} == {(True, True)}
    [problem] = planned(config=own.config, facts=replace(HOST, mptcp=None)).lacks
    assert problem.where == "mptcp.outgoing"


def test_peers_are_told_of_ipv6_first() -> None:
    """Of every uplink's, before any IPv4: else some are never told that an address is gone."""
    first = planned(decide(candidates()))
    added = [op.endpoint.address for op in first.operations if isinstance(op, PutEndpoint)]
    assert added == [A6, B6, A4, B4]
    down = decide(candidates(state="down"))
    gone = planned(down, facts=after(first), state=settled(first.state, after(first)))
    deleted = [op.endpoint.address for op in gone.operations if isinstance(op, DeleteEndpoint)]
    assert deleted == [A6, A4]


def test_a_failover_deletes_once_the_rules_stand() -> None:
    first = planned(decide(candidates()))
    facts, state = after(first), settled(first.state, after(first))
    down = planned(decide(candidates(state="down")), facts=facts, state=state)
    assert texts(down) == [
        "ip mptcp endpoint delete id 253  # 2001:db8:a::10",
        "ip mptcp endpoint delete id 255  # 203.0.113.10",
    ]
    kinds = [type(operation) for operation in down.operations]
    assert set(kinds[: kinds.index(DeleteEndpoint)]) >= {AddRule, DeleteRule}
    assert AddRule not in kinds[kinds.index(DeleteEndpoint) :]
    degraded = planned(decide(candidates(state="degraded")), facts=facts, state=state)
    assert texts(degraded) == [
        "ip mptcp endpoint change id 253 backup  # 2001:db8:a::10",
        "ip mptcp endpoint change id 255 backup  # 203.0.113.10",
    ]


def test_down_leaves_all_as_before() -> None:
    first = planned()
    facts, state = after(first), settled(first.state, after(first))
    assert facts.mptcp is not None
    assert dict(facts.mptcp.limits) == dict.fromkeys(dict(LIMITS), ENDPOINTS_MAX)
    assert planned(facts=facts, state=state).operations == ()
    for removed in (
        prepare_down(Observation(facts, state)),
        prepare_down(Observation(facts, recover(State(), facts))),
        planned(config=CONFIG, facts=facts, state=state),
    ):
        last = after(removed)
        assert last.mptcp == replace(BEFORE.mptcp or MptcpState(), endpoints=(FOREIGN,))
    kinds = [type(op) for op in prepare_down(Observation(facts, state)).operations]
    assert kinds.index(DeleteEndpoint) < kinds.index(DeleteRule), "peers are told by the rules"
    undone = settle(BEFORE, snapshot(Observation(BEFORE)))
    assert undone.mptcp == BEFORE.mptcp


def test_a_limit_that_someone_else_set_since_stays() -> None:
    first = planned()
    facts = after(first)
    changed = MptcpState(True, (), (("add_addr_accepted", 8), ("subflows", 5)))
    facts = replace(facts, mptcp=changed)
    last = after(prepare_down(Observation(facts, settled(first.state, facts))))
    assert last.mptcp == replace(changed, limits=(("add_addr_accepted", 0), ("subflows", 5)))


def test_what_others_have_is_left() -> None:
    theirs = Endpoint(2, A4, signal=True, backup=True)
    implicit = Endpoint(3, B4, implicit=True)
    others = tuple(Endpoint(10 + n, f"192.0.2.{n}", subflow=True) for n in range(5))
    elsewhere = Endpoint(4, "192.168.1.1", implicit=True)
    had = MptcpState(endpoints=(theirs, implicit, *others[:4], elsewhere), limits=LIMITS)
    prepared = planned(facts=replace(HOST, mptcp=had))
    assert announced(prepared) == [A6, B4], "8 endpoints at most"
    last = after(prepared).mptcp
    assert last is not None
    assert {theirs, *others[:4], elsewhere} < set(last.endpoints)
    assert implicit not in last.endpoints, "the kernel refuses the address while it is there"


def test_what_is_announced_stays_where_not_all_can_be() -> None:
    others = tuple(Endpoint(10 + n, f"192.0.2.{n}", subflow=True) for n in range(6))
    first = planned(facts=replace(HOST, mptcp=MptcpState(endpoints=others, limits=LIMITS)))
    assert announced(first) == [A4, A6]
    worse = planned(decide(candidates(state="degraded")), facts=after(first), state=first.state)
    assert announced(worse) == [f"{A4} backup", f"{A6} backup"], "deleting would end subflows"


@pytest.mark.parametrize(
    ("state", "text"),
    [(None, "the kernel has no MPTCP"), (MptcpState(enabled=False, limits=LIMITS), "switched off")],
)
def test_without_mptcp_the_rest_works(state: MptcpState | None, text: str) -> None:
    facts = replace(HOST, mptcp=state)
    prepared = planned(facts=facts)
    [problem] = prepared.lacks
    assert text in str(problem)
    assert problem.warning
    assert prepared.operations == planned(config=CONFIG, facts=facts).operations


@pytest.mark.parametrize(
    "endpoint", [Endpoint(255, A4, signal=True, backup=True), Endpoint(249, B6), FOREIGN]
)
def test_endpoints_as_the_kernel_has_them(endpoint: Endpoint) -> None:
    assert kernel.decode_endpoint(attributes(kernel.encode_endpoint(endpoint), 0)) == endpoint


def test_as_commands() -> None:
    assert describe(PutEndpoint(Endpoint(255, A4, signal=True, backup=True))) == (
        "ip mptcp endpoint add 203.0.113.10 id 255 signal backup"
    )
    assert describe(SetMptcpLimit("subflows", 8, 2)) == "ip mptcp limits set subflows 8  # was 2"
