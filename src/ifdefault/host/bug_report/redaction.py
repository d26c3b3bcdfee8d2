"""Takes secrets out of texts: those that are known, and what looks like one.

    config ──> files that it names, URLs ──┐
    environment of units ──────────────────┴──> Secrets.redact(text)

Rules: a secret that is known is replaced wherever it occurs, as it is, quoted for a URL, and in
base64. Rather too much is replaced than too little. Nothing is kept of what a secret was.
"""

from __future__ import annotations

import base64
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ifdefault.ipc.regular_file import read_regular
from ifdefault.model.errors import reason

REDACTED = "REDACTED"
_SHORTEST = 4  # what is shorter isn't searched for
_NEVER = {"ifdefault", REDACTED}
_LONGEST_FILE = 65536
_FILE_KEYS = re.compile(r"(.*_)?(key|file|credentials|apprise)")
_URL_KEYS = ("webhook", "ntfy")  # whoever knows their paths may use them
_URL_PATH = re.compile(r"https?://[^/\s]+/(\S+)")
_WORDS = r"pass(?:word|wd|phrase)|secret|token|api[_-]?key|credential|auth[_-]?key"
_NAME = rf"(?:[\w.-]*(?:{_WORDS})[\w-]*|\bpass)"
_QUOTE = r"\\?[\"']?"  # also as JSON has it in a text
_PATTERNS = (
    re.compile(r"(?<=://)[^/?#\s\"'@]+(?=@)"),  # a URL's user and password
    re.compile(r"/[^\s\"'<>?]*\?([^\s\"'<>]+)"),  # the query of a URL, or of a path alone
    re.compile(rf"(?i){_NAME}{_QUOTE}\s*[:=]\s*{_QUOTE}([^\s\"',;\\]+)"),
    re.compile(rf"(?i)\b(?:secret|password)\s+{_QUOTE}([^\s\";\\]{{4,}})"),  # as BIND writes it
    re.compile(r"(?i)\b(?:bearer|basic)\s+([\w.~+/-]{4,}=*)"),  # RFC 6750, RFC 7617
    re.compile(r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----(.*?)-----END"),
)
_NOT_SECRET = re.compile(r"(?i)[\w.-]*_file\\?[\"']?\s*[:=]")
_BIND = re.compile(r"secret\s+\"?([^\s\";]+)")
_ASSIGNED = re.compile(r"^\s*[\w.-]+\s*[=:]\s*[\"']?([^\"'#\n]+)", re.MULTILINE)


class Secrets:
    """`unread`: the files with secrets that couldn't be read, and why: those aren't known."""

    def __init__(self) -> None:
        self.unread: dict[str, str] = {}
        self._known: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def learn(self, secret: str) -> None:
        """Replace this wherever it occurs from now on; of a URL, its path and the end of it too."""
        secret = secret.strip()
        if len(secret) < _SHORTEST or secret in _NEVER:
            return
        if url := _URL_PATH.match(secret):
            self.learn(url[1])
            self.learn(url[1].rpartition("/")[2])
        as_json = json.dumps(secret)[1:-1]
        encoded = base64.b64encode(secret.encode("utf-8", "surrogateescape")).decode("latin-1")
        self._known |= {secret, quote(secret, safe=""), as_json, encoded}
        self._pattern = None

    def learn_config(self, text: str) -> None:
        """What a config names: files with secrets, and URLs that are some."""
        for _, url in re.findall(rf"\b({'|'.join(_URL_KEYS)})\s*=\s*[\"']([^\"']+)", text):
            self.learn(url)
        try:
            config = tomllib.loads(text)
        except tomllib.TOMLDecodeError:  # which a bug report may be about
            config = {"file": re.findall(r"[\"'](/[^\"'\n]+)[\"']", text)}
        for path in sorted(_files(config)):
            self._learn_file(path)

    def learn_environment(self, name: str, value: str) -> None:
        """A variable of a unit."""
        if re.fullmatch(rf"(?i){_NAME}.*", name):
            self.learn(value)

    def redact(self, text: str, *, patterns: bool = True) -> str:
        """The text without them. `patterns`: whether also without what looks like one."""
        if self._known:
            if self._pattern is None:
                longest_first = sorted(self._known, key=lambda secret: (-len(secret), secret))
                self._pattern = re.compile("|".join(map(re.escape, longest_first)))
            text = self._pattern.sub(REDACTED, text)
        if patterns:
            for pattern in _PATTERNS:
                text = pattern.sub(_replaced, text)
        return text

    def _learn_file(self, path: str) -> None:
        try:
            text = read_regular(Path(path), _LONGEST_FILE).decode("utf-8", "surrogateescape")
        except FileNotFoundError:
            return  # nor can it have come from there
        except OSError as error:
            self.unread[path] = reason(error)
            return
        for secret in _in_file(text):
            self.learn(secret)


def _replaced(match: re.Match[str]) -> str:
    if _NOT_SECRET.match(match[0]):
        return match[0]
    if not match.re.groups:
        return REDACTED
    start, end = match.span(1)
    offset = match.start()
    return match[0][: start - offset] + REDACTED + match[0][end - offset :]


def _files(value: Any, key: str = "") -> Iterator[str]:
    """The files with secrets that a config names."""
    match value:
        case dict():
            for name, inner in value.items():
                yield from _files(inner, name)
        case list():
            for inner in value:
                yield from _files(inner, key)
        case str() if value.startswith("/") and _FILE_KEYS.fullmatch(key):
            yield value


def _in_file(text: str) -> Iterator[str]:
    """The secrets in a file: a TSIG key's, the values of a table, or its lines."""
    if keys := _BIND.findall(text):
        yield from keys
        return
    try:
        yield from _values(tomllib.loads(text))
        return
    except tomllib.TOMLDecodeError:
        pass
    yield from _ASSIGNED.findall(text)
    yield from (line for line in text.splitlines() if not line.lstrip().startswith("#"))


def _values(value: Any) -> Iterator[str]:
    match value:
        case dict():
            for inner in value.values():
                yield from _values(inner)
        case list():
            for inner in value:
                yield from _values(inner)
        case str():
            yield value
