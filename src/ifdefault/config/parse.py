"""TOML text -> Config, or a ConfigError with every problem in it.

Rules: one run finds all: each key is judged alone, then the uplinks that are sound are judged
together. What is reported names the file, the line, the key, what is wrong and what would be
right, in the order of the file.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifdefault.config import cross, lines
from ifdefault.errors import ConfigError, Problem
from ifdefault.model import (
    Config,
    DaemonConfig,
    HealthConfig,
    HookConfig,
    HostConfig,
    UplinkConfig,
)

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_TOML_REMEDIES = {
    "Invalid value": 'write text in "double quotes"',
    "Cannot declare": "name each table once",
    "Cannot overwrite": "name each key once",
    "Expected '=' after": "write KEY = VALUE, or # before a comment",
}


def read(path: Path) -> Config:
    """The config in a file; its name in messages is the path as given."""
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        problem = Problem(str(path), "no such file", "`ifdefault init` writes one")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        problem = Problem(str(path), f"can't be read: {reason}", "see -c, or `ifdefault init`")
    except UnicodeDecodeError as error:
        problem = Problem(str(path), f"byte {error.start} isn't UTF-8", "save the file as UTF-8")
    else:
        return parse(text, str(path))
    raise ConfigError(problem)


def parse(text: str, filename: str) -> Config:
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(_not_toml(str(error), text, filename)) from None
    config, found = _judge(document)
    if found:
        at = lines.locate(text)
        placed = sorted((lines.line_of(at, fault[0]), n) for n, fault in enumerate(found))
        raise ConfigError(*(_problem(filename, line, found[n]) for line, n in placed))
    return config


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the config file, for editors that check TOML by it."""
    from ifdefault.config.keys import File

    return File.model_json_schema()


def _judge(document: dict[str, Any]) -> tuple[Config, list[cross.Fault]]:
    from pydantic import ValidationError

    from ifdefault.config.keys import File

    found: list[cross.Fault] = []
    try:
        file = File.model_validate(document)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=True)
        found = [_fault(detail, document) for detail in details]
        file = File.model_validate(_sound(document, (detail["loc"] for detail in details)))
    uplinks = tuple(UplinkConfig(name, **dict(keys)) for name, keys in file.uplink.items())
    found += cross.faults(uplinks)
    if not document.get("uplink") and document.keys() <= File.model_fields.keys():
        found.append((("uplink",), "no uplink", 'add [uplink.isp-a] and interface = "…" below it'))
    config = Config(
        uplinks,
        HostConfig(**dict(file.host)),
        HealthConfig(**dict(file.health)),
        DaemonConfig(**dict(file.daemon)),
        HookConfig(**dict(file.hooks)),
    )
    return config, found


def _sound(document: Mapping[str, Any], locs: Iterable[lines.Path]) -> dict[str, Any]:
    """The document without what is wrong: an uplink goes whole, else whole top-level tables."""
    bad = {loc[: 2 if loc[0] == "uplink" else 1] for loc in locs}
    return {
        key: {name: value for name, value in table.items() if (key, name) not in bad}
        if key == "uplink"
        else table
        for key, table in document.items()
        if (key,) not in bad
    }


def _fault(detail: ErrorDetails, document: Any) -> cross.Fault:
    path = tuple(part for part in detail["loc"] if part != "[key]")
    what, remedy = _wording(path, detail["type"], detail.get("ctx", {}), detail["input"])
    return _written(path, document), what, remedy


def _written(path: lines.Path, document: Any) -> lines.Path:
    """The path without what nobody wrote: a bare probe is a table only to pydantic."""
    for depth, part in enumerate(path):
        if not isinstance(document, dict | list):
            return path[:depth]
        inside = part in document if isinstance(document, dict) else True
        document = document[part] if inside else {}  # type: ignore[index]
    return path


def _wording(path: lines.Path, kind: str, bound: Mapping[str, Any], value: Any) -> tuple[str, str]:
    """What is wrong and what would be right, of one of pydantic's errors."""
    from ifdefault.config.base import toml

    match kind:
        case "ifdefault":
            return bound["what"], bound["remedy"]
        case "extra_forbidden":
            return "unknown key", _nearest(path)
        case "missing":
            return "missing", _MISSING[path[-1]]
        case "literal_error":
            expected = bound["expected"].replace("'", '"')
            return f"{toml(value)} is no choice", f"use one of {expected}"
        case "greater_than_equal" | "string_too_short":
            return f"{toml(value)} is too small", f"use {_shown(min(bound.values()))} or more"
        case "less_than_equal" | "string_too_long":
            return f"{toml(value)} is too much", f"use {_shown(min(bound.values()))} or less"
        case _ if kind in _TYPES:
            return "not " + _TYPES[kind][0], "write " + _TYPES[kind][1]
    return kind.replace("_", " "), ""


def _shown(bound: float) -> str:
    return str(int(bound) if bound == int(bound) else bound)


_MISSING: dict[Any, str] = {
    "interface": "name the network interface that leads to the provider",
    "url": 'write what to ask, as in url = "https://example.net/health"',
}
_TYPES = {
    "float_type": ("a number", "it without quotes"),
    "finite_number": ("a finite number", "one"),
    "int_type": ("a whole number", "it without quotes or point"),
    "string_type": ("a text", 'it in "double quotes"'),
    "tuple_type": ("a list", 'it in brackets: ["…"]'),
    "dict_type": ("a table", "[uplink.isp-a] and its keys below"),
    "model_type": ("a table", "it in [brackets] and its keys below"),
}


def _nearest(path: lines.Path) -> str:
    known = sorted(_keys_beside(path))
    for near in get_close_matches(str(path[-1]), known, n=1):
        return f"the nearest is {near}"
    return f"known here are {', '.join(known)}"


def _keys_beside(path: lines.Path) -> Iterable[str]:
    from ifdefault.config.keys import File, UplinkKeys
    from ifdefault.config.probes import ProbeKeys

    if len(path) == 1:
        return File.model_fields
    if any(isinstance(part, int) for part in path):  # a list's only tables are probes
        return ProbeKeys.model_fields
    if path[0] == "uplink":
        return UplinkKeys.model_fields
    table: Any = File.model_fields[str(path[0])].annotation
    return table.model_fields  # type: ignore[no-any-return]


def _problem(filename: str, line: int, fault: cross.Fault) -> Problem:
    path, what, remedy = fault
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return Problem(f"{filename}:{line}: {key[1:]}", what, remedy)


def _not_toml(message: str, text: str, filename: str) -> Problem:
    """tomllib tells the place at the end of its message, in words."""
    reason, _, place = message.rpartition(" (at ")
    if numbers := re.findall(r"\d+", place):
        where = ":".join([filename, *numbers])
    else:
        where = f"{filename}:{text.count(chr(10)) + 1}"
    reason = reason or "nested too deep"
    remedy = next((r for start, r in _TOML_REMEDIES.items() if reason.startswith(start)), "")
    return Problem(where, f"not TOML: {reason[:1].lower()}{reason[1:]}", remedy)
