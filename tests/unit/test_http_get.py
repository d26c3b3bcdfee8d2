"""An address in a web server's response, and all that is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifdefault.frontend.client.http_get import read
from ifdefault.frontend.probe.outcome import ProbeError

OK = b"HTTP/1.1 200 OK\r\nServer: x\r\n"


@pytest.mark.parametrize(
    ("response", "address"),
    [
        (OK + b"\r\n203.0.113.10", "203.0.113.10"),
        (OK + b"\r\n 203.0.113.10 \r\n", "203.0.113.10"),
        (OK + b"Content-Length: 13\r\n\r\n203.0.113.10\n", "203.0.113.10"),
        (b"HTTP/1.0 200\r\n\r\n2001:DB8:0::10", "2001:db8::10"),
    ],
)
def test_an_address(response: bytes, address: str) -> None:
    assert read(response) == address


@pytest.mark.parametrize(
    ("response", "why"),
    [
        (b"", "not HTTP"),
        (b"SSH-2.0\r\n\r\n203.0.113.10", "not HTTP"),
        (b"HTTP/1.1 2000 OK\r\n\r\n203.0.113.10", "not HTTP"),
        (b"HTTP/1.1 302 Found\r\n\r\n203.0.113.10", "status 302"),
        (OK + b"\r\n", 'the response is not an address: ""'),
        (OK, "truncated response"),
        (OK + b"content-length: 13\r\n\r\n203.0.113.1", "truncated response"),
        (
            OK + b"\r\n203.0.113.10, 10.0.0.1",
            'the response is not an address: "203.0.113.10, 10.0.0.1"',
        ),
        (OK + b"\r\n203.0.113.010", 'the response is not an address: "203.0.113.010"'),
        (OK + b"\r\n<html>" + b"x" * 99, f'the response is not an address: "<html>{"x" * 34}"'),
        (OK + b"\r\n203.0.113.10\0", 'the response is not an address: "203.0.113.10\0"'),
        (OK + b"\r\n\xff\xfe", 'the response is not an address: "\ufffd\ufffd"'),
    ],
)
def test_no_address(response: bytes, why: str) -> None:
    with pytest.raises(ProbeError) as caught:
        read(response)
    assert caught.value.outcome.detail == why


@given(st.binary(max_size=40))
def test_no_body_whatever_does_harm(body: bytes) -> None:
    try:
        text = read(OK + b"\r\n" + body)
    except ProbeError:
        return
    assert text.encode() in (body.strip(), body.strip().lower()) or ":" in text
