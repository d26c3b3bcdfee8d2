"""Uplink numbers stay with their uplinks; marks and tables follow from them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ifdefault.model.config import HostConfig
from ifdefault.plan import numbers

names = st.lists(st.text("abcdef", min_size=1, max_size=3), unique=True, max_size=31)


@given(st.lists(names, max_size=6))
def test_numbers_are_unique_and_stay(edits: list[list[str]]) -> None:
    """Over several configs: an uplink keeps its number until another uplink gets it."""
    known: dict[str, int] = {}
    for wanted in edits:
        before, known = known, numbers.assign(wanted, known)
        assert len(set(known.values())) == len(known)
        assert set(wanted) <= known.keys()
        assert all(1 <= number <= numbers.UPLINKS_MAX for number in known.values())
        assert all(known[name] == before[name] for name in wanted if name in before)


def test_retired_uplink_gets_its_number_back() -> None:
    first = numbers.assign(["isp-a", "isp-b"], {})
    without = numbers.assign(["isp-b", "isp-c"], first)
    assert without == {"isp-a": 1, "isp-b": 2, "isp-c": 3}
    assert numbers.assign(["isp-a"], without)["isp-a"] == 1


def test_retired_uplinks_make_room() -> None:
    full = {f"old-{n}": n for n in range(1, 32)}
    now = numbers.assign(["old-1", "new"], full)
    assert now["old-1"] == 1
    assert now["new"] == 2
    assert "old-2" not in now


def test_number_out_of_range_is_not_kept() -> None:
    assert numbers.assign(["isp-a"], {"isp-a": 40}) == {"isp-a": 1}


def test_marks_are_distinct_and_inside_every_mask() -> None:
    for shift in range(27):
        host = HostConfig(mark_mask=0x3F << shift)
        marks = {
            mark(host, n)
            for mark in (numbers.arrival_mark, numbers.outgoing_mark)
            for n in range(1, numbers.UPLINKS_MAX + 1)
        }
        assert len(marks) == 62
        assert all(mark and mark & ~host.mark_mask == 0 for mark in marks)


def test_tables_are_our_own() -> None:
    host = HostConfig(table_base=2000)
    tables = [numbers.table(host, n) for n in range(1, numbers.UPLINKS_MAX + 1)]
    assert {2000, *tables} == set(numbers.own_tables(host))
