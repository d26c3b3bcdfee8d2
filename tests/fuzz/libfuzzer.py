"""Runs one target under libFuzzer: python -m tests.fuzz.libfuzzer TARGET [OPTION...] [FOLDER...]

Rules: it imports nothing of ifdefault before atheris watches the imports, since only code that is
imported meanwhile reports its coverage.
"""

from __future__ import annotations

import shlex
import sys
from importlib import import_module
from random import Random
from typing import Any

from tests.fuzz import mutate

# parsers of the standard library in Python: an input that they refuse reaches nothing of ours
WATCHED = ("ifdefault", "tomllib", "shlex")


def main() -> None:
    _, name, *arguments = sys.argv
    atheris: Any = import_module("atheris")
    with atheris.instrument_imports(include=list(WATCHED)):
        target: Any = import_module(f"tests.fuzz.targets.{name}")

    def mutated(data: bytes, most: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.3:
            return bytes(atheris.Mutate(data, most))
        return mutate.mutate(random, target, data, random.choice(known))[:most]

    known = target.seeds()
    options = {} if target.KIND == "bytes" else {"custom_mutator": mutated}
    this = f"{shlex.quote(sys.executable)} -m tests.fuzz.libfuzzer {name}"
    atheris.Setup([this, *arguments], target.one, **options)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
