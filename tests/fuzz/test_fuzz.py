"""What is known of each target: its corpus, what once crashed it, and a few mutants of both."""

from __future__ import annotations

from importlib import import_module
from random import Random
from typing import Any

import pytest

from tests.fuzz import corpus
from tests.fuzz.mutate import mutants

MUTANTS = 100


@pytest.mark.parametrize("name", corpus.TARGETS)
def test_known_inputs_and_mutants(name: str) -> None:
    target: Any = import_module(f"tests.fuzz.targets.{name}")
    crashes = corpus.read_crashes(name)
    inputs = [*corpus.read(name), *target.seeds()]
    tried = [*crashes.values(), *inputs, *mutants(Random(16), target, inputs, MUTANTS)]
    for data in tried:
        try:
            target.one(data)
        except BaseException as error:
            error.add_note(f"tests/fuzz/targets/{name}.py, one({data!r})")
            raise


def test_the_corpus_is_small() -> None:
    paths = [*corpus.CORPUS.glob("*"), *corpus.CRASHES.glob("*/*")]
    assert sum(path.stat().st_size for path in paths) < 300 << 10
    assert {path.stem for path in corpus.CORPUS.glob("*")} <= {*corpus.TARGETS}
    assert {path.name for path in corpus.CRASHES.glob("*")} <= {*corpus.TARGETS}
