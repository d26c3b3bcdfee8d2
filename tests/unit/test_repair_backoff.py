"""What others undo is repaired; in a conflict, less and less often."""

from __future__ import annotations

from ifdefault.daemon.controller.repair_backoff import LONGEST_HOLD_S, ROUNDS, RepairBackoff
from ifdefault.model.kernel import NFT_TABLE, PROTOCOL, AddRule, LoadNft, Rule

RULE = AddRule(Rule(4, 5050, "nop", protocol=PROTOCOL))
TEXT = "ip rule add pref 5050 from all nop proto 171"
TABLE = LoadNft(NFT_TABLE, "table inet ifdefault {}")


def test_a_few_repairs_are_no_conflict() -> None:
    backoff = RepairBackoff()
    for n in range(ROUNDS - 1):
        assert backoff.note(n * 0.1, [RULE]) == ()
    assert not backoff.holds(1.0, [RULE])
    assert backoff.conflicts(1.0) == ()


def test_the_same_repair_now_and_then_is_no_conflict() -> None:
    backoff = RepairBackoff()
    for n in range(100):
        assert backoff.note(n * 60.0, [RULE]) == ()


def test_different_repairs_are_no_conflict() -> None:
    backoff = RepairBackoff()
    for n in range(100):
        assert backoff.note(n * 0.1, [AddRule(Rule(4, n, "nop"))]) == ()


def test_a_table_that_changes_is_no_conflict_unless_it_is_the_same() -> None:
    backoff = RepairBackoff()
    for n in range(100):  # the host changes, and what we load with it
        text = f"table inet ifdefault {{ counter c{n:03} {{ }} }}"
        assert backoff.note(n * 0.1, [LoadNft(NFT_TABLE, text)]) == ()
    for n in range(ROUNDS):  # somebody flushes the ruleset
        conflicts = backoff.note(20.0 + n * 0.1, [TABLE])
    assert conflicts == ("nft replace table inet ifdefault  # 0 lines",)


def test_repairs_in_a_conflict_get_rarer() -> None:
    backoff, now, repairs = RepairBackoff(), 0.0, []
    while now < 3600.0:  # somebody deletes it at once, each time
        if not backoff.holds(now, [RULE]):
            backoff.note(now, [RULE])
            repairs.append(now)
        now += 0.1
    assert len([at for at in repairs if at < 10.0]) <= ROUNDS + 4
    assert len([at for at in repairs if at > 1800.0]) <= 1800 / LONGEST_HOLD_S + 1
    assert TEXT in backoff.conflicts(now)[0]


def test_peace_is_noticed() -> None:
    backoff = RepairBackoff()
    for n in range(ROUNDS):
        backoff.note(n * 0.1, [RULE])
    assert backoff.holds(ROUNDS * 0.1, [RULE])
    # what else is to be done doesn't wait for the end of a fight
    assert not backoff.holds(ROUNDS * 0.1, [RULE, TABLE])
    assert not backoff.holds(10.0, [RULE])
    assert backoff.note(300.0, [RULE]) == ()
    assert not backoff.holds(300.0, [RULE])
    assert backoff.conflicts(600.0) == ()
