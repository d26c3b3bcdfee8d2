"""The inputs of a target: what covers its code, in one file, and what once crashed it, in a folder.

Rules: a line of the file is an input, in hexadecimal, or as Python writes bytes if that is shorter.
"""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Collection
from pathlib import Path

TESTS = Path(__file__).parents[1]
CORPUS, CRASHES = TESTS / "corpus" / "fuzz", TESTS / "fuzz" / "crashes"
TARGETS = tuple(
    sorted(path.stem for path in (TESTS / "fuzz" / "targets").glob("*.py") if path.stem[0] != "_")
)


def read(target: str) -> list[bytes]:
    """The minimised corpus in the tree."""
    path = CORPUS / f"{target}.txt"
    return [_decode(line) for line in path.read_text("ascii").splitlines()] if path.exists() else []


def write(target: str, inputs: Collection[bytes]) -> None:
    CORPUS.mkdir(exist_ok=True)
    lines = [f"{_encode(data)}\n" for data in sorted(inputs, key=lambda data: (len(data), data))]
    (CORPUS / f"{target}.txt").write_text("".join(lines), "ascii")


def read_crashes(target: str) -> dict[str, bytes]:
    """By file name."""
    return {path.name: path.read_bytes() for path in sorted((CRASHES / target).glob("*"))}


def size(data: bytes) -> int:
    """What an input takes in the file."""
    return len(_encode(data)) + 1


def _encode(data: bytes) -> str:
    return min(data.hex(), repr(data), key=len)


def _decode(line: str) -> bytes:
    return literal_eval(line) if line[1:2] in ("'", '"') else bytes.fromhex(line)
