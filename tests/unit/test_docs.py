"""What the documents and docstrings name is there: modules, classes, functions, files.

Rules: a dotted name in backticks is a module, or something in one, by as much of its end as tells
it (`health.path`, `Controller.receive`); else it is a key of the config, a sysctl, a file of the
program's, or listed here. Without backticks only what begins with a room is looked at. A path is
one from the top of the tree, from `src/ifdefault`, or the end of one.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

from ifdefault.model.config import DaemonConfig, HealthConfig, HostConfig, OutgoingConfig
from ifdefault.model.dns import DnsConfig
from tests.unit.test_floors import ALLOWED

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "ifdefault"
TABLES = {
    "daemon": DaemonConfig,
    "dns": DnsConfig,
    "health": HealthConfig,
    "host": HostConfig,
    "outgoing": OutgoingConfig,
}
KEYS = {f"{table}.{each.name}" for table, record in TABLES.items() for each in fields(record)}
KEYS |= {"dns.name", "dns.exec", "dns.provider", "dns.server", "dns.update", "outgoing.rule"}
OTHERS = {"click.pass_obj", "libnftables.so.1", "mkdocs.yml"}
OUTSIDE = re.compile(
    r"net\.(ipv[46]|core|mptcp)\..*|uplink\..*|(www\.)?example\.net|[\w-]+\.(jsonl?|toml|txt|service|log|sock|sh)"
)
MADE = re.compile(r"dist/|site/|[\w-]+\.d/")  # by ./dev; folders of other programs
ROOMS = {path.name for path in SRC.iterdir() if path.is_dir()} - {"__pycache__"}

GONE = {"net", "vitals", "wanted", "zones"}  # that once were rooms

QUOTED = re.compile(r"`([^`\n]+)`")
DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
IN_A_ROOM = re.compile(
    rf"(?<![\w.`/\[-])(?:{'|'.join(sorted(ROOMS | GONE))})(?:\.[a-z_]+)+(?![\w(-])"
)
POINTED_AT = re.compile(r"(?:[Ss]ee|[Aa]s in) `(\w+)`")
COMMENT = re.compile(r"(?:^ *|  )(#.*)", re.MULTILINE)  # as the formatter writes them
FILE = re.compile(r"(?:docs|tests|bench|man|packaging|src)/[\w./-]*\w")
PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)*/(?:[\w-]+\.(?:py|md|toml|nft))?")


def members(module: str, tree: ast.Module) -> Iterator[str]:
    """The module, what it defines and imports, and what is in its classes."""
    yield module
    for node in tree.body:
        for name in defined(node):
            yield f"{module}.{name}"
        if isinstance(node, ast.ClassDef):
            own = (name for inner in ast.walk(node) for name in attributes(inner))
            yield from (f"{module}.{node.name}.{name}" for name in own)


def defined(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.ImportFrom(names=names):
            yield from (alias.name for alias in names)
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name
        case ast.Assign(targets=targets):
            for target in targets:
                yield from (n.id for n in ast.walk(target) if isinstance(n, ast.Name))


def attributes(node: ast.AST) -> Iterator[str]:
    yield from defined(node)
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        yield node.attr


@cache
def known() -> frozenset[str]:
    """All names there are, by every end of them."""
    found: set[str] = set()
    for path in (*SRC.rglob("*.py"), *(ROOT / "bench").glob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        module = ".".join(parts).removesuffix(".__init__")
        for name in members(module, ast.parse(path.read_text())):
            words = name.split(".")
            found.update(".".join(words[n:]) for n in range(len(words)))
    return frozenset(found)


@cache
def files() -> frozenset[str]:
    """All paths there are, by every end of them; folders end with a slash."""
    found: set[str] = set()
    for top in ("src/ifdefault", "tests", "docs", "bench", "man", "packaging"):
        for path in (ROOT / top, *(ROOT / top).rglob("*")):
            parts = path.relative_to(ROOT).parts
            end = "/" if path.is_dir() else ""
            found.update("/".join(parts[n:]) + end for n in range(len(parts)))
    return frozenset(found)


def is_there(name: str) -> bool:
    listed = any(name in names for names in (known(), KEYS, OTHERS))
    return listed or OUTSIDE.fullmatch(name) is not None


def missing(text: str) -> Iterator[str]:
    """What a text names that isn't there."""
    quoted = QUOTED.findall(text)
    names = [name for name in quoted if DOTTED.fullmatch(name)]
    bare = QUOTED.sub("", text)
    pointed_at = (name for name in POINTED_AT.findall(text) if f"{name}.py" not in files())
    for name in (*names, *IN_A_ROOM.findall(bare), *pointed_at):
        if not is_there(name):
            yield name
    paths = [path for path in quoted if PATH.fullmatch(path) and not MADE.fullmatch(path)]
    for path in (*paths, *FILE.findall(text)):
        if not {path, f"{path}/", path.removesuffix("/")} & files() and "NAME" not in path:
            yield path


def told(path: Path) -> str:
    """The docstrings and comments of a module; else the whole of a document."""
    text = path.read_text()
    if path.suffix != ".py":
        return re.sub(r"\]\([^)]*\)", "]", text)  # links are checked by themselves
    return "\n".join((*docstrings(ast.parse(text)), *COMMENT.findall(text)))


def docstrings(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> Iterator[str]:
    """Those of a module, its classes and functions, and what is in them; not what an `if` has."""
    yield ast.get_docstring(node) or ""
    for inner in node.body:
        if isinstance(inner, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from docstrings(inner)


DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
MODULES = [*SRC.rglob("*.py"), *(p for d in ("tests", "bench") for p in (ROOT / d).rglob("*.py"))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_names_is_there(path: Path) -> None:
    assert list(missing(told(path))) == []
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_no_document_has_the_marks_of_a_merge() -> None:
    texts = {path: path.read_text() for path in (*DOCUMENTS, *(ROOT / "man").glob("*.[58]"))}
    assert not [p for p, text in texts.items() if re.search("^(?:<{7}|={7}$|>{7})", text, re.M)]


def test_the_rooms_are_those_of_the_floors() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", text.split("\n## ")[1], re.MULTILINE)
    table = {room: set(QUOTED.findall(may)) for room, may in rows}
    assert table == {room: may for room, may in ALLOWED.items() if room in ROOMS}


def test_what_modules_name_is_there() -> None:
    faults = {str(path.relative_to(ROOT)): list(missing(told(path))) for path in sorted(MODULES)}
    faults.pop("tests/unit/test_docs.py")
    assert {path: names for path, names in faults.items() if names} == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("`daemon.keeper` plans", ["daemon.keeper"]),
        ("`net.nameserver` reads it", ["net.nameserver"]),
        ("`vitals.Decision.gone`", ["vitals.Decision.gone"]),
        ("as in `fare`", ["fare"]),
        ("keep forwarded flows (see plan.follow)", ["plan.follow"]),
        ("a guard (`host/guard.py`)", ["host/guard.py"]),
        ("see tests/net/test_signs.py", ["tests/net/test_signs.py"]),
        (
            "`daemon.controller.paths`, `model.health.Decision.servers_down`, `Controller.receive`",
            [],
        ),
        ("`host.forwarded`, `net.ipv4.ip_forward`, `state.json`, host.forwarded", []),
        ("`host/`, `probe/http.py`, docs/architecture.md, see `repair_backoff`", []),
    ],
)
def test_what_is_gone_is_found(text: str, found: list[str]) -> None:
    assert list(missing(text)) == found
