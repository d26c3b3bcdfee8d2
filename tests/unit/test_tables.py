"""Our nft tables in the plan, in rollback and on disk: what applies to one applies to all."""

from __future__ import annotations

from pathlib import Path

import pytest

from ifdefault.host.saved_state import TABLES
from ifdefault.host.store import Store
from ifdefault.model.host import Observation
from ifdefault.model.kernel import (
    OWN_TABLES,
    Desired,
    Facts,
    LoadNft,
    NftTable,
    Ruleset,
    ruleset_digest,
)
from ifdefault.plan.diff import diff, record_tables
from ifdefault.plan.prepare import snapshot

TEXTS = {name: f"table inet {name} {{\n}}\n" for name in OWN_TABLES}
WANTED = Desired(tables=tuple(TEXTS.items()))


def held(**others: NftTable | None) -> Facts:
    """Facts with each of our tables as loaded, except for `others`; None: missing."""
    tables: dict[str, NftTable | None] = {
        name: NftTable(ruleset_digest(text), "as listed") for name, text in TEXTS.items()
    }
    return Facts(tables=tuple((n, t) for n, t in (tables | others).items() if t is not None))


LOADED = record_tables(held(), WANTED)


def test_each_is_recorded_and_then_left_alone() -> None:
    assert dict(LOADED).keys() == set(OWN_TABLES)
    assert diff(held(), WANTED, LOADED) == ()


@pytest.mark.parametrize("name", OWN_TABLES)
def test_one_that_is_not_as_loaded_is_loaded_again(name: str) -> None:
    again = (LoadNft(name, TEXTS[name]),)
    edited = NftTable(ruleset_digest(TEXTS[name]), "edited by a stranger")
    older = NftTable(ruleset_digest("older"), "as listed")
    for there in (None, edited, older, NftTable()):
        assert diff(held(**{name: there}), WANTED, LOADED) == again
    forgotten = tuple((other, known) for other, known in LOADED if other != name)
    assert diff(held(), WANTED, forgotten) == again


@pytest.mark.parametrize("name", OWN_TABLES)
def test_a_table_that_is_not_needed_is_deleted_if_it_is_ours(name: str) -> None:
    wanted = Desired(tables=tuple((other, text) for other, text in TEXTS.items() if other != name))
    assert diff(held(), wanted, LOADED) == (LoadNft(name, ""),)
    assert diff(held(**{name: NftTable("", "a stranger's")}), wanted, LOADED) == ()


def test_down_takes_all() -> None:
    assert diff(held(), Desired(), LOADED) == tuple(LoadNft(name, "") for name in OWN_TABLES)


@pytest.mark.parametrize("name", OWN_TABLES)
def test_the_way_back_has_each_that_stands_and_is_known(name: str) -> None:
    assert snapshot(Observation(held(), loaded=LOADED)) == WANTED
    for there in (None, NftTable(ruleset_digest("another's"), "as listed")):
        back = snapshot(Observation(held(**{name: there}), loaded=LOADED))
        assert dict(back.tables) == {n: text for n, text in TEXTS.items() if n != name}


def test_the_record_outlives_the_process_and_may_be_lost(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.load_tables() == ()
    store.save_tables(LOADED)
    assert store.load_tables() == LOADED
    for unreadable in ("{", "[]", '{"ifdefault": {"text": ""}}', '{"ifdefault": 1}'):
        (tmp_path / TABLES.name).write_text(unreadable)
        assert store.load_tables() == ()
        store.save_tables(LOADED[:1])
        assert store.load_tables() == LOADED[:1]


def test_only_what_was_loaded_from_the_text_is_recorded() -> None:
    first, *others = OWN_TABLES
    facts = held(**{first: NftTable(ruleset_digest("another text"), "as listed")})
    found = record_tables(facts, WANTED)
    assert found == tuple((n, Ruleset(TEXTS[n], dict(facts.tables)[n])) for n in others)
