"""A name's addresses at a DNS provider, by the provider's API (dns-lexicon).

A process of its own (`frontend.provider_main`): IFDEFAULT_… of its environment tell it what to do,
as they tell any program of `[[dns.exec]]`, and IFDEFAULT_PROVIDER and IFDEFAULT_CREDENTIALS where.

Rules: it only adds what this host is to have there, and then takes away what this host had: others'
records of the same name stay. One line for each problem, and no secret in any; exit status 1 if
there was one. A record keeps the TTL that it was made with.
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

from ifdefault.model.errors import reason

_TYPES = ("A", "AAAA")


class Records(Protocol):
    """What lexicon can do with a zone's records."""

    def list_records(self, rtype: str, name: str) -> list[dict[str, Any]]: ...
    def create_record(self, rtype: str, name: str, content: str) -> bool: ...
    def delete_record(self, identifier: Any, rtype: str, name: str, content: str) -> bool: ...


def bring(
    records: Records, name: str, kind: str, wanted: list[str], was: list[str]
) -> Iterator[str]:
    """Bring a name's records of a type to what is wanted; the problems. What `was` ours goes last,
    and only if all that is wanted is there, so that the name never has less than it should."""
    there = [(record, _canonical(record["content"])) for record in records.list_records(kind, name)]
    had = {address for _, address in there}
    failed = False
    for address in wanted:
        if address not in had and not records.create_record(kind, name, address):
            failed = True
            yield f"{address} isn't taken, and no reason is given"
    for record, address in there:
        if failed or address not in was or address in wanted:
            continue
        if not records.delete_record(record.get("id"), kind, name, record["content"]):
            yield f"{address} can't be taken away, and no reason is given"


def main(drop: Callable[[], None]) -> NoReturn:
    """Do as the environment tells; `drop` gives up all rights, when everything is loaded."""
    told = {
        key.removeprefix("IFDEFAULT_").lower(): value
        for key, value in os.environ.items()
        if key.startswith("IFDEFAULT_")
    }
    problems = list(publish(told, drop))
    sys.stdout.buffer.write("".join(f"{problem}\n" for problem in problems).encode())
    sys.exit(bool(problems))


def publish(told: Mapping[str, str], drop: Callable[[], None]) -> Iterator[str]:
    """Bring all of a name to what is told; the problems."""
    options: dict[str, Any] = {}
    try:
        client = _client(told, options)
        drop()
        options |= _read(told["credentials"])
        with client as records:
            for kind in _TYPES:
                wanted, was = told[kind.lower()].split(), told[f"was_{kind.lower()}"].split()
                if wanted or was:
                    for problem in bring(records, told["name"], kind, wanted, was):
                        yield _hide(problem, options)
    except ImportError as error:
        yield f"dns-lexicon can't be loaded ({error}): install ifdefault[providers]"
    except _BadCredentials as error:
        yield str(error)
    except Exception as error:  # noqa: BLE001  each provider has kinds of its own
        yield _hide(f"{told['provider']}: {str(error) or type(error).__name__}", options)


class _BadCredentials(Exception):
    """The file of credentials can't be used."""


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise _BadCredentials(f"{path}: {reason(error)}") from None
    except ValueError as error:
        remedy = 'write lines like auth_token = "…"'
        raise _BadCredentials(f"{path}: no TOML, {remedy}: {error}") from None


def _client(told: Mapping[str, str], options: Mapping[str, Any]) -> AbstractContextManager[Records]:
    """Lexicon's hands on the zone, as a context, with all that they need: what is loaded later may
    not be readable any more. `options` are read when it is entered."""
    import lexicon.client

    "localhost".encode("idna")  # as does whoever resolves a name
    paths = ssl.get_default_verify_paths()
    if authorities := paths.cafile or paths.capath:  # the system's, as everywhere, not certifi's
        os.environ.setdefault("REQUESTS_CA_BUNDLE", authorities)
    client: Any = lexicon.client
    # else it asks the Internet for the list of public suffixes, to guess the zone, which is known
    client.tldextract = SimpleNamespace(TLDExtract=lambda **_: _split)
    provider, zone = told["provider"], told["zone"]
    asked = {"provider_name": provider, "domain": zone, "ttl": int(told["ttl"]), provider: options}
    resolver = client.helper_config.ConfigResolver().with_dict(asked)
    made: AbstractContextManager[Records] = client.Client(resolver)
    return made


def _split(zone: str) -> SimpleNamespace:
    """What tldextract makes of a domain, such that it is the zone."""
    first, _, rest = zone.partition(".")
    return SimpleNamespace(domain=first, suffix=rest)


def _canonical(content: str) -> str:
    try:
        return str(ip_address(content))
    except ValueError:
        return content


def _hide(text: str, options: Mapping[str, Any]) -> str:
    """Make a text one line, without any of the credentials in it."""
    values = [str(value) for value in options.values() if "://" not in str(value)]
    secrets = {form for value in values for form in (value, quote(value, safe="")) if len(form) > 3}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "…")
    return " ".join(text.split())
