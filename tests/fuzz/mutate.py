"""Mutations: of bytes, and of JSON texts, whose structure random bytes would only destroy.

Rules: the same `Random` gives the same mutants.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, Literal, Protocol

BYTES = (0, 1, 12, 16, 41, 63, 64, 127, 128, 192, 250, 255, *b'\n\x1b"\\{[')
TEXTS = (
    *("", "x", "\0", "\n", "\x1b[2J", "\u202e", "\ud800", "é" * 200, "a" * 300, "@"),
    *("192.0.2.1", "::1", "::ffff:1.2.3.4", "fe80::1%lo", "0x7f.1", "default", "0.0.0.0/0", "*.*"),
    *("../../etc", "/", "/" + "a" * 255, "NaN", "Infinity", "-1", "up", "[2m"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 255, 65536, 2**31, 2**32, 2**63, 10**400, 1.5, 1e308),
    *TEXTS,
    *([], {}, [[]], [None] * 40, {"type": "Ready"}),
)


class Target(Protocol):
    KIND: Literal["bytes", "json", "text"]
    WORDS: Sequence[str]  # values to put into a text

    def one(self, data: bytes) -> None: ...
    def seeds(self) -> list[bytes]: ...


def mutants(random: Random, target: Target, inputs: Sequence[bytes], count: int) -> Iterator[bytes]:
    for _ in range(count):
        data, other = random.choice(inputs), random.choice(inputs)
        structured = target.KIND != "bytes" and random.random() < 0.8
        yield (
            mutate(random, target, data, other) if structured else mutate_bytes(random, data, other)
        )


def mutate(random: Random, target: Target, data: bytes, other: bytes) -> bytes:
    """A mutant that keeps most of the structure of a JSON value or of lines of text."""
    if target.KIND == "json":
        return mutate_json(random, data)
    return mutate_lines(random, data, other, target.WORDS)


def mutate_bytes(random: Random, data: bytes, other: bytes = b"") -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(changed) or 1)
        match random.randrange(7):
            case 0:
                changed[at : at + 1] = (
                    bytes((changed[at] ^ 1 << random.randrange(8),)) if changed else b""
                )
            case 1:
                changed[at : at + 1] = bytes((random.choice(BYTES),))
            case 2:
                del changed[at : at + random.choice((1, 2, 4, 16))]
            case 3:
                del changed[at:]
            case 4:
                changed[at:at] = changed[at : at + random.randrange(1, 40)]
            case 5:
                changed[at:] = other[random.randrange(len(other) or 1) :]
            case _:
                changed[at:at] = random.randbytes(random.choice((1, 2, 4)))
    return bytes(changed)


def mutate_lines(random: Random, data: bytes, other: bytes, words: Sequence[str]) -> bytes:
    """Other lines, and other values of KEY = VALUE."""
    lines, others = data.split(b"\n"), other.split(b"\n")
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(lines) + 1)
        match random.randrange(6):
            case 0:
                del lines[at : at + 1]
            case 1:
                lines[at:at] = lines[at : at + 3]
            case 2:
                start = random.randrange(len(others))
                lines[at:at] = others[start : start + random.choice((1, 1, 4))]
            case _:
                assigned = [n for n, line in enumerate(lines) if b"=" in line]
                if assigned:
                    at = random.choice(assigned)
                    lines[at] = _assign(random, lines[at], words)
    return b"\n".join(lines)


def _assign(random: Random, line: bytes, words: Sequence[str]) -> bytes:
    key, _, value = line.partition(b"=")
    word = random.choice(words).encode()
    match random.randrange(4):
        case 0:
            value = b" [" + word + b", " + value.strip(b" []") + b"]"
        case 1 if b'"' in value:
            at = random.choice([n for n, byte in enumerate(value) if byte in b'".:/'])
            value = value[:at] + word.strip(b'"') + value[at:]
        case _:
            value = b" " + word
    return key + b"=" + value


def mutate_json(random: Random, data: bytes) -> bytes:
    """Another value somewhere in the JSON text that the data ends with."""
    at = min((n for n in map(data.find, (b"{", b"[")) if n >= 0), default=0)
    try:
        value = json.loads(data[at:])
    except (ValueError, RecursionError):
        return mutate_bytes(random, data)
    for _ in range(random.choice((1, 1, 2, 3))):
        value = _changed(random, value)
    text = json.dumps(value, ensure_ascii=random.random() < 0.5)
    return data[:at] + text.encode("utf-8", "surrogatepass")


def _changed(random: Random, value: Any) -> Any:
    """A copy with one change, at any depth."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = random.choice([*value])
        match random.randrange(12):
            case 0:
                return {k: v for k, v in value.items() if k != key}
            case 1:
                return {**value, random.choice(TEXTS): random.choice(VALUES)}
            case 2:
                return {k if k != key else random.choice(TEXTS): v for k, v in value.items()}
        return {**value, key: _changed(random, value[key])}
    if isinstance(value, list) and value and random.random() < 0.9:
        at = random.randrange(len(value))
        match random.randrange(8):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return value[:at] + value[at : at + 1] * random.choice((2, 40)) + value[at + 1 :]
        return [*value[:at], _changed(random, value[at]), *value[at + 1 :]]
    if isinstance(value, str) and random.random() < 0.4:
        at = random.randrange(len(value) + 1)
        return value[:at] + random.choice(TEXTS) + value[at:]
    return random.choice(VALUES)
