"""Tables fit into the terminal, and no row can be read as another's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifdefault.cli.show.table import table

HEADS = ("Name", "State", "Cause")
LONG = "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff"


def test_columns_are_as_wide_as_their_longest_cell() -> None:
    assert table(HEADS, [("a", "down", "why"), ("bcdefg", "up", "")]) == [
        "Name    State  Cause",
        "a       down   why",
        "bcdefg  up",
    ]


def test_a_long_last_cell_is_wrapped_below_its_heading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert table(HEADS, [("isp-a", "down", "8 rounds lost in 422 ms, the gateway answers")]) == [
        "Name   State  Cause",
        "isp-a  down   8 rounds lost in 422 ms,",
        "                the gateway answers",
    ]


def test_parts_begin_new_lines_where_they_dont_fit_into_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [("www", "x", "isp-a 203.0.113.10\nisp-b 198.51.100.10"), ("w", "x", "a\nb")]
    monkeypatch.setenv("COLUMNS", "40")
    assert table(HEADS, rows) == [
        "Name  State  Cause",
        "www   x      isp-a 203.0.113.10",
        "             isp-b 198.51.100.10",
        "w     x      a, b",
    ]


def test_without_room_the_last_cell_has_lines_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "59")
    assert table(("Destination", "Gateway", "Source"), [("default:wan0", LONG, LONG)]) == [
        "Destination   Gateway",
        "    Source",
        f"default:wan0  {LONG}",
        f"    {LONG}",
    ]


CELLS = st.text("abc:. ", max_size=30).map(str.strip)


@given(rows=st.lists(st.tuples(CELLS, CELLS, CELLS, CELLS), min_size=1), width=st.integers(36, 90))
def test_nothing_is_wider_than_the_terminal_and_nothing_is_lost(
    rows: list[tuple[str, ...]], width: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        lines = table(rows[0], rows[1:])
    assert max(map(len, lines), default=0) <= width
    assert "".join("".join(lines).split()) == "".join("".join(map("".join, rows)).split())
