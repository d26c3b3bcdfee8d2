"""A provider's records: ours are added and removed, others' stay, and no secret is shown."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifdefault.frontend.client.provider import publish, update
from ifdefault.ipc import privileges
from ifdefault.model.dns import LEXICON_REMEDY

NAME = "www.example.net"
_ADDRESSES = st.lists(st.sampled_from([f"192.0.2.{n}" for n in range(6)]), unique=True)


class Zone:
    """A provider's records of one name and type."""

    def __init__(self, *contents: str) -> None:
        self.contents = list(contents)
        self.least = len(contents)
        self.refused: set[str] = set()

    def list_records(self, rtype: str, name: str) -> list[dict[str, Any]]:
        return [{"id": f"#{content}", "content": content} for content in self.contents]

    def create_record(self, rtype: str, name: str, content: str) -> bool:
        if content not in self.refused:
            self.contents.append(content)
        return content not in self.refused

    def delete_record(self, identifier: Any, rtype: str, name: str, content: str) -> bool:
        assert identifier == f"#{content}"
        if content not in self.refused:
            self.contents.remove(content)
        self.least = min(self.least, len(self.contents))
        return content not in self.refused


@given(_ADDRESSES, _ADDRESSES, _ADDRESSES)
def test_it_ends_with_what_is_wanted_and_what_is_others(
    there: list[str], wanted: list[str], was: list[str]
) -> None:
    zone = Zone(*there)
    assert list(update(zone, NAME, "A", wanted, was)) == []
    others = set(there) - set(was)
    assert set(zone.contents) == set(wanted) | others
    assert len(set(zone.contents)) == len(zone.contents)
    assert zone.least >= min(len(there), len(set(wanted) | others))  # never less in between
    before = list(zone.contents)
    assert list(update(zone, NAME, "A", wanted, was)) == []
    assert zone.contents == before


def test_nothing_goes_while_what_is_wanted_doesnt_come() -> None:
    zone = Zone("192.0.2.1", "192.0.2.2")
    zone.refused = {"192.0.2.3"}
    problems = list(update(zone, NAME, "A", ["192.0.2.3"], ["192.0.2.1"]))
    assert problems == ["192.0.2.3 can't be added: no reason given"]
    assert zone.contents == ["192.0.2.1", "192.0.2.2"]


def test_a_failed_removal_is_reported() -> None:
    zone = Zone("192.0.2.1", "192.0.2.2")
    zone.refused = {"192.0.2.1"}
    problems = list(update(zone, NAME, "A", ["192.0.2.2"], ["192.0.2.1"]))
    assert problems == ["192.0.2.1 can't be removed: no reason given"]


def test_addresses_are_compared_and_not_their_texts() -> None:
    zone = Zone("2001:0DB8::0010", "what.is.this")
    assert list(update(zone, NAME, "AAAA", ["2001:db8::10"], [])) == []
    assert zone.contents == ["2001:0DB8::0010", "what.is.this"]
    assert list(update(zone, NAME, "AAAA", ["2001:db8::11"], ["2001:db8::10"])) == []
    assert zone.contents == ["what.is.this", "2001:db8::11"]


def told(credentials: Path, name: str = "powerdns") -> dict[str, str]:
    plain = {"A": "192.0.2.1", "AAAA": "", "WAS_A": "", "WAS_AAAA": "", "TTL": "30"}
    place = {"NAME": NAME, "ZONE": "example.net", "PROVIDER": name}
    return {
        f"IFDEFAULT_{key}": value
        for key, value in {**plain, **place, "CREDENTIALS": str(credentials)}.items()
    }


def run(environment: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ifdefault.frontend.provider_main",
            str(privileges.KEEP),
            str(privileges.KEEP),
        ],
        env={"PATH": os.defpath} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout


def test_problems_are_one_line_each(tmp_path: Path) -> None:
    credentials = tmp_path / "powerdns.toml"
    assert run(told(credentials)) == (1, f"{credentials}: no such file or directory\n")
    credentials.write_text("auth_token = topsecret\n")
    status, said = run(told(credentials))
    assert status == 1
    assert said.startswith(f'{credentials}: not TOML; write lines like auth_token = "…": ')
    credentials.write_text('auth_token = "topsecret"\n')
    status, said = run(told(credentials, "no-such"))
    assert (status, said) == (
        1,
        "no-such: This provider (no-such) is not supported by Lexicon.\n",
    )
    status, said = run(told(credentials))
    assert (status, said) == (
        1,
        "powerdns: PowerDNS API endpoint not defined (pdns_server)\n",
    )
    credentials.write_text(
        'auth_token = "topsecret"\npdns_server = "http://127.0.0.1:1/topsecret"\n'
    )
    status, said = run(told(credentials))
    assert status == 1
    assert said.startswith("powerdns: ")
    assert "onnection refused" in said
    assert "topsecret" not in said
    assert said.count("\n") == 1


def test_without_lexicon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    credentials = tmp_path / "credentials.toml"
    credentials.write_text("")
    real = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name.partition(".")[0] == "lexicon":
            raise ModuleNotFoundError("No module named 'lexicon'")
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    names = told(credentials)
    asked = {key.removeprefix("IFDEFAULT_").lower(): value for key, value in names.items()}
    assert list(publish(asked, lambda: None)) == [
        f"dns-lexicon can't be loaded (No module named 'lexicon'): {LEXICON_REMEDY}"
    ]
