"""The page of figures is what the results render to, and the files of results are canonical."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import excerpts, headlines, render, results
from bench.__main__ import BENCHES
from bench.results import Figure, Machine, Report, Table

MACHINE = Machine("2026-01-02", 2, "a CPU", "6.1", "3.11", "1.0.6", 0.5)


@pytest.mark.parametrize("path", render.files(list(BENCHES)), ids=lambda path: path.name)
def test_docs_are_rendered(path: Path) -> None:
    """If not: ./dev bench --render."""
    assert path.read_text(encoding="utf-8") == render.files(list(BENCHES))[path]


@pytest.mark.parametrize("name", BENCHES)
def test_result_files_are_canonical(name: str) -> None:
    """Reading and writing a file gives the same bytes."""
    result = results.read(name)
    assert result is not None
    path = results.DIRECTORY / f"{name}.json"
    assert results.encode(name, *result) == path.read_text(encoding="utf-8")


def test_every_result_has_a_bench() -> None:
    # `./dev fuzz --results` writes the other one
    assert {path.stem for path in results.DIRECTORY.iterdir()} == {*BENCHES, "fuzz"}


def test_every_headline_is_measured() -> None:
    reports = {name: result[0] for name in BENCHES if (result := results.read(name))}
    assert list(headlines.missing(reports)) == []


def test_encode_keeps_a_series_on_one_line() -> None:
    series = [number / 7 for number in range(1, 500)]
    report = Report("title", "how", (Figure("what", 1 / 3),), samples={"series": series, "n": 5})
    text = results.encode("name", report, MACHINE)
    (line,) = (line for line in text.splitlines() if '"series"' in line)
    assert line.endswith(("],", "]"))
    content = json.loads(text)
    assert content["samples"]["n"] == 5
    assert content["samples"]["series"] == pytest.approx(series, abs=0.0005)
    assert content["figures"][0]["value"] == 1 / 3


@pytest.mark.parametrize(
    ("value", "rounded"),
    [(0.0, 0.0), (0.000123456, 0.0001235), (0.67412, 0.6741), (9803.00862, 9803.009), (7, 7)],
)
def test_samples_are_rounded(value: float, rounded: float) -> None:
    """Four significant digits, and three decimals at least."""
    text = results.encode("name", Report("", "", (), samples={"values": [value]}), MACHINE)
    assert json.loads(text)["samples"]["values"] == [rounded]


def test_figures_with_subjects_become_a_table() -> None:
    figures = (
        Figure("trials", 3),
        Figure("a: median", 0.5, "s", 0.8),
        Figure("a: longest", 1.5, "s", 1.2),
        Figure("b: median", 0.25, "s"),
        Figure("b: longest", 0.75, "s"),
    )
    report = Report("Title", "How.", figures, (Table("Cases", ("x",), (("1",),)),))
    page = render.render(["planner", "idle"], {"planner": (report, MACHINE)})
    assert "| trials | 3 |  |  |" in page
    assert "| a | 0.5 s (≤ 0.8 s) | **1.5 s** (≤ 1.2 s) |\n| b | 0.25 s | 0.75 s |" in page
    assert "<details><summary>Cases</summary>" in page
    assert "## idle\n\nNot measured yet: run `./dev bench idle`." in page


def test_a_document_quotes_the_results() -> None:
    """What stood there before is replaced, and the rest stays."""
    table = Table("Blackhole, in s", ("", "a, b", "c"), (("x", "1", "2"), ("y", "3", "4")))
    reports = {"failover": Report("", "", (), (Table("Others", (), ()), table))}
    directive = "<!-- failover, Blackhole: =system; a, b where c is 4 -->"
    text = f"before\n{directive}\nstale\n<!-- end of the table -->\nafter\n"
    once = excerpts.fill(text, reports, render._markdown)
    rows = "| system | a, b |\n|---|---|\n| y | 3 |\n"
    assert once == f"before\n{directive}\n\n{rows}\n<!-- end of the table -->\nafter\n"
    assert excerpts.fill(once, reports, render._markdown) == once
    with pytest.raises(ValueError):
        excerpts.fill(text.replace("a, b", "gone"), reports, render._markdown)
