"""The list of tests for other kernels names tests that there are."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.system.chosen import CHOSEN

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("node", [node for nodes in CHOSEN.values() for node in nodes])
def test_a_chosen_test_exists(node: str) -> None:
    path, _, name = node.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    functions = {item.name for item in tree.body if isinstance(item, ast.FunctionDef)}
    assert not name or name.partition("[")[0] in functions
