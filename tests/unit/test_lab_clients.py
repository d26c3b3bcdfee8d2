"""The lab's clients and servers count right, and read what others write."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from dataclasses import asdict

import pytest

from ifdefault.lab import attempts, filters, registry, serve, traffic
from ifdefault.lab.attempts import Wrong
from ifdefault.lab.waiting import eventually


@pytest.mark.parametrize(
    ("raised", "outcome"),
    [
        (None, "answered"),
        (Wrong(), "wrong"),
        (TimeoutError(), "hung"),
        (ConnectionResetError(104, "Connection reset by peer"), "Connection reset by peer"),
        (OSError(101, "Network is unreachable"), "Network is unreachable"),
    ],
)
def test_every_try_has_one_outcome(raised: Exception | None, outcome: str) -> None:
    async def attempt(target: str, source: str) -> None:
        if raised:
            raise raised

    assert asyncio.run(traffic.try_once(attempt, "192.0.2.1", "", 1.0)) == outcome


def test_tries_are_counted_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    running, most, seen = 0, 0, set()

    async def attempt(target: str, source: str) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        seen.add(source)
        await asyncio.sleep(0)
        running -= 1
        if source == "198.18.1.11":
            raise Wrong

    monkeypatch.setitem(attempts.KINDS, "tcp", attempt)
    sources = ["198.18.1.10", "198.18.1.11", "2001:db8:f::1"]
    (tally,) = asyncio.run(traffic.send_all(["tcp"], ["192.0.2.1"], 100, 7, 1.0, sources))
    assert tally == traffic.Tally("tcp", "192.0.2.1", tried=100, answered=50, wrong=50)
    assert not tally.ok
    assert most == 7
    assert seen == {"198.18.1.10", "198.18.1.11"}


def test_a_tally_survives_json() -> None:
    tally = traffic.Tally("tcp", "::1", 3, 1, 1, errors=(("Connection reset by peer", 1),))
    assert traffic.parse(json.dumps([asdict(tally)])) == (tally,)


def test_checksum_of_rfc_1071() -> None:
    message = bytes.fromhex("0001f203f4f5f6f7")
    assert attempts.checksum(message) == ~0xDDF2 & 0xFFFF


def test_an_answer_leaves_from_where_it_was_asked() -> None:
    asked = socket.inet_aton("198.51.100.10")
    _, kind, data = serve.answer_from(socket.IPPROTO_IP, 8, struct.pack("=I", 7) + bytes(4) + asked)
    assert (kind, data) == (8, bytes(4) + asked + bytes(4))
    asked = socket.inet_pton(socket.AF_INET6, "2001:db8:b::10")
    _, kind, data = serve.answer_from(
        socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, asked + struct.pack("=I", 7)
    )
    assert (kind, data) == (socket.IPV6_PKTINFO, asked + bytes(4))


def test_what_a_provider_refused_is_read() -> None:
    element = {"val": {"concat": ["198.51.100.10", "tcp", 80]}, "counter": {"packets": 3}}
    listing = {
        "nftables": [
            {"metainfo": {}},
            {"counter": {"name": "misrouted", "packets": 3, "bytes": 180}},
            {"set": {"name": "wrong4", "elem": [{"elem": element}]}},
            {"set": {"name": "wrong6"}},
        ]
    }
    assert filters.parse_count(listing) == 3
    (row,) = filters.parse_misrouted("isp-a", listing)
    assert row == filters.Misrouted("isp-a", "198.51.100.10", "tcp", 80, 3)


def test_a_filter_exempts_what_is_not_routed() -> None:
    text = filters.source_filter(["198.51.100.0/24"])
    assert "ip saddr != { 0.0.0.0, 169.254.0.0/16, 198.51.100.0/24 }" in text
    # a provider without IPv6 forwards none
    assert "ip6 saddr != { ::, fe80::/10 }" in text
    assert "daddr" not in text
    assert "ip daddr { 198.18.1.0/24 }" in filters.source_filter(["a"], ["198.18.1.0/24"])


def test_a_process_is_known_by_its_start() -> None:
    assert registry.start_time(os.getpid()) > 0
    assert registry.start_time(2**22 + 1) == 0


def test_eventually_tells_what_it_last_saw() -> None:
    found = iter([0, 0, 5])
    assert eventually(lambda: next(found), poll_s=0) == 5
    with pytest.raises(TimeoutError, match=r"the end: still \[\] after 0 s"):
        eventually(list, 0, what="the end")
