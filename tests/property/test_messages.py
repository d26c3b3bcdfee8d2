"""Whatever a packet holds, it is a message that means itself, or it is refused."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv6Address
from typing import Any, get_args

from hypothesis import given
from hypothesis import strategies as st

from ifdefault.ipc.messages import (
    DETAIL_CHARS,
    FROM_FRONTEND,
    MAX_ADDRESSES,
    MAX_BYTES,
    TO_FRONTEND,
    BadMessage,
    Bind,
    Message,
    Outcome,
    Ping,
    Pong,
    Ready,
    Resolve,
    Resolved,
    Send,
    Unbind,
    decode,
    encode,
    printable,
)
from ifdefault.model.config import FAMILIES
from ifdefault.model.health import Verdict

ALL = (*TO_FRONTEND, *FROM_FRONTEND)

paths = st.integers(0, (1 << 31) - 1)
counts = st.integers(0, (1 << 63) - 1)
names = st.from_regex(r"[A-Za-z0-9._:-]{1,253}", fullmatch=True)
queries = st.from_regex(r"[!-~]{0,1000}", fullmatch=True)
details = st.text(max_size=2 * DETAIL_CHARS).map(printable)


def usual(address: IPv6Address) -> bool:
    """Written alike by all: of embedded IPv4 addresses each version has its own opinion."""
    return int(address) >> 32 != 0 and not address.ipv4_mapped


addresses = st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).filter(
    lambda address: isinstance(address, IPv4Address) or usual(address)
).map(str)


@st.composite
def sends(draw: st.DrawFn) -> Send:
    kind = draw(st.sampled_from(("icmp", "tcp", "http", "https", "dns")))
    query = draw(queries.filter(lambda text: len(text) < 1000))
    return Send(
        path=draw(paths),
        seq=draw(counts),
        kind=kind,  # type: ignore[arg-type]
        address=draw(addresses),
        port=0 if kind == "icmp" else draw(st.integers(1, 65535)),
        host=draw(names),
        query=f"/{query}" if kind.startswith("http") else query,
        statuses=tuple(draw(st.lists(st.integers(100, 599), max_size=20))),
        timeout_ms=draw(st.integers(1, 60_000)),
    )


messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Bind, paths, st.sampled_from(FAMILIES)),
    st.builds(Unbind, paths),
    sends(),
    st.builds(Resolve, names),
    st.builds(Ping, counts),
    st.builds(
        Outcome,
        paths,
        counts,
        st.sampled_from(get_args(Verdict)),
        st.integers(0, 3_600_000_000),
        details,
    ),
    st.builds(Resolved, names, st.lists(addresses, max_size=MAX_ADDRESSES).map(tuple), details),
    st.builds(Pong, counts),
    st.builds(Ready, st.integers(1, (1 << 31) - 1), st.from_regex(r"[!-~]{1,64}", fullmatch=True)),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=10,
)


def read(packet: bytes) -> list[Message] | None:
    """The messages in a packet, which then mean themselves; None if it is refused."""
    try:
        messages: list[Message] = [*decode(packet, ALL)]
    except BadMessage:
        return None
    assert decode(encode(*messages), ALL) == messages
    return messages


@given(messages)
def test_there_and_back(message: Message) -> None:
    packet = encode(message)
    assert len(packet) <= MAX_BYTES
    assert read(packet) == [message]


@given(st.binary(max_size=MAX_BYTES + 10))
def test_any_bytes(packet: bytes) -> None:
    read(packet)


@given(values)
def test_any_json(value: Any) -> None:
    read(json.dumps(value).encode(errors="replace"))


@given(messages, st.data())
def test_a_message_with_another_value(message: Message, data: st.DataObject) -> None:
    """A field of any other type is refused; of its own it may be right."""
    told = json.loads(encode(message))
    name = data.draw(st.sampled_from(sorted(told)))
    value = data.draw(values)
    found = read(json.dumps(told | {name: value}).encode(errors="replace"))
    if type(value) is not type(told[name]):
        assert found is None


@given(messages, st.data())
def test_a_message_with_changed_bytes(message: Message, data: st.DataObject) -> None:
    packet = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(packet) - 1))
        match data.draw(st.sampled_from(("set", "delete", "insert"))):
            case "set":
                packet[place] = data.draw(st.integers(0, 255))
            case "delete" if len(packet) > 1:
                del packet[place]
            case "insert":
                packet.insert(place, data.draw(st.integers(0, 255)))
    read(bytes(packet))
