"""Every error message of the source says what is wrong and what would be right, in plain words; and
the manual quotes messages that exist.

Messages are found in the syntax tree: the arguments of `Problem`, `reject` and the exceptions, and
what `config.cross` yields. A name is replaced by what its function assigns to it, a value by "{}".
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/ifdefault"
EXCEPTIONS = (  # that take a text; KernelError has the kernel's own
    "BadKey BadParameter ClickException CommandFailed ConfigError HostError UsageError".split()
)
WITHOUT_REMEDY = re.compile(  # the text says why
    r".*(: \{\}|\(\{\}\))"  # the reason is that of the system or of another program
    r"|[{} ()]+"  # it has the text of another error
    r"|all changes were undone"  # the problem before it says what was refused
)
OUR_WORDS = re.compile(
    r"\b(is no (?!longer)|truth.meter|normal (default|one)|naive|content servers?|draws?|drawn|laid"
    r"|lays?|mends?|fights?|judged?|verdict|probation|lest|whoever|whatever|somebody|fares?|bears?"
    r"|told|tells|stands?|takes in|lets go|gives back|or else|the nearest)\b"
)


class Message(NamedTuple):
    place: str  # file and line
    what: tuple[str, ...]  # as its function may assign it
    remedy: tuple[str, ...] | None  # None: the text must have both


def texts(node: ast.AST | None, scope: ast.AST) -> list[str]:
    """What an expression may be, with "{}" for what only running it would tell."""
    match node:
        case ast.Constant(str(text)):
            return [text]
        case ast.JoinedStr(values):
            return ["".join(str(v.value) if isinstance(v, ast.Constant) else "{}" for v in values)]
        case ast.IfExp(body=body, orelse=orelse):
            return [*texts(body, scope), *texts(orelse, scope)]
        case ast.Name(name):
            found = [text for value in assigned(scope, name) for text in texts(value, scope)]
            return found or ["{}"]
    return ["{}"]


def assigned(scope: ast.AST, name: str) -> Iterator[ast.AST]:
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign) and name not in ast.unparse(node.value):
            target = node.targets[0]
            if isinstance(target, ast.Name) and target.id == name:
                yield node.value
            elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = zip(target.elts, node.value.elts, strict=True)
                yield from (v for t, v in pairs if isinstance(t, ast.Name) and t.id == name)


def parts(node: ast.AST, path: Path) -> tuple[ast.AST, ast.AST | None] | None:
    """What is wrong and the remedy, of a node that makes a message; without the latter, a text."""
    match node:
        case ast.Call(ast.Name("reject"), [what, remedy]):
            return what, remedy
        case ast.Call(ast.Name("Problem"), [_, what, *rest], keywords):
            named = [k.value for k in keywords if k.arg == "remedy"]
            return what, (*rest, *named, ast.Constant(""))[0]
        case ast.Call(ast.Name(name) | ast.Attribute(attr=name), [*_, text]) if name in EXCEPTIONS:
            return (text, None) if isinstance(text, ast.Constant | ast.JoinedStr) else None
        case ast.Yield(ast.Tuple([*_, what, remedy])) if path.stem.startswith("cross"):
            return what, remedy
    return None


@cache
def messages() -> tuple[Message, ...]:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        for scope in ast.walk(ast.parse(path.read_text())):
            if not isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for node in ast.walk(scope):
                if pair := parts(node, path):
                    place = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
                    remedy = None if pair[1] is None else tuple(texts(pair[1], scope))
                    found.append(Message(place, tuple(texts(pair[0], scope)), remedy))
    return tuple(dict.fromkeys(found))


def quoted() -> list[str]:
    """The messages that DIAGNOSTICS of the manual quotes."""
    section = (
        (ROOT / "man/ifdefault.8")
        .read_text()
        .partition("\n.Sh DIAGNOSTICS\n")[2]
        .partition("\n.Sh ")[0]
    )
    return re.findall(r'"([^"]+)"', "\n".join(re.findall(r"^\.It .+", section, re.MULTILINE)))


def test_messages_are_found_in_every_room() -> None:
    rooms = {message.place.split("/")[2] for message in messages()}
    assert rooms >= {"cli", "config", "daemon", "dns", "frontend", "host", "kernel", "lab", "plan"}
    assert len(messages()) > 250


def test_a_message_says_what_would_be_right() -> None:
    for message in messages():
        complete = all(WITHOUT_REMEDY.fullmatch(what) or "; " in what for what in message.what)
        assert complete or any(message.remedy or ()), message


def test_a_message_is_in_plain_words_in_lower_case_without_a_full_stop() -> None:
    for message in messages():
        for text in (*message.what, *(message.remedy or ())):
            assert not re.match(r"[A-Z][a-z]", text), message
            assert not re.search(r"[.,;:]$|\. ", text), message
            assert not OUR_WORDS.search(text), message


@pytest.mark.parametrize("quote", quoted())
def test_what_the_manual_quotes_is_in_the_source(quote: str) -> None:
    """Capitals and "..." stand for anything; what is before the first colon is where."""
    where, _, message = quote.partition(": ")
    message = message if message.strip(".") else where
    for part in re.split(r"\b[A-Z]{2,}\b|\.\.\.|: ", message):
        fixed = part.strip(" :.,")
        assert any(fixed in text for text in literals()), fixed


@cache
def literals() -> set[str]:
    nodes = (n for p in SOURCE.rglob("*.py") for n in ast.walk(ast.parse(p.read_text())))
    return {text for node in nodes for text in texts(node, node)}


def test_it_can_fail() -> None:
    tree = ast.parse('what = "Is laid."\nProblem(where, what)')
    (pair,) = filter(None, (parts(node, Path("x.py")) for node in ast.walk(tree)))
    assert tuple(texts(part, tree) for part in pair) == (["Is laid."], [""])
    assert OUR_WORDS.search("Is laid.")
