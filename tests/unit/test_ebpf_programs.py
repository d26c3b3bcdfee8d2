"""The programs on connect(): slots, behaviour, and instructions."""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifdefault.kernel.ebpf import programs
from ifdefault.model.config import Config, Family, OutgoingConfig, OutgoingRule, UplinkConfig
from ifdefault.model.health import Decision
from ifdefault.model.kernel import SLOTS, Hook, Rule, Uplink
from ifdefault.plan import balance
from ifdefault.plan.balance import slots

NAMES = ("a", "b", "c")
BALANCE = OutgoingConfig(mode="balance")
weights = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 100), min_size=1, max_size=8)


def uplink(name: str, *, rank: int = 0, families: tuple[Family, ...] = (4, 6)) -> Uplink:
    number = NAMES.index(name) + 1
    gateways = tuple((family, "") for family in families)
    return Uplink(
        name, number, f"wan{number}", 1000 + number, number, 0x20 + number, 0x3F, rank,
        gateways=gateways,
    )  # fmt: skip


def config(outgoing: OutgoingConfig, *, weights: tuple[int, ...] = (1, 1, 1)) -> Config:
    uplinks = (UplinkConfig(n, "x", weight=w) for n, w in zip(NAMES, weights, strict=True))
    return Config(tuple(uplinks), outgoing=outgoing)


def decision(four: str, six: str = "") -> Decision:
    usable: tuple[tuple[Family, tuple[str, ...]], ...] = ((4, tuple(four)), (6, tuple(six or four)))
    return Decision(usable, usable)


UPLINKS = tuple(uplink(name) for name in NAMES)

# --- slots ---------------------------------------------------------------------------------


@given(weights)
def test_shares_are_the_weights(weights: dict[str, int]) -> None:
    owners = slots(weights, weights)
    assert len(owners) == SLOTS
    for name, weight in weights.items():
        # Sainte-Laguë's method may miss by more than one slot only where others are too small to
        # have theirs
        exact = SLOTS * weight / sum(weights.values())
        assert abs(owners.count(name) - exact) <= 1 + sum(
            1 for other in weights.values() if SLOTS * other / sum(weights.values()) < 2
        )


@given(weights, st.data())
def test_who_leaves_costs_the_others_nothing(weights: dict[str, int], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(sorted(weights)))
    if len(weights) == 1:
        weights["z"] = 1
    remaining = {name: weight for name, weight in weights.items() if name != gone}
    before, after = slots(weights, weights), slots(weights, remaining)
    assert gone not in after
    assert all(b in (a, gone) for b, a in zip(before, after, strict=True))
    assert slots(weights, weights) == before


@given(st.fixed_dictionaries({name: st.integers(1, 9) for name in "abc"}), st.permutations("abc"))
def test_two_of_three_leave_one_after_the_other(weights: dict[str, int], order: list[str]) -> None:
    there, before = dict(weights), slots(weights, weights)
    for gone in order[:2]:
        del there[gone]
        after = slots(weights, there)
        assert all(b in (a, gone) for b, a in zip(before, after, strict=True))
        before = after
    assert set(before) == set(there)


@given(weights, st.data())
def test_a_line_that_fills_up_gives_slots_away_and_the_others_keep_theirs(
    weights: dict[str, int], data: st.DataObject
) -> None:
    weights |= {"z": 1} if len(weights) == 1 else {}
    full = data.draw(st.sampled_from(sorted(weights)))
    before, counts = slots(weights, weights), list[int]()
    for share in (4, 2, 1):
        present = {name: w * (share if name == full else 8) for name, w in weights.items()}
        after = slots(weights, present)
        due = SLOTS * present[full] / sum(present.values())
        counts.append(after.count(full))
        moved = [(b, a) for b, a in zip(before, after, strict=True) if b != a]
        assert sum(a == full for _, a in moved) == 0
        assert sum(b != full for b, _ in moved) <= len(weights)
        assert abs(counts[-1] - max(due, 1)) <= 2
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] >= (full in before)


@pytest.mark.parametrize("servers", range(2, 13))
def test_the_order_is_not_that_of_the_caller(servers: int) -> None:
    """Who connects to some servers in turn comes to each by all uplinks: in the end exactly as the
    weights are, and about so after a few connections."""
    owners = slots({"a": 3, "b": 1}, {"a": 3, "b": 1})
    for server in range(servers):
        mine = [owners[turn % SLOTS] for turn in range(server, servers * SLOTS, servers)]
        assert Counter(mine) == Counter(owners)
        assert 55 <= mine[:100].count("a") <= 92


def test_after_ten_thousand_shares_are_exact() -> None:
    owners = slots({"a": 3, "b": 1}, {"a": 3, "b": 1})
    shares = [owners[turn % SLOTS] for turn in range(10_000)]
    ratio = shares.count("a") / shares.count("b")
    assert ratio == pytest.approx(3, rel=0.02)


# --- the hook that a config needs ----------------------------------------------------------


def test_none_is_needed_without_balance() -> None:
    assert balance.desired_hook(config(OutgoingConfig()), UPLINKS, decision("abc")) is None
    rule = OutgoingRule(("a",), to=("192.0.2.0/24",))
    plain = config(OutgoingConfig(rules=(rule,)))
    assert balance.desired_hook(plain, UPLINKS, decision("abc")) is None


def test_members_are_the_usable_of_the_lowest_rank() -> None:
    uplinks = (uplink("a", rank=1), uplink("b"), uplink("c", families=(4,)))
    ranked = config(BALANCE)
    ranked = replace(
        ranked, uplinks=tuple(replace(u, rank=int(u.name == "a")) for u in ranked.uplinks)
    )
    found = balance.desired_hook(ranked, uplinks, decision("abc"))
    assert found is not None
    assert {f: set(marks) for f, marks in found.marks} == {4: {0x22, 0x23}, 6: {0x22}}
    alone = balance.desired_hook(ranked, uplinks, decision("a"))
    assert alone is not None
    assert {f: set(marks) for f, marks in alone.marks} == {4: {0x21}, 6: {0x21}}


def test_a_group_leaves_by_the_first_usable_in_each_family() -> None:
    rules = (
        OutgoingRule(("c", "b"), cgroups=("/x",)),
        OutgoingRule(("a",), cgroups=("/x", "/y")),
        OutgoingRule(("b", "c"), cgroups=("/z",)),
    )
    uplinks = (*UPLINKS[:2], uplink("c", families=(4,)))
    found = balance.desired_hook(config(OutgoingConfig(rules=rules)), uplinks, decision("ac", "ab"))
    assert found is not None
    assert found.cgroups == (("/x", 0x23, 0x22), ("/y", 0x21, 0x21), ("/z", 0x23, 0x22))
    assert (found.marks, found.spared) == ((), ())
    # none is usable: the last that has the family
    found = balance.desired_hook(config(OutgoingConfig(rules=rules)), uplinks, decision("a"))
    assert found is not None
    assert found.cgroups[0] == ("/x", 0x22, 0x22)


def test_what_rules_select_is_spared() -> None:
    rule = OutgoingRule(("a",), to=("192.0.2.0/24",), transport="tcp", ports=((25, 25),))
    found = balance.desired_hook(
        config(replace(BALANCE, rules=(rule,), sticky=True)), UPLINKS, decision("abc")
    )
    assert found is not None
    assert found.sticky
    assert [(r.dst, r.ip_proto, r.dport) for r in found.spared] == [("192.0.2.0/24", 6, (25, 25))]


# --- instructions --------------------------------------------------------------------------

MARKS: tuple[tuple[Family, tuple[int, ...]], ...] = ((4, (1,) * SLOTS), (6, (2,) * SLOTS))
SPARED = (
    Rule(4, 1, dst="192.0.2.0/24", ip_proto=6, dport=(25, 26), uids=(1000, 1000)),
    Rule(6, 1, dst="2001:db8::/33"),
    Rule(4, 1, ip_proto=132),
)
HOOKS = {
    "plain": Hook(0x3F, MARKS),
    "all": Hook(0x3F, MARKS, True, True, SPARED, (("/a", 1, 2),)),
    "groups": Hook(0x3F, cgroups=(("/a", 1, 2),)),
}


@pytest.mark.parametrize("name", HOOKS)
def test_programs_end_and_jump_within(name: str) -> None:
    """The network tests run the kernel's verifier."""
    connecting = [programs.connect(HOOKS[name], family, 1, 3, 4) for family in (4, 6)]
    for code in (*connecting, programs.sock_create(1, 4)):
        assert len(code) % 8 == 0
        found = [struct.unpack_from("=BBhi", code, at) for at in range(0, len(code), 8)]
        assert found[-1][0] == 0x95
        for at, (op, _, off, _) in enumerate(found):
            if op & 7 in (5, 6) and op not in (0x85, 0x95):
                assert at < at + 1 + off < len(found), "forward, and never out"


def test_what_may_change_in_place_is_in_no_instruction() -> None:
    one = HOOKS["all"]
    other = replace(
        one, marks=tuple((f, (7,) * SLOTS) for f, _ in MARKS), cgroups=(("/b", 3, 4), ("/c", 5, 6))
    )
    for family in (4, 6):
        code = programs.connect(one, family, 1, 3, 4)
        assert code == programs.connect(other, family, 1, 3, 4)
        for changed in ({"sticky": False}, {"udp": False}, {"spared": ()}, {"cgroups": ()}):
            assert code != programs.connect(replace(one, **changed), family, 1, 3, 4)
