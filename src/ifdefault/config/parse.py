"""TOML text -> Config, or a ConfigError with every problem in it.

Rules: one run finds all: each key is judged alone, then the tables that are sound are judged
together. What is reported names the file, the line, the key, what is wrong and what would be
right, in the order of the file. Who the users of the host are, only `read` knows.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ifdefault.config import toml_lines
from ifdefault.config.toml_lines import KeyPath
from ifdefault.model.config import (
    Config,
    DaemonConfig,
    HealthConfig,
    HookConfig,
    HostConfig,
    UplinkConfig,
)
from ifdefault.model.errors import ConfigError, Problem, reason

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from ifdefault.config.cross import Finding

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
        what = f"can't be read: {reason(error)}"
        problem = Problem(str(path), what, "see -c, or `ifdefault init`")
    except UnicodeDecodeError as error:
        problem = Problem(str(path), f"byte {error.start} isn't UTF-8", "save the file as UTF-8")
    else:
        return parse(text, str(path), _uid_of)
    raise ConfigError(problem)


def _uid_of(user: str) -> int | None:
    import pwd

    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def _nobody(_: str) -> None:
    return None


def parse(text: str, filename: str, uid_of: Callable[[str], int | None] = _nobody) -> Config:
    """`uid_of` knows the users that the text may name."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(_not_toml(str(error), text, filename)) from None
    at: dict[KeyPath, int] = {}

    def line_of(path: KeyPath) -> int:
        at.update(at or toml_lines.locate(text))
        return toml_lines.line_of(at, path)

    config, found = _judge(document, line_of, uid_of)
    if found:
        placed = sorted((line_of(finding[0]), n) for n, finding in enumerate(found))
        raise ConfigError(*(_problem(filename, line, found[n]) for line, n in placed))
    return config


def placed(path: Path, problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """A host's problems; those about a key of the config, "forward[0].to[1]", with its line."""
    found = tuple(problems)
    if not found:
        return ()
    at = {
        toml_lines.key(place): line
        for place, line in toml_lines.locate(path.read_text("utf-8")).items()
    }

    def where(key: str) -> str:
        line = at.get(key) or at.get(key.rpartition("[")[0])  # one of a list may stand alone
        return f"{path}:{line}: {key}" if line else key

    return tuple(replace(problem, where=where(problem.where)) for problem in found)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the config file, for editors that check TOML by it."""
    from ifdefault.config.file import File

    return File.model_json_schema()


def _judge(
    document: dict[str, Any],
    line_of: Callable[[KeyPath], int],
    uid_of: Callable[[str], int | None],
) -> tuple[Config, list[Finding]]:
    from pydantic import ValidationError

    from ifdefault.config import cross, cross_dns
    from ifdefault.config.dns import dns_config
    from ifdefault.config.file import File
    from ifdefault.config.forward import forward_config
    from ifdefault.config.outgoing import outgoing_config

    found: list[Finding] = []
    unsound: set[KeyPath] = set()
    try:
        file = File.model_validate(document)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=True)
        found = [_finding(detail, document) for detail in details]
        unsound = {_unsound(detail["loc"]) for detail in details}
        file = File.model_validate(_sound(document, unsound))
    uplinks = tuple(UplinkConfig(name, **dict(keys)) for name, keys in file.uplink.items())

    def written(path: KeyPath) -> KeyPath:
        return _written(_as_counted(path, unsound), document)

    sound = cross.SoundConfig(
        uplinks,
        _uplink_names(document),
        file.host,
        dns_config(file.dns),
        tuple(map(forward_config, file.forward)),
        file.outgoing,
        unsound,
        lambda path: line_of(written(path)),
        uid_of,
    )
    for path, what, remedy in (*cross.findings(sound), *cross_dns.findings(sound)):
        found.append((written(path), what, remedy))
    if not document.get("uplink") and document.keys() <= File.model_fields.keys():
        found.append((("uplink",), "no uplink", 'add [uplink.isp-a] and interface = "…" below it'))
    config = Config(
        uplinks,
        HostConfig(**dict(file.host)),
        HealthConfig(**dict(file.health)),
        DaemonConfig(**dict(file.daemon)),
        HookConfig(**dict(file.hooks)),
        sound.dns,
        sound.forwards,
        outgoing_config(file.outgoing, uid_of),
    )
    return config, found


def _uplink_names(document: Mapping[str, Any]) -> Collection[str]:
    uplinks = document.get("uplink")
    return uplinks.keys() if isinstance(uplinks, dict) else ()


def _unsound(loc: KeyPath) -> KeyPath:
    """What is left out for a fault: the smallest that the rest can be judged without."""
    match loc:
        case ("dns", "name", int(), "policy" | "ttl", *_):
            return loc[:4]
        case ("dns", "server", _, *_) | ("dns", str(), int(), *_):
            return loc[:3]
        case ("forward", int(), "check" | "on_down", *_) | ("outgoing", "rule", int(), *_):
            return loc[:3]
        case ("dns" | "uplink" | "host" | "forward" | "outgoing", _, *_):
            return loc[:2]
    return loc[:1]


def _sound(value: Any, unsound: Collection[KeyPath], at: KeyPath = ()) -> Any:
    """The document without what is unsound."""
    if isinstance(value, dict):
        return {
            k: _sound(v, unsound, (*at, k)) for k, v in value.items() if (*at, k) not in unsound
        }
    if isinstance(value, list):
        items = enumerate(value)
        return [_sound(v, unsound, (*at, n)) for n, v in items if (*at, n) not in unsound]
    return value


def _as_counted(path: KeyPath, unsound: Collection[KeyPath]) -> KeyPath:
    """The path in the document, of one in what is sound of it."""
    match path:
        case ("dns" | "outgoing", str(), int(nth), *rest):
            list_: KeyPath = path[:2]
        case ("forward", int(nth), *rest):
            list_ = path[:1]
        case _:
            return path
    there = (n for n in count() if (*list_, n) not in unsound)
    return (*list_, next(islice(there, nth, None)), *rest)


def _finding(detail: ErrorDetails, document: Any) -> Finding:
    path = tuple(part for part in detail["loc"] if part != "[key]")
    what, remedy = _wording(path, detail["type"], detail.get("ctx", {}), detail["input"])
    return _written(path, document), what, remedy


def _written(path: KeyPath, document: Any) -> KeyPath:
    """The path without what nobody wrote: a bare probe is a table only to pydantic."""
    for depth, part in enumerate(path):
        if not isinstance(document, list if isinstance(part, int) else dict):
            return path[:depth]
        inside = isinstance(part, int) or part in document
        document = document[part] if inside else {}  # type: ignore[index]
    return path


def _wording(path: KeyPath, kind: str, bound: Mapping[str, Any], value: Any) -> tuple[str, str]:
    """What is wrong and what would be right, of one of pydantic's errors."""
    from ifdefault.config.base import toml

    match kind:
        case "ifdefault":
            return bound["what"], bound["remedy"]
        case "extra_forbidden":
            if new := _RENAMED.get(_kind(path)):
                return "was renamed", f"it is now {new}"
            return "unknown key", _nearest(path)
        case "missing":
            return "missing", _MISSING[path[-1]]
        case "literal_error":
            if new := _RENAMED.get((*_kind(path), str(value))):
                return f"{toml(value)} was renamed", f"it is now {toml(new)}"
            expected = bound["expected"].replace("'", '"')
            return f"{toml(value)} is no choice", f"use one of {expected}"
        case "greater_than_equal" | "string_too_short":
            return f"{toml(value)} is too small", f"use {_shown(min(bound.values()))} or more"
        case "less_than_equal" | "string_too_long":
            return f"{toml(value)} is too much", f"use {_shown(min(bound.values()))} or less"
        case "too_long":
            return f"{bound['actual_length']} of them", f"keep at most {bound['max_length']}"
        case "tuple_type" if isinstance(value, dict) and path in _LISTS:
            return "a table alone", f"write [[{'.'.join(map(str, path))}]], there may be several"
        case _ if kind in _TYPES:
            return "not " + _TYPES[kind][0], "write " + _TYPES[kind][1]
    return kind.replace("_", " "), ""


def _shown(bound: float) -> str:
    return str(int(bound) if bound == int(bound) else bound)


_LISTS = {  # of tables
    *(("dns", table) for table in ("name", "update", "provider", "exec")),
    ("forward",),
    ("outgoing", "rule"),
}
_RENAMED: dict[tuple[str, ...], str] = {  # keys of before the first release, and their choices
    ("forward", "gone"): "on_down",
    ("health", "on_down", "free"): "end",
    ("hooks", "default"): "primary",
    ("host", "truth_meter"): "source_check",
}
_MISSING: dict[Any, str] = {
    "address": 'name the server, as in address = "192.0.2.53"',
    "credentials": "name the file with the provider's options",
    "interface": "name the network interface that leads to the provider",
    "listen": 'name ports that clients ask for, as in listen = "tcp:443"',
    "name": 'write it whole, as in name = "www.example.net"',
    "program": "name an executable by its absolute path",
    "provider": 'name it as dns-lexicon does, as in provider = "powerdns"',
    "servers": 'name those that take updates, as in servers = ["192.0.2.53"]',
    "to": 'name the content servers, as in to = ["10.0.0.10"]',
    "url": 'write what to ask, as in url = "https://example.net/health"',
    "via": 'name uplinks in the order of preference, as in via = ["isp-a"]',
    "zone": 'name it, as in zone = "example.net"',
}
_TYPES = {
    "float_type": ("a number", "it without quotes"),
    "finite_number": ("a finite number", "one"),
    "bool_type": ("true or false", "one of them without quotes"),
    "int_type": ("a whole number", "it without quotes or point"),
    "string_type": ("a text", 'it in "double quotes"'),
    "tuple_type": ("a list", 'it in brackets: ["…"]'),
    "dict_type": ("a table", "[uplink.isp-a] and its keys below"),
    "model_type": ("a table", "it in [brackets] and its keys below"),
}


def _kind(path: KeyPath) -> tuple[str, ...]:
    """The path without the numbers of tables."""
    return tuple(part for part in path if isinstance(part, str))


def _nearest(path: KeyPath) -> str:
    known = sorted(_keys_beside(path))
    for near in get_close_matches(str(path[-1]), known, n=1):
        return f"the nearest is {near}"
    return f"known here are {', '.join(known)}"


def _keys_beside(path: KeyPath) -> Iterable[str]:
    """The keys that are known in the table where the path's last part stands."""
    from ifdefault.config.file import File
    from ifdefault.config.uplink import UplinkKeys

    table: Any = File
    if len(path) > 2 and path[0] == "uplink":
        table, path = UplinkKeys, path[2:]
    for part in path[:-1]:
        if isinstance(part, str):
            table = _table_in(table.model_fields[part].annotation)
    return table.model_fields  # type: ignore[no-any-return]


def _table_in(annotation: Any) -> Any:
    """The keys of the table, or of the tables of the list, that a key holds."""
    if hasattr(annotation, "model_fields"):
        return annotation
    return next(filter(None, map(_table_in, get_args(annotation))), None)


def _problem(filename: str, line: int, finding: Finding) -> Problem:
    path, what, remedy = finding
    return Problem(f"{filename}:{line}: {toml_lines.key(path)}", what, remedy)


def _not_toml(message: str, text: str, filename: str) -> Problem:
    """tomllib tells the place at the end of its message, in words."""
    what, _, place = message.rpartition(" (at ")
    if numbers := re.findall(r"\d+", place):
        where = ":".join([filename, *numbers])
    else:
        where = f"{filename}:{text.count(chr(10)) + 1}"
    what = what or "nested too deep"
    remedy = next((r for start, r in _TOML_REMEDIES.items() if what.startswith(start)), "")
    return Problem(where, f"not TOML: {what[:1].lower()}{what[1:]}", remedy)
