"""TSIG keys, as `tsig-keygen` writes them and BIND's config contains them:

    key "name" { algorithm hmac-sha256; secret "base64"; };

Rules: pure; a file contains one key. Secrets are never shown. A BadKey names the file, what is
wrong, and what would be right.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field

from ifdefault.model.errors import HostError, Problem

# RFC 8945, 6, without HMAC-MD5, which must not be used; each with the length of its MAC
ALGORITHMS = {
    "hmac-sha1": 20,
    "hmac-sha224": 28,
    "hmac-sha256": 32,
    "hmac-sha384": 48,
    "hmac-sha512": 64,
}
MOST_BYTES = 1 << 16  # of a file
_NEW_KEY = "make a key with tsig-keygen -a hmac-sha256 NAME, and use it on both sides"
REMEDY = 'use the output of tsig-keygen: key "NAME" { algorithm hmac-sha256; secret "…"; };'
_SKIPPED = r"(?:\s|//[^\n]*|\#[^\n]*|/\*.*?\*/)+"
_TOKEN = re.compile(rf'{_SKIPPED}|"([^"\n]*)"|([{{}};])|([^\s"{{}};]+)', re.S)
_NAME = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?")


class BadKey(HostError):
    """A key file is not valid."""


@dataclass(frozen=True, slots=True)
class LoadedKey:
    """`name` is canonical text: lower case, without the final dot."""

    name: str
    algorithm: str
    secret: bytes = field(repr=False)


def parse(text: str, where: str) -> LoadedKey:
    """The key in a text; `where` is its file."""
    try:
        name, statements = _statement(list(_tokens(text)))
        if not _NAME.fullmatch(name := name.lower()) or len(name) > 253:
            raise ValueError(f"{name!r} is not a valid key name")
        algorithm = statements["algorithm"].lower().rstrip(".")
        if algorithm.partition(".")[0] == "hmac-md5":
            what, remedy = "hmac-md5 isn't secure and isn't supported (RFC 8945, 6)", _NEW_KEY
            raise BadKey(Problem(where, what, remedy))
        if algorithm not in ALGORITHMS:
            raise ValueError(f"{algorithm!r} isn't one of {', '.join(ALGORITHMS)}")
        secret = base64.b64decode(statements["secret"], validate=True)
        if not secret:
            raise ValueError("the secret is empty")
    except KeyError as error:
        raise BadKey(Problem(where, f"it has no {error.args[0]}", REMEDY)) from None
    except ValueError as error:  # also binascii.Error, whose text may reveal the secret
        why = str(error) if type(error) is ValueError else "the secret isn't base64"
        raise BadKey(Problem(where, why, REMEDY)) from None
    return LoadedKey(name.rstrip("."), algorithm, secret)


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise ValueError("it isn't a key")
        at = token.end()
        tokens += [part for part in token.groups() if part is not None]
    return tokens


def _statement(tokens: list[str]) -> tuple[str, dict[str, str]]:
    """The name, and the statements within the braces."""
    match tokens:
        case ["key", name, "{", *inner, "}", ";"] | ["key", name, "{", *inner, "}"]:
            if "}" in inner:
                raise ValueError("it contains more than one key")
            if len(inner) % 3 or any(end != ";" for end in inner[2::3]):
                raise ValueError("a statement within the braces is incomplete")
            return name, dict(zip(inner[::3], inner[1::3], strict=True))
    raise ValueError("it isn't a key")
