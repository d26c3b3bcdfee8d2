"""The floors of the house (docs/architecture.md): who may import whom, and how large a module is.

    model < config plan health dns < kernel < host < daemon < cli      lab stands beside
                               dns < frontend                          ipc joins it, daemon and cli
                            config < monitor < web < cli

`frontend` is what runs without rights: it imports nothing of `kernel`, `host` and `daemon`, nor do
they import it. All that passes between them are the messages of `ipc`. `libc` lies below those that
make system calls.

A floor imports only what its row names. The pure ones also reach no clock, socket, file, log or
randomness, since the standard library's modules that they may use are listed one by one.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src" / "ifdefault"
MAX_LINES = 400

NOUNS = {"model"}
ALLOWED: dict[str, set[str]] = {
    "__init__": set(),
    "libc": set(),
    "model": set(),
    "config": NOUNS,
    "plan": NOUNS,
    "health": NOUNS,
    "dns": NOUNS,
    "kernel": NOUNS | {"libc"},
    "ipc": NOUNS | {"libc"},
    "frontend": NOUNS | {"libc", "dns", "ipc"},
    "lab": NOUNS | {"libc", "dns", "kernel"},  # to look up names; what outlives a world
    "host": NOUNS | {"config", "plan", "dns", "kernel", "ipc"},
    "daemon": NOUNS | {"config", "plan", "health", "dns", "kernel", "ipc", "host"},
    "monitor": NOUNS | {"config", "ipc"},
    "web": NOUNS | {"config", "ipc", "monitor"},
    "cli": NOUNS
    | {"config", "plan", "health", "dns", "kernel", "ipc", "host", "daemon", "lab"}
    | {"monitor", "web"},
    "__main__": {"cli"},
}
PURE = NOUNS | {"config", "plan", "health", "dns"}
PURE_STDLIB = set(
    "__future__ abc base64 binascii bisect collections contextlib copy dataclasses difflib enum"
    " fractions functools graphlib hashlib heapq hmac ipaddress itertools json keyword math"
    " operator re string struct textwrap types typing unicodedata".split()
)
ALSO_STDLIB = {"config": {"pathlib", "pwd", "tomllib", "urllib.parse"}}  # it reads files in `read`
IMPURE_CALLS = {"open", "input", "print", "breakpoint", "__import__"}
THIRD_PARTY = {
    "pydantic": {"config", "host", "daemon"},
    "pydantic_core": {"config", "daemon"},
    "click": {"cli"},
    "aioquic": {"lab"},
    "dns": {"config", "frontend", "cli", "lab"},  # dnspython
    "siphash24": {"dns"},
    "lexicon": {"frontend"},
    "prometheus_client": {"monitor"},
    "aiohttp": {"web"},
    "jinja2": {"web"},
}


def imports(tree: ast.Module, package: str) -> Iterator[tuple[int, str]]:
    """Line and absolute name of every import, those inside functions and `if`s too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: 1 - node.level or None] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            if name == "ifdefault":  # `from ifdefault import plan` names the floor last
                yield from ((node.lineno, f"ifdefault.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, name


def fault(floor: str, name: str) -> str:
    """Say what would be right if `floor` must not import `name`; "" where it may."""
    top, _, rest = name.partition(".")
    if top == "ifdefault":
        other = rest.partition(".")[0]
        may = ALLOWED[floor]
        if other in may | {floor, "", "__version__"}:
            return ""
        return f"{floor} may import of ours only {', '.join(sorted(may)) or 'nothing'}"
    if top in sys.stdlib_module_names:
        if floor not in PURE or {top, name} & (PURE_STDLIB | ALSO_STDLIB.get(floor, set())):
            return ""
        return f"{floor} is pure: let kernel or host read it and hand it over as a value"
    if top not in THIRD_PARTY:
        return "it is no dependency of ours"
    where = THIRD_PARTY[top]
    return "" if floor in where else f"only {', '.join(sorted(where))} may"


def problems(root: Path) -> Iterator[str]:
    """Everything in the tree of modules under `root` that the floors forbid."""
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        floor, text = parts[0], path.read_text()
        where = "/".join(("ifdefault", *parts)) + ".py"
        if floor not in ALLOWED:
            yield f"{where}: {floor} is on no floor; give it a row in ALLOWED, or move it"
            continue
        tree = ast.parse(text)
        if not ast.get_docstring(tree):
            yield f"{where}:1: no docstring; open with the module's job, then its rules"
        if (lines := text.count("\n")) > MAX_LINES:
            yield f"{where}: {lines} lines; split it where it does two jobs ({MAX_LINES} at most)"
        for line, name in imports(tree, ".".join(("ifdefault", *parts[:-1]))):
            if why := fault(floor, name):
                yield f"{where}:{line}: imports {name}; {why}"
        if floor in PURE - {"config"}:
            for node in ast.walk(tree):
                match node:
                    case ast.Call(func=ast.Name(id=name)) if name in IMPURE_CALLS:
                        yield f"{where}:{node.lineno}: calls {name}(); {floor} is pure"


def test_the_house_stands_on_its_floors() -> None:
    assert list(SRC.rglob("*.py")), f"no modules under {SRC}"
    assert "\n".join(problems(SRC)) == ""


@pytest.mark.parametrize(
    ("module", "code", "found"),
    [
        ("plan/a.py", "import time", ":2: imports time; plan is pure"),
        ("plan/a.py", "def f():\n    import socket", ":3: imports socket; plan is pure"),
        ("plan/a.py", "from ifdefault.config import read", "plan may import of ours only model"),
        ("plan/a.py", "from ifdefault import kernel", "imports ifdefault.kernel"),
        ("plan/a.py", "from ..kernel import nft", "imports ifdefault.kernel"),
        ("plan/a.py", "from .. import host", "imports ifdefault.host"),
        ("plan/a.py", "x = open('y')", "calls open(); plan is pure"),
        ("plan/a.py", "from . import b\nfrom .b import c\nimport ifdefault.plan.d", ""),
        (
            "plan/a.py",
            "from ifdefault import __version__, model\nfrom ..model.errors import Problem",
            "",
        ),
        ("plan/b/__init__.py", "from .. import a\nfrom . import c", ""),
        ("config/a.py", "import pathlib, tomllib, pydantic", ""),
        ("config/a.py", "from ifdefault.plan import x", "imports ifdefault.plan"),
        ("model/a.py", "import os", "model is pure"),
        ("kernel/a.py", "import ctypes, socket\nfrom ifdefault.model.kernel import Route", ""),
        ("kernel/a.py", "from ifdefault.plan import x", "kernel may import of ours only"),
        ("frontend/a.py", "from ifdefault.kernel import nft", "frontend may import of ours only"),
        ("frontend/a/b.py", "from ifdefault.daemon import x", "frontend may import of ours only"),
        ("daemon/a.py", "from ifdefault.frontend import x", "daemon may import of ours only"),
        ("host/a.py", "from ifdefault.lab import up", "imports ifdefault.lab"),
        ("host.py", "from .plan import x", ""),
        ("lab/a.py", "import aioquic.asyncio, subprocess", ""),
        (
            "lab/a.py",
            "from ifdefault.host import x",
            "lab may import of ours only dns, kernel, libc, model",
        ),
        ("cli/a.py", "import click\nfrom ifdefault.lab import up", ""),
        ("host/a.py", "import click", "only cli may"),
        ("host/a.py", "import requests", "it is no dependency of ours"),
        ("utils.py", "", "utils is on no floor"),
        ("cli/long.py", "#\n" * 400, "401 lines; split it"),
    ],
)
def test_a_fault_is_found(tmp_path: Path, module: str, code: str, found: str) -> None:
    path = tmp_path / module
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'"""Its job."""\n{code}')
    message = "\n".join(problems(tmp_path))
    assert found in message
    assert bool(found) == bool(message), message


def test_a_missing_docstring_is_found(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("x = 1\n")
    assert list(problems(tmp_path)) == [
        "ifdefault/model.py:1: no docstring; open with the module's job, then its rules"
    ]


# --- the controller -----------------------------------------------------------------------

CONTROLLER = "ifdefault.daemon.controller"
OUTSIDE = set(
    "asyncio concurrent datetime logging multiprocessing os pathlib random select".split()
)
OUTSIDE |= set("selectors signal socket subprocess sys threading time".split())
ROOMS_OUTSIDE = {"cli", "config", "frontend", "host", "ipc", "kernel", "lab", "libc"}


def module_path(name: str, root: Path) -> Path | None:
    """The file of a module of ours, or None if the name is something inside one."""
    path = root.joinpath(*name.split(".")[1:])
    found = (path.with_suffix(".py"), path / "__init__.py")
    return next((each for each in found if each.is_file()), None)


def impurities(root: Path) -> Iterator[str]:
    """What the controller reaches, by whatever way, that it mustn't; and callables handed to it."""
    start = [f"{CONTROLLER}.{path.stem}" for path in root.glob("daemon/controller/*.py")]
    found = dict.fromkeys(start, "")
    queue = list(start)
    while queue:
        module = queue.pop()
        path = module_path(module, root)
        if path is None:
            continue
        tree = ast.parse(path.read_text())
        for line, name in imports(tree, module.rpartition(".")[0]):
            where = f"{module}:{line} imports {name}"
            top, _, rest = name.partition(".")
            if top in OUTSIDE or (top == "ifdefault" and rest.partition(".")[0] in ROOMS_OUTSIDE):
                yield where
            elif top == "ifdefault" and name not in found:
                found[name] = module
                queue.append(name)
        if module.startswith(CONTROLLER):
            for node in ast.walk(tree):
                if isinstance(node, ast.Name) and node.id == "Callable":
                    yield f"{module}:{node.lineno} takes a callable"
                elif isinstance(node, ast.Lambda) and not _is_key(tree, node):
                    yield f"{module}:{node.lineno} has a lambda"


def _is_key(tree: ast.Module, node: ast.Lambda) -> bool:
    """Whether a lambda says by what something is sorted."""
    keywords = (each for each in ast.walk(tree) if isinstance(each, ast.keyword))
    return any(each.arg == "key" and each.value is node for each in keywords)


def test_the_controller_takes_values_only() -> None:
    assert module_path(f"{CONTROLLER}.controller", SRC)
    assert list(impurities(SRC)) == []


@pytest.mark.parametrize(
    ("module", "code", "found"),
    [
        ("daemon/controller/b.py", "import time", "imports time"),
        ("daemon/controller/b.py", "from ifdefault.host import store", "imports ifdefault.host"),
        ("plan/a.py", "from ifdefault.kernel import nft", "imports ifdefault.kernel"),
        ("plan/a.py", "import logging", "ifdefault.plan.a:2 imports logging"),
        (
            "daemon/controller/b.py",
            "from collections.abc import Callable\ndef f(g: Callable[[], None]) -> None: g()",
            "takes a callable",
        ),
        ("daemon/controller/b.py", "f(lambda: 1)", "has a lambda"),
    ],
)
def test_an_impurity_is_found(tmp_path: Path, module: str, code: str, found: str) -> None:
    files = {
        "daemon/controller/a.py": "from ifdefault.plan.a import x\nsorted(x, key=lambda y: y)",
        "plan/a.py": "x = 1",
    }
    for name, text in (files | {module: code}).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'"""Its job."""\n{text}')
    problems = list(impurities(tmp_path))
    assert any(found in each for each in problems), problems
    (tmp_path / module).write_text(files.get(module, ""))
    assert list(impurities(tmp_path)) == []
