"""Valid and invalid messages between engine, frontend and DNS server."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest

from ifdefault.ipc.messages import (
    DETAIL_CHARS,
    FROM_DNS_SERVER,
    FROM_FRONTEND,
    MAX_ADDRESSES,
    MAX_BYTES,
    MAX_RDATA,
    MAX_TEXTS,
    MAX_TOGETHER,
    TO_DNS_SERVER,
    TO_FRONTEND,
    BadMessage,
    Bind,
    Fetch,
    Leave,
    Listen,
    Message,
    Outcome,
    Ping,
    Pong,
    Query,
    Ready,
    Reply,
    Resolve,
    Resolved,
    Send,
    Served,
    Unbind,
    Unconfined,
    Unlisten,
    Update,
    ZoneEnd,
    ZoneHead,
    ZoneName,
    decode,
    encode,
    printable,
    wants_socket,
)

WAYS = (TO_FRONTEND, FROM_FRONTEND, TO_DNS_SERVER, FROM_DNS_SERVER)
ALL = tuple(dict.fromkeys(kind for way in WAYS for kind in way))
ICMP = Send(1, 2, "icmp", "192.0.2.1", 0, "192.0.2.1", "", (), 500)
HTTP = Send(1, 2, "http", "2001:db8::1", 80, "example.net", "/a?b=c", (200, 204), 500)
DNS = Send(1, 2, "dns", "192.0.2.53", 53, "192.0.2.53", "example.net", (), 500)
SAMPLES: tuple[Message, ...] = (
    Bind(7, 6),
    Unbind(7),
    ICMP,
    HTTP,
    DNS,
    Resolve("example.net"),
    Ping(1),
    Listen(3, "udp", "203.0.113.10", ((0x1000000, "isp-a"), (0x2000000, "isp-b"))),
    Unlisten(3),
    ZoneHead("www.example", 2026112401, "hostmaster.www.example", ("ns-isp-a.www.example",)),
    ZoneName("*.www.example", "arrival", 30, (("isp-a", "203.0.113.10", 3),), ((16, "0161"),)),
    ZoneEnd(
        (("192.0.2.53", 53, "/etc/ifdefault/keys/xfr"), ("2001:db8::53", 5353, "")),
        100,
        ("0f" * 16,),
    ),
    Update(4, "192.0.2.53", 53, "", "example.net", "www.example.net", 30, ("203.0.113.10",), ()),
    Query(5, "192.0.2.53", 53, "/keys/update", "", "NS", True),
    Fetch(6, "192.0.2.80", 443, "ip.example.net", "/", True),
    Reply(5, "", ("a.root-servers.net",), 3600),
    Reply(4, "192.0.2.53 refuses: NOTAUTH"),
    Served((("isp-a", 3, 1000),), ("192.0.2.53 took serial 3 of www.example",)),
    Outcome(1, 2, "wrong", 0, "status 503, erwartet: “200”"),
    Resolved("example.net", ("192.0.2.1", "2001:db8::1")),
    Resolved("example.net", (), "name or service not known"),
    Pong((1 << 63) - 1),
    Ready(4711, "0.1.0"),
    Unconfined(("Landlock (function not implemented)",)),
    Leave(30),
)


def fields_of(message: Message) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(encode(message))
    return told


def refused(packet: bytes | dict[str, Any]) -> str:
    """Why a packet is invalid."""
    data = packet if isinstance(packet, bytes) else json.dumps(packet).encode()
    with pytest.raises(BadMessage) as caught:
        decode(data, ALL)
    return str(caught.value)


@pytest.mark.parametrize("message", SAMPLES)
def test_there_and_back(message: Message) -> None:
    packet = encode(message)
    assert decode(packet, ALL) == [message]
    assert packet.isascii()


def test_each_type_goes_its_way_only() -> None:
    assert not set(TO_FRONTEND) & set(FROM_FRONTEND)
    assert set(TO_DNS_SERVER) & set(FROM_DNS_SERVER) == {Listen}, "a server hands its sockets over"
    assert {type(message) for message in SAMPLES} == set(ALL)
    for message in SAMPLES:
        for way in WAYS:
            if type(message) not in way:
                with pytest.raises(BadMessage, match="of unknown type"):
                    decode(encode(message), way)


@pytest.mark.parametrize("message", SAMPLES)
def test_no_field_may_be_missing_or_surplus(message: Message) -> None:
    told = fields_of(message)
    for name in told:
        assert refused({k: v for k, v in told.items() if k != name})
    assert "not exactly the fields" in refused(told | {"more": 1})
    assert refused(told | {"type": "Nothing"}) == "of unknown type"
    assert refused(told | {"type": ["Send"]}) == "of unknown type"


@pytest.mark.parametrize("message", SAMPLES)
def test_each_field_has_its_type(message: Message) -> None:
    told = fields_of(message)
    for field in fields(message):
        good = told[field.name]
        bad: Any
        for bad in (None, True, 1.0, [], {}, "", "x\n", [[]], -1, 1 << 63, 1 << 200):
            if bad == good and type(bad) is type(good):
                continue
            if (bad == [] and isinstance(good, list)) or (bad == "" and isinstance(good, str)):
                continue  # may be right; what may not be empty is below
            assert f"{type(message).__name__}" in refused(told | {field.name: bad})


@pytest.mark.parametrize(
    ("message", "change"),
    [
        (ICMP, {"path": 1 << 31}),
        (ICMP, {"kind": "udp"}),
        (ICMP, {"port": 1}),
        (ICMP, {"timeout_ms": 0}),
        (ICMP, {"timeout_ms": 60_001}),
        (ICMP, {"address": "example.net"}),
        (ICMP, {"address": "192.0.2.01"}),
        (ICMP, {"address": "2001:DB8::1"}),
        (ICMP, {"address": "fe80::1%wan0"}),
        (ICMP, {"address": "192.0.2.1\x00"}),
        (ICMP, {"address": "\ud800"}),
        (ICMP, {"host": "a b"}),
        (ICMP, {"host": "a" * 254}),
        (HTTP, {"port": 0}),
        (HTTP, {"port": 65536}),
        (HTTP, {"host": ""}),
        (HTTP, {"host": "example.net\r\nX: y"}),
        (HTTP, {"query": ""}),
        (HTTP, {"query": "/a b"}),
        (HTTP, {"query": "/\r\n"}),
        (HTTP, {"query": "/ä"}),
        (HTTP, {"query": "/" * 1001}),
        (HTTP, {"statuses": [99]}),
        (HTTP, {"statuses": [600]}),
        (HTTP, {"statuses": [True]}),
        (HTTP, {"statuses": ["200"]}),
        (HTTP, {"statuses": [200] * 501}),
        (Bind(1, 4), {"family": 5}),
        (Bind(1, 4), {"family": True}),
        (Resolve("a"), {"host": ""}),
        (Resolve("a"), {"host": "ä"}),
        (Outcome(1, 2, "lost"), {"verdict": "up"}),
        (Outcome(1, 2, "lost"), {"rtt_us": 3_600_000_001}),
        (Outcome(1, 2, "lost"), {"detail": "a\nb"}),
        (Outcome(1, 2, "lost"), {"detail": "\x1b[2J"}),
        (Outcome(1, 2, "lost"), {"detail": "a" * (DETAIL_CHARS + 1)}),
        (Resolved("a", ()), {"addresses": ["192.0.2.1"] * (MAX_ADDRESSES + 1)}),
        (Resolved("a", ()), {"addresses": ["localhost"]}),
        (Resolved("a", ()), {"addresses": [["192.0.2.1"]]}),
        (Resolved("a", ()), {"addresses": "192.0.2.1"}),
        (Ready(1, "1"), {"pid": 0}),
    ],
)
def test_what_is_out_of_bounds(message: Message, change: dict[str, Any]) -> None:
    told = fields_of(message)
    assert decode(json.dumps(told).encode(), ALL) == [message]
    refused(told | change)
    with pytest.raises(BadMessage):
        decode(encode(replace(message, **change)), ALL)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b'"Ping"',
        b'{"type":"Ping","token":1',
        b'{"type":"Ping","token":1}x',
        b'{"type":"Ping","token":1}{"type":"Ping","token":1}',
        b'{"type":"Ping","token":1,"token":2}',
        b'{"type":"Pong","type":"Ping","token":2}',
        b'{"type":"Ping","token":NaN}',
        b'{"type":"Ping","token":Infinity}',
        b'{"type":"Ping","token":1e0}',
        b'{"type":"Ping","token":%s}' % (b"9" * 5000),
        b'{"type":"Ping","token":1,"\xff":1}',
        b'\xef\xbb\xbf{"type":"Ping","token":1}',
        '{"type":"Ping","token":1}'.encode("utf-16"),
        b'{"type":"Ping","token":1}'.ljust(MAX_BYTES + 1),
        b"[" * MAX_BYTES,
        b'{"a":' * (MAX_BYTES // 5),
        b'{"type":"Ping","token":' + b"[" * 4000 + b"]" * 4000 + b"}",
    ],
)
def test_what_is_no_message_at_all(packet: bytes) -> None:
    refused(packet)


def test_the_largest_fit() -> None:
    detail = "\U0001f600" * DETAIL_CHARS
    most = (1 << 63) - 1
    long_name = "a" * 253
    address = "2001:db8:1111:2222:3333:4444:5555:6666"
    for message in (
        replace(HTTP, seq=most, host=long_name, query="/" + '"' * 999, statuses=(599,) * 500),
        Outcome((1 << 31) - 1, most, "answered", 3_600_000_000, detail),
        Resolved(long_name, (address,) * MAX_ADDRESSES, detail),
    ):
        assert len(encode(message)) <= MAX_BYTES
        assert decode(encode(message), ALL) == [message]


def test_what_comes_with_a_socket() -> None:
    assert wants_socket(Bind(1, 4))
    assert wants_socket(HTTP)
    assert not any(wants_socket(m) for m in (ICMP, Unbind(1), Ping(1), Outcome(1, 2, "lost")))


def test_texts_of_any_origin_become_printable() -> None:
    assert printable("a\r\n b\x1b[2J\u202e\ud800c\x00") == "a b [2J c"
    assert printable("x" * 10_000) == "x" * DETAIL_CHARS
    assert printable("", 5) == ""
    encode(Outcome(1, 2, "lost", 0, printable("\n" * 9000 + "ä" * 500)))


def test_the_largest_that_the_config_allows_fits() -> None:
    """31 uplinks in both families, all static records, and as many secondaries as there may be."""
    name, address = ".".join(["a" * 63] * 3 + ["b" * 61]), "2001:db8:1111:2222:3333:4444:5555:6666"
    rows = tuple((f"{n:02d}" + "u" * 29, address, 1000) for n in range(MAX_TEXTS))
    records = ((65535, "ff" * MAX_RDATA), *((65535, ""),) * (MAX_TEXTS - 1))
    encode(ZoneName(name, "arrival-only", (1 << 31) - 1, rows, records))
    encode(ZoneHead(name, (1 << 32) - 1, name, (name,) * MAX_TEXTS))
    encode(ZoneEnd(((address, 65535, "/" + "ä" * 254),) * 32, 1_000_000, ("0f" * 16,) * 2))


def test_one_type_alone_may_be_allowed() -> None:
    assert decode(encode(Ping(1)), (Ping,)) == [Ping(1)]
    with pytest.raises(BadMessage, match="of unknown type"):
        decode(encode(Pong(1)), (Ping,))


def test_several_in_one_packet() -> None:
    messages = [Outcome(1, seq, "answered", seq) for seq in range(MAX_TOGETHER)]
    assert decode(encode(*messages), ALL) == messages
    too_many = encode(*messages, Outcome(2, 1, "lost"))
    for packet in (too_many, b"[]", b"[[]]", encode(*messages)[:-1]):
        with pytest.raises(BadMessage):
            decode(packet, ALL)
    one_wrong = encode(*messages[1:], Outcome(1, 1, "lost", -1))
    with pytest.raises(BadMessage, match=r"Outcome\.rtt_us"):  # all or none
        decode(one_wrong, ALL)
