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
from ifdefault.model import Config, HostConfig, UplinkConfig

if TYPE_CHECKING:
    from pydantic import BaseModel
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
        found = [_fault(detail) for detail in details]
        file = File.model_validate(_sound(document, (detail["loc"] for detail in details)))
    uplinks = tuple(UplinkConfig(name, **keys.model_dump()) for name, keys in file.uplink.items())
    found += cross.faults(uplinks)
    if not document.get("uplink") and document.keys() <= File.model_fields.keys():
        found.append((("uplink",), "no uplink", 'add [uplink.isp-a] and interface = "…" below it'))
    return Config(uplinks, HostConfig(**file.host.model_dump())), found


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


def _fault(detail: ErrorDetails) -> cross.Fault:
    path = tuple(part for part in detail["loc"] if part != "[key]")
    what, remedy = _wording(path, detail["type"], detail.get("ctx", {}), detail["input"])
    return path, what, remedy


def _wording(path: lines.Path, kind: str, bound: Mapping[str, Any], value: Any) -> tuple[str, str]:
    """What is wrong and what would be right, of one of pydantic's errors."""
    from ifdefault.config.keys import toml

    match kind:
        case "ifdefault":
            return bound["what"], bound["remedy"]
        case "extra_forbidden":
            return "unknown key", _nearest(path)
        case "missing":
            return "missing", "name the network interface that leads to the provider"
        case "literal_error":
            expected = bound["expected"].replace("'", '"')
            return f"{toml(value)} is no choice", f"use one of {expected}"
        case "greater_than_equal" | "string_too_short":
            return f"{toml(value)} is too small", f"use {min(bound.values())} or more"
        case "less_than_equal" | "string_too_long":
            return f"{toml(value)} is too much", f"use {min(bound.values())} or less"
        case "int_type" | "string_type" | "tuple_type" | "dict_type" | "model_type":
            return "not " + _TYPES[kind][0], "write " + _TYPES[kind][1]
    return kind.replace("_", " "), ""


_TYPES = {
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
    from ifdefault.config.keys import File, HostKeys, UplinkKeys

    models: dict[Any, type[BaseModel]] = {"uplink": UplinkKeys, "host": HostKeys}
    model = models[path[0]] if len(path) > 1 else File
    return model.model_fields


def _problem(filename: str, line: int, fault: cross.Fault) -> Problem:
    path, what, remedy = fault
    key = re.sub(r"\.(\d+)$", r"[\1]", ".".join(map(str, path)))
    return Problem(f"{filename}:{line}: {key}", what, remedy)


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
