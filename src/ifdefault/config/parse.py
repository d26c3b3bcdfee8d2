"""TOML text to Config, or a ConfigError with all problems.

Rules: one run finds all errors: each key is checked alone, then the valid tables are checked
together. An error names the file, the line, the key, what is wrong and what would be right, in the
order of the file. Only `read` looks up the users of the host.
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
    MptcpConfig,
    WebConfig,
)
from ifdefault.model.errors import ConfigError, Problem, reason

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from ifdefault.config.cross import Finding

_TOML_REMEDIES = {
    "Invalid value": 'write text in "double quotes"',
    "Cannot declare": "write each table once",
    "Cannot overwrite": "write each key once",
    "Expected '=' after": "write KEY = VALUE, or # before a comment",
}


def read(path: Path) -> Config:
    """Read the config from a file; messages name the path as given."""
    return parse_on_host(read_text(path), str(path))


def read_text(path: Path) -> str:
    """The text of a config file, or a ConfigError."""
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        problem = Problem(str(path), "no such file", "run `ifdefault init` to write one")
    except OSError as error:
        what = f"can't be read: {reason(error)}"
        problem = Problem(str(path), what, "check its permissions, or choose another file with -c")
    except UnicodeDecodeError as error:
        problem = Problem(str(path), f"byte {error.start} isn't UTF-8", "save the file as UTF-8")
    raise ConfigError(problem)


def parse_on_host(text: str, filename: str) -> Config:
    """The config in a text, with the users of this host."""
    return parse(text, filename, _uid_of)


def _uid_of(user: str) -> int | None:
    import pwd

    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def _no_user(_: str) -> None:
    return None


def parse(text: str, filename: str, uid_of: Callable[[str], int | None] = _no_user) -> Config:
    """`uid_of` looks up the users that the text names."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(_not_toml(str(error), text, filename)) from None
    lines: dict[KeyPath, int] = {}

    def line_of(path: KeyPath) -> int:
        lines.update(lines or toml_lines.locate(text))
        return toml_lines.line_of(lines, path)

    config, findings = _validate(document, line_of, uid_of)
    if findings:
        order = sorted((line_of(finding[0]), n) for n, finding in enumerate(findings))
        raise ConfigError(*(_problem(filename, line, findings[n]) for line, n in order))
    return config


def with_lines(path: Path, problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Add file and line to the problems that are about a config key, such as "forward[0].to[1]"."""
    problems = tuple(problems)
    if not problems:
        return ()
    lines = {
        toml_lines.key(key_path): line
        for key_path, line in toml_lines.locate(path.read_text("utf-8", "replace")).items()
    }

    def where(key: str) -> str:
        line = lines.get(key) or lines.get(key.rpartition("[")[0])  # a list's only item: no [0]
        return f"{path}:{line}: {key}" if line else key

    return tuple(replace(problem, where=where(problem.where)) for problem in problems)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the config file, for editors that validate TOML."""
    from ifdefault.config.file import File

    return File.model_json_schema()


def _validate(
    document: dict[str, Any],
    line_of: Callable[[KeyPath], int],
    uid_of: Callable[[str], int | None],
) -> tuple[Config, list[Finding]]:
    from pydantic import ValidationError

    from ifdefault.config import cross, cross_dns, cross_report
    from ifdefault.config.dns import dns_config
    from ifdefault.config.file import File
    from ifdefault.config.forward import forward_config
    from ifdefault.config.history import history_config
    from ifdefault.config.notify import notify_config
    from ifdefault.config.outgoing import outgoing_config
    from ifdefault.config.uplink import uplink_config

    findings: list[Finding] = []
    invalid: set[KeyPath] = set()
    try:
        file = File.model_validate(document)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=True)
        findings = [_finding(detail, document) for detail in details]
        invalid = {_to_leave_out(detail["loc"]) for detail in details}
        file = File.model_validate(_without(document, invalid))
    uplinks = tuple(uplink_config(name, keys, file.outgoing) for name, keys in file.uplink.items())

    def in_document(path: KeyPath) -> KeyPath:
        return _written_part(_document_path(path, invalid), document)

    valid = cross.ValidConfig(
        uplinks,
        _uplink_names(document),
        file.host,
        dns_config(file.dns),
        tuple(map(forward_config, file.forward)),
        file.outgoing,
        WebConfig(**dict(file.web)),
        file.notify,
        invalid,
        lambda path: line_of(in_document(path)),
        uid_of,
    )
    checks = (*cross.findings(valid), *cross_dns.findings(valid), *cross_report.findings(valid))
    for path, what, remedy in checks:
        findings.append((in_document(path), what, remedy))
    if not document.get("uplink") and document.keys() <= File.model_fields.keys():
        findings.append((("uplink",), "no uplink", 'add [uplink.isp-a] with interface = "…"'))
    config = Config(
        uplinks,
        HostConfig(**dict(file.host)),
        HealthConfig(**dict(file.health)),
        DaemonConfig(**dict(file.daemon)),
        HookConfig(**dict(file.hooks)),
        valid.dns,
        valid.forwards,
        outgoing_config(file.outgoing, uid_of),
        MptcpConfig(**dict(file.mptcp)),
        valid.web,
        history_config(file.history),
        tuple(map(notify_config, file.notify)),
    )
    return config, findings


def _uplink_names(document: Mapping[str, Any]) -> Collection[str]:
    uplinks = document.get("uplink")
    return uplinks.keys() if isinstance(uplinks, dict) else ()


def _to_leave_out(loc: KeyPath) -> KeyPath:
    """The smallest part around an error without which the rest can be checked."""
    match loc:
        case ("dns", "name", int(), "records", int(), *_):
            return loc[:5]
        case ("dns", "name", int(), "policy" | "ttl", *_):
            return loc[:4]
        case ("dns", "server", _, *_) | ("dns", str(), int(), *_):
            return loc[:3]
        case ("forward", int(), "check" | "on_down", *_) | ("outgoing", "rule", int(), *_):
            return loc[:3]
        case ("dns" | "uplink" | "host" | "forward" | "outgoing" | "notify", _, *_):
            return loc[:2]
    return loc[:1]


def _without(value: Any, invalid: Collection[KeyPath], at: KeyPath = ()) -> Any:
    """The document without its invalid parts."""
    if isinstance(value, dict):
        return {
            k: _without(v, invalid, (*at, k)) for k, v in value.items() if (*at, k) not in invalid
        }
    if isinstance(value, list):
        items = enumerate(value)
        return [_without(v, invalid, (*at, n)) for n, v in items if (*at, n) not in invalid]
    return value


def _document_path(path: KeyPath, invalid: Collection[KeyPath]) -> KeyPath:
    """The path in the document of a path in its valid part: list items are counted anew."""
    written: KeyPath = ()
    for part in path:
        if isinstance(part, int):
            valid = (n for n in count() if (*written, n) not in invalid)
            part = next(islice(valid, part, None))
        written = (*written, part)
    return written


def _finding(detail: ErrorDetails, document: Any) -> Finding:
    path = tuple(part for part in detail["loc"] if part != "[key]")
    what, remedy = _what_and_remedy(path, detail["type"], detail.get("ctx", {}), detail["input"])
    return _written_part(path, document), what, remedy


def _written_part(path: KeyPath, document: Any) -> KeyPath:
    """The part of a path that the document has: a plain URL is a table only to pydantic."""
    for depth, part in enumerate(path):
        if not isinstance(document, list if isinstance(part, int) else dict):
            return path[:depth]
        inside = isinstance(part, int) or part in document
        document = document[part] if inside else {}  # type: ignore[index]
    return path


def _what_and_remedy(
    path: KeyPath, kind: str, context: Mapping[str, Any], value: Any
) -> tuple[str, str]:
    """What is wrong and what would be right, for one of pydantic's errors."""
    from ifdefault.config.base import toml

    match kind:
        case "ifdefault":
            return context["what"], context["remedy"]
        case "extra_forbidden":
            if new := _RENAMED.get(_without_numbers(path)):
                return "was renamed", f"use {new}"
            return "unknown key", _known_keys(path)
        case "missing":
            return "missing", _MISSING.get((path[0], path[-1])) or _MISSING[path[-1]]
        case "literal_error":
            if new := _RENAMED.get((*_without_numbers(path), str(value))):
                return f"{toml(value)} was renamed", f"use {toml(new)}"
            expected = context["expected"].replace("'", '"')
            return f"{toml(value)} is not valid", f"use one of {expected}"
        case _ if kind in _BOUNDS:
            bound, fault, remedy = _BOUNDS[kind]
            return f"{toml(value)} is {fault}", remedy.format(_number(context[bound]))
        case "too_long":
            return f"{context['actual_length']} items", f"use at most {context['max_length']}"
        case "tuple_type" if path in _LISTS:
            return "not a list of tables", f"write [[{'.'.join(map(str, path))}]] for each"
        case _ if kind in _TYPES:
            return "not " + _TYPES[kind][0], "write " + _TYPES[kind][1]
    return kind.replace("_", " "), "see ifdefault.toml(5)"


def _number(bound: float) -> str:
    return str(int(bound) if bound == int(bound) else bound)


_BOUNDS = {
    "greater_than_equal": ("ge", "too small", "use {} or more"),
    "less_than_equal": ("le", "too large", "use {} or less"),
    "string_too_short": ("min_length", "too short", "use {} or more characters"),
    "string_too_long": ("max_length", "too long", "use {} or fewer characters"),
}
_LISTS = {  # arrays of tables
    *(("dns", table) for table in ("name", "update", "provider", "exec")),
    ("forward",),
    ("outgoing", "rule"),
    ("notify",),
}
_RENAMED: dict[tuple[str, ...], str] = {  # keys and values before the first release
    ("forward", "gone"): "on_down",
    ("health", "on_down", "free"): "end",
    ("hooks", "default"): "primary",
    ("host", "truth_meter"): "source_check",
}
_MISSING: dict[Any, str] = {
    "address": 'name the server, as in address = "192.0.2.53"',
    "credentials": "name the file with the provider's options",
    ("notify", "name"): 'name it, as in name = "ops"',
    "interface": "name the network interface that leads to the provider",
    "listen": 'name the ports that clients connect to, as in listen = "tcp:443"',
    "name": 'write the full name, as in name = "www.example.net"',
    "program": "name an executable by its absolute path",
    "provider": 'name it as dns-lexicon does, as in provider = "powerdns"',
    "servers": 'name the servers that accept updates, as in servers = ["192.0.2.53"]',
    "to": 'name the servers, as in to = ["10.0.0.10"]',
    "url": 'write the URL to probe, as in url = "https://example.net/health"',
    "via": 'name uplinks in the order of preference, as in via = ["isp-a"]',
    "zone": 'name it, as in zone = "example.net"',
}
_TYPES = {
    "float_type": ("a number", "it without quotes"),
    "finite_number": ("a finite number", "one"),
    "bool_type": ("true or false", "one of them without quotes"),
    "int_type": ("a whole number", "it without quotes or a decimal point"),
    "string_type": ("a string", 'it in "double quotes"'),
    "tuple_type": ("a list", 'it in brackets: ["…"]'),
    "dict_type": ("a table", "[uplink.isp-a] and its keys below"),
    "model_type": ("a table", "it in [brackets] and its keys below"),
}


def _without_numbers(path: KeyPath) -> tuple[str, ...]:
    """The path without the numbers of list items."""
    return tuple(part for part in path if isinstance(part, str))


def _known_keys(path: KeyPath) -> str:
    known = sorted(_keys_beside(path))
    for near in get_close_matches(str(path[-1]), known, n=1):
        return f"did you mean {near}?"
    return f"use one of {', '.join(known)}"


def _keys_beside(path: KeyPath) -> Iterable[str]:
    """The keys of the table that contains the last part of the path."""
    from ifdefault.config.file import File
    from ifdefault.config.uplink import UplinkKeys

    table: Any = File
    if len(path) > 2 and path[0] == "uplink":
        table, path = UplinkKeys, path[2:]
    for part in path[:-1]:
        if isinstance(part, str):
            table = _table_in(table.model_fields[part].annotation)
    return [field.alias or name for name, field in table.model_fields.items()]


def _table_in(annotation: Any) -> Any:
    """The model of the table, or of the list of tables, that is the value of a key."""
    if hasattr(annotation, "model_fields"):
        return annotation
    return next(filter(None, map(_table_in, get_args(annotation))), None)


def _problem(filename: str, line: int, finding: Finding) -> Problem:
    path, what, remedy = finding
    return Problem(f"{filename}:{line}: {toml_lines.key(path)}", what, remedy)


def _not_toml(message: str, text: str, filename: str) -> Problem:
    """tomllib names the position at the end of its message, in words."""
    what, _, position = message.rpartition(" (at ")
    if numbers := re.findall(r"\d+", position):
        where = ":".join([filename, *numbers])
    else:
        where = f"{filename}:{text.count(chr(10)) + 1}"
    what = what or "nested too deeply"
    remedies = (r for start, r in _TOML_REMEDIES.items() if what.startswith(start))
    remedy = next(remedies, "correct the syntax, see https://toml.io")
    return Problem(where, f"not TOML: {what[:1].lower()}{what[1:]}", remedy)
