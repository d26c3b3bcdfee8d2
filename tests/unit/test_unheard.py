"""No exception goes unheard, and nothing that others named reaches a terminal as it is.

What the code must not contain, apart from the one module that each thing belongs to.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src" / "ifdefault"
TASKS, OUTPUT, TERMINAL = "ipc/tasks.py", "cli/show/output.py", "cli/show/terminal.py"
# these say themselves where text isn't UTF-8
DECODERS = {"config/parse.py", "ipc/codec.py", "model/text.py"}
PRINTERS = {OUTPUT, TERMINAL, "ipc/listen_fds.py", "ipc/privileges.py"}


def problems(root: Path) -> Iterator[str]:
    for path in sorted(root.rglob("*.py")):
        where = path.relative_to(root).as_posix()
        if where.startswith("lab/"):  # its own worlds, with no one else in them
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and (why := fault(where, node)):
                yield f"{where}:{node.lineno}: {why}"


def fault(where: str, call: ast.Call) -> str:
    name = ast.unparse(call.func)
    last = name.rpartition(".")[2]
    given = {word.arg: ast.unparse(word.value) for word in call.keywords}
    if where != TASKS and last in ("create_task", "ensure_future", "set_exception_handler"):
        return f"{last}: use tasks.start, or its exception may go unheard"
    if last == "shield":  # from Python 3.14 on
        return "shield passes exceptions to the handler, which ends the process: use asyncio.wait"
    if given.get("return_exceptions") == "True":
        return "gather swallows exceptions: use tasks.end"
    if where not in DECODERS and not says_errors(last, call, given):
        return f"{last} without errors=: others' bytes may not be UTF-8"
    if where not in PRINTERS and (
        name in ("print", "click.echo", "click.secho")
        or name.endswith(("stdout.write", "err.write"))
    ):
        return f"{name}: use echo or echo_json of {OUTPUT}"
    return ""


def says_errors(last: str, call: ast.Call, given: dict[str | None, str]) -> bool:
    """Whether a call that makes text of bytes says what becomes of those that aren't UTF-8."""
    arguments = [ast.unparse(argument) for argument in call.args]
    if "errors" in given or "'latin-1'" in arguments:
        return True
    match last, call.func:
        case "decode", ast.Attribute(value=ast.Name(id="codec" | "messages")):
            return True
        case "decode" | "read_text", ast.Attribute():
            return len(arguments) == 2
        case "open", ast.Name() | ast.Attribute(value=ast.Name(id="path")):
            modes = arguments[isinstance(call.func, ast.Name) :] or ["'r'"]
            return any(letter in modes[0] for letter in "bwx")
    return given.get("text") != "True"


def test_the_code_has_none_of_these() -> None:
    assert list(SRC.rglob("*.py")), f"no modules under {SRC}"
    assert "\n".join(problems(SRC)) == ""


@pytest.mark.parametrize(
    ("module", "code", "found"),
    [
        ("daemon/a.py", "asyncio.create_task(work())", "use tasks.start"),
        ("daemon/a.py", "asyncio.ensure_future(work())", "use tasks.start"),
        ("daemon/a.py", "await asyncio.shield(future)", "use asyncio.wait"),
        ("daemon/a.py", "await asyncio.gather(a, return_exceptions=True)", "use tasks.end"),
        ("frontend/a.py", "loop.set_exception_handler(f)", "use tasks.start"),
        (TASKS, "asyncio.create_task(work())", ""),
        ("lab/a.py", "asyncio.create_task(work())", ""),
        ("kernel/a.py", "payload.decode()", "decode without errors="),
        ("kernel/a.py", "payload.decode('ascii')", "decode without errors="),
        ("kernel/a.py", "payload.decode(errors='replace') + x.decode('utf-8', 'replace')", ""),
        ("kernel/a.py", "Path('/proc/1/comm').read_text()", "read_text without errors="),
        ("kernel/a.py", "subprocess.run(a, text=True)", "run without errors="),
        ("host/a.py", "open(path)", "open without errors="),
        ("host/a.py", "open(path, 'a+')", "open without errors="),
        ("host/a.py", "open(path, 'rb'), open(path, 'w'), path.open('xb')", ""),
        ("cli/a.py", "click.echo(text)", "use echo or echo_json"),
        ("cli/a.py", "print(text)", "use echo or echo_json"),
        ("daemon/a.py", "sys.stdout.write(text)", "use echo or echo_json"),
    ],
)
def test_a_fault_is_found(tmp_path: Path, module: str, code: str, found: str) -> None:
    path = tmp_path / module
    path.parent.mkdir(parents=True)
    path.write_text(code)
    message = "\n".join(problems(tmp_path))
    assert found in message
    assert bool(found) == bool(message), message
