"""Runs one target under libFuzzer: python -m tests.fuzz.libfuzzer TARGET [OPTION...] [FOLDER...]

Rules: it imports nothing of ifdefault before atheris watches the imports, since only code that is
imported meanwhile reports its coverage.
"""

from __future__ import annotations

import sys
from importlib import import_module
from random import Random
from typing import Any

from tests.fuzz.mutate import mutate_json

# parsers of the standard library in Python: an input that they refuse reaches nothing of ours
WATCHED = ("ifdefault", "tomllib", "shlex")


def main() -> None:
    _, name, *arguments = sys.argv
    atheris: Any = import_module("atheris")
    with atheris.instrument_imports(include=list(WATCHED)):
        target = import_module(f"tests.fuzz.targets.{name}")

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.3:
            return bytes(atheris.Mutate(data, most))
        return mutate_json(random, data)[:most]

    options = {"custom_mutator": mutate} if target.KIND == "json" else {}
    atheris.Setup([name, *arguments], target.one, **options)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
