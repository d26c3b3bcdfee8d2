"""Publishes a name's addresses at a DNS provider, by the provider's API (dns-lexicon).

Runs in its own process (`frontend.provider_main`). Its environment is that of a program of
`[[dns.exec]]`, and IFDEFAULT_PROVIDER and IFDEFAULT_CREDENTIALS.

Rules: it adds this host's addresses first, and then removes its old ones; records of others under
the same name stay. It prints one line per problem, without secrets, and then exits with status 1. A
record keeps the TTL that it was created with.
"""

from __future__ import annotations

import os
import ssl
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any, NoReturn, Protocol
from urllib.parse import quote

from ifdefault.model.dns import LEXICON_REMEDY
from ifdefault.model.errors import reason

_TYPES = ("A", "AAAA")


class Records(Protocol):
    """The operations of lexicon that are used here."""

    def list_records(self, rtype: str, name: str) -> list[dict[str, Any]]: ...
    def create_record(self, rtype: str, name: str, content: str) -> bool: ...
    def delete_record(self, identifier: Any, rtype: str, name: str, content: str) -> bool: ...


def update(
    records: Records, name: str, kind: str, addresses: list[str], old: list[str]
) -> Iterator[str]:
    """Update a name's records of one type; yield the problems. Addresses in `old` are removed last,
    and only if all of `addresses` are there, so that the name never has too few."""
    there = [(record, _canonical(record["content"])) for record in records.list_records(kind, name)]
    existing = {address for _, address in there}
    failed = False
    for address in addresses:
        if address not in existing and not records.create_record(kind, name, address):
            failed = True
            yield f"{address} can't be added: no reason given"
    for record, address in there:
        if failed or address not in old or address in addresses:
            continue
        if not records.delete_record(record.get("id"), kind, name, record["content"]):
            yield f"{address} can't be removed: no reason given"


def main(drop: Callable[[], None]) -> NoReturn:
    """Publish what the environment says; `drop` drops all privileges, after the imports."""
    values = {
        key.removeprefix("IFDEFAULT_").lower(): value
        for key, value in os.environ.items()
        if key.startswith("IFDEFAULT_")
    }
    problems = list(publish(values, drop))
    text = "".join(f"{problem}\n" for problem in problems)
    sys.stdout.buffer.write(text.encode(errors="replace"))
    sys.exit(bool(problems))


def publish(values: Mapping[str, str], drop: Callable[[], None]) -> Iterator[str]:
    """Update all records of a name; yield the problems."""
    options: dict[str, Any] = {}
    try:
        client = _client(values, options)
        drop()
        options |= _read(values["credentials"])
        with client as records:
            for kind in _TYPES:
                addresses = values[kind.lower()].split()
                old = values[f"was_{kind.lower()}"].split()
                if addresses or old:
                    for problem in update(records, values["name"], kind, addresses, old):
                        yield _hide(problem, options)
    except ImportError as error:
        yield f"dns-lexicon can't be loaded ({error}): {LEXICON_REMEDY}"
    except _BadCredentials as error:
        yield str(error)
    except Exception as error:  # noqa: BLE001  each provider has its own exceptions
        yield _hide(f"{values['provider']}: {str(error) or type(error).__name__}", options)


class _BadCredentials(Exception):
    """The credentials file is not valid."""


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise _BadCredentials(f"{path}: {reason(error)}") from None
    except ValueError as error:
        remedy = 'write lines like auth_token = "…"'
        raise _BadCredentials(f"{path}: not TOML; {remedy}: {error}") from None


def _client(
    values: Mapping[str, str], options: Mapping[str, Any]
) -> AbstractContextManager[Records]:
    """Lexicon's client for the zone, with all modules loaded, since they may not be readable any
    more later. `options` are read when the context is entered."""
    import lexicon.client

    "localhost".encode("idna")  # loads the codec, which name lookups need
    paths = ssl.get_default_verify_paths()
    if authorities := paths.cafile or paths.capath:  # the system's, as everywhere, not certifi's
        os.environ.setdefault("REQUESTS_CA_BUNDLE", authorities)
    client: Any = lexicon.client
    # otherwise it downloads the public suffix list to guess the zone, which is known
    client.tldextract = SimpleNamespace(TLDExtract=lambda **_: _split)
    provider, zone, ttl = values["provider"], values["zone"], int(values["ttl"])
    config = {"provider_name": provider, "domain": zone, "ttl": ttl, provider: options}
    resolver = client.helper_config.ConfigResolver().with_dict(config)
    context: AbstractContextManager[Records] = client.Client(resolver)
    return context


def _split(zone: str) -> SimpleNamespace:
    """A result of tldextract that makes lexicon use exactly this zone."""
    first, _, rest = zone.partition(".")
    return SimpleNamespace(domain=first, suffix=rest)


def _canonical(content: str) -> str:
    try:
        return str(ip_address(content))
    except ValueError:
        return content


def _hide(text: str, options: Mapping[str, Any]) -> str:
    """Make a text one line, and replace credentials in it."""
    values = [str(value) for value in options.values() if "://" not in str(value)]
    secrets = {form for value in values for form in (value, quote(value, safe="")) if len(form) > 3}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "…")
    return " ".join(text.split())
