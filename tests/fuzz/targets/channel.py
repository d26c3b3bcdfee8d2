"""The channel: packets of a frontend or a DNS server that somebody has taken over, and ours."""

from __future__ import annotations

import json
from dataclasses import astuple
from typing import Any

from ifdefault.ipc import codec
from ifdefault.ipc.messages import (
    FROM_DNS_SERVER,
    FROM_FRONTEND,
    MAX_TOGETHER,
    TO_DNS_SERVER,
    TO_FRONTEND,
    BadMessage,
    decode,
    encode,
)
from tests.unit.test_messages import SAMPLES

KIND = "json"
WAYS: tuple[Any, ...] = (TO_FRONTEND, FROM_FRONTEND, TO_DNS_SERVER, FROM_DNS_SERVER)


def seeds() -> list[bytes]:
    deep = (b"[" * 600, b'{"a":' * 600, b'{"type":"Pong","token":' + b"9" * 600 + b"}")
    return [*map(encode, SAMPLES), encode(*SAMPLES[:2]), *deep]


def one(data: bytes) -> None:
    for way in WAYS:
        try:
            messages = decode(data, way)
        except BadMessage as error:
            assert str(error).isprintable(), error
            assert len(str(error)) < 2000
            continue
        assert 0 < len(messages) <= MAX_TOGETHER
        assert decode(encode(*messages), way) == messages
        assert {type(message) for message in messages} <= {*way}
        for message in messages:
            for text in _texts(astuple(message)):
                assert text.isprintable() or text.startswith("/"), message
    try:
        value = codec.read(data)
    except codec.DecodeError as error:
        assert str(error).isprintable()
    else:
        assert codec.read(codec.write(value)) == value
        json.loads(codec.write(value))


def _texts(value: Any) -> list[str]:
    if isinstance(value, tuple):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []
