"""Probe targets by name, as `check` looks them up."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from ifdefault.host import target_names
from ifdefault.host.target_names import lacking_families


def test_only_definite_answers_count(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        ("four", socket.AF_INET6): socket.EAI_NODATA,
        ("none", socket.AF_INET): socket.EAI_NONAME,
        ("none", socket.AF_INET6): socket.EAI_NONAME,
        ("offline", socket.AF_INET): socket.EAI_AGAIN,
        ("offline", socket.AF_INET6): socket.EAI_FAIL,
    }

    def getaddrinfo(host: str, port: None, family: socket.AddressFamily, kind: int) -> None:
        if (host, family) in answers:
            raise socket.gaierror(answers[host, family], "")
        if host == "bad":
            raise UnicodeError

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert lacking_families(["both", "four", "none", "offline", "bad"]) == {
        "both": set(), "four": {6}, "none": {4, 6}, "offline": set(), "bad": set(),
    }  # fmt: skip
    assert lacking_families([]) == {}


def test_a_resolver_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: release.wait())
    monkeypatch.setattr(target_names, "WAIT_S", 0.05)
    began = time.monotonic()
    assert lacking_families(map(str, range(20))) == {str(n): set() for n in range(20)}
    assert time.monotonic() - began < 1.0, "all together, not each"
    release.set()
